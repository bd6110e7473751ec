"""The pipeline's own state: sources, the worker's lease, and what ingest has taken."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from app.store.columns import IN_PLACE, big_integer_column, optional_time_column, time_column


class SourceStatus(SQLModel, table=True):
    """When a source was last heard. A blind source makes what it tells Unknown."""

    __tablename__ = "source_status"
    cluster: str = Field(primary_key=True)
    source: str = Field(primary_key=True)  # agents, kubernetes, prometheus, worker, ingest
    state: str  # ok, late, blind
    message: str = ""
    last_ok_at: datetime | None = optional_time_column()
    updated_at: datetime = time_column()


class Lease(SQLModel, table=True):
    """Who is the active worker. The epoch rises with each new holder; a step is claimed with it."""

    cluster: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    holder: str
    epoch: int = big_integer_column(default=0, nullable=False)
    acquired_at: datetime = time_column()
    renewed_at: datetime = time_column()
    expires_at: datetime = time_column()


class ReportStream(SQLModel, table=True):
    """The last report taken of an agent's spool: (cluster, node, spool id, sequence) once, older never over newer."""

    __tablename__ = "report_stream"
    cluster: str = Field(primary_key=True)
    node: str = Field(primary_key=True)
    spool_id: str = Field(primary_key=True)
    sequence: int = big_integer_column(default=0, nullable=False)
    observed_at: datetime = time_column()
    received_at: datetime = time_column()

    __table_args__ = (IN_PLACE,)


class RetentionMark(SQLModel, table=True):
    """From when on a table still holds everything. Only retention moves it, and always forward.

    What is older may be dropped from append-only tables; readers of long windows see where the
    data begin.
    """

    __tablename__ = "retention_mark"
    cluster: str = Field(primary_key=True)
    table_name: str = Field(primary_key=True)
    kept_from: datetime = time_column()
