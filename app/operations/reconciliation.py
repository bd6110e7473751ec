"""The pure next step of an operation: drain, reschedule, uncordon, and the way back. No input, no output."""

from datetime import datetime, timedelta

import msgspec

from app.operations.activity import judge_activity
from app.operations.draft import Draft, summary
from app.operations.eviction import block_pods, move_pods, settle_claims
from app.operations.gang import move_gang
from app.operations.model import (
    CONFIRM_EMPTY,
    CORDON,
    FAILED,
    GIVE_BACK,
    RETURNED,
    SETTLED,
    SUSPEND,
    UNCORDON,
    Decision,
    Ended,
    Memory,
    Observed,
    Operation,
    Progress,
    Step,
    StepRow,
    Wait,
)
from app.operations.modes import holds_node, is_due, wait_text
from app.operations.power_off import settle_taints
from app.operations.progress import progress_of
from app.operations.retreat import retreat
from app.operations.survey import Surveyed, pods_to_move, survey
from app.operations.turns import Turns, unit_of
from app.operations.verdicts import judge_unit
from k8s.nodes import read_hold
from k8s.objects import is_terminal

UNSEEN_SECONDS = 30.0
"""A cordon that the view does not show for so long was undone before it could be seen."""

SETTLE_SECONDS = 0.5
"""After a cordon, before a node can be called empty: a bind that was under way lands within it (a judgement: a
scheduler's bind takes some ten milliseconds)."""


def next_step(operation: Operation, observed: Observed, now: datetime) -> Decision:
    """What to do now: take steps, wait, ask a person, or end.

    Pure: the same operation, view and time give the same decision, so that a worker which takes over
    goes on where the last one stopped, wherever that was.
    """
    decision = _decide(operation, observed, now)
    draft = Draft(operation, decision.memory, now)
    return settle_taints(decision, operation, observed, draft=draft)


def _decide(operation: Operation, observed: Observed, now: datetime) -> Decision:
    if not observed.view.synced:
        return Wait(
            "Kubernetes is not heard, so nothing is done.", operation.memory, Progress(), held=True
        )
    if operation.kind == "uncordon":
        return _uncordon(operation, observed, now)
    surveyed = survey(
        pods_to_move(operation, observed.view),
        view=observed.view,
        options=operation.options,
        now=now,
    )
    memory = _look(operation, surveyed, observed, now)
    progress = progress_of(operation, memory, surveyed, observed=observed)
    draft = Draft(operation, memory, now)
    if takes_back(operation, memory):
        return retreat(operation, draft, observed=observed, progress=progress)
    if observed.pause:
        return Wait(_pause_text(operation, memory, observed), memory, progress, held=True)
    _cordon(operation, draft, observed)
    _await_cordons(operation, draft, observed)
    if draft.steps or draft.blocks or draft.held or draft.waits:
        return draft.decision(progress)
    turns = Turns(draft, surveyed)
    due = [
        found
        for found in surveyed
        if is_due(found, operation, view=observed.view, now=now)
        or (found.is_gang and turns.has_begun(unit_of(found)))  # a restart under way is not left
    ]
    now_uids = {found.uid for found in due}
    later = [found for found in surveyed if found.uid not in now_uids]
    _wait_for_rest(draft, later, observed)
    _move(draft, due, turns, observed)
    _confirm_empty(operation, draft, surveyed, observed)
    memory = _judge(operation, draft.memory, observed, now)
    draft.memory = memory
    progress = progress_of(operation, memory, surveyed, observed=observed)
    return _end_or(draft, surveyed, progress, observed)


def takes_back(operation: Operation, memory: Memory) -> bool:
    """Whether it only gives back from here on, which no pause holds up."""
    stops = bool(operation.cancel_requested_by or memory.stopped)
    return operation.kind == "uncordon" or stops


def _look(
    operation: Operation, surveyed: list[Surveyed], observed: Observed, now: datetime
) -> Memory:
    """Remembers what has been seen, and notices what stops the operation by itself."""
    memory = operation.memory
    pods = {found.uid: found.node for found in surveyed if found.leaving}
    if pods.keys() - memory.pods.keys():
        memory = msgspec.structs.replace(memory, pods={**memory.pods, **pods})
    seen = set(memory.cordon_seen)
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is None:
            continue
        row = operation.step(CORDON, node.metadata.uid)
        if row is not None and row.state == "failed" and not memory.stopped:
            memory = msgspec.structs.replace(
                memory, stopped=f"{name} could not be cordoned: {row.message}", failed=True
            )
        if row is None or row.state != "done":
            continue
        if node.spec.unschedulable:
            seen.add(name)
            continue
        if memory.stopped or operation.done(UNCORDON, node.metadata.uid):
            continue
        # The cordon and our annotation came in one PATCH: one without the other is somebody's doing.
        hold = read_hold(node.metadata)
        ours = hold is not None and hold.operation == operation.id
        if name in seen or ours or _is_overdue(row, now):
            memory = msgspec.structs.replace(
                memory, stopped=f"{name} was uncordoned by somebody else, so the operation stops."
            )
    if any(choice.name == "leave" for choice in memory.choices) and not memory.stopped:
        by = next(choice.by for choice in memory.choices if choice.name == "leave")
        memory = msgspec.structs.replace(
            memory, stopped=f"{by} chose to stop here and leave the job as it is.", failed=True
        )
    back = next((choice for choice in memory.choices if choice.name == GIVE_BACK), None)
    if back is not None and not memory.stopped:
        memory = msgspec.structs.replace(
            memory, stopped=f"{back.by} chose to stop here and to uncordon."
        )
    if seen != set(memory.cordon_seen):
        memory = msgspec.structs.replace(memory, cordon_seen=tuple(sorted(seen)))
    return memory


def _is_overdue(cordon: StepRow, now: datetime) -> bool:
    """True when a cordon should have been seen long ago."""
    return cordon.started_at is not None and now >= cordon.started_at + timedelta(
        seconds=UNSEEN_SECONDS
    )


def _cordon(operation: Operation, draft: Draft, observed: Observed) -> None:
    """All nodes are cordoned before any pod is touched."""
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is None or operation.done(CORDON, node.metadata.uid):
            continue
        draft.take(Step(CORDON, f"Node/{name}", node.metadata.uid, f"Cordoning {name}.", node=name))


def _await_cordons(operation: Operation, draft: Draft, observed: Observed) -> None:
    """Nothing is moved off a node that may still be given new pods."""
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is not None and not node.spec.unschedulable:
            draft.wait(f"Waiting to see {name} cordoned.")


def _pause_text(operation: Operation, memory: Memory, observed: Observed) -> str:
    """The pause, and which jobs stand still meanwhile: a pause is no reason to forget them."""
    stopped = [
        f"{unit.kind} {unit.namespace}/{unit.name}"
        for uid, unit in memory.units.items()
        if (workload := observed.view.workloads.get(uid)) is not None
        and workload.suspended
        and workload.suspended_by == operation.id
    ]
    if not stopped:
        return observed.pause
    return (
        f"{observed.pause} {', '.join(stopped)} {'is' if len(stopped) == 1 else 'are'} suspended meanwhile; "
        "cancel to resume."
    )


def _wait_for_rest(draft: Draft, later: list[Surveyed], observed: Observed) -> None:
    """Says what is waited for of pods that are not due."""
    running = [found for found in later if found.leaving and not is_terminal(found.pod)]
    reasons: dict[str, list[Surveyed]] = {}
    for found in running:
        text = wait_text(found, draft.operation, view=observed.view, now=draft.now)
        reasons.setdefault(text, []).append(found)
    for text, pods in reasons.items():
        if len(pods) == 1:
            draft.wait(f"Letting {pods[0].name} run on until {text}.")
        else:
            draft.wait(f"Letting {len(pods)} pods run on until {text}, {pods[0].name} among them.")


def _move(draft: Draft, due: list[Surveyed], turns: Turns, observed: Observed) -> None:
    settle_claims(draft, view=observed.view)
    gangs: dict[str, list[Surveyed]] = {}
    for found in due:
        if found.workload is not None and found.way == "restart":
            gangs.setdefault(found.workload.uid, []).append(found)
    for uid, unit in draft.memory.units.items():
        # A gang whose pods have left the nodes still has its own way to go.
        if unit.path == "suspend_resume" and unit.verdict not in SETTLED:
            gangs.setdefault(uid, [])
    blocked = [found for found in due if found.way == "block"]
    held_back = {found.workload.uid for found in blocked if found.workload is not None}
    for uid, pods in gangs.items():
        workload = observed.view.workloads.get(uid)
        if workload is None or workload.finished:
            continue
        # What has been suspended is brought back, whatever stands in the way of its pods since.
        if uid in held_back and draft.operation.step(SUSPEND, uid) is None:
            continue
        if not pods or turns.begin(uid):
            move_gang(draft, workload, pods, observed=observed)
    alone = [found for found in due if found.way == "evict" and turns.begin(unit_of(found))]
    move_pods(draft, alone, observed=observed)
    block_pods(draft, blocked)


def _confirm_empty(
    operation: Operation, draft: Draft, surveyed: list[Surveyed], observed: Observed
) -> None:
    """A node that looks empty is asked for its pods once more, from the API server itself."""
    if operation.kind == "reschedule":
        return
    leaving = {found.node for found in surveyed if holds_node(operation, found)}
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is None or name in leaving or operation.done(CONFIRM_EMPTY, node.metadata.uid):
            continue
        cordon = operation.step(CORDON, node.metadata.uid)
        if cordon is None or cordon.started_at is None:
            continue
        if draft.now < cordon.started_at + timedelta(seconds=SETTLE_SECONDS):
            draft.wait(f"{name} looks empty; making sure.")
        else:
            draft.take(
                Step(
                    CONFIRM_EMPTY,
                    f"Node/{name}",
                    node.metadata.uid,
                    f"Making sure that {name} is empty.",
                    node=name,
                )
            )


def _judge(operation: Operation, memory: Memory, observed: Observed, now: datetime) -> Memory:
    units = {}
    for uid, unit in memory.units.items():
        verdict, message = judge_unit(uid, unit, operation=operation, view=observed.view)
        if verdict == RETURNED and unit.verdict == RETURNED:
            message = unit.message  # said once; an idle minute later takes nothing back
        elif verdict == RETURNED:
            verdict, message = judge_activity(uid, unit, message, observed=observed, now=now)
        if (verdict, message) != (unit.verdict, unit.message):
            unit = msgspec.structs.replace(unit, verdict=verdict, message=message)
        units[uid] = unit
    return msgspec.structs.replace(memory, units=units) if units != memory.units else memory


def _end_or(
    draft: Draft, surveyed: list[Surveyed], progress: Progress, observed: Observed
) -> Decision:
    operation, units = draft.operation, draft.memory.units
    for uid, unit in units.items():
        if unit.verdict not in SETTLED:
            held = unit.verdict == "Waiting for capacity"
            name = f"{unit.kind} {unit.namespace}/{unit.name}"
            if unit.path == "evict" or observed.view.workloads.get(uid) is None or held:
                draft.wait(f"{name}: {unit.message}", held=held)
            elif unit.verdict == "Restarting" or unit.suspended_by_others or unit.resumed_by_others:
                draft.wait(f"{name}: {unit.message}")
    emptied = all(
        state in ("Drained", "Removed", "Cordoned") for state in progress.nodes_state.values()
    )
    settled = all(unit.verdict in SETTLED for unit in units.values())
    moving = operation.kind == "reschedule" and any(found.leaving for found in surveyed)
    if draft.steps or draft.blocks or not (emptied and settled) or moving:
        return draft.decision(progress)
    failed = [unit for unit in units.values() if unit.verdict == FAILED]
    if failed:
        names = ", ".join(f"{unit.kind} {unit.namespace}/{unit.name}" for unit in failed)
        return Ended("Failed", f"{names} failed.", draft.memory, progress)
    return Ended("Succeeded", _done_message(operation, draft.memory), draft.memory, progress)


def _done_message(operation: Operation, memory: Memory) -> str:
    parts = []
    if operation.nodes:
        state = "Drained" if operation.kind == "drain" else "cordoned"
        parts.append(f"{', '.join(operation.nodes)} {state}.")
    for unit in memory.units.values():
        parts.append(f"{unit.kind} {unit.namespace}/{unit.name} {unit.verdict}.")
    return summary(parts) or "Nothing had to move."


def _uncordon(operation: Operation, observed: Observed, now: datetime) -> Decision:
    memory = operation.memory
    progress = progress_of(operation, memory, [], observed=observed)
    draft = Draft(operation, memory, now)
    if operation.cancel_requested_by:
        return Ended(
            "Cancelled", f"Cancelled by {operation.cancel_requested_by}.", memory, progress
        )
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is None or operation.done(UNCORDON, node.metadata.uid):
            continue
        draft.take(
            Step(UNCORDON, f"Node/{name}", node.metadata.uid, f"Uncordoning {name}.", node=name)
        )
    if draft.steps or draft.blocks or draft.held:
        return draft.decision(progress)
    return Ended("Succeeded", f"{', '.join(operation.nodes)} uncordoned.", memory, progress)
