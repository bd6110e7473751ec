"""Every table, imported here so that SQLModel.metadata is whole. Keys start with the cluster."""

from sqlmodel import SQLModel

from app.store.tables.alerts import Alert, AlertDelivery, AlertGroup, AlertReceiver, Silence
from app.store.tables.fleet import (
    FleetFrame,
    Gpu,
    GpuHistory,
    GpuHour,
    GpuMinute,
    Node,
    SummaryBlock,
)
from app.store.tables.health import EventDay, Finding, HealthEvent, Incident, IncidentEvent
from app.store.tables.jobs import Job, Placement, Pod, Rank
from app.store.tables.operations import (
    AuditEntry,
    AutomaticAction,
    LimitMark,
    Operation,
    OperationNode,
    OperationStep,
    Pause,
    Permission,
    Request,
    Reservation,
)
from app.store.tables.pipeline import Lease, ReportStream, RetentionMark, SourceStatus
from app.store.tables.repairs import NodeDiagnostic, NodeRepair

metadata = SQLModel.metadata

__all__ = [
    "Alert", "AlertDelivery", "AlertGroup", "AlertReceiver", "AuditEntry", "AutomaticAction", "EventDay", "Finding", "FleetFrame", "Gpu", "GpuHistory",
    "GpuHour", "GpuMinute", "HealthEvent", "Incident", "IncidentEvent", "Job", "Lease", "LimitMark", "Node", "NodeDiagnostic", "NodeRepair",
    "Operation", "OperationNode", "OperationStep", "Pause", "Permission", "Placement", "Pod", "Rank", "ReportStream",
    "Request", "Reservation", "RetentionMark", "Silence", "SourceStatus", "SummaryBlock", "metadata",
]  # fmt: skip
