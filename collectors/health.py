"""Rules: from readings to findings, and from findings to the health of a node.

A rule is one frozen entry of RULES. Its conditions compare named fields by operators that
work on one value and on a column alike, so the same entry judges 8 GPUs here and a whole
cluster's columns elsewhere. A field that is None cannot be judged: the rule then neither
opens nor closes anything. Times of hysteresis are seconds and are 0 unless a rule's source
asks for them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from collectors.readings import GPU_IS_LOST, RESET_REQUIRED, GpuReading
from collectors.report import Finding, NvmlState, Severity
from collectors.xid import RESET_GPU, RESET_WHEN_IDLE, RESTART_NODE

Health = Literal["Healthy", "Degraded", "Failing", "Unknown"]

UNREACHABLE_CODES = (GPU_IS_LOST, RESET_REQUIRED)

SEVERITY_RANK: Mapping[str, int] = {
    "info": 0,
    "advice": 1,
    "warning": 2,
    "critical": 3,
    "fatal": 4,
}


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a node rule may look at. None where it is not known.

    `missing_gpus` are UUIDs seen before and not found now; `silent_seconds` how long NVML has
    not answered, 0 while it does.
    """

    gpu_count: int | None = None
    expected_gpus: int | None = None
    silent_seconds: float | None = None
    missing_gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Field:
    """Another field of the same row, as the right-hand side of a condition."""

    name: str


_COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True)
class Condition:
    """`field comparison limit`. `absent` stands in for None where None has a meaning."""

    field: str
    comparison: str
    limit: float | bool | Field
    absent: float | None = None

    def test(self, read: Callable[[str], Any]) -> Any:
        """Return whether it holds: a bool, a column of bools, or None when it is not known."""
        value = read(self.field)
        if value is None:
            value = self.absent
        limit = read(self.limit.name) if isinstance(self.limit, Field) else self.limit
        if value is None or limit is None:
            return None
        return _COMPARISONS[self.comparison](value, limit)


@dataclass(frozen=True)
class Rule:
    """One kind of fault. All conditions must hold for `hold_seconds` before it opens; it
    closes when one has not held for `keep_firing_seconds`.

    `message` is a template over the row's fields. `source` says where the threshold is from.
    `fires` and `quiet` are rows of which the first must open it and the second must not.
    """

    name: str
    scope: Literal["gpu", "node"]
    severity: Severity
    conditions: tuple[Condition, ...]
    message: str
    action: str
    source: str
    fires: Mapping[str, Any]
    quiet: Mapping[str, Any]
    changes_health: bool = True
    hold_seconds: float = 0.0
    keep_firing_seconds: float = 0.0

    def test(self, read: Callable[[str], Any]) -> Any:
        """Return whether all conditions hold (bool or column), or None when one is unknown."""
        outcome: Any = True
        for condition in self.conditions:
            held = condition.test(read)
            if held is None:
                return None
            outcome = held if outcome is True else outcome & held
        return outcome


RULES: tuple[Rule, ...] = (
    Rule(
        name="gpu-lost",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("error_code", "==", GPU_IS_LOST, absent=0),),
        message="GPU {index} ({pci_bus_id}) is lost: NVML answers error 15 for it.",
        action=RESTART_NODE,
        source="NVML_ERROR_GPU_IS_LOST, nvml.h",
        fires={"error_code": 15},
        quiet={"error_code": None},
    ),
    Rule(
        name="gpu-reset-required",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("error_code", "==", RESET_REQUIRED, absent=0),),
        message="GPU {index} ({pci_bus_id}) works again only after a reset: NVML error 16.",
        action=RESET_GPU,
        source="NVML_ERROR_RESET_REQUIRED, nvml.h",
        fires={"error_code": 16},
        quiet={"error_code": None},
    ),
    Rule(
        name="gpu-unreadable",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("error_code", ">", 0, absent=0),
            Condition("error_code", "!=", GPU_IS_LOST, absent=0),
            Condition("error_code", "!=", RESET_REQUIRED, absent=0),
        ),
        message="GPU {index} ({pci_bus_id}) cannot be read: NVML error {error_code}.",
        action=RESTART_NODE,
        source="judgement: a GPU that answers nothing is not usable",
        fires={"error_code": 999},
        quiet={"error_code": 15},
    ),
    Rule(
        name="ecc-uncorrected",
        scope="gpu",
        severity="critical",
        conditions=(Condition("ecc_uncorrected_total", ">", 0),),
        message="GPU {index} counts uncorrectable ECC errors since its last reset: "
        "{ecc_uncorrected_total}.",
        action=RESET_GPU,
        source="any volatile uncorrectable ECC error: critical (NVIDIA GPU memory error management)",
        fires={"ecc_uncorrected_total": 1},
        quiet={"ecc_uncorrected_total": 0},
    ),
    Rule(
        name="remap-failure",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("remap_failure", "==", True),),
        message="GPU {index} could not remap a failing memory row: its spare rows are used up.",
        action="Drain the node and send the board in: row remapping failed.",
        source="row remap failure: RMA (NVIDIA GPU memory error management)",
        fires={"remap_failure": True},
        quiet={"remap_failure": False},
    ),
    Rule(
        name="remap-pending",
        scope="gpu",
        severity="warning",
        conditions=(Condition("remap_pending", "==", True),),
        message="GPU {index} waits for a reset to remap a failing memory row.",
        action=RESET_WHEN_IDLE,
        source="row remap pending: reset at idle (NVIDIA GPU memory error management)",
        fires={"remap_pending": True},
        quiet={"remap_pending": False},
    ),
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

GPU_RULES = tuple(rule for rule in RULES if rule.scope == "gpu")
NODE_RULES = tuple(rule for rule in RULES if rule.scope == "node")


def describe(rule: Rule, read: Callable[[str], Any]) -> str:
    """Return the rule's message filled in from the row; an unknown field shows as "?"."""
    return rule.message.format_map(_Shown(read))


class _Shown(dict[str, Any]):
    def __init__(self, read: Callable[[str], Any]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: str) -> Any:
        value = self._read(key)
        if isinstance(value, tuple):
            return ", ".join(str(part) for part in value) or "none known"
        return "?" if value is None else value


def read_gpu(reading: GpuReading) -> Callable[[str], Any]:
    """Return the reader of a GPU's fields that conditions and messages use."""
    return lambda name: getattr(reading, name)


def read_node(facts: NodeFacts) -> Callable[[str], Any]:
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
