"""What /v1 answers with beside the store's records."""

import msgspec

from app.store.reads.incidents import TimelineRecord
from app.store.records import (
    AutomaticRecord,
    DiagnosticRecord,
    EventRecord,
    FindingRecord,
    GpuRecord,
    IncidentRecord,
    JobRecord,
    NodeRecord,
    OperationRecord,
    PermissionRecord,
    PodRecord,
    RankRecord,
    RepairRecord,
)


class NodeList(msgspec.Struct, frozen=True):
    """Nodes; `next` is the `after` of the following page, null at the end."""

    items: list[NodeRecord]
    next: str | None


class GpuList(msgspec.Struct, frozen=True):
    """GPUs by node and index; `next` as in NodeList."""

    items: list[GpuRecord]
    next: str | None


class JobList(msgspec.Struct, frozen=True):
    """Jobs by namespace and name; `next` as in NodeList."""

    items: list[JobRecord]
    next: str | None


class IncidentList(msgspec.Struct, frozen=True):
    """Incidents, those that hurt most first; `next` as in NodeList."""

    items: list[IncidentRecord]
    next: str | None


class OperationList(msgspec.Struct, frozen=True):
    """Operations, the newest first and without steps; `next` as in NodeList."""

    items: list[OperationRecord]
    next: str | None


class AutomaticList(msgspec.Struct, frozen=True):
    """What automatic mode did, what changed last first."""

    items: list[AutomaticRecord]


class RepairList(msgspec.Struct, frozen=True):
    """Repairs, the newest first; failed_again: of their nodes, how often each failed again after a return."""

    items: list[RepairRecord]
    failed_again: dict[str, int]


class DiagnosticList(msgspec.Struct, frozen=True):
    """Diagnostics, the newest first."""

    items: list[DiagnosticRecord]


class NodeDetail(msgspec.Struct, frozen=True):
    """A node with all that is known of it."""

    node: NodeRecord
    gpus: list[GpuRecord]
    pods: list[PodRecord]
    findings: list[FindingRecord]
    events: list[EventRecord]
    incidents: list[IncidentRecord]


class JobDetail(msgspec.Struct, frozen=True):
    """A job with its ranks and pods."""

    job: JobRecord
    ranks: list[RankRecord]
    pods: list[PodRecord]


class IncidentDetail(msgspec.Struct, frozen=True):
    """An incident with its timeline and findings, each oldest first."""

    incident: IncidentRecord
    timeline: list[TimelineRecord]
    findings: list[FindingRecord]


class RequestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person asks for. The same idempotency key is one request however often it is sent."""

    kind: str
    parameters: dict
    reason: str = ""
    idempotency_key: str = ""


class Caller(msgspec.Struct, frozen=True):
    """Whom the token stands for, and what they may do here."""

    username: str
    groups: list[str]
    may_read: bool
    may_write: bool
    permissions: list[
        PermissionRecord
    ] = []  # as the worker heard; of who asked for something lately
