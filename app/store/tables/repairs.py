"""A node's way back: what was repaired, what was told to whoever repairs, and what diagnostics said."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.store.columns import json_column, optional_time_column, time_column


class NodeRepair(SQLModel, table=True):
    """One stay of a node under repair, from a person's word until its return.

    `gpus`: [{"uuid", "serial", "index"}] as they were when it began. `notes`: [{"at", "by", "text"}].
    `call`: of the repair webhook: none, pending, sent, dead.
    """

    __tablename__ = "node_repair"
    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    node: str
    opened_at: datetime = time_column()
    opened_by: str
    action: str = ""  # reset-gpu, reboot, replace, rma: what was asked of whoever repairs
    notes: list = json_column(list)
    gpus: list = json_column(list)
    incident_id: str | None = None
    returned_at: datetime | None = optional_time_column()
    returned_by: str | None = None
    call: str = "none"
    call_attempts: int = 0
    call_next_at: datetime | None = optional_time_column()
    call_error: str = ""

    __table_args__ = (
        Index("node_repair_by_node", "cluster", "node", "opened_at"),
        Index("node_repair_by_call", "cluster", "call", "call_next_at"),
    )


class NodeDiagnostic(SQLModel, table=True):
    """One diagnostic Job on one node. state: asked, running, passed, failed, gone."""

    __tablename__ = "node_diagnostic"
    cluster: str = Field(primary_key=True)
    id: str = Field(primary_key=True)
    node: str
    node_uid: str
    requested_by: str
    requested_groups: str | None = None  # as a JSON list, as the request had them
    requested_at: datetime = time_column()
    namespace: str
    job: str
    job_uid: str | None = None
    state: str = "asked"
    message: str = ""
    ended_at: datetime | None = optional_time_column()

    __table_args__ = (Index("node_diagnostic_by_node", "cluster", "node", "requested_at"),)
