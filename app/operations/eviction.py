"""Pods that move alone: evicted with a cap, awaited by UID, never a second time. Pure."""

import msgspec

from app.operations.draft import RELEASE_MARGIN_SECONDS, Draft
from app.operations.gang import force_deletes, power_off_offer, wait_offer
from app.operations.model import (
    EVICT,
    FORCE_DELETE,
    GIVE_BACK,
    MovedPod,
    Observed,
    Offer,
    Step,
    Unit,
)
from app.operations.survey import Surveyed, is_dead, retried_at
from k8s.objects import is_pod_ready, is_terminal
from k8s.view import ClusterView

EVICTIONS_AT_ONCE = 16
"""Most evictions of one operation in flight; the API server's default concurrency shares are hundreds."""


def move_pods(draft: Draft, pods: list[Surveyed], *, observed: Observed) -> None:
    """The next thing to do about pods that are evicted one by one, added to the draft."""
    view = observed.view
    begun = 0
    for found in pods:
        if found.pod.metadata.deletion_timestamp is not None:
            _await_gone(draft, found, view=view)
        elif draft.operation.done(EVICT, found.uid):
            draft.wait(f"Waiting to see {found.name} go.")
        elif begun >= EVICTIONS_AT_ONCE:
            draft.wait(f"{len(pods)} pods are evicted {EVICTIONS_AT_ONCE} at a time.")
        else:
            before = len(draft.steps)
            _remember(draft, found, view=view)
            draft.take(
                Step(
                    EVICT,
                    f"Pod/{found.name}",
                    found.uid,
                    f"Evicting {found.name} from {found.node}.",
                    node=found.node,
                )
            )
            begun += len(draft.steps) - before


def settle_claims(draft: Draft, *, view: ClusterView) -> None:
    """Takes steps again whose answer was lost and whose pod is on its way out, or out, by now.

    They find that out themselves; without it their rows would stay claimed and the audit incomplete.
    """
    for row in draft.operation.steps.values():
        if row.name not in (EVICT, FORCE_DELETE) or row.state not in ("claimed", "waiting"):
            continue
        pod = view.pods.get(row.uid)
        if pod is None or (row.name == EVICT and pod.metadata.deletion_timestamp is not None):
            node = pod.spec.node_name if pod is not None else ""
            draft.take(Step(row.name, row.target, row.uid, row.message, node=node))


def block_pods(draft: Draft, pods: list[Surveyed]) -> None:
    """Pods that stand in the way and are not touched without a person's word."""
    for found in pods:
        why = "; ".join((*found.reasons, *found.warnings)) or "it is not known how"
        draft.block(
            f"{found.name} on {found.node} is not moved: {why}.",
            Offer("retry", "Look again", "Nothing is changed."),
            Offer(
                GIVE_BACK,
                "Stop here and uncordon",
                "What has been moved stays moved; what was cordoned before stays cordoned.",
            ),
        )


def _await_gone(draft: Draft, found: Surveyed, *, view: ClusterView) -> None:
    force_deletes(draft, [found.pod], view=view)
    deleted_at = found.pod.metadata.deletion_timestamp
    assert deleted_at is not None
    # deletionTimestamp is when the grace ends, not when the deletion was asked for.
    again = retried_at(draft.memory)
    since = max(deleted_at, again) if again is not None else deleted_at
    late_by_seconds = (draft.now - since).total_seconds()
    if late_by_seconds < RELEASE_MARGIN_SECONDS:
        draft.wait(f"Waiting for {found.name} to stop.")
        return
    offers = [wait_offer()]
    if is_dead(found.node, view):
        offers.insert(0, power_off_offer(found.node))
        why = f"{found.node} does not answer"
    else:
        held_by = ", ".join(found.pod.metadata.finalizers)
        why = (
            f"finalizers: {held_by}" if held_by else f"{found.node} answers, so look at its kubelet"
        )
    draft.block(f"{found.name} should have stopped at {deleted_at:%H:%M:%S} UTC ({why}).", *offers)


def _remember(draft: Draft, found: Surveyed, *, view: ClusterView) -> None:
    """Its workload is followed until the pod is back; a finished pod has nothing to come back for."""
    workload = found.workload
    if workload is None or is_terminal(found.pod) or workload.restart_path == "none":
        return
    unit = draft.unit(workload.uid)
    if unit is None:
        unit = Unit(
            workload.namespace,
            workload.name,
            workload.kind,
            "evict",
            watched=workload.uid in view.workloads,
            ready_before=sum(1 for pod in view.pods_of(workload.uid) if is_pod_ready(pod)),
            generation_before=workload.generation,
        )
    moved = {**unit.moved, found.uid: MovedPod(found.pod.metadata.name, found.node, found.rank)}
    draft.remember_unit(workload.uid, msgspec.structs.replace(unit, moved=moved))
