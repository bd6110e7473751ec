"""What a fault's rule means for incidents: its class, its family, and which of several failed first. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from app.incidents.model import Fault

SILENT = "silent"
NOT_READY = "node-not-ready"

WEIGHT = {"info": 0, "advice": 1, "warning": 2, "critical": 3, "fatal": 4}

APPLICATION_RULES = frozenset(f"xid-{code}" for code in (8, 11, 13, 31, 32, 43, 45, 68, 69))
"""XIDs that a program causes (facts/gpu-health.md, application class)."""

INTERRUPTED = "job-interrupted"
"""Told until ten minutes after the last rank ended, also when the job is back by then."""

HANG = "collective-hang"
JOB_RULES = frozenset({INTERRUPTED, HANG, "straggler"})
ABSENCE_RULES = frozenset({SILENT, NOT_READY})

PLANNED_RULES = ABSENCE_RULES | {"gpu-count", "nvml-silent"}
"""What a planned absence explains; hardware that fails meanwhile is a fault all the same."""

DERIVED_RULES = frozenset(
    {"gpu-count", "xid-154", "recovery-reset", "recovery-reboot", "recovery-software"}
)
"""Signs that say what another fault made necessary, so they are the first failure only where nothing else is."""

FAMILIES: dict[str, frozenset[str]] = {
    "link": frozenset({"infiniband-port-down", "infiniband-port-flaps"}),
    "cooling": frozenset(
        {
            "temperature-margin-low",
            "temperature-margin-gone",
            "slowdown-thermal",
            "slowdown-software-thermal",
            "sxid-10004",
        }
    ),
    "power": frozenset({"power-brake", "xid-54", *ABSENCE_RULES}),
    "silence": ABSENCE_RULES,
}
"""Troubles that a shared leaf switch, rack, power or block can cause on many nodes at once. NVLink and its
switches are inside a node and so have no family. Our judgement."""

SAME_FAILURE = timedelta(seconds=120)
"""Signs of one failure come within so long of each other: kubelets and agents are missed after 40-50 s,
kernel logs are read late. Our judgement."""

FaultClass = Literal["hardware", "absence", "application", "job", "warning", "other"]


def class_of(fault: Fault) -> FaultClass:
    """hardware and absence make a node's incident, application and job a job's; a warning makes none alone."""
    if fault.rule in JOB_RULES:
        return "job"
    if fault.rule in ABSENCE_RULES:
        return "absence"
    if fault.rule in APPLICATION_RULES and not is_grave(fault):
        return "application"
    if is_grave(fault):
        return "hardware"
    if fault.severity == "warning" and fault.changes_health:
        return "warning"
    return "other"


def is_grave(fault: Fault) -> bool:
    """Whether its severity is critical or fatal."""
    return WEIGHT.get(fault.severity, 0) >= WEIGHT["critical"]


def is_event(rule: str) -> bool:
    """Whether it tells of something that happened once, which a person may close; else of what still is."""
    return rule.startswith(("xid-", "sxid-"))


def families_of(fault: Fault) -> tuple[str, ...]:
    """The families it belongs to, none for most."""
    if class_of(fault) not in ("hardware", "absence", "warning"):
        return ()
    return tuple(name for name, rules in FAMILIES.items() if fault.rule in rules)


def rank_of_cause(fault: Fault) -> int:
    """How likely its like is a cause rather than a sign: 0 most."""
    kind = class_of(fault)
    if kind == "hardware":
        return 1 if fault.rule in DERIVED_RULES else 0
    return {"absence": 2, "warning": 3, "job": 4, "application": 5, "other": 6}[kind]


def order_by_cause(faults: Iterable[Fault]) -> list[Fault]:
    """The faults with the first failure first and the others by time.

    A failure of hardware comes before an absence or a derived sign that began up to 120 s earlier; among
    its like the earlier, then the graver, comes first.
    """
    ordered = sorted(faults, key=_by_time)
    if not ordered:
        return []
    limit: datetime = ordered[0].opened_at + SAME_FAILURE
    early = [fault for fault in ordered if fault.opened_at <= limit]
    first = min(early, key=lambda fault: (rank_of_cause(fault), *_by_time(fault)))
    return [first, *(fault for fault in ordered if fault is not first)]


def worst_of(faults: Iterable[Fault]) -> Fault:
    """The gravest fault, of equals the one that is named first."""
    return max(faults, key=lambda fault: WEIGHT.get(fault.severity, 0))


def _by_time(fault: Fault) -> tuple[datetime, int, str]:
    return (fault.opened_at, -WEIGHT.get(fault.severity, 0), fault.episode)
