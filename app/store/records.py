"""What reads give back: frozen, with stable field names. These are also the fields of `-o json` and of /v1.

Times are aware UTC; None is unknown. Fields are added, never renamed (docs/json.md).
"""

from datetime import datetime

import msgspec


class NodeRecord(msgspec.Struct, frozen=True):
    name: str
    block: str | None
    rack: str | None
    kind: str | None
    driver_version: str | None
    health: str
    health_reason: str
    health_since: datetime | None
    service: str
    service_reason: str
    service_since: datetime | None
    kubernetes_ready: bool | None
    unschedulable: bool | None
    gpu_count: int | None
    gpu_count_expected: int | None
    gpu_allocatable: int | None
    gpu_requested: int | None
    operation_id: str | None
    score: int
    observed_at: datetime | None
    kubernetes_observed_at: datetime | None
    planned: str | None = None  # why its absence is no fault
    leaf: str | None = None
    power_domain: str | None = None
    reported_by: str | None = None  # agent or dcgm


class GpuRecord(msgspec.Struct, frozen=True):
    uuid: str
    node: str
    index: int | None
    pci_bus_id: str | None
    serial: str | None
    name: str | None
    health: str
    health_reason: str
    health_since: datetime | None
    pod_uid: str | None
    temperature_celsius: float | None
    memory_temperature_celsius: float | None
    power_watts: float | None
    power_limit_watts: float | None
    sm_clock_hertz: int | None
    gpu_utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    ecc_uncorrected_total: int | None
    remap_pending: bool | None
    remap_failure: bool | None
    nvlink_active_links: int | None
    pcie_generation: int | None
    pcie_width: int | None
    last_xid: int | None
    last_xid_at: datetime | None
    missing: dict[str, str]
    observed_at: datetime | None


class FindingRecord(msgspec.Struct, frozen=True):
    episode: str
    node: str
    gpu_uuid: str | None
    rule: str
    severity: str
    message: str
    action: str
    xid: int | None
    opened_at: datetime
    closed_at: datetime | None
    changes_health: bool = True
    source: str = "agent"  # agent, dcgm, kubernetes, training
    job_uid: str | None = None
    rank: int | None = None
    explanation: str | None = None
    look_next: str | None = None
    closed_by: str | None = None


class EventRecord(msgspec.Struct, frozen=True):
    at: datetime
    node: str
    gpu_uuid: str | None
    kind: str
    code: str
    severity: str
    message: str
    count: int


class FrameRecord(msgspec.Struct, frozen=True):
    """One packed vector; app.store.vectors says how it is read."""

    metric: str
    topology_version: str
    encoding: str
    updated_at: datetime
    data: bytes


class Rack(msgspec.Struct, frozen=True):
    name: str
    nodes: tuple[str, ...]


class Block(msgspec.Struct, frozen=True):
    name: str
    racks: tuple[Rack, ...]


class Topology(msgspec.Struct, frozen=True):
    """Blocks, racks and nodes in the frames' order, and how many GPU slots a node has in them."""

    version: str
    slots: int
    blocks: tuple[Block, ...]

    def nodes(self) -> list[str]:
        """Every node in the frames' order."""
        return [node for block in self.blocks for rack in block.racks for node in rack.nodes]


class PodRecord(msgspec.Struct, frozen=True):
    uid: str
    namespace: str
    name: str
    node: str | None
    phase: str
    ready: bool
    gpus: int
    rank: int | None
    job_uid: str | None
    owner: str
    started_at: datetime | None
    deleted_at: datetime | None


class RankRecord(msgspec.Struct, frozen=True):
    rank: int
    pod_uid: str
    pod_name: str
    node: str | None
    phase: str
    ready: bool


class JobRecord(msgspec.Struct, frozen=True):
    uid: str
    namespace: str
    name: str
    kind: str
    team: str | None
    queue: str | None
    state: str
    reason: str
    gang: bool
    wanted_pods: int
    running_pods: int
    gpus: int
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    checkpoint_at: datetime | None
    nodes_failing: int  # of the nodes its ranks are on


class IncidentRecord(msgspec.Struct, frozen=True):
    id: str
    episode: int
    scope: str
    subject: str
    severity: str
    title: str
    cause: str
    action: str
    opened_at: datetime
    updated_at: datetime
    resolved_at: datetime | None
    acknowledged_by: str | None
    owner: str | None
    jobs: list[dict]
    gpus_hurt: int
    nodes: list[str] = []
    first: dict = {}
    consequences: list[dict] = []
    evidence: list[dict] = []
    certainty: str | None = None
    certainty_ratio: float | None = None
    flaps: int = 0
    flapping: bool = False
    ended_at: datetime | None = None
    resolved_by: str | None = None
    resolution: str | None = None
    held_open_by: str | None = None
    merged_into: str | None = None
    acknowledged_at: datetime | None = None
    findings: list[str] = []
    gpu_hours_lost: float | None = None  # filled by the read, as of then


class StepRecord(msgspec.Struct, frozen=True):
    id: int
    name: str
    target: str
    target_uid: str
    state: str
    attempts: int
    message: str
    started_at: datetime
    ended_at: datetime | None


class OperationRecord(msgspec.Struct, frozen=True):
    id: str
    kind: str
    subject: str
    mode: str
    author: str
    reason: str
    state: str
    message: str
    choices: list[dict]
    nodes_state: dict[str, str]
    workloads_state: dict[str, dict]
    pods_total: int
    pods_done: int
    plan: dict
    plan_hash: str
    cancel_requested_by: str | None
    deadline_at: datetime | None
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    steps: list[StepRecord] = []  # filled only where one operation is read


class RequestRecord(msgspec.Struct, frozen=True):
    id: str
    kind: str
    parameters: dict
    author: str
    reason: str
    state: str
    created_at: datetime
    answered_at: datetime | None
    answer: dict
    refusal: str
    refusal_code: str
    operation_id: str | None
    author_groups: list[str] | None = None
    author_role: str | None = None


class PermissionRecord(msgspec.Struct, frozen=True):
    verb: str
    resource: str  # "jobs.batch", "pods/eviction"
    allowed: bool
    reason: str
    checked_at: datetime


class AutomaticRecord(msgspec.Struct, frozen=True):
    """What automatic mode did about one episode of a finding by one rule."""

    rule: str
    episode: str
    node: str
    finding: str
    action: str
    acts: str
    state: str
    reason: str
    request_id: str | None
    operation_id: str | None
    decided_at: datetime
    updated_at: datetime


class RepairRecord(msgspec.Struct, frozen=True):
    """One stay of a node under repair."""

    id: str
    node: str
    opened_at: datetime
    opened_by: str
    action: str
    notes: list[dict]
    gpus: list[dict]
    incident_id: str | None
    returned_at: datetime | None
    returned_by: str | None
    call: str
    call_attempts: int
    call_error: str


class DiagnosticRecord(msgspec.Struct, frozen=True):
    """One diagnostic Job on one node."""

    id: str
    node: str
    requested_by: str
    requested_at: datetime
    namespace: str
    job: str
    state: str
    message: str
    ended_at: datetime | None


class SourceRecord(msgspec.Struct, frozen=True):
    source: str
    state: str
    message: str
    last_ok_at: datetime | None
    updated_at: datetime


class CountsRecord(msgspec.Struct, frozen=True):
    nodes: int
    gpus: int
    nodes_by_health: dict[str, int]
    nodes_by_service: dict[str, int]
    gpus_by_health: dict[str, int]
    gpus_requested: int
    gpus_usable: int  # on nodes that are Ready, schedulable and not Failing or Unknown
    gpus_free: int  # usable less requested
    gpus_on_probation: int  # of the free ones: the scheduler may use them, Pitwall counts on none
    jobs_running: int
    jobs_at_risk: int  # with a rank on a node that is Failing or Unknown
    incidents_open: int
    operations_open: int


class PauseRecord(msgspec.Struct, frozen=True):
    paused_at: datetime
    paused_by: str
    reason: str


class ApprovalRecord(msgspec.Struct, frozen=True):
    """A request that waits for a second person."""

    request_id: str
    kind: str
    subject: str
    plan_hash: str
    gpus: int
    asked_by: str
    reason: str
    created_at: datetime
    expires_at: datetime


class LimitMarkRecord(msgspec.Struct, frozen=True):
    name: str
    tripped_at: datetime | None
    message: str
    reset_at: datetime | None
    reset_by: str | None
    reset_reason: str | None


class StatusRecord(msgspec.Struct, frozen=True):
    cluster: str
    at: datetime
    counts: CountsRecord
    sources: list[SourceRecord]
    pause: PauseRecord | None = None
    approvals: list[ApprovalRecord] = []
    limits: list[LimitMarkRecord] = []
