"""Rules: from readings to findings, and from findings to the health of a node.

A rule is one frozen entry (collectors/rule.py) of the table of its kind, and RULES holds them
all. A field that is not known cannot be judged: the rule then neither opens nor closes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from collectors.conditions import Condition, Field, Read
from collectors.readings import GPU_IS_LOST, RESET_REQUIRED, GpuReading
from collectors.report import Finding, NvmlState
from collectors.rule import SEVERITY_RANK, Rule, describe
from collectors.rules_gpu import GPU_RULES as _DEVICE_RULES
from collectors.rules_kubernetes import KUBERNETES_RULES
from collectors.rules_links import LINK_RULES, USE_RULES
from collectors.rules_node import NODE_RULES
from collectors.rules_port import PORT_RULES
from collectors.rules_training import TRAINING_RULES

__all__ = [
    "BUILT_IN",
    "GPU_RULES",
    "KUBERNETES_RULES",
    "NODE_RULES",
    "PORT_RULES",
    "RULES",
    "SEVERITY_RANK",
    "TRAINING_RULES",
    "Condition",
    "Field",
    "Health",
    "NodeFacts",
    "Rule",
    "RuleSet",
    "describe",
    "explain_unjudged",
    "node_health",
    "read_gpu",
    "read_node",
]

Health = Literal["Healthy", "Degraded", "Failing", "Unknown"]

UNREACHABLE_CODES = (GPU_IS_LOST, RESET_REQUIRED)

GPU_RULES: tuple[Rule, ...] = (*_DEVICE_RULES, *LINK_RULES, *USE_RULES)
RULES: tuple[Rule, ...] = (
    *(*GPU_RULES, *NODE_RULES, *PORT_RULES),
    *(*KUBERNETES_RULES, *TRAINING_RULES),
)


@dataclass(frozen=True)
class RuleSet:
    """The rules that judge, by what they look at; `kubernetes` and `training` by what is known centrally."""

    gpu: tuple[Rule, ...] = GPU_RULES
    node: tuple[Rule, ...] = NODE_RULES
    port: tuple[Rule, ...] = PORT_RULES
    kubernetes: tuple[Rule, ...] = KUBERNETES_RULES
    training: tuple[Rule, ...] = TRAINING_RULES

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all of them."""
        return frozenset(rule.name for rule in self.all)

    @property
    def all(self) -> tuple[Rule, ...]:
        """All of them, in the order of the table."""
        return (*self.gpu, *self.node, *self.port, *self.kubernetes, *self.training)


BUILT_IN = RuleSet()
"""The rules as they are where a site sets nothing."""


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node rule may look at. None where it is not known.

    `missing_gpus` are UUIDs seen before and not found now; `silent_seconds` how long NVML has
    not answered, 0 while it does. `capacity_gpus`, `allocatable_gpus`, `is_ready` and
    `is_schedulable` are Kubernetes's word, which the agent does not have; `fatal_gpus` counts
    GPUs with an open fatal finding.
    """

    gpu_count: int | None = None
    expected_gpus: int | None = None
    silent_seconds: float | None = None
    missing_gpus: tuple[str, ...] = ()
    capacity_gpus: int | None = None
    allocatable_gpus: int | None = None
    is_ready: bool | None = None
    is_schedulable: bool | None = None
    fatal_gpus: int | None = None


def read_gpu(reading: GpuReading, trends: Mapping[str, Any] | None = None) -> Read:
    """Return the reader of a GPU's fields and of what its trends add (collectors/trends.py)."""
    added = trends or {}

    def read(name: str) -> Any:
        return added[name] if name in added else getattr(reading, name, None)

    return read


def explain_unjudged(rule: Rule, read: Read, missing: Mapping[str, str]) -> str | None:
    """Return why a rule cannot be judged on a row, None when it can.

    `missing` are the reasons of fields that are not known, those of trends among them
    (collectors/trends.py).
    """
    if rule.test(read) is not None:
        return None
    reasons = sorted(
        {
            missing.get(name, missing.get("*", "not known"))
            for condition in rule.conditions
            if condition.judge(read) == (False, False)
            for name in condition.fields
            if read(name) is None
        }
    )
    return "; ".join(reasons)


def read_node(facts: NodeFacts) -> Read:
    """Return the reader of a node's facts that conditions and messages use."""
    return lambda name: getattr(facts, name)


def node_health(findings: Iterable[Finding], nvml: NvmlState) -> tuple[Health, str]:
    """Return the health of a node and the reason in words.

    Info and advice change nothing, a warning is Degraded, critical and fatal are Failing; a
    finding with `changes_health` False never counts. While NVML does not answer the node is
    Unknown, unless what is already known makes it Failing.
    """
    worst: Finding | None = None
    count = 0
    for finding in findings:
        if not finding.changes_health or SEVERITY_RANK[finding.severity] < 2:
            continue
        count += 1
        if worst is None or (
            (-SEVERITY_RANK[finding.severity], finding.since, finding.rule)
            < (-SEVERITY_RANK[worst.severity], worst.since, worst.rule)
        ):
            worst = finding
    failing = worst is not None and SEVERITY_RANK[worst.severity] >= 3
    if not nvml.answering and not failing:
        return "Unknown", nvml.message or "NVML does not answer"
    if worst is None:
        return "Healthy", "no open finding"
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ("Failing" if failing else "Degraded"), f"{worst.message}{more}"
