"""The columns of each listing. Field names are those of app/store/records.py."""

from datetime import datetime

from app.cli.durations import write_age
from app.cli.incident_text import write_flags, write_hurt, write_lost, write_with
from app.cli.tables import Column, known
from app.store.records import GpuRecord, NodeRecord, OperationRecord

GIBIBYTE = 2**30


def _node_gpus(node: NodeRecord, now: datetime) -> str:
    if node.gpu_count is None and node.gpu_count_expected is None:
        return "-"
    return f"{known(node.gpu_count)}/{known(node.gpu_count_expected)}"


def _gpu_memory(gpu: GpuRecord, now: datetime) -> str:
    if gpu.memory_used_bytes is None or gpu.memory_total_bytes is None:
        return "-"
    return f"{gpu.memory_used_bytes / GIBIBYTE:.0f}/{gpu.memory_total_bytes / GIBIBYTE:.0f}GiB"


def _gpu_xid(gpu: GpuRecord, now: datetime) -> str:
    if gpu.last_xid is None:
        return "-"
    return f"{gpu.last_xid} ({write_age(gpu.last_xid_at, now=now)})"


def _gpu_activity(gpu: GpuRecord, now: datetime) -> str:
    return "-" if gpu.gpu_utilization_ratio is None else f"{gpu.gpu_utilization_ratio:.0%}"


NODES = (
    Column("NODE", lambda node, now: node.name),
    Column("HEALTH", lambda node, now: node.health),
    Column("FOR", lambda node, now: write_age(node.health_since, now=now)),
    Column("SERVICE", lambda node, now: node.service),
    Column("GPUS", _node_gpus),
    Column("REQUESTED", lambda node, now: known(node.gpu_requested)),
    Column("REPORT", lambda node, now: write_age(node.observed_at, now=now)),
    Column("BLOCK", lambda node, now: known(node.block), wide=True),
    Column("RACK", lambda node, now: known(node.rack), wide=True),
    Column("KIND", lambda node, now: known(node.kind), wide=True),
    Column("DRIVER", lambda node, now: known(node.driver_version), wide=True),
    Column("READY", lambda node, now: known(node.kubernetes_ready), wide=True),
    Column("OPERATION", lambda node, now: known(node.operation_id), wide=True),
    Column("SCORE", lambda node, now: str(node.score), wide=True),
    Column("REASON", lambda node, now: node.health_reason or node.service_reason),
)

GPUS = (
    Column("NODE", lambda gpu, now: gpu.node),
    Column("GPU", lambda gpu, now: known(gpu.index)),
    Column("HEALTH", lambda gpu, now: gpu.health),
    Column("FOR", lambda gpu, now: write_age(gpu.health_since, now=now)),
    Column("TEMPERATURE", lambda gpu, now: known(gpu.temperature_celsius, "C")),
    Column("POWER", lambda gpu, now: known(gpu.power_watts, "W")),
    Column("BUSY", _gpu_activity),
    Column("MEMORY", _gpu_memory),
    Column("XID", _gpu_xid),
    Column("REPORT", lambda gpu, now: write_age(gpu.observed_at, now=now)),
    Column("UUID", lambda gpu, now: gpu.uuid, wide=True),
    Column("PCI", lambda gpu, now: known(gpu.pci_bus_id), wide=True),
    Column("SERIAL", lambda gpu, now: known(gpu.serial), wide=True),
    Column("POD", lambda gpu, now: known(gpu.pod_uid), wide=True),
    Column("ECC", lambda gpu, now: known(gpu.ecc_uncorrected_total), wide=True),
    Column("REMAP", lambda gpu, now: known(gpu.remap_pending), wide=True),
    Column("NVLINKS", lambda gpu, now: known(gpu.nvlink_active_links), wide=True),
    Column("PCIE", lambda gpu, now: known(gpu.pcie_generation), wide=True),
    Column("REASON", lambda gpu, now: gpu.health_reason),
)

JOBS = (
    Column("NAMESPACE", lambda job, now: job.namespace),
    Column("JOB", lambda job, now: job.name),
    Column("STATE", lambda job, now: job.state),
    Column("PODS", lambda job, now: f"{job.running_pods}/{job.wanted_pods}"),
    Column("GPUS", lambda job, now: str(job.gpus)),
    Column("FAILING-NODES", lambda job, now: str(job.nodes_failing)),
    Column("AGE", lambda job, now: write_age(job.created_at, now=now)),
    Column("KIND", lambda job, now: job.kind, wide=True),
    Column("GANG", lambda job, now: known(job.gang), wide=True),
    Column("TEAM", lambda job, now: known(job.team), wide=True),
    Column("QUEUE", lambda job, now: known(job.queue), wide=True),
    Column("CHECKPOINT", lambda job, now: write_age(job.checkpoint_at, now=now), wide=True),
    Column("UID", lambda job, now: job.uid, wide=True),
    Column("REASON", lambda job, now: job.reason),
)

INCIDENTS = (
    Column("ID", lambda incident, now: incident.id),
    Column("SEVERITY", lambda incident, now: incident.severity),
    Column("HURT", lambda incident, now: write_hurt(incident)),
    Column("LOST-GPU-H", lambda incident, now: write_lost(incident.gpu_hours_lost)),
    Column("SINCE", lambda incident, now: write_age(incident.opened_at, now=now)),
    Column("WITH", lambda incident, now: write_with(incident)),
    Column("FLAGS", lambda incident, now: write_flags(incident)),
    Column("SCOPE", lambda incident, now: incident.scope, wide=True),
    Column("SUBJECT", lambda incident, now: incident.subject, wide=True),
    Column("CAUSE", lambda incident, now: incident.cause, wide=True),
    Column("NODES", lambda incident, now: str(len(incident.nodes)), wide=True),
    Column("RESOLVED", lambda incident, now: write_age(incident.resolved_at, now=now), wide=True),
    Column("PART-OF", lambda incident, now: known(incident.merged_into), wide=True),
    Column("WHAT", lambda incident, now: incident.title),
    Column("DO-FIRST", lambda incident, now: incident.action, wide=True),
)


def _pods_done(operation: OperationRecord, now: datetime) -> str:
    return f"{operation.pods_done}/{operation.pods_total}"


OPERATIONS = (
    Column("OPERATION", lambda operation, now: operation.id),
    Column("KIND", lambda operation, now: operation.kind),
    Column("STATE", lambda operation, now: operation.state),
    Column("SUBJECT", lambda operation, now: operation.subject),
    Column("PODS", _pods_done),
    Column("AGE", lambda operation, now: write_age(operation.created_at, now=now)),
    Column("BY", lambda operation, now: operation.author),
    Column("MODE", lambda operation, now: operation.mode, wide=True),
    Column("ENDED", lambda operation, now: write_age(operation.ended_at, now=now), wide=True),
    Column("WHY", lambda operation, now: operation.reason, wide=True),
    Column("MESSAGE", lambda operation, now: operation.message),
)
