"""Findings, their append-only events, and incidents. Each has an episode: a new fault is a new episode."""

from datetime import datetime

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel

from app.store.columns import (
    big_integer_column,
    identity_column,
    json_column,
    optional_time_column,
    time_column,
)


class Finding(SQLModel, table=True):
    """One episode of one rule on one node, GPU or job. Open while closed_at is None.

    `source` owns it and alone closes it: agent, dcgm, kubernetes or training. `subject` tells two
    findings of a source apart where rule, node and GPU do not (a condition's type, a job's UID).
    """

    cluster: str = Field(primary_key=True)
    episode: str = Field(primary_key=True)
    node: str
    gpu_uuid: str | None = None
    rule: str
    severity: str  # info, advice, warning, critical, fatal
    changes_health: bool = True
    message: str
    action: str = ""
    xid: int | None = big_integer_column()
    source: str = "agent"
    subject: str = ""
    job_uid: str | None = None
    rank: int | None = None
    pod_uids: str | None = None  # of the pods hit, joined by commas; None where nobody knows
    explanation: str | None = None  # what the code or rule means, in words
    look_next: str | None = None
    closed_by: str | None = None  # the person who closed it; None where it ended by itself
    opened_at: datetime = time_column()
    seen_at: datetime = time_column()
    closed_at: datetime | None = optional_time_column()

    __table_args__ = (
        Index("finding_by_node", "cluster", "node", "opened_at"),
        Index(
            "finding_open",
            "cluster",
            "node",
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("finding_by_opening", "opened_at"),
    )


class HealthEvent(SQLModel, table=True):
    """Append only: a finding opened or closed, an XID, a change of a node's health.

    Triggers refuse UPDATE always and DELETE of what retention_mark has not given free. An XID
    whose count grows is told by a further row with what was added, so counts are summed.
    """

    __tablename__ = "health_event"
    id: int | None = identity_column()
    cluster: str
    at: datetime = time_column()
    node: str
    gpu_uuid: str | None = None
    kind: str  # finding_opened, finding_closed, xid, node_health
    code: str  # rule name, xid-79, Healthy...
    severity: str
    episode: str | None = None  # of the finding, or the XID's event id
    message: str = ""
    count: int = big_integer_column(default=1, nullable=False)

    __table_args__ = (
        Index("health_event_by_time", "cluster", "at"),
        Index("health_event_by_node", "cluster", "node", "at"),
        Index("health_event_by_episode", "cluster", "episode"),
    )


class EventDay(SQLModel, table=True):
    """Daily count of events by node and code, so that long windows need no scan."""

    __tablename__ = "event_day"
    cluster: str = Field(primary_key=True)
    day: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    code: str = Field(primary_key=True)
    count: int = big_integer_column(default=0, nullable=False)


class Incident(SQLModel, table=True):
    """What a person works on: the findings of one cause, whom they hurt, and what to do.

    `jobs`: [{"uid","namespace","name","gpus","since","until","ranks"}], until None while it is hurt.
    `first`: the first failure {"at","node","gpu_uuid","gpu_index","rule","xid","message","job","rank",
    "pod"}. `consequences`: what followed it, [{"at","kind","node","gpu_uuid","job","rank","message"}].
    `evidence`: [{"at","source","text"}], why it is thought to be so.
    """

    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    episode: int = 1
    scope: str  # node, job, rack, leaf, block, power, pipeline
    subject: str  # name of the node, rack...
    severity: str
    title: str
    cause: str  # rule of the first finding
    action: str = ""
    opened_at: datetime = time_column()
    updated_at: datetime = time_column()
    resolved_at: datetime | None = optional_time_column()
    acknowledged_at: datetime | None = optional_time_column()
    acknowledged_by: str | None = None
    owner: str | None = None
    jobs: list = json_column(list)  # [{"uid","namespace","name","gpus"}]
    gpus_hurt: int = 0
    findings: list = json_column(list)  # episodes
    nodes: list = json_column(list)  # names
    first: dict = json_column()
    consequences: list = json_column(list)
    evidence: list = json_column(list)
    certainty: str | None = None  # of a shared domain or a suspect: certain, likely, possible
    certainty_ratio: float | None = None
    flaps: int = 0  # how often it came back after it had ended
    flapping: bool = False
    # Its faults are gone; it resolves later when flapping.
    ended_at: datetime | None = optional_time_column()
    resolved_by: str | None = None  # a person; None where it ended by itself
    resolution: str | None = None
    held_open_by: str | None = None  # who reopened it: only a person resolves it then
    merged_into: str | None = None  # the incident of which it turned out to be a consequence

    __table_args__ = (
        Index(
            "incident_one_open",
            "cluster",
            "scope",
            "subject",
            unique=True,
            sqlite_where=text("resolved_at IS NULL"),
            postgresql_where=text("resolved_at IS NULL"),
        ),
        Index("incident_by_opening", "cluster", "opened_at"),
    )


class IncidentEvent(SQLModel, table=True):
    """The timeline of an incident."""

    __tablename__ = "incident_event"
    id: int | None = identity_column()
    cluster: str
    incident_id: str
    at: datetime = time_column()
    kind: str  # opened, finding, consequence, hurt, recovered, acknowledged, owned, note, flapping, merged, reopened, resolved
    author: str = ""
    message: str = ""

    __table_args__ = (Index("incident_event_by_incident", "cluster", "incident_id", "at"),)
