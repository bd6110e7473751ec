"""The state of a node apart from its health: a table of states and signs, and what is remembered. Pure.

At each look a node shows one sign: what an open operation, its cordon, Pitwall's annotation, a person's
word and its health say together. TRANSITIONS gives the next state. Who was Drained or Under repair owes
a probation, whoever uncordons it and whatever comes between (another cordon, a drain that is cancelled):
only time without a finding, or a person, ends that. A node that was merely cordoned owes none.

The store keeps state, debt and clock, so a worker that starts goes on where the last one stopped; a node
object made anew under an old name (another UID) starts anew.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from k8s.nodes import NodeHold, read_hold
from k8s.objects import Node

IN_SERVICE = "In service"
CORDONED = "Cordoned"
DRAINING = "Draining"
DRAINED = "Drained"
UNDER_REPAIR = "Under repair"
PROBATION = "Probation"
STATES = (IN_SERVICE, CORDONED, DRAINING, DRAINED, UNDER_REPAIR, PROBATION)


class Sign(StrEnum):
    """What a node shows at a look."""

    CLEAR = "schedulable, and owes no probation any more"
    OWING = "schedulable, and owes a probation"
    CORDONED = "cordoned, and nothing says that it was drained"
    KEPT = "cordoned, without a word of whose, and no pod has GPUs on it"
    DRAINING = "an open drain has not emptied it yet"
    DRAINED = "cordoned, and the drain that holds it has emptied it"
    REPAIR = "cordoned, and a person has sent it to repair"


TRANSITIONS: Mapping[str, Mapping[Sign, str]] = {
    IN_SERVICE: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        Sign.KEPT: CORDONED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
    CORDONED: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        Sign.KEPT: CORDONED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
    DRAINING: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        Sign.KEPT: CORDONED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
    DRAINED: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        # Our annotation is lost, and yet nobody has used it: it is as empty as we left it.
        Sign.KEPT: DRAINED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
    UNDER_REPAIR: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        Sign.KEPT: CORDONED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
    PROBATION: {
        Sign.CLEAR: IN_SERVICE,
        Sign.OWING: PROBATION,
        Sign.CORDONED: CORDONED,
        Sign.KEPT: CORDONED,
        Sign.DRAINING: DRAINING,
        Sign.DRAINED: DRAINED,
        Sign.REPAIR: UNDER_REPAIR,
    },
}


class Holding(msgspec.Struct, frozen=True):
    """What an operation says of one of its nodes. state: as in the operation's nodes_state."""

    operation_id: str
    kind: str
    state: str
    open: bool


class Repair(msgspec.Struct, frozen=True):
    """A person's word that the node is under repair, and why."""

    by: str
    note: str = ""


class Service(msgspec.Struct, frozen=True):
    """A node's service state, why, and the operation that holds it; then what must be remembered.

    owes_probation: it was Drained or Under repair, and no probation has ended since. clean_since: on
    Probation, since when it has been heard with nothing found; None while the clock stands.
    """

    state: str = IN_SERVICE
    reason: str = ""
    operation_id: str | None = None
    owes_probation: bool = False
    clean_since: datetime | None = None


class Seen(msgspec.Struct, frozen=True):
    """What a look at a node finds.

    open_holding: of an open operation; ended_holding: of the ended one that its annotation names.
    health, health_since: as stored. heard: it has reported lately. gpu_pods: a pod that has not ended
    has GPUs on it.
    """

    node: Node
    open_holding: Holding | None = None
    ended_holding: Holding | None = None
    repair: Repair | None = None
    health: str = "Unknown"
    health_reason: str = ""
    health_since: datetime | None = None
    heard: bool = False
    gpu_pods: bool = False


def next_service(
    before: Service | None, seen: Seen, *, now: datetime, probation_seconds: float
) -> Service:
    """The state that follows one; before: None for a node that is not known, or is another one now."""
    known = before or Service()
    hold = read_hold(seen.node.metadata)
    owes = known.owes_probation or known.state in (DRAINED, UNDER_REPAIR)
    clean_since = None
    sign = _sign(seen, hold)
    if sign in (Sign.DRAINED, Sign.REPAIR):
        owes = True
    elif sign is Sign.CLEAR and owes:
        clean_since = _clean_since(known, seen, now)
        if not _is_over(clean_since, now, probation_seconds):
            sign = Sign.OWING
    if sign is Sign.CLEAR:
        owes, clean_since = False, None
    state = TRANSITIONS[known.state][sign]
    owes = owes or state == DRAINED
    return Service(
        state,
        _reason(state, seen, hold, clean_since, probation_seconds),
        seen.open_holding.operation_id if seen.open_holding else None,
        owes,
        clean_since,
    )


def probation_ends_at(service: Service, probation_seconds: float) -> datetime | None:
    """When a node's probation ends if nothing is found; None when it is on none, or its clock stands."""
    if service.state != PROBATION or service.clean_since is None:
        return None
    return service.clean_since + timedelta(seconds=probation_seconds)


def _sign(seen: Seen, hold: NodeHold | None) -> Sign:
    """The sign, as far as no probation is concerned."""
    cordoned, holding = seen.node.spec.unschedulable, seen.open_holding
    # A drain that gives the node back says so before it ends: then the cordon alone counts.
    if holding is not None and holding.kind == "drain" and holding.state != "Given back":
        if holding.state not in ("Drained", "Cordoned"):
            return Sign.DRAINING
        if holding.state == "Drained" and cordoned:
            return Sign.REPAIR if seen.repair else Sign.DRAINED
    if not cordoned:
        return Sign.CLEAR
    if seen.repair is not None:
        return Sign.REPAIR
    ended = seen.ended_holding
    if hold is None:
        return Sign.CORDONED if seen.gpu_pods else Sign.KEPT
    if ended is not None and ended.kind == "drain" and ended.state == "Drained":
        return Sign.DRAINED
    return Sign.CORDONED


def _clean_since(known: Service, seen: Seen, now: datetime) -> datetime | None:
    """Since when the node has been schedulable, heard, and Healthy; a finding starts the clock again."""
    if seen.health != "Healthy" or not seen.heard:
        return None
    since = known.clean_since if known.state == PROBATION and known.clean_since else now
    # A finding that came and went between two looks is known by the time of the last change; an agent
    # whose clock is ahead can't put the end off for longer than from now on.
    changed = min(seen.health_since, now) if seen.health_since else since
    return max(since, changed)


def _is_over(clean_since: datetime | None, now: datetime, probation_seconds: float) -> bool:
    if probation_seconds <= 0:
        return True
    return clean_since is not None and now - clean_since >= timedelta(seconds=probation_seconds)


def _reason(
    state: str,
    seen: Seen,
    hold: NodeHold | None,
    clean_since: datetime | None,
    probation_seconds: float,
) -> str:
    if state == PROBATION:
        return _probation_reason(seen, clean_since, probation_seconds)
    if state == UNDER_REPAIR and seen.repair is not None:
        note = f": {seen.repair.note}" if seen.repair.note else ""
        return f"sent to repair by {seen.repair.by}{note}"
    if seen.open_holding is not None:
        return f"operation {seen.open_holding.operation_id}"
    if state == DRAINED:
        return (
            f"drained by operation {hold.operation}"
            if hold
            else "drained, but its annotation is gone"
        )
    if state == CORDONED:
        return (
            f"left cordoned by operation {hold.operation}" if hold else "cordoned outside Pitwall"
        )
    return ""


def _probation_reason(seen: Seen, clean_since: datetime | None, probation_seconds: float) -> str:
    """The moment it ends rather than what is left: the text stays as it is while time goes by."""
    whole = duration_text(probation_seconds)
    if clean_since is not None:
        end = clean_since + timedelta(seconds=probation_seconds)
        return f"no spare until {end:%Y-%m-%d %H:%M:%S} UTC, {whole} with nothing found"
    if seen.health == "Healthy":
        return f"no spare: it has not been heard lately; the {whole} begin when it is"
    why = f" ({seen.health_reason})" if seen.health_reason else ""
    return f"no spare: it is {seen.health}{why}; the {whole} begin when that is over"


def duration_text(seconds: float) -> str:
    """A length of time in words: 90 min, 2 h, 45 s."""
    whole = round(seconds)
    for unit, size in (("h", 3600), ("min", 60)):
        if whole >= size and whole % size == 0:
            return f"{whole // size} {unit}"
    return f"{whole} s" if whole < 600 else f"{whole / 60:.0f} min"
