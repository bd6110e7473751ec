"""The rules over a node as a whole, as its agent sees it."""

from __future__ import annotations

from collectors.actions import RESTART_NODE
from collectors.conditions import Condition, Field
from collectors.rule import Rule

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
)
