"""The verdict on each workload that was moved. Pure.

Returned: every rank that was moved has another UID, is Running and Ready off the emptied nodes, and
is there once. A workload of unranked pods is Returned when as many of its pods as before are Running and
Ready off those nodes. That is what Kubernetes says; activity.py then looks at the GPUs.
"""

from collections.abc import Collection

from app.operations.model import (
    EVICT,
    FAILED,
    FINISHED,
    LEFT,
    REMOVED,
    RESTARTING,
    RESUME,
    RETURNED,
    SUSPEND,
    WAITING,
    WAITING_FOR_CAPACITY,
    Operation,
    Unit,
)
from k8s.objects import Pod, condition, is_pod_ready, is_terminal, is_terminating
from k8s.view import ClusterView
from k8s.workloads import rank_of
from k8s.workloads.kind import Workload

Verdict = tuple[str, str]


def judge_unit(uid: str, unit: Unit, *, operation: Operation, view: ClusterView) -> Verdict:
    """Verdict on a workload and one sentence for people."""
    workload = view.workloads.get(uid)
    if not unit.watched:
        if not all(operation.done(EVICT, pod) for pod in unit.moved):
            return WAITING, "Its pods are being evicted."
        pods = [pod for pod in view.pods_of(uid) if pod.metadata.uid not in unit.moved]
        return _returned_by_count(unit, pods, excluded=set(operation.nodes))
    if workload is None:
        return REMOVED, "It was removed."
    if workload.finished == "Failed":
        return FAILED, "It failed."
    if workload.finished:
        return FINISHED, "It finished."
    if unit.path == "suspend_resume":
        return _judge_gang(workload, unit, operation=operation, view=view)
    if not all(operation.done(EVICT, pod) for pod in unit.moved):
        return WAITING, "Its pods are being evicted."
    return _returned(workload, unit, operation=operation, view=view)


def _judge_gang(
    workload: Workload, unit: Unit, *, operation: Operation, view: ClusterView
) -> Verdict:
    resumed = operation.done(RESUME, workload.uid) or unit.resumed_by_others
    if not resumed and not operation.done(SUSPEND, workload.uid):
        there = [view.pods[uid] for uid in unit.moved if uid in view.pods]
        if not workload.suspended and any(not is_terminal(pod) for pod in there):
            return WAITING, "It is not suspended yet."
        if workload.suspended and workload.suspended_by:
            return (
                WAITING,
                f"Operation {workload.suspended_by} has suspended it and brings it back.",
            )
        if workload.suspended:
            return LEFT, "It was suspended by somebody else before, and is left so."
    elif not resumed:
        return WAITING, "It is being stopped."
    elif workload.suspended and workload.suspended_by not in (None, operation.id):
        # A second drain took another of its nodes: its ranks come back with that one's resume.
        return (
            RESTARTING,
            f"Operation {workload.suspended_by} has suspended it again and brings it back.",
        )
    elif workload.suspended and workload.suspended_by != operation.id:
        return LEFT, "It was suspended again by somebody else, and is left so."
    elif workload.suspended:
        return RESTARTING, "Waiting to see it resumed."
    return _returned(workload, unit, operation=operation, view=view)


def _returned(
    workload: Workload, unit: Unit, *, operation: Operation, view: ClusterView
) -> Verdict:
    excluded = set(operation.nodes)
    pods = [pod for pod in view.pods_of(workload.uid) if pod.metadata.uid not in unit.moved]
    ranks = {moved.rank for moved in unit.moved.values() if moved.rank is not None}
    if not ranks:
        return _returned_by_count(unit, pods, excluded=excluded, most=workload.wanted_pods)
    if operation.step(SUSPEND, workload.uid) is not None:
        ranks = ranks | set(range(workload.wanted_pods))
    by_rank: dict[int | None, list[Pod]] = {}
    for pod in pods:
        by_rank.setdefault(rank_of(pod, view), []).append(pod)
    missing = [rank for rank in sorted(ranks) if not _rank_is_back(by_rank.get(rank, []), excluded)]
    if not missing:
        return RETURNED, f"All {len(ranks)} ranks are Running and Ready elsewhere."
    waiting = [pod for rank in missing for pod in by_rank.get(rank, [])]
    said = f"{len(ranks) - len(missing)} of {len(ranks)} ranks are back"
    return _not_back(waiting, said)


def _rank_is_back(pods: list[Pod], excluded: Collection[str]) -> bool:
    if any(pod.status.phase == "Succeeded" for pod in pods):
        return True
    live = [pod for pod in pods if not is_terminal(pod) and not is_terminating(pod.metadata)]
    return len(live) == 1 and _runs_elsewhere(live[0], excluded)


def _runs_elsewhere(pod: Pod, excluded: Collection[str]) -> bool:
    return (
        pod.status.phase == "Running"
        and is_pod_ready(pod)
        and pod.spec.node_name not in excluded
        and not is_terminating(pod.metadata)
    )


def _returned_by_count(
    unit: Unit, pods: list[Pod], *, excluded: Collection[str], most: int | None = None
) -> Verdict:
    back = sum(1 for pod in pods if _runs_elsewhere(pod, excluded))
    wanted = max(unit.ready_before, len(unit.moved))
    if most is not None:
        wanted = min(wanted, most)  # some have completed since, or were too many
    if back >= wanted:
        return RETURNED, f"{back} pods are Running and Ready elsewhere."
    waiting = [pod for pod in pods if not _runs_elsewhere(pod, excluded)]
    return _not_back(waiting, f"{back} of {wanted} pods are back")


def _not_back(pods: list[Pod], said: str) -> Verdict:
    for pod in pods:
        scheduled = condition(pod.status.conditions, "PodScheduled")
        if scheduled is not None and scheduled.status == "False":
            why = scheduled.message or scheduled.reason
            return WAITING_FOR_CAPACITY, f"{said}; {pod.metadata.name} finds no node: {why}"
    return RESTARTING, f"{said}."
