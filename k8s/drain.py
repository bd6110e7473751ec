"""Which pods of a node a drain takes, which it may not, and why. Pure.

The filters are kubectl drain's, in its order, with the differences of facts/drain-and-reschedule.md:
every warning is kept, a Memory emptyDir only warns, owners are checked to exist, the arithmetic of
budgets is done beforehand. The writes are in k8s.nodes and k8s.eviction, offered here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from k8s.budgets import BudgetObstacle as BudgetObstacle
from k8s.budgets import budget_obstacles as budget_obstacles
from k8s.eviction import EvictionAnswer as EvictionAnswer
from k8s.eviction import evict as evict
from k8s.nodes import CordonResult as CordonResult
from k8s.nodes import annotate_node as annotate_node
from k8s.nodes import cordon as cordon
from k8s.nodes import uncordon as uncordon
from k8s.objects import (
    Pod,
    controller_of,
    is_mirror,
    is_terminal,
    is_terminating,
)
from k8s.selectors import tolerates_cordon
from k8s.view import ClusterView
from k8s.workloads.pod import has_vanished, left_alone

Action = Literal["evict", "skip", "block", "gone"]


@dataclass(frozen=True)
class DrainOptions:
    """What the person who drains allows.

    force: take pods that nothing recreates. delete_emptydir_data: take pods with data on the node's disk.
    ignore_daemonsets: leave DaemonSet pods (they would come back at once). There is no switch to delete
    instead of evicting: that would pass budgets by.
    """

    force: bool = False
    delete_emptydir_data: bool = False
    ignore_daemonsets: bool = True


@dataclass(frozen=True)
class PodVerdict:
    """What a drain does with one pod.

    action: "evict"; "skip" (stays: DaemonSet, mirror); "block" (may not go, see reasons);
    "gone" (its deletion has been accepted already: only to be waited for).
    """

    pod: Pod
    action: Action
    warnings: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Finding:
    action: Action | None = None
    warning: str = ""
    reason: str = ""


_Filter = Callable[[Pod, ClusterView, DrainOptions, datetime], "_Finding | None"]


def _deleted(pod: Pod, _: ClusterView, __: DrainOptions, now: datetime) -> _Finding | None:
    if not is_terminating(pod.metadata):
        return None
    # deletionTimestamp is the moment by which the grace has passed, not when it was asked for.
    ends_at = pod.metadata.deletion_timestamp
    late_seconds = (now - ends_at).total_seconds() if ends_at else 0.0
    late = f", {late_seconds:.0f} s past its grace" if late_seconds > 0 else ""
    return _Finding("gone", warning=f"is terminating already{late}")


def _daemonset(pod: Pod, view: ClusterView, options: DrainOptions, __: datetime) -> _Finding | None:
    owner = controller_of(pod.metadata)
    if owner is None or owner.kind != "DaemonSet" or owner.group != "apps":
        return None
    if is_terminal(pod):
        return _Finding("evict")
    if has_vanished(owner, view):
        # Nothing would make it again, and nothing looks after it: kubectl takes it with --force.
        why = f"is left over from DaemonSet {owner.name}, which exists no more"
        if options.force:
            return _Finding("evict", warning=why)
        return _Finding("block", reason=f"{why}; take it with --force")
    if options.ignore_daemonsets:
        return _Finding("skip", warning=f"belongs to DaemonSet {owner.name} and stays")
    return _Finding(
        "block", reason=f"belongs to DaemonSet {owner.name}, which would make it again at once"
    )


def _mirror(pod: Pod, _: ClusterView, __: DrainOptions, ___: datetime) -> _Finding | None:
    return _Finding("skip") if is_mirror(pod) else None


def _empty_dir(pod: Pod, _: ClusterView, options: DrainOptions, __: datetime) -> _Finding | None:
    if is_terminal(pod):
        return None
    volumes = [volume for volume in pod.spec.volumes if volume.empty_dir is not None]
    on_disk = [
        volume.name
        for volume in volumes
        if volume.empty_dir is not None and volume.empty_dir.medium != "Memory"
    ]
    if on_disk and not options.delete_emptydir_data:
        return _Finding(
            "block",
            reason=f"keeps data on the node's disk (emptyDir {', '.join(on_disk)}); "
            "allow it with --delete-emptydir-data",
        )
    if volumes:
        names = ", ".join(volume.name for volume in volumes)
        return _Finding(warning=f"loses its emptyDir {names}")
    return None


def _unmanaged(pod: Pod, view: ClusterView, options: DrainOptions, _: datetime) -> _Finding | None:
    missing = left_alone(pod, view)
    if missing is None:
        return None
    if is_terminal(pod) or options.force:
        return _Finding(warning=missing)
    return _Finding("block", reason=f"{missing}; take it with --force")


def _comes_back(pod: Pod, _: ClusterView, __: DrainOptions, ___: datetime) -> _Finding | None:
    if tolerates_cordon(pod.spec.tolerations):
        return _Finding(warning="tolerates a cordon: its replacement may land on the same node")
    return None


def _outlasts(pod: Pod, _: ClusterView, __: DrainOptions, ___: datetime) -> _Finding | None:
    grace_seconds = pod.spec.termination_grace_period_seconds
    if grace_seconds is not None and grace_seconds > LONG_GRACE_SECONDS and not is_terminal(pod):
        return _Finding(warning=f"has up to {grace_seconds} s to end")
    return None


# Longer than this, the wait is worth telling before it begins. Kubernetes' default grace is 30 s.
LONG_GRACE_SECONDS = 120

# kubectl's order. The first that decides to skip or that the pod is gone ends it; the others add up.
FILTERS: tuple[_Filter, ...] = (
    _deleted,
    _daemonset,
    _mirror,
    _empty_dir,
    _unmanaged,
    _comes_back,
    _outlasts,
)


def judge_pod(pod: Pod, *, view: ClusterView, options: DrainOptions, now: datetime) -> PodVerdict:
    """What a drain does with this pod, with every warning and every reason against it."""
    warnings: list[str] = []
    reasons: list[str] = []
    for decide in FILTERS:
        finding = decide(pod, view, options, now)
        if finding is None:
            continue
        if finding.warning:
            warnings.append(finding.warning)
        if finding.reason:
            reasons.append(finding.reason)
        if finding.action in ("skip", "gone") or (finding.action == "evict" and not reasons):
            return PodVerdict(pod, finding.action, tuple(warnings))
    return PodVerdict(pod, "block" if reasons else "evict", tuple(warnings), tuple(reasons))


def judge_pods(
    pods: Iterable[Pod], *, view: ClusterView, options: DrainOptions, now: datetime
) -> list[PodVerdict]:
    """What a drain does with each of the pods, in their order."""
    return [judge_pod(pod, view=view, options=options, now=now) for pod in pods]


def evictable(verdicts: Sequence[PodVerdict]) -> list[Pod]:
    """The pods that a drain evicts; the node is Drained when there are none, none blocked and none gone."""
    return [verdict.pod for verdict in verdicts if verdict.action == "evict"]
