"""What only the page reads: audit and capacity. The records of /v1 are in app/store/records.py."""

from datetime import datetime

import msgspec


class RoomRecord(msgspec.Struct, frozen=True):
    """Room in a block. Usable: Ready, schedulable and not Failing or Unknown; whole: with no GPU asked for."""

    block: str
    nodes: int
    nodes_usable: int
    gpus: int
    gpus_free: int
    nodes_whole: int
    nodes_whole_on_probation: int


class ShareRecord(msgspec.Struct, frozen=True):
    """What a team or a queue holds and waits for."""

    name: str
    jobs: int
    gpus_held: int
    gpus_pending: int


class WaitingRecord(msgspec.Struct, frozen=True):
    uid: str
    namespace: str
    name: str
    kind: str
    team: str | None
    queue: str | None
    state: str
    reason: str
    wanted_pods: int
    running_pods: int
    gpus: int
    created_at: datetime | None


class CapacityRecord(msgspec.Struct, frozen=True):
    rooms: list[RoomRecord]
    nodes_by_free_gpus: dict[int, int]
    teams: list[ShareRecord]
    queues: list[ShareRecord]
    waiting: list[WaitingRecord]


class AuditRecord(msgspec.Struct, frozen=True):
    id: int
    at: datetime
    author: str
    actor: str
    action: str
    target: str
    target_uid: str
    operation_id: str | None
    dry_run: bool
    outcome: str
    message: str


class HitRecord(msgspec.Struct, frozen=True):
    """Something that a search found. key: what its page is opened by; of a GPU or pod its node's name."""

    kind: str  # node, gpu, job, pod, incident, operation
    key: str
    label: str
    second: str


class StayRecord(msgspec.Struct, frozen=True):
    """A job's time on a node: from its first rank there until its last; to_at None while it is there."""

    job_uid: str
    name: str
    gpus: int
    from_at: datetime
    to_at: datetime | None
