"""Taking back: what a cancelled or stopped operation still has to do. Pure.

It resumes what it suspended, where nobody has changed it since, and uncordons what it cordoned, unless
the node is Failing: a condemned node stays out, and the message says so.
"""

import msgspec

from app.operations.draft import Draft, summary
from app.operations.eviction import settle_claims
from app.operations.gang import leave_offer, take_resume
from app.operations.model import (
    CORDON,
    EVICT,
    LEFT,
    RESTARTING,
    RESUME,
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
    Unit,
)
from app.operations.progress import workloads_state
from app.operations.survey import node_condition


def retreat(
    operation: Operation, draft: Draft, *, observed: Observed, progress: Progress
) -> Decision:
    """The next step back, or the end. Jobs come first, nodes after them."""
    settle_claims(draft, view=observed.view)
    _resume_ours(operation, draft, observed=observed)
    if draft.steps or draft.blocks or draft.waits or draft.held:
        return draft.decision(progress)
    stay = _uncordon_ours(operation, draft, observed=observed)
    if draft.steps or draft.blocks or draft.held:
        return draft.decision(progress)
    memory = _let_go(operation, draft.memory)
    progress = msgspec.structs.replace(progress, workloads_state=workloads_state(memory))
    state = "Failed" if memory.failed else "Cancelled"
    return Ended(state, summary([_why(operation, memory), *stay]), memory, progress)


def _resume_ours(operation: Operation, draft: Draft, *, observed: Observed) -> None:
    left = any(choice.name == "leave" for choice in draft.memory.choices)
    for uid, unit in draft.memory.units.items():
        suspend = operation.step(SUSPEND, uid)
        workload = observed.view.workloads.get(uid)
        if suspend is None or operation.done(RESUME, uid):
            continue
        if workload is None or workload.finished:
            continue
        # Where somebody has resumed it, our annotation still has to go; the resume does no more then.
        ours = workload.suspended_by == operation.id
        # A claimed suspend may have landed without the view having shown it yet; the resume looks itself.
        unsure = suspend.state == "claimed" and not workload.suspended
        late = (
            suspend.state == "done"
            and not workload.suspended
            and workload.generation <= unit.generation_before
        )
        if ours or unsure or late:
            resume = operation.step(RESUME, uid)
            if left and resume is not None and resume.state == "failed":
                continue
            take_resume(draft, workload)
        elif workload.suspended and suspend.state != "failed" and not left:
            draft.block(
                f"{workload.kind} {workload.namespace}/{workload.name} is suspended, but its annotation does "
                "not name this operation any more: somebody has changed it since, so it is not resumed from here.",
                leave_offer(workload.name),
            )


def _uncordon_ours(operation: Operation, draft: Draft, *, observed: Observed) -> list[str]:
    """Adds the uncordons; gives the sentences about nodes that stay cordoned."""
    stay = []
    for name in operation.nodes:
        node = observed.view.nodes.get(name)
        if node is None or operation.step(CORDON, node.metadata.uid) is None:
            continue
        if operation.done(UNCORDON, node.metadata.uid):
            if draft.memory.was_unschedulable.get(name):
                stay.append(f"{name} stays cordoned: it was before.")
            continue
        if observed.health_of(name)[0] == "Failing":
            stay.append(f"{name} stays cordoned: it is {node_condition(name, observed)}.")
            continue
        draft.take(
            Step(UNCORDON, f"Node/{name}", node.metadata.uid, f"Giving {name} back.", node=name)
        )
    return stay


def _let_go(operation: Operation, memory: Memory) -> Memory:
    """The last word on each workload: what was said while it was waited for holds no more."""
    units = {
        uid: unit if unit.verdict in SETTLED else _last_word(operation, uid, unit)
        for uid, unit in memory.units.items()
    }
    return msgspec.structs.replace(memory, units=units)


def _last_word(operation: Operation, uid: str, unit: Unit) -> Unit:
    evicted = sum(1 for pod in unit.moved if operation.done(EVICT, pod))
    if operation.done(RESUME, uid):
        verdict, message = RESTARTING, "It was resumed; its return is not waited for any more."
    elif evicted:
        verdict = RESTARTING
        message = (
            f"{evicted} of {len(unit.moved)} pods were evicted; their return is not waited for "
            "any more."
        )
    elif unit.resumed_by_others or operation.step(SUSPEND, uid) is not None:
        verdict, message = LEFT, "It is left as somebody else put it."
    else:
        verdict, message = LEFT, "It was not stopped."
    return msgspec.structs.replace(unit, verdict=verdict, message=message)


def _why(operation: Operation, memory: Memory) -> str:
    if memory.stopped:
        return memory.stopped
    return f"Cancelled by {operation.cancel_requested_by}."
