"""What people asked for, what is being done about it step by step, and who did what."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.store.columns import (
    identity_column,
    json_column,
    optional_json_column,
    optional_time_column,
    time_column,
)


class Request(SQLModel, table=True):
    """What a person asked for. The page and /v1 write it; the worker answers it.

    kind and parameters: preview {action: drain|reschedule, ...same parameters}; drain {nodes, mode,
    deadline_seconds, delete_emptydir_data, force, plan_hash}; reschedule {job: namespace/name or uid, plan_hash};
    uncordon {nodes}; cancel {operation_id}; choose {operation_id, choice, confirmation};
    repair {nodes, text}; return {nodes, confirmation}; undo {operation_id}; pause {text}; unpause {text};
    approve {request_id, plan_hash}; reset_limit {limit, text}.
    state: pending, answered (preview), awaiting_approval (a second person must approve; answer says of what),
    accepted (operation_id is set), refused (refusal says why).
    """

    id: str = Field(primary_key=True)
    cluster: str
    idempotency_key: str
    kind: str
    parameters: dict = json_column()
    author: str
    reason: str = ""
    created_at: datetime = time_column()
    state: str = "pending"
    answered_at: datetime | None = optional_time_column()
    answer: dict = json_column()  # preview: the plan
    refusal: str = ""
    refusal_code: str = ""
    operation_id: str | None = None
    author_groups: list[str] | None = optional_json_column()  # as the token said; none: the page
    author_role: str | None = None  # at the page; none: nobody has one, or a Kubernetes token spoke

    __table_args__ = (
        Index("request_once", "cluster", "idempotency_key", unique=True),
        Index("request_by_state", "cluster", "state", "created_at"),
    )


class Operation(SQLModel, table=True):
    """A drain, reschedule or uncordon that the worker carries out until it ends.

    state: Running, Waiting (a budget, capacity, a dead node), Blocked (a person must choose), Cancelling,
    Succeeded, Failed, Cancelled. `memory` is what the reconciler must know after a restart.
    """

    id: str = Field(primary_key=True)
    cluster: str
    kind: str  # drain, reschedule, uncordon
    subject: str  # nodes or the job, for people
    mode: str = "now"  # now, complete, deadline
    options: dict = json_column()
    author: str
    reason: str = ""
    request_id: str | None = None
    plan: dict = json_column()
    plan_hash: str = ""
    state: str = "Running"
    message: str = ""  # what is being done or waited for, one sentence
    choices: list = json_column(list)  # offered while Blocked: [{"name","label","warning"}]
    memory: dict = json_column()
    nodes_state: dict = json_column()  # {node: "Cordoning|Draining|Drained|..."}
    workloads_state: dict = json_column()  # {uid: {"name","verdict","message"}}
    pods_total: int = 0
    pods_done: int = 0
    cancel_requested_by: str | None = None
    author_groups: list[str] | None = optional_json_column()  # of the request that opened it
    cancel_groups: list[str] | None = optional_json_column()  # of who cancelled
    deadline_at: datetime | None = optional_time_column()
    created_at: datetime = time_column()
    updated_at: datetime = time_column()
    ended_at: datetime | None = optional_time_column()

    __table_args__ = (Index("operation_by_state", "cluster", "ended_at", "created_at"),)


class OperationNode(SQLModel, table=True):
    """Holds a node for one open operation: a partial unique index makes a second one impossible."""

    __tablename__ = "operation_node"
    operation_id: str = Field(primary_key=True)
    cluster: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    open: bool = True

    __table_args__ = (
        Index(
            "operation_node_one_open",
            "cluster",
            "node",
            unique=True,
            sqlite_where=text("open = 1"),
            postgresql_where=text("open"),
        ),
    )


class OperationStep(SQLModel, table=True):
    """One idempotent step. Claimed with the lease's epoch in one transaction before its call."""

    __tablename__ = "operation_step"
    id: int | None = identity_column()
    operation_id: str = Field(index=True)
    cluster: str
    name: str  # cordon, evict, suspend, await_stopped, resume, await_returned, uncordon...
    target: str  # Kind/namespace/name
    target_uid: str = ""
    state: str = "claimed"  # claimed, done, waiting, failed
    attempts: int = 1
    epoch: int = 0
    message: str = ""
    started_at: datetime = time_column()
    ended_at: datetime | None = optional_time_column()

    __table_args__ = (
        Index("operation_step_once", "operation_id", "name", "target", "target_uid", unique=True),
    )


class Reservation(SQLModel, table=True):
    """GPUs an operation counts on, so that concurrent drains can't spend the same spare ones."""

    cluster: str = Field(primary_key=True)
    operation_id: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    gpus: int
    created_at: datetime = time_column()
    released_at: datetime | None = optional_time_column()


class Pause(SQLModel, table=True):
    """While there is a row of the cluster, nothing begins and running operations take no further step."""

    cluster: str = Field(primary_key=True)
    paused_at: datetime = time_column()
    paused_by: str
    reason: str


class Permission(SQLModel, table=True):
    """What the API server said that a person may do; the worker asks for those who asked for something lately.

    resource is the plural with its group, "jobs.batch", and its subresource, "pods/eviction".
    """

    cluster: str = Field(primary_key=True)
    username: str = Field(primary_key=True)
    verb: str = Field(primary_key=True)
    resource: str = Field(primary_key=True)
    allowed: bool
    reason: str = ""
    checked_at: datetime = time_column()


class AutomaticAction(SQLModel, table=True):
    """What automatic mode did about one episode of a finding by one rule: at most one operation for each.

    state: asked, waiting (refused, asked again when the world has changed), left (alone, reason says why), accepted,
    would_act (dry-run: the request's answer is the plan), ended (the finding ended before anything was done).
    """

    __tablename__ = "automatic_action"
    cluster: str = Field(primary_key=True)
    rule: str = Field(primary_key=True)  # the site's name for it
    episode: str = Field(primary_key=True)  # of the finding
    node: str
    finding: str  # the health rule's name
    action: str  # quarantine, drain, reschedule
    acts: str  # dry-run, act
    state: str
    reason: str = ""
    request_id: str | None = None
    operation_id: str | None = None
    together: int = 0  # nodes in a request at most, halved at each refusal
    world: str = ""  # what it was like when it was refused
    decided_at: datetime = time_column()
    updated_at: datetime = time_column()

    __table_args__ = (Index("automatic_action_by_time", "cluster", "updated_at"),)


class LimitMark(SQLModel, table=True):
    """What is remembered of a limit: that it stopped automation, and since when the rate is counted anew."""

    __tablename__ = "limit_mark"
    cluster: str = Field(primary_key=True)
    name: str = Field(primary_key=True)  # stock, floor, rate, block, topology
    tripped_at: datetime | None = optional_time_column()  # None: not tripped
    message: str = ""
    reset_at: datetime | None = optional_time_column()
    reset_by: str | None = None
    reset_reason: str | None = None


class AuditEntry(SQLModel, table=True):
    """Append only (triggers refuse UPDATE and DELETE): every write to a cluster and every request."""

    __tablename__ = "audit_entry"
    id: int | None = identity_column()
    cluster: str
    at: datetime = time_column()
    author: str  # the person who asked
    actor: str  # what wrote: worker, page, ingest
    action: str  # cordon, evict, suspend, resume, request...
    target: str
    target_uid: str = ""
    operation_id: str | None = None
    dry_run: bool = False
    outcome: str = "done"  # done, refused, failed
    message: str = ""

    __table_args__ = (Index("audit_entry_by_time", "cluster", "at"),)
