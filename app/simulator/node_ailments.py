"""What a fault changes in what a node's object says, where its machine and its agent live on.

The names are those of the rules of health that they provoke (collectors/rules_kubernetes.py). A condition
that was set once stays, and says that all is well, as those of node-problem-detector do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.simulator.clock import as_rfc3339
from app.simulator.controllers.conditions import find_condition, put_condition
from app.simulator.controllers.pods import GPU
from app.simulator.store import Object


@dataclass(frozen=True)
class NodeAilment:
    """A condition with what it says while it is bad, GPUs that are missing, or a taint."""

    condition: str = ""
    bad: str = "True"
    reason: str = ""
    message: str = ""
    good_reason: str = ""
    missing_allocatable: int = 0
    missing_capacity: int = 0
    taint: str = ""

    @property
    def good(self) -> str:
        """The condition's status while all is well."""
        return "False" if self.bad == "True" else "True"


NODE_OBJECT_AILMENTS: Mapping[str, NodeAilment] = {
    "allocatable-below-capacity": NodeAilment(missing_allocatable=1),
    "capacity-below-nvml": NodeAilment(missing_allocatable=1, missing_capacity=1),
    "node-pressure": NodeAilment(
        "MemoryPressure",
        reason="KubeletHasInsufficientMemory",
        message="kubelet has insufficient memory available",
        good_reason="KubeletHasSufficientMemory",
    ),
    "node-network-unavailable": NodeAilment(
        "NetworkUnavailable",
        reason="NoRouteCreated",
        message="the network plugin is not running",
        good_reason="RouteCreated",
    ),
    "node-problem-kernel-deadlock": NodeAilment(
        "KernelDeadlock",
        reason="DockerHung",
        message="task containerd:4711 blocked for more than 120 seconds.",
        good_reason="KernelHasNoDeadlock",
    ),
    "node-problem-readonly-filesystem": NodeAilment(
        "ReadonlyFilesystem",
        reason="FilesystemIsReadOnly",
        message="Remounting filesystem read-only",
        good_reason="FilesystemIsNotReadOnly",
    ),
    "node-problem-frequent-restarts": NodeAilment(
        "FrequentKubeletRestart",
        reason="FrequentKubeletRestart",
        message="the kubelet started 6 times in 20 minutes",
        good_reason="NoFrequentKubeletRestart",
    ),
    "node-problem-gpu": NodeAilment(
        "AcceleratedHardwareReady",
        bad="False",
        reason="NvidiaDeviceCountMismatch",
        message="one device is missing",
        good_reason="NvidiaAcceleratedHardwareIsReady",
    ),
    "node-problem-gpu-degraded": NodeAilment(
        "IBLinkFlapping",
        reason="IBLinkFlapping",
        message="mlx5_3 went down and up 4 times",
        good_reason="NoIBLinkFlapping",
    ),
    "node-problem-other": NodeAilment(
        "NTPProblem",
        reason="NTPIsDown",
        message="the clock is not kept",
        good_reason="NTPIsUp",
    ),
    "node-tainted": NodeAilment(taint="health.example.com/unhealthy"),
}


def missing_gpus(kinds: Iterable[str]) -> tuple[int, int]:
    """How many GPUs these faults take out of a node's (allocatable, capacity)."""
    found = [NODE_OBJECT_AILMENTS[kind] for kind in kinds if kind in NODE_OBJECT_AILMENTS]
    return (
        max((one.missing_allocatable for one in found), default=0),
        max((one.missing_capacity for one in found), default=0),
    )


def bad_conditions(kinds: Iterable[str]) -> set[str]:
    """The types of conditions that these faults make bad."""
    return {NODE_OBJECT_AILMENTS[kind].condition for kind in kinds if kind in NODE_OBJECT_AILMENTS}


def write_ailments(
    node: Object, kinds: Iterable[str], *, gpus: int, usable: int, now: datetime
) -> None:
    """Write a node's GPUs, conditions and taints as these faults leave them, in place.

    gpus: of the machine. usable: what its device plugin could give out.
    """
    active = set(kinds)
    status = node["status"]
    allocatable, capacity = missing_gpus(active)
    status["capacity"][GPU] = str(gpus - capacity)
    status["allocatable"][GPU] = str(max(0, usable - allocatable))
    for kind, one in NODE_OBJECT_AILMENTS.items():
        if one.condition and kind in active:
            put_condition(
                status, one.condition, one.bad, now=now, reason=one.reason, message=one.message
            )
        elif one.condition and find_condition(status, one.condition) is not None:
            put_condition(status, one.condition, one.good, now=now, reason=one.good_reason)
        elif one.taint:
            _write_taint(node, one.taint, wanted=kind in active, now=now)


def _write_taint(node: Object, key: str, *, wanted: bool, now: datetime) -> None:
    taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] != key]
    if wanted:
        taints.append({"key": key, "effect": "NoSchedule", "timeAdded": as_rfc3339(now)})
    node["spec"].pop("taints", None)
    if taints:
        node["spec"]["taints"] = taints
