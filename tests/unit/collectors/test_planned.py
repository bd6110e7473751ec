"""Which absences are meant, for how long, and which come too late to excuse a fault."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from collectors.planned import (
    REBOOT_LIMIT,
    Absence,
    AbsenceFacts,
    judge_absence,
    kept_absence,
    planned_reason,
)
from k8s.objects import Node

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
HOLD = '{"operation": "op1", "was_unschedulable": false}'


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def node(
    *,
    labels: dict[str, str] | None = None,
    taints: tuple[str, ...] = (),
    cordoned: bool = False,
    hold: str = "",
    ready: str = "True",
    said: str = "",
    left_at: datetime | None = None,
    created_at: datetime | None = None,
    deleted: bool = False,
) -> Node:
    """A node object as the API gives it."""
    ready_condition: dict[str, Any] = {"type": "Ready", "status": ready, "message": said}
    if left_at is not None:
        ready_condition["lastTransitionTime"] = left_at.isoformat()
    metadata: dict[str, Any] = {"name": "a", "uid": "u", "labels": labels or {}}
    if hold:
        metadata["annotations"] = {"pitwall.dev/operation": hold}
    if created_at is not None:
        metadata["creationTimestamp"] = created_at.isoformat()
    if deleted:
        metadata["deletionTimestamp"] = NOW.isoformat()
    return msgspec.convert(
        {
            "metadata": metadata,
            "spec": {
                "unschedulable": cordoned,
                "taints": [{"key": key, "effect": "NoSchedule"} for key in taints],
            },
            "status": {"conditions": [ready_condition]},
        },
        Node,
    )


def upgrade(state: str) -> Node:
    return node(labels={"nvidia.com/gpu-driver-upgrade-state": state})


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (AbsenceFacts(node()), None),
        (AbsenceFacts(node(cordoned=True), gpu_pods=1), None),
        (AbsenceFacts(node(cordoned=True)), "cordoned and empty: cordoned outside Pitwall"),
        (AbsenceFacts(node(cordoned=True, hold=HOLD)), "cordoned and empty: by operation op1"),
        (AbsenceFacts(node(cordoned=True), repair_by="ada"), "under repair: by ada"),
        (AbsenceFacts(upgrade("")), None),
        (AbsenceFacts(upgrade("upgrade-required")), None),
        (AbsenceFacts(upgrade("upgrade-done")), None),
        (AbsenceFacts(upgrade("upgrade-failed")), None),
        (AbsenceFacts(upgrade("wait-for-jobs-required")), "driver upgrade: wait-for-jobs-required"),
        (AbsenceFacts(upgrade("pod-restart-required")), "driver upgrade: pod-restart-required"),
        (AbsenceFacts(upgrade("validation-required")), "driver upgrade: validation-required"),
        (
            AbsenceFacts(node(ready="False", said="node is shutting down", left_at=at(-1))),
            "shutting down: its kubelet said that the node shuts down",
        ),
        (AbsenceFacts(node(ready="False", said="PLEG is not healthy")), None),
        (
            AbsenceFacts(
                node(
                    ready="Unknown",
                    taints=("node.cloudprovider.kubernetes.io/shutdown",),
                    left_at=at(-30),
                )
            ),
            "shutting down: its provider says that it is switched off",
        ),
        (
            AbsenceFacts(node(taints=("ToBeDeletedByClusterAutoscaler",))),
            "being removed: ToBeDeletedByClusterAutoscaler",
        ),
        (
            AbsenceFacts(node(taints=("karpenter.sh/disrupted",))),
            "being removed: karpenter.sh/disrupted",
        ),
        (AbsenceFacts(node(deleted=True)), "being removed: its node object is being deleted"),
        (AbsenceFacts(node(taints=("DeletionCandidateOfClusterAutoscaler",))), None),
        (
            AbsenceFacts(node(created_at=at(-14)), reported=False),
            "being added: created at 11:46:00 UTC, not heard yet",
        ),
        (AbsenceFacts(node(created_at=at(-15)), reported=False), None),
        (AbsenceFacts(node(created_at=at(-1)), reported=True), None),
        (AbsenceFacts(node(), booted_at=at(-9)), "rebooting: booted at 11:51:00 UTC"),
        (AbsenceFacts(node(), booted_at=NOW - REBOOT_LIMIT), None),
    ],
)
def test_an_absence_is_planned_for_a_reason_and_for_no_other(
    facts: AbsenceFacts, reason: str | None
) -> None:
    assert planned_reason(facts, NOW) == reason


@pytest.mark.parametrize(
    ("made", "limit_minutes"),
    [
        (upgrade("drain-required"), 240),
        (node(taints=("karpenter.sh/disrupted",)), 60),
        (node(ready="False", said="node is shutting down", left_at=NOW), 60),
    ],
)
def test_a_planned_absence_that_goes_on_for_too_long_is_one_no_more_and_says_so(
    made: Node, limit_minutes: float
) -> None:
    begun = judge_absence(AbsenceFacts(made), NOW)
    late = at(limit_minutes)
    assert begun.ends_at == late
    kept = judge_absence(AbsenceFacts(made, before=begun), late - timedelta(seconds=1))
    assert kept.reason == begun.reason
    over = judge_absence(AbsenceFacts(made, before=kept), late)
    assert over.reason is None
    assert f"was to be over by {late:%Y-%m-%d %H:%M} UTC" in over.overdue
    again = judge_absence(AbsenceFacts(made, before=over), late + timedelta(hours=5))
    assert again.reason is None
    restarted = kept_absence(over.reason, over.since)
    assert judge_absence(AbsenceFacts(made, before=restarted), late).reason is None


def test_who_is_cordoned_for_days_and_is_then_switched_off_is_planned_for_an_hour_from_then() -> (
    None
):
    begun = judge_absence(AbsenceFacts(node(cordoned=True)), NOW)
    off = at(3 * 24 * 60)
    silent = AbsenceFacts(node(cordoned=True), silent_since=off, before=begun)
    assert judge_absence(silent, off + timedelta(minutes=59)).reason is not None
    assert judge_absence(silent, off + timedelta(minutes=60)).reason is None


@pytest.mark.parametrize(
    "made",
    [
        node(cordoned=True),
        upgrade("cordon-required"),
        node(taints=("ToBeDeletedByClusterAutoscaler",)),
    ],
)
def test_a_reason_that_comes_after_the_silence_excuses_nothing(made: Node) -> None:
    facts = AbsenceFacts(made, silent_since=at(-5), before=Absence())
    late = judge_absence(facts, NOW)
    assert late.reason is None
    still = AbsenceFacts(made, silent_since=at(-5), before=late)
    assert judge_absence(still, at(1)).reason is None
    back = AbsenceFacts(made, before=late)
    assert judge_absence(back, at(2)).reason is not None


def test_a_reason_that_comes_a_report_before_the_silence_is_in_time() -> None:
    facts = AbsenceFacts(node(cordoned=True), silent_since=NOW - timedelta(seconds=15))
    assert planned_reason(facts, NOW) is not None


def test_a_shutdown_is_remembered_when_the_control_plane_writes_over_what_the_kubelet_said() -> (
    None
):
    said = node(ready="False", said="[cni not ready, node is shutting down]", left_at=NOW)
    begun = judge_absence(AbsenceFacts(said), NOW)
    gone = node(ready="Unknown", said="Kubelet stopped posting node status.", left_at=at(1))
    kept = judge_absence(AbsenceFacts(gone, before=begun), at(1))
    assert kept.reason is not None
    assert kept.since == NOW
    restarted = kept_absence(kept.reason, kept.since)
    assert planned_reason(AbsenceFacts(gone, before=restarted), at(30)) is not None
    assert planned_reason(AbsenceFacts(node(), before=kept), at(5)) is None


def test_another_reason_has_its_own_time() -> None:
    begun = judge_absence(AbsenceFacts(node(cordoned=True)), NOW)
    upgrading = node(
        cordoned=True, labels={"nvidia.com/gpu-driver-upgrade-state": "drain-required"}
    )
    later = judge_absence(AbsenceFacts(upgrading, before=begun), at(600))
    assert (later.kind, later.since) == ("driver upgrade", at(600))


def test_an_upgrade_that_is_overdue_is_not_excused_by_its_own_cordon() -> None:
    stuck = node(cordoned=True, labels={"nvidia.com/gpu-driver-upgrade-state": "drain-required"})
    begun = judge_absence(AbsenceFacts(stuck), NOW)
    assert judge_absence(AbsenceFacts(stuck, before=begun), at(241)).reason is None
