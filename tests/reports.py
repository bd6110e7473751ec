"""Reports of an agent as tests need them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from collectors.readings import GpuReading
from collectors.report import Finding, NvmlState, Report, XidEvent

NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def gpu(node: str = "n1", index: int = 0, **fields: Any) -> GpuReading:
    """A reading of a GPU that is well."""
    values: dict[str, Any] = {
        "uuid": f"GPU-{node}-{index}",
        "index": index,
        "pci_bus_id": f"00000000:{index:02x}:00.0",
        "temperature_celsius": 40.0 + index,
        "power_watts": 300.0,
        "gpu_utilization_ratio": 0.5,
        "memory_used_bytes": 70 * 2**30,
    }
    return GpuReading(**(values | fields))


def finding(episode: str = "e1", **fields: Any) -> Finding:
    """A critical finding."""
    values: dict[str, Any] = {
        "episode": episode,
        "rule": "gpu-lost",
        "severity": "critical",
        "message": "GPU 0 fell off the bus",
        "action": "restart the node",
        "since": NOW,
    }
    return Finding(**(values | fields))


def xid(event_id: str = "x1", code: int = 79, **fields: Any) -> XidEvent:
    """An XID on GPU 0 of n1."""
    values: dict[str, Any] = {
        "event_id": event_id,
        "at": NOW,
        "last_at": NOW,
        "xid": code,
        "gpu_uuid": "GPU-n1-0",
        "text": "GPU has fallen off the bus.",
    }
    return XidEvent(**(values | fields))


def report(node: str = "n1", sequence: int = 1, **fields: Any) -> Report:
    """A report of a node with two GPUs that are well, observed at NOW plus `sequence` seconds."""
    values: dict[str, Any] = {
        "schema_version": 1,
        "cluster": "c",
        "node": node,
        "spool_id": f"spool-{node}",
        "sequence": sequence,
        "observed_at": at(sequence),
        "boot_id": "boot-1",
        "agent_version": "0.1.0",
        "driver_version": "570.86",
        "nvml": NvmlState(answering=True),
        "gpus": [gpu(node, 0), gpu(node, 1)],
    }
    return Report(**(values | fields))
