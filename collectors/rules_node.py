"""The rules over a node as a whole: what is there, and where its sources disagree."""

from __future__ import annotations

from collectors.actions import RESTART_NODE
from collectors.conditions import Condition, Field
from collectors.rule import Rule

MINUTE = 60.0

_DISAGREEMENT = "judgement: the sources disagree for 2 minutes"

NODE_RULES: tuple[Rule, ...] = (
    Rule(
        name="gpu-count",
        scope="node",
        severity="fatal",
        conditions=(Condition("gpu_count", "<", Field("expected_gpus")),),
        message="{gpu_count} of {expected_gpus} GPUs are there; missing: {missing_gpus}.",
        action=RESTART_NODE,
        source="expected is the highest count ever seen on the node",
        fires={"gpu_count": 7, "expected_gpus": 8, "missing_gpus": "GPU-1"},
        quiet={"gpu_count": 8, "expected_gpus": 8, "missing_gpus": ""},
    ),
    Rule(
        name="nvml-silent",
        scope="node",
        severity="warning",
        conditions=(Condition("silent_seconds", ">", 0),),
        message="NVML does not answer: nothing is known about the node's GPUs.",
        action="Look at the node's kernel log; a reboot frees a driver that hangs.",
        source="a blind source is Unknown, never Healthy",
        fires={"silent_seconds": 15.0},
        quiet={"silent_seconds": 0.0},
        # What it changes is knowledge: node_health says Unknown from the state of NVML.
        changes_health=False,
    ),
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
