"""Jobs, their ranks, pods, and where each rank has run, as intervals."""

from datetime import datetime

from sqlalchemy import Index
from sqlmodel import Field, SQLModel

from app.store.columns import optional_time_column, time_column


class Job(SQLModel, table=True):
    """A training workload as the cluster says: the topmost owner of its pods."""

    cluster: str = Field(primary_key=True)
    uid: str = Field(primary_key=True)
    namespace: str
    name: str
    kind: str
    api_version: str
    team: str | None = None
    queue: str | None = None
    state: str  # Running, Pending, Suspended, Stalled, Complete, Failed, Removed
    reason: str = ""
    gang: bool = False
    wanted_pods: int = 0
    running_pods: int = 0
    gpus: int = 0
    created_at: datetime | None = optional_time_column()
    started_at: datetime | None = optional_time_column()
    finished_at: datetime | None = optional_time_column()
    checkpoint_at: datetime | None = optional_time_column()
    generation: int = 0
    observed_at: datetime = time_column()


class Pod(SQLModel, table=True):
    """A pod that is on a GPU node, or wants to be; removed when it is gone."""

    cluster: str = Field(primary_key=True)
    uid: str = Field(primary_key=True)
    namespace: str
    name: str
    node: str | None = None
    phase: str
    ready: bool = False
    gpus: int = 0
    rank: int | None = None
    job_uid: str | None = None
    owner: str = ""  # Kind/name of the controller
    created_at: datetime | None = optional_time_column()
    started_at: datetime | None = optional_time_column()
    deleted_at: datetime | None = optional_time_column()  # deletionTimestamp
    observed_at: datetime = time_column()

    __table_args__ = (
        Index("pod_by_node", "cluster", "node"),
        Index("pod_by_job", "cluster", "job_uid"),
    )


class Rank(SQLModel, table=True):
    """The pod that is a job's rank now."""

    cluster: str = Field(primary_key=True)
    job_uid: str = Field(primary_key=True)
    rank: int = Field(primary_key=True)
    pod_uid: str
    pod_name: str
    node: str | None = None
    phase: str
    ready: bool = False


class Placement(SQLModel, table=True):
    """An interval: this rank's pod held this GPU of this node from then until then."""

    cluster: str = Field(primary_key=True)
    pod_uid: str = Field(primary_key=True)
    gpu_uuid: str = Field(primary_key=True)  # "" while which GPU is not known
    from_at: datetime = Field(sa_type=time_column().sa_type, primary_key=True)
    job_uid: str | None = None
    rank: int | None = None
    node: str
    to_at: datetime | None = optional_time_column()

    __table_args__ = (
        Index("placement_by_job", "cluster", "job_uid"),
        Index("placement_by_node", "cluster", "node", "to_at"),
    )
