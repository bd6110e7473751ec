"""Absences that are meant: a driver upgrade, a shutdown, a reboot, a node being added or repaired. Pure.

A planned reason is known before a node falls silent, since it is what the API said at that time: a node
that failed first and was cordoned, upgraded or marked for removal afterwards is not away on purpose. Each
reason holds for so long and no longer; what then goes on is a fault like any other. None of it says
anything about hardware: findings stand whatever is planned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from k8s.nodes import read_hold
from k8s.objects import Node, condition, is_ready

UPGRADE_STATE_LABEL = "nvidia.com/gpu-driver-upgrade-state"
# As NVIDIA's k8s-operator-libs names them (pkg/upgrade): not begun, done, or gone wrong. Every other
# state, from cordon-required to uncordon-required, is an upgrade under way.
UPGRADE_AT_REST = frozenset({"", "upgrade-required", "upgrade-done", "upgrade-failed"})
# The message of the Ready condition that a kubelet writes when its host shuts down gracefully.
SHUTTING_DOWN_MESSAGE = "node is shutting down"
# Cluster-autoscaler; Karpenter 1.x, and before that.
REMOVAL_TAINTS = (
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
)
# Put on by the cloud's node controller when the machine is switched off.
PROVIDER_SHUTDOWN_TAINT = "node.cloudprovider.kubernetes.io/shutdown"

PLANNED_LIMIT = timedelta(minutes=60)
"""Our judgement: a reboot with its firmware's memory tests takes 20 minutes at most, a shutdown less."""

UPGRADE_LIMIT = timedelta(hours=4)
"""Our judgement: an upgrade may wait for jobs first; the driver itself takes minutes."""

REPAIR_LIMIT = timedelta(days=14)
"""Our judgement: parts are waited for; after two weeks somebody should look at it again."""

ADDED_LIMIT = timedelta(minutes=15)
"""Our judgement: from the node object's creation to the first report (drivers are built on the way)."""

REBOOT_LIMIT = timedelta(minutes=10)
"""Our judgement: from a new boot id to the first report of an agent that waits for the driver."""

LATE_MARGIN = timedelta(seconds=60)
"""A reason that is seen so shortly after the last sign of life came first: reports are 15 s apart, and
leases lag."""


@dataclass(frozen=True)
class Absence:
    """What is kept of it: the reason ("kind: detail"), since when, and what was to be over by now.

    reason: None while nothing is planned, also when it has gone on for too long; since is kept then, so
    that the same reason does not begin anew. overdue: one sentence, "" when nothing is. ends_at: when it
    will have gone on for too long, None while nothing runs. kind: of the reason that holds, "" where it
    is not known, as after a restart without one.
    """

    reason: str | None = None
    since: datetime | None = None
    overdue: str = ""
    ends_at: datetime | None = None
    kind: str = ""


@dataclass(frozen=True)
class AbsenceFacts:
    """What is known of a node at a look.

    gpu_pods: pods that have not ended with GPUs on it. silent_since: its last report, when that is too
    long ago; None while it is heard, or never was. reported: this node object has been heard once.
    booted_at: when its boot id was seen to change while it was cordoned or shutting down. repair_by: who
    sent it to repair. before: what was kept at the last look.
    """

    node: Node
    gpu_pods: int = 0
    silent_since: datetime | None = None
    reported: bool = True
    booted_at: datetime | None = None
    repair_by: str | None = None
    before: Absence = Absence()


@dataclass(frozen=True)
class Reason:
    """A kind of planned absence.

    counts_absence: the limit runs from the last sign of life, not from the reason's begin. after_silence:
    the reason comes with the absence or after it, so it need not be known before.
    """

    kind: str
    limit: timedelta
    detail: Callable[[AbsenceFacts, datetime], str | None]
    counts_absence: bool = False
    after_silence: bool = False


def planned_reason(facts: AbsenceFacts, now: datetime) -> str | None:
    """Why the node's absence, now or if it fell silent, is no fault; None where it would be one."""
    return judge_absence(facts, now).reason


def judge_absence(facts: AbsenceFacts, now: datetime) -> Absence:
    """The planned absence as of now, to be kept until the next look.

    The first reason that holds counts, also when its time is over: a later one does not prolong it.
    """
    for reason in REASONS:
        detail = reason.detail(facts, now)
        if detail is not None:
            return _held(reason, f"{reason.kind}: {detail}", facts, now)
    return Absence()


def may_be_planned(node: Node) -> bool:
    """Whether the node object names a reason that must have come before the silence: cheap, for every node."""
    if node.spec.unschedulable or node.metadata.deletion_timestamp is not None:
        return True
    if node.metadata.labels.get(UPGRADE_STATE_LABEL, "") not in UPGRADE_AT_REST:
        return True
    return any(taint.key in REMOVAL_TAINTS for taint in node.spec.taints)


def kept_absence(reason: str | None, since: datetime | None) -> Absence:
    """What was kept, as the store has it."""
    return Absence(reason, since, kind=reason.partition(":")[0] if reason else "")


def absent_since(facts: AbsenceFacts) -> datetime | None:
    """The last sign of life of a node that is silent or not Ready, as far as it is known."""
    ready = condition(facts.node.status.conditions, "Ready")
    left = None if is_ready(facts.node) or ready is None else ready.last_transition_time
    return min((at for at in (facts.silent_since, left) if at is not None), default=None)


def _held(reason: Reason, text: str, facts: AbsenceFacts, now: datetime) -> Absence:
    since = _begin(reason, facts, now)
    absent = absent_since(facts)
    late = not reason.after_silence and absent is not None and since > absent + LATE_MARGIN
    if late:
        return Absence(None, since, kind=reason.kind)
    if reason.counts_absence:
        if absent is None:
            return Absence(text, since, kind=reason.kind)
        ends_at = max(since, absent) + reason.limit
    else:
        ends_at = since + reason.limit
    if now < ends_at:
        return Absence(text, since, ends_at=ends_at, kind=reason.kind)
    overdue = f"{text} was to be over by {ends_at:%Y-%m-%d %H:%M} UTC"
    return Absence(None, since, overdue, kind=reason.kind)


def _begin(reason: Reason, facts: AbsenceFacts, now: datetime) -> datetime:
    if reason.kind == BEING_ADDED:
        return facts.node.metadata.creation_timestamp or now
    if reason.kind == REBOOTING:
        return facts.booted_at or now
    kept = facts.before
    same = kept.kind in ("", reason.kind)
    return kept.since if same and kept.since is not None else now


def _under_repair(facts: AbsenceFacts, now: datetime) -> str | None:
    return f"by {facts.repair_by}" if facts.repair_by else None


def _upgrade(facts: AbsenceFacts, now: datetime) -> str | None:
    state = facts.node.metadata.labels.get(UPGRADE_STATE_LABEL, "")
    return None if state in UPGRADE_AT_REST else state


def _shutting_down(facts: AbsenceFacts, now: datetime) -> str | None:
    node = facts.node
    if is_ready(node) or facts.booted_at is not None:  # it is up again: the reboot's reason goes on
        return None
    if any(taint.key == PROVIDER_SHUTDOWN_TAINT for taint in node.spec.taints):
        return "its provider says that it is switched off"
    ready = condition(node.status.conditions, "Ready")
    said = f"{ready.reason} {ready.message}" if ready is not None else ""
    # Once the kubelet is gone the control plane writes over what it said: it is remembered.
    if SHUTTING_DOWN_MESSAGE in said or facts.before.kind == SHUTTING_DOWN:
        return "its kubelet said that the node shuts down"
    return None


def _being_removed(facts: AbsenceFacts, now: datetime) -> str | None:
    if facts.node.metadata.deletion_timestamp is not None:
        return "its node object is being deleted"
    taints = {taint.key for taint in facts.node.spec.taints}
    return next((key for key in REMOVAL_TAINTS if key in taints), None)


def _rebooting(facts: AbsenceFacts, now: datetime) -> str | None:
    at = facts.booted_at
    return f"booted at {at:%H:%M:%S} UTC" if at is not None and now - at < REBOOT_LIMIT else None


def _being_added(facts: AbsenceFacts, now: datetime) -> str | None:
    created = facts.node.metadata.creation_timestamp
    if facts.reported or created is None or not now - created < ADDED_LIMIT:
        return None
    return f"created at {created:%H:%M:%S} UTC, not heard yet"


def _cordoned_and_empty(facts: AbsenceFacts, now: datetime) -> str | None:
    if not facts.node.spec.unschedulable or facts.gpu_pods:
        return None
    hold = read_hold(facts.node.metadata)
    return f"by operation {hold.operation}" if hold else "cordoned outside Pitwall"


SHUTTING_DOWN = "shutting down"
REBOOTING = "rebooting"
BEING_ADDED = "being added"

REASONS = (
    Reason("under repair", REPAIR_LIMIT, _under_repair, counts_absence=True),
    Reason("driver upgrade", UPGRADE_LIMIT, _upgrade),
    Reason(SHUTTING_DOWN, PLANNED_LIMIT, _shutting_down, after_silence=True),
    Reason("being removed", PLANNED_LIMIT, _being_removed),
    Reason(REBOOTING, REBOOT_LIMIT, _rebooting, after_silence=True),
    Reason(BEING_ADDED, ADDED_LIMIT, _being_added, after_silence=True),
    Reason("cordoned and empty", PLANNED_LIMIT, _cordoned_and_empty, counts_absence=True),
)
"""In the order in which they count."""
