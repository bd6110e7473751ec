"""The rules over what Kubernetes says: a node's conditions and taints, and where its sources disagree.

A condition or taint is one row whose subject is its type or key; collectors/node_conditions.py reads
it into the one field that its rule looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from collectors.actions import INSPECT_NODE, RESTART_NODE
from collectors.conditions import Condition, Field
from collectors.rule import Rule

MINUTE = 60.0

_DETECTOR = "node-problem-detector, config/"
_DISAGREEMENT = "judgement: the sources disagree for 2 minutes"


def _row(field: str, value: bool, kind: str) -> Mapping[str, Any]:
    return {field: value, "type": kind, "why": "Reason: words", "since": "2026-03-01 12:00:03 UTC"}


CONDITION_RULES: tuple[Rule, ...] = (
    Rule(
        name="node-not-ready",
        scope="condition",
        severity="critical",
        conditions=(Condition("not_ready", "==", True),),
        message="Kubernetes calls the node not ready since {since} ({why}).",
        action="Look at the kubelet, the container runtime and the network of the node; "
        "its pods are moved by a drain.",
        source="judgement: 10 s without Ready; the control plane has waited 40 s for a silent kubelet",
        fires=_row("not_ready", True, "Ready"),
        quiet=_row("not_ready", False, "Ready"),
        hold_seconds=10.0,
    ),
    Rule(
        name="node-pressure",
        scope="condition",
        severity="warning",
        conditions=(Condition("under_pressure", "==", True),),
        message="The kubelet says {type} since {since} ({why}): it evicts pods and takes no new ones.",
        action="Find what fills the node: the kubelet's log names it.",
        source="conditions MemoryPressure, DiskPressure and PIDPressure; severity: judgement",
        fires=_row("under_pressure", True, "MemoryPressure"),
        quiet=_row("under_pressure", False, "MemoryPressure"),
        hold_seconds=10.0,
    ),
    Rule(
        name="node-network-unavailable",
        scope="condition",
        severity="critical",
        conditions=(Condition("network_unavailable", "==", True),),
        message="The node's network is not set up since {since} ({why}).",
        action="Look at the network plugin's pod on the node.",
        source="condition NetworkUnavailable; severity: judgement",
        fires=_row("network_unavailable", True, "NetworkUnavailable"),
        quiet=_row("network_unavailable", False, "NetworkUnavailable"),
        hold_seconds=10.0,
    ),
    Rule(
        name="node-problem-kernel-deadlock",
        scope="condition",
        severity="critical",
        conditions=(Condition("kernel_deadlock", "==", True),),
        message="The kernel hangs since {since} ({why}).",
        action=RESTART_NODE,
        source=f"{_DETECTOR}kernel-monitor.json: KernelDeadlock; severity: judgement",
        fires=_row("kernel_deadlock", True, "KernelDeadlock"),
        quiet=_row("kernel_deadlock", False, "KernelDeadlock"),
    ),
    Rule(
        name="node-problem-readonly-filesystem",
        scope="condition",
        severity="critical",
        conditions=(Condition("filesystem_readonly", "==", True),),
        message="A file system of the node takes no writes since {since}: {type} ({why}).",
        action="Drain the node, check its disk, then restart the machine.",
        source=f"{_DETECTOR}kernel-monitor.json: ReadonlyFilesystem, XfsShutdown; severity: judgement",
        fires=_row("filesystem_readonly", True, "ReadonlyFilesystem"),
        quiet=_row("filesystem_readonly", False, "ReadonlyFilesystem"),
    ),
    Rule(
        name="node-problem-frequent-restarts",
        scope="condition",
        severity="warning",
        conditions=(Condition("restarts_often", "==", True),),
        message="node-problem-detector says {type} since {since} ({why}).",
        action="Read that service's log on the node: what restarts so often fails before.",
        source=f"{_DETECTOR}systemd-monitor.json and kernel-monitor-counter.json; severity: judgement",
        fires=_row("restarts_often", True, "FrequentKubeletRestart"),
        quiet=_row("restarts_often", False, "FrequentKubeletRestart"),
    ),
    Rule(
        name="node-problem-gpu",
        scope="condition",
        severity="critical",
        conditions=(Condition("gpu_failing", "==", True),),
        message="The node's health agent says {type} since {since} ({why}).",
        action=INSPECT_NODE,
        source="conditions of AKS, EKS, Nebius and NVSentinel for what needs a repair",
        fires=_row("gpu_failing", True, "GPUMissing"),
        quiet=_row("gpu_failing", False, "GPUMissing"),
    ),
    Rule(
        name="node-problem-gpu-degraded",
        scope="condition",
        severity="warning",
        conditions=(Condition("gpu_degraded", "==", True),),
        message="The node's health agent says {type} since {since} ({why}).",
        action=INSPECT_NODE,
        source="conditions of AKS and NVSentinel for what slows down; severity: judgement",
        fires=_row("gpu_degraded", True, "IBLinkFlapping"),
        quiet=_row("gpu_degraded", False, "IBLinkFlapping"),
    ),
    Rule(
        name="node-problem-other",
        scope="condition",
        severity="warning",
        conditions=(Condition("other_problem", "==", True),),
        message="The node has the condition {type} since {since} ({why}), which this release "
        "does not know.",
        action="Ask who sets this condition what it means.",
        source="judgement: a condition nobody knows is told and changes no health",
        fires=_row("other_problem", True, "NTPProblem"),
        quiet=_row("other_problem", False, "NTPProblem"),
        hold_seconds=MINUTE,
        changes_health=False,
    ),
    Rule(
        name="node-tainted",
        scope="condition",
        severity="warning",
        conditions=(Condition("tainted_unhealthy", "==", True),),
        message="The node carries the taint {type} ({why}): somebody calls it unhealthy.",
        action="Ask who put the taint on; nothing new is scheduled there until it is gone.",
        source="judgement: NoSchedule and NoExecute taints whose key names a fault",
        fires=_row("tainted_unhealthy", True, "node.kubernetes.io/out-of-service"),
        quiet=_row("tainted_unhealthy", False, "node.kubernetes.io/out-of-service"),
        hold_seconds=10.0,
    ),
)

DISAGREEMENT_RULES: tuple[Rule, ...] = (
    Rule(
        name="allocatable-below-capacity",
        scope="node",
        severity="warning",
        conditions=(Condition("allocatable_gpus", "<", Field("capacity_gpus")),),
        message="Kubernetes may give out {allocatable_gpus} of the node's {capacity_gpus} GPUs: "
        "the device plugin calls the others unhealthy.",
        action="Read the device plugin's log on the node for the GPUs it took out, and why.",
        source=_DISAGREEMENT,
        fires={"allocatable_gpus": 7, "capacity_gpus": 8},
        quiet={"allocatable_gpus": 8, "capacity_gpus": 8},
        # While the plugin restarts both fall and rise, not always in one step.
        hold_seconds=2 * MINUTE,
        changes_health=False,
    ),
    Rule(
        name="capacity-below-nvml",
        scope="node",
        severity="warning",
        conditions=(Condition("capacity_gpus", "<", Field("gpu_count")),),
        message="NVML counts {gpu_count} GPUs, Kubernetes knows of {capacity_gpus}.",
        action="Restart the device plugin on the node and read its log.",
        source=_DISAGREEMENT,
        fires={"capacity_gpus": 0, "gpu_count": 8},
        quiet={"capacity_gpus": 8, "gpu_count": 8},
        hold_seconds=2 * MINUTE,
        changes_health=False,
    ),
    Rule(
        name="ready-with-fatal-gpu",
        scope="node",
        severity="warning",
        conditions=(
            Condition("is_ready", "==", True),
            Condition("is_schedulable", "==", True),
            Condition("fatal_gpus", ">", 0),
        ),
        message="Kubernetes calls the node Ready and gives it work, but {fatal_gpus} of its GPUs "
        "cannot be used.",
        action="Cordon or drain the node before the next job lands on it.",
        source=_DISAGREEMENT,
        fires={"is_ready": True, "is_schedulable": True, "fatal_gpus": 1},
        quiet={"is_ready": True, "is_schedulable": False, "fatal_gpus": 1},
        hold_seconds=2 * MINUTE,
        changes_health=False,
    ),
)

JOB_INTERRUPTED = "job-interrupted"

JOB_RULES: tuple[Rule, ...] = (
    Rule(
        name=JOB_INTERRUPTED,
        scope="job",
        severity="warning",
        conditions=(Condition("ended_ranks", ">", 0),),
        message="{ended_ranks} of {ranks} ranks of {job} ended; the first was {first}.",
        action="Read the first rank's log; where its node or GPU has a finding, that comes first.",
        source="judgement: ranks of a gang that end unasked, told until 10 minutes after the last",
        fires={
            "ended_ranks": 412,
            "ranks": 512,
            "job": "ml/llama",
            "first": "rank 17 on h100-b01-r2-n3 at 12:00:03 UTC with exit code 1 (Error)",
        },
        quiet={"ended_ranks": 0, "ranks": 512, "job": "ml/llama", "first": ""},
        # Kubelets tell of their ranks within seconds of each other: the first must be among them.
        hold_seconds=10.0,
        changes_health=False,
    ),
)

KUBERNETES_RULES: tuple[Rule, ...] = (*CONDITION_RULES, *DISAGREEMENT_RULES, *JOB_RULES)
