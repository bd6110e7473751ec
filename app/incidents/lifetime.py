"""When an incident ends, comes back, and is a new one. Pure.

A level fault (what still is: a port down, a margin gone) that ended and comes back within ten minutes is the
same incident, one that flaps. What happened once more (an XID), on a node that booted anew, or of another
cause, is a new episode.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from app.incidents.classes import (
    HANG,
    INTERRUPTED,
    JOB_RULES,
    SAME_FAILURE,
    class_of,
    families_of,
    is_event,
    is_grave,
    order_by_cause,
)
from app.incidents.domains import family_of_rule
from app.incidents.model import DOMAIN_SCOPES, PIPELINE, Fault, Trouble

HYSTERESIS_SECONDS = 600.0
"""Source: judgement. gpud and DCGM look at windows of ten minutes; so long a fault counts as not gone yet."""

FLAPPING_RETURNS = 2
FLAPPING_WITHIN_SECONDS = 3600.0
"""Source: judgement. Two returns in an hour are a pattern, one is bad luck."""

QUIET_SECONDS = 600.0
"""Source: judgement. One that flaps is over when it has been quiet for as long as it may come back."""

Signature = tuple[str, str, str]
"""(rule, node, GPU UUID or ""): what makes two level faults the same."""

Fate = Literal["resolve", "wait"]


@dataclass(frozen=True)
class Before:
    """An incident whose faults ended, as far as a return depends on it. `boot_id`: of its first node then."""

    scope: str
    cause: str
    signatures: frozenset[Signature]
    ended_at: datetime
    node: str = ""
    boot_id: str | None = None


def signature_of(scope: str, fault: Fault) -> Signature:
    """What a fault is known by when it comes back: a job's and a domain's by its rule alone."""
    if scope in ("job", PIPELINE, *DOMAIN_SCOPES):
        return (fault.rule, "", "")
    return (fault.rule, fault.node, fault.gpu_uuid or "")


def is_return(before: Before, trouble: Trouble, boot_id: str | None) -> bool:
    """Whether a trouble is what had ended, come back. boot_id: of its first node now."""
    begin = min(fault.opened_at for fault in trouble.roots)
    if begin - before.ended_at > timedelta(seconds=HYSTERESIS_SECONDS):
        return False
    if any(is_event(fault.rule) for fault in trouble.roots):
        return False
    booted = before.boot_id is not None and boot_id is not None and before.boot_id != boot_id
    if booted and trouble.first.node == before.node:
        return False
    if before.scope == PIPELINE:
        return before.cause == trouble.cause
    if before.cause == HANG and trouble.cause == INTERRUPTED:
        # NCCL's watchdog ends the ranks of a job that hangs: the same trouble, not its like again.
        return before.scope == trouble.scope == "job" and begin - before.ended_at <= SAME_FAILURE
    signatures = {signature_of(trouble.scope, fault) for fault in trouble.roots}
    return signatures <= before.signatures


def is_flapping(returns: Collection[datetime], now: datetime) -> bool:
    """Whether these returns, the one of now among them, make a pattern."""
    since = now - timedelta(seconds=FLAPPING_WITHIN_SECONDS)
    return sum(1 for at in returns if at >= since) >= FLAPPING_RETURNS


def fate_of(*, ended_at: datetime | None, flapping: bool, held_open: bool, now: datetime) -> Fate:
    """What becomes of an incident whose faults are gone since `ended_at`, None for since now."""
    if held_open:
        return "wait"
    quiet = now - (ended_at or now)
    if flapping and quiet < timedelta(seconds=QUIET_SECONDS):
        return "wait"
    return "resolve"


def keeps_first(first: Mapping[str, Any], trouble: Trouble) -> bool:
    """Whether what was told to have failed first stands, now that this is open."""
    if not first.get("at") or first.get("episode") == trouble.first.episode:
        return False
    told = Fault(
        episode=str(first.get("episode") or ""),
        rule=str(first.get("rule") or ""),
        severity=str(first.get("severity") or "warning"),
        node=str(first.get("node") or ""),
        message="",
        action="",
        opened_at=datetime.fromisoformat(str(first["at"])),
    )
    if trouble.scope in (PIPELINE, *DOMAIN_SCOPES):
        return told.opened_at <= trouble.first.opened_at
    return order_by_cause([told, trouble.first])[0] is told


def holds_open(fault: Fault, *, scope: str, cause: str) -> bool:
    """Whether an incident cannot be resolved by a person while this fault is open: it still is so."""
    if is_event(fault.rule):
        return False
    if is_grave(fault) or fault.rule in JOB_RULES or class_of(fault) == "absence":
        return True
    family = family_of_rule(cause) if scope in DOMAIN_SCOPES else None
    return family is not None and family in families_of(fault)
