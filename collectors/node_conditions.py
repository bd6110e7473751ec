"""What a node's conditions and taints mean: which rule looks at each, and whether it is bad. Pure.

Only what is bad, or cannot be told, becomes a row; a condition that says all is well refutes its rule
by saying so. Types that nobody here knows are kept, for the rule node-problem-other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from collectors.health import NodeFacts
from collectors.row_judgement import Row
from k8s.objects import (
    GPU_RESOURCE,
    Condition,
    Node,
    Taint,
    gpus_allocatable,
    gpus_in,
    is_ready,
)

READY = "Ready"
LONGEST_WORDS = 300
"""Characters of a condition's message that are kept: agents put whole logs there."""

_NVSENTINEL_FATAL = (
    *("GpuMemWatch", "GpuNvlinkWatch", "GpuPcieWatch", "GpuSmWatch", "GpuInforomWatch"),
    *("GpuDriverWatch", "GpuMcuWatch", "GpuNvswitchFatalWatch", "GpuAllWatch"),
    *("SysLogsXIDError", "SysLogsSXIDError", "SysLogsGPUFallenOff"),
)
_NVSENTINEL_SLOW = ("GpuThermalWatch", "GpuPowerWatch", "GpuNvswitchNonfatalWatch")
_AKS_FATAL = ("GPUMissing", "NVLinkStatusInactive", "XIDErrors", "UnhealthyNvidiaDevicePlugin")
_AKS_SLOW = ("IBLinkFlapping", "GPUClockThrottling")

FIELD_OF_TYPE: Mapping[str, str] = {
    READY: "not_ready",
    **dict.fromkeys(("MemoryPressure", "DiskPressure", "PIDPressure"), "under_pressure"),
    "NetworkUnavailable": "network_unavailable",
    "KernelDeadlock": "kernel_deadlock",
    **dict.fromkeys(("ReadonlyFilesystem", "XfsShutdown"), "filesystem_readonly"),
    **dict.fromkeys(
        (
            *("FrequentKubeletRestart", "FrequentContainerdRestart", "FrequentDockerRestart"),
            "FrequentUnregisterNetDevice",
        ),
        "restarts_often",
    ),
    # AKS's node-problem-detector, NVSentinel, Nebius, EKS's node monitoring agent.
    **dict.fromkeys((*_AKS_FATAL, *_NVSENTINEL_FATAL, "NebiusGPUError"), "gpu_failing"),
    "AcceleratedHardwareReady": "gpu_failing",
    **dict.fromkeys((*_AKS_SLOW, *_NVSENTINEL_SLOW), "gpu_degraded"),
}
OTHER, TAINTED = "other_problem", "tainted_unhealthy"

GOOD_WHEN_TRUE = re.compile(r"(Ready|Healthy|Available|Valid|Passed|OK|Ok|Voter)$")
"""Names of conditions that say a good thing: those are bad when they are False."""

# These say again what a condition says.
TOLD_BY_CONDITIONS = frozenset(
    f"node.kubernetes.io/{name}"
    for name in (
        *("not-ready", "unreachable", "memory-pressure", "disk-pressure", "pid-pressure"),
        *("network-unavailable", "unschedulable"),
    )
)
NAMES_A_FAULT = re.compile(
    r"(^|[./_-])(out-of-service|shutdown|unhealthy|degraded|faulty|fault|failed|failing|broken|"
    r"error|errors|problem|quarantine|quarantined)($|[./_-])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class StoreWord:
    """What the store says of a node beside Kubernetes. None where it is not known.

    gpu_count: as NVML counts now. fatal_gpus: with an open fatal finding. planned: why it is away on
    purpose (collectors/planned.py).
    """

    gpu_count: int | None = None
    fatal_gpus: int | None = None
    planned: str | None = None


NO_WORD = StoreWord()


def condition_rows(node: Node, *, planned: str | None = None) -> Iterator[Row]:
    """The rows of a node's conditions and taints that are bad (True) or cannot be told (None).

    While it is away on purpose that it is not ready, or switched off, is not judged.
    """
    told_ready = False
    for entry in node.status.conditions:
        told_ready = told_ready or entry.type == READY
        bad = _is_bad(entry)
        if bad is not False:
            field = FIELD_OF_TYPE.get(entry.type, OTHER)
            if planned and entry.type == READY:
                bad = None
            yield _row(node, entry.type, field, bad, _why(entry), entry.last_transition_time)
    if not told_ready:
        unsaid = None if planned else True
        yield _row(node, READY, "not_ready", unsaid, "no status", None)
    for taint in node.spec.taints:
        if says_unhealthy(taint):
            bad = None if planned else True
            yield _row(node, taint.key, TAINTED, bad, _tainted(taint), taint.time_added)


def says_unhealthy(taint: Taint) -> bool:
    """Whether a taint calls its node unhealthy, and no condition says so already."""
    return (
        taint.effect in ("NoSchedule", "NoExecute")
        and taint.key not in TOLD_BY_CONDITIONS
        and NAMES_A_FAULT.search(taint.key) is not None
    )


def disagreement_facts(node: Node, word: StoreWord) -> NodeFacts:
    """Kubernetes's word on a node beside the store's."""
    whole = not has_shared_gpus(node)
    return NodeFacts(
        gpu_count=word.gpu_count,
        capacity_gpus=gpus_in(node.status.capacity) if whole else None,
        allocatable_gpus=gpus_allocatable(node) if whole else None,
        is_ready=is_ready(node),
        is_schedulable=not node.spec.unschedulable,
        fatal_gpus=word.fatal_gpus,
    )


def has_shared_gpus(node: Node) -> bool:
    """Whether GPUs are offered in parts (MIG's mixed strategy, renamed time slices).

    The count of whole GPUs then is no count of devices.
    """
    return any(
        name.startswith("nvidia.com/mig-") or name == f"{GPU_RESOURCE}.shared"
        for name in node.status.capacity
    )


def _is_bad(entry: Condition) -> bool | None:
    if entry.type == READY:
        return entry.status != "True"
    if entry.status not in ("True", "False"):
        return None
    return (entry.status == "True") != (GOOD_WHEN_TRUE.search(entry.type) is not None)


def _why(entry: Condition) -> str:
    words = ": ".join(part for part in (entry.reason, entry.message) if part)
    return words[:LONGEST_WORDS] or f"{entry.type} is {entry.status}"


def _tainted(taint: Taint) -> str:
    return f"{taint.value}, {taint.effect}" if taint.value else taint.effect


def _row(
    node: Node, subject: str, field: str, bad: bool | None, why: str, since: datetime | None
) -> Row:
    return Row(
        node=node.metadata.name,
        subject=subject,
        values={
            field: bad,
            "type": subject,
            "why": why,
            "since": f"{since:%Y-%m-%d %H:%M:%S} UTC" if since else "an unknown time",
        },
        since=since,
    )
