"""Nodes and GPUs: the latest state a row, and what is kept beside it so that the page reads little."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlmodel import Field, SQLModel

from app.store.columns import (
    IN_PLACE,
    big_integer_column,
    json_column,
    optional_time_column,
    time_column,
)


class Node(SQLModel, table=True):
    """A GPU node as last known. Written by ingest (health, driver, observed_at) and the worker (the rest)."""

    cluster: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    uid: str | None = None  # of the Kubernetes object; None while only the agent has spoken
    block: str | None = None
    rack: str | None = None
    leaf: str | None = None  # leaf switch, as the site's label says
    power_domain: str | None = None
    kind: str | None = None  # nvidia.com/gpu.product
    driver_version: str | None = None
    boot_id: str | None = None
    gpu_count: int | None = big_integer_column()  # as NVML counts now
    gpu_count_expected: int | None = big_integer_column()  # highest ever seen
    gpu_set: int | None = big_integer_column()  # CRC-32 of the UUIDs listed last, in their order
    gpu_allocatable: int | None = big_integer_column()  # as Kubernetes says
    gpu_requested: int | None = big_integer_column()  # by pods that are not terminal
    health: str = "Unknown"  # Healthy, Degraded, Failing, Unknown
    health_reason: str = "no report yet"
    health_since: datetime | None = optional_time_column()
    reported_by: str | None = None  # agent or dcgm: whose reports these are
    reported_health: str | None = None  # by its reports alone; health adds what other sources find
    reported_reason: str | None = None
    planned: str | None = None  # why its absence is no fault: an upgrade, a shutdown...
    planned_since: datetime | None = optional_time_column()
    service: str = "In service"  # In service, Cordoned, Draining, Drained, Under repair, Probation
    service_reason: str = ""
    service_since: datetime | None = optional_time_column()
    owes_probation: bool | None = None  # was drained or under repair, no probation is over since
    clean_since: datetime | None = optional_time_column()  # on probation: nothing found since
    repair_by: str | None = None  # who sent it to repair
    repair_note: str | None = None
    kubernetes_ready: bool | None = None  # None: Kubernetes has not been heard
    unschedulable: bool | None = None
    operation_id: str | None = None
    score: int = 0  # how bad, for the worst list: higher is worse
    observed_at: datetime | None = optional_time_column()  # the agent's last observation
    received_at: datetime | None = optional_time_column()
    kubernetes_observed_at: datetime | None = optional_time_column()

    __table_args__ = (IN_PLACE,)


class Gpu(SQLModel, table=True):
    """The latest reading of a GPU. None is unknown; `missing` says why, field by field."""

    cluster: str = Field(primary_key=True)
    uuid: str = Field(primary_key=True)
    node: str
    index: int | None = big_integer_column()
    pci_bus_id: str | None = None
    serial: str | None = None
    name: str | None = None
    health: str = "Unknown"
    health_reason: str = "no report yet"
    health_since: datetime | None = optional_time_column()
    pod_uid: str | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_margin_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules_total: float | None = None
    sm_clock_hertz: int | None = big_integer_column()
    memory_clock_hertz: int | None = big_integer_column()
    clocks_event_reasons: int | None = big_integer_column()
    gpu_utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    memory_used_bytes: int | None = big_integer_column()
    memory_total_bytes: int | None = big_integer_column()
    ecc_corrected_total: int | None = big_integer_column()
    ecc_uncorrected_total: int | None = big_integer_column()
    remapped_correctable: int | None = big_integer_column()
    remapped_uncorrectable: int | None = big_integer_column()
    remap_pending: bool | None = None
    remap_failure: bool | None = None
    pcie_generation: int | None = big_integer_column()
    pcie_width: int | None = big_integer_column()
    pcie_replay_total: int | None = big_integer_column()
    nvlink_active_links: int | None = big_integer_column()
    nvlink_crc_errors_total: int | None = big_integer_column()
    fabric_state: int | None = big_integer_column()
    recovery_action: int | None = big_integer_column()
    last_xid: int | None = big_integer_column()
    last_xid_at: datetime | None = optional_time_column()
    missing: str | None = None  # JSON object field -> reason; None when nothing is missing
    observed_at: datetime | None = optional_time_column()

    # An index on a column that changes with each poll would end PostgreSQL's in-place updates; `node`
    # changes only when a GPU is put into another node. SQLite keeps its rowid here: rows then lie in
    # the order of nodes, as reports come, and not in that of random UUIDs (measured 1.3 x faster).
    __table_args__ = (Index("gpu_by_node", "cluster", "node"), IN_PLACE)


class GpuMinute(SQLModel, table=True):
    """One minute of a node as one ingest process saw it; packed into gpu_history when its hour is over.

    Flat rows, since growing an hour's chunk in place would rewrite it sixty times. Several ingest
    processes may each hold a part of a node's minute; readers merge them.
    """

    __tablename__ = "gpu_minute"
    cluster: str = Field(primary_key=True)
    minute_at: datetime = Field(sa_type=time_column().sa_type, primary_key=True)
    node: str = Field(primary_key=True)
    writer: str = Field(primary_key=True)
    chunk: bytes = Field(sa_type=LargeBinary)

    __table_args__ = ({"sqlite_with_rowid": False},)


class GpuHistory(SQLModel, table=True):
    """One hour of a node: minute mean, minimum and maximum of each metric and GPU, packed and compressed."""

    __tablename__ = "gpu_history"
    cluster: str = Field(primary_key=True)
    hour_at: datetime = Field(sa_type=time_column().sa_type, primary_key=True)
    node: str = Field(primary_key=True)
    chunk: bytes = Field(sa_type=LargeBinary)

    __table_args__ = (Index("gpu_history_by_node", "cluster", "node", "hour_at"),)


class GpuHour(SQLModel, table=True):
    """Hourly roll-up of a node's GPUs, packed; kept long and dropped by day."""

    __tablename__ = "gpu_hour"
    cluster: str = Field(primary_key=True)
    day: str = Field(primary_key=True)  # YYYY-MM-DD, UTC
    hour: int = Field(primary_key=True)
    node: str = Field(primary_key=True)
    chunk: bytes = Field(sa_type=LargeBinary)


class FleetFrame(SQLModel, table=True):
    """One packed vector a metric in the order of the topology of that version; the map is read from it."""

    __tablename__ = "fleet_frame"
    cluster: str = Field(primary_key=True)
    metric: str = Field(primary_key=True)  # topology, node_state, gpu_state, or a metric's name
    topology_version: str
    encoding: str  # json+zlib, uint8+zlib, float32+zlib
    updated_at: datetime = time_column()
    data: bytes = Field(sa_type=LargeBinary)


class SummaryBlock(SQLModel, table=True):
    """Counts by block, health and service, kept by the writers."""

    __tablename__ = "summary_block"
    cluster: str = Field(primary_key=True)
    block: str = Field(primary_key=True)
    counts: dict = (
        json_column()
    )  # {"health": {...}, "service": {...}, "gpus": n, "gpus_requested": n}
    updated_at: datetime = time_column()
