"""A gang moves as one: suspend, wait until every rank has stopped, resume, once. Pure.

It is not suspended while one of its pods is on a node that does not answer: that pod would stay
Terminating, terminating=0 would never come, and the job would be suspended for ever. The node must
answer, or a person must confirm that it is off (facts/drain-and-reschedule.md).
"""

import msgspec

from app.operations.draft import Draft
from app.operations.model import (
    FORCE_DELETE,
    RESUME,
    SUSPEND,
    MovedPod,
    Observed,
    Offer,
    Step,
    Unit,
)
from app.operations.power_off import is_given_up
from app.operations.survey import (
    Surveyed,
    grace_seconds,
    is_dead,
    is_powered_off,
    live_pods,
    unsettled_nodes,
)
from k8s.objects import Pod, is_pod_ready
from k8s.view import ClusterView
from k8s.workloads.kind import Workload


def move_gang(
    draft: Draft, workload: Workload, pods: list[Surveyed], *, observed: Observed
) -> None:
    """The next thing to do about a gang that has pods on the nodes, added to the draft.

    pods: its pods on the nodes that must go, maybe none any more.
    """
    unit = _remember(draft, workload, pods, view=observed.view)
    if draft.operation.done(RESUME, workload.uid):
        _came_back(draft, workload, pods, view=observed.view)
    elif draft.operation.step(RESUME, workload.uid) is not None:
        take_resume(draft, workload)
    elif unit.resumed_by_others:
        _came_back(draft, workload, pods, view=observed.view)
    elif draft.operation.done(SUSPEND, workload.uid):
        _stop(draft, workload, unit, view=observed.view)
    elif workload.suspended and workload.suspended_by != draft.operation.id:
        _wait_for_others(draft, workload, unit, view=observed.view)
    elif workload.suspended_by == draft.operation.id and not workload.suspended:
        # The suspend has landed, whatever became of its answer, and somebody let it go on.
        _resumed_by_others(draft, workload, unit)
    elif draft.operation.step(SUSPEND, workload.uid) is not None:
        # Its answer is not known, or it was no: it finds out itself whether it has been done.
        draft.take(_suspend_step(workload))
    elif pods:
        # Without a pod on the nodes there is nothing to stop it for: it has moved by itself.
        _suspend(draft, workload, unit, view=observed.view)


def take_resume(draft: Draft, workload: Workload) -> None:
    """Un-suspends a workload that this operation suspended; when that failed, it may be left."""
    blocked = len(draft.blocks)
    draft.take(Step(RESUME, _target(workload), workload.uid, f"Resuming {_name(workload)}."))
    if len(draft.blocks) > blocked:
        draft.offers.append(leave_offer(workload.name))


def leave_offer(workload_name: str) -> Offer:
    """Stop here and leave a job of unclear ownership as it is."""
    return Offer(
        "leave",
        f"Stop here and leave {workload_name} as it is",
        "The operation ends as Failed; the job is not touched again.",
    )


def power_off_offer(node: str) -> Offer:
    """A person's word that a node which does not answer is off."""
    return Offer(
        "confirm_power_off",
        f"{node} is powered off: taint it out-of-service and delete its pods",
        f"If {node} still runs, its ranks run on beside their replacements and can damage checkpoints. "
        f"Type the node's name to confirm that it is off.",
        subject=node,
        confirmation=node,
    )


def wait_offer() -> Offer:
    """Wait once more."""
    return Offer("retry", "Wait again", "Nothing is changed; the deadline begins anew.")


def force_deletes(draft: Draft, pods: list[Pod], *, view: ClusterView) -> None:
    """Deletes of Terminating pods on nodes that a person confirmed to be off."""
    for pod in pods:
        meta = pod.metadata
        if meta.deletion_timestamp is None or draft.operation.done(FORCE_DELETE, meta.uid):
            continue
        if is_powered_off(pod.spec.node_name, draft.memory, view) and is_given_up(
            draft, pod.spec.node_name, view
        ):
            draft.take(
                Step(
                    FORCE_DELETE,
                    f"Pod/{meta.namespace}/{meta.name}",
                    meta.uid,
                    f"Deleting {meta.name} of {pod.spec.node_name}, which is confirmed off.",
                    node=pod.spec.node_name,
                )
            )


def _remember(draft: Draft, workload: Workload, pods: list[Surveyed], *, view: ClusterView) -> Unit:
    unit = draft.unit(workload.uid)
    if unit is None:
        ready = sum(1 for pod in view.pods_of(workload.uid) if is_pod_ready(pod))
        unit = Unit(
            workload.namespace,
            workload.name,
            workload.kind,
            "suspend_resume",
            ready_before=ready,
            generation_before=workload.generation,
        )
    if draft.operation.step(SUSPEND, workload.uid) is None:
        # Until the suspend is claimed; ranks that come later are replacements.
        moved = {
            found.uid: MovedPod(found.pod.metadata.name, found.node, found.rank) for found in pods
        }
        unit = msgspec.structs.replace(
            unit, moved={**unit.moved, **moved}, generation_before=workload.generation
        )
    draft.remember_unit(workload.uid, unit)
    return unit


def _suspend(draft: Draft, workload: Workload, unit: Unit, *, view: ClusterView) -> None:
    unsettled = unsettled_nodes(workload, draft.memory, view)
    if not unsettled:
        draft.take(_suspend_step(workload))
        return
    since = draft.waiting_since(f"release:{workload.uid}")
    deadline = draft.release_deadline(since, grace_seconds(live_pods(workload, view)))
    said = (
        f"{_name(workload)} has pods on {_listed(unsettled)}, which "
        f"{'does' if len(unsettled) == 1 else 'do'} not answer: it is not suspended before that is settled, "
        "else it would stay suspended for ever."
    )
    if draft.now < deadline:
        draft.wait(f"{said} Waiting for the node until {deadline:%H:%M:%S} UTC.", held=True)
    else:
        draft.block(said, *(power_off_offer(node) for node in unsettled), wait_offer())


def _stop(draft: Draft, workload: Workload, unit: Unit, *, view: ClusterView) -> None:
    """Between suspend and resume: wait for active=0 and terminating=0."""
    if not workload.suspended:
        if workload.generation <= unit.generation_before:
            draft.wait(f"Waiting to see {_name(workload)} suspended.")
            return
        _resumed_by_others(draft, workload, unit)
        return
    if workload.suspended_by != draft.operation.id:
        draft.block(
            f"{_name(workload)} is suspended, but its annotation no longer names this operation: somebody "
            "has changed it since, so it is not resumed from here.",
            leave_offer(workload.name),
        )
        return
    live = live_pods(workload, view)
    wanted = any(
        choice.name == "resume" and choice.subject == workload.uid
        for choice in draft.memory.choices
    )
    if wanted or (workload.active == 0 and workload.terminating == 0 and not live):
        take_resume(draft, workload)
        return
    force_deletes(draft, live, view=view)
    if unit.stopped_since is None:
        unit = msgspec.structs.replace(unit, stopped_since=draft.now)
        draft.remember_unit(workload.uid, unit)
    since = draft.waiting_since(f"stop:{workload.uid}")
    deadline = draft.release_deadline(since, grace_seconds(live))
    said = f"{_name(workload)} is suspended; {max(len(live), workload.active + workload.terminating)} of its pods have not stopped"
    if draft.now < deadline:
        draft.wait(f"{said}; waiting until {deadline:%H:%M:%S} UTC.")
        return
    where = sorted({pod.spec.node_name for pod in live if pod.spec.node_name})
    dead = [
        node
        for node in where
        if is_dead(node, view) and not is_powered_off(node, draft.memory, view)
    ]
    draft.block(
        f"{said} within their grace (on {_listed(where) or 'no node'}).",
        Offer(
            "resume",
            f"Resume {workload.name} now",
            "Its other ranks start again; the rank that does not stop may be missing until its node is settled.",
            subject=workload.uid,
        ),
        *(power_off_offer(node) for node in dead),
        wait_offer(),
    )


def _resumed_by_others(draft: Draft, workload: Workload, unit: Unit) -> None:
    """Nobody is fought: the job runs on. Where our annotation is still on it, a resume takes it off."""
    draft.remember_unit(workload.uid, msgspec.structs.replace(unit, resumed_by_others=True))
    draft.wait(f"{_name(workload)} was resumed by somebody else.")
    if workload.suspended_by == draft.operation.id:
        take_resume(draft, workload)


def _wait_for_others(draft: Draft, workload: Workload, unit: Unit, *, view: ClusterView) -> None:
    if not unit.suspended_by_others:
        draft.remember_unit(workload.uid, msgspec.structs.replace(unit, suspended_by_others=True))
    live = live_pods(workload, view)
    force_deletes(draft, live, view=view)
    who = f"operation {workload.suspended_by}" if workload.suspended_by else "somebody else"
    said = (
        f"{_name(workload)} was suspended by {who}: its pods leave, and it is not resumed from here"
    )
    since = draft.waiting_since(f"stop:{workload.uid}")
    deadline = draft.release_deadline(since, grace_seconds(live))
    unsettled = unsettled_nodes(workload, draft.memory, view)
    if live and draft.now >= deadline:
        draft.block(f"{said}.", *(power_off_offer(node) for node in unsettled), wait_offer())
    elif live:
        draft.wait(f"{said}.")


def _came_back(
    draft: Draft, workload: Workload, pods: list[Surveyed], *, view: ClusterView
) -> None:
    """After the resume: a pod on an emptied node is no reason for a second restart."""
    force_deletes(draft, [found.pod for found in pods], view=view)
    back = [found for found in pods if found.pod.metadata.deletion_timestamp is None]
    if back:
        draft.block(
            f"{back[0].name} of {_name(workload)} was placed on {back[0].node} again although it is cordoned "
            "(it tolerates that, or names the node); a job is restarted once, so it is not moved a second time.",
            leave_offer(workload.name),
        )
    elif pods:
        draft.wait(f"Waiting for {pods[0].name} to leave {pods[0].node}.")


def _suspend_step(workload: Workload) -> Step:
    return Step(SUSPEND, _target(workload), workload.uid, f"Suspending {_name(workload)}.")


def _target(workload: Workload) -> str:
    return f"{workload.kind}/{workload.namespace}/{workload.name}"


def _name(workload: Workload) -> str:
    return f"{workload.kind} {workload.namespace}/{workload.name}"


def _listed(names: list[str]) -> str:
    return ", ".join(names)
