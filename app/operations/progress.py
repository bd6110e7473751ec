"""What people see of an operation: the state of each node, the verdict on each workload, pods gone. Pure."""

from app.operations.model import (
    AWAIT_RETURNED,
    AWAIT_STOPPED,
    CONFIRM_EMPTY,
    CORDON,
    RESUME,
    RETURNED,
    SETTLED,
    SUSPEND,
    UNCORDON,
    Awaited,
    Memory,
    Observed,
    Operation,
    Progress,
)
from app.operations.modes import holds_node
from app.operations.survey import Surveyed
from k8s.objects import is_terminal


def progress_of(
    operation: Operation, memory: Memory, surveyed: list[Surveyed], *, observed: Observed
) -> Progress:
    """Progress as the store shows it."""
    view = observed.view
    leaving = {found.node for found in surveyed if holds_node(operation, found)}
    done = 0
    for uid in memory.pods:
        pod = view.pods.get(uid)
        if pod is None or (is_terminal(pod) and pod.metadata.deletion_timestamp is not None):
            done += 1
    return Progress(
        nodes_state={
            node: _node_state(operation, memory, node, leaving=node in leaving, observed=observed)
            for node in operation.nodes
        },
        workloads_state=workloads_state(memory),
        pods_total=len(memory.pods),
        pods_done=done,
        awaited=_awaited(operation, memory),
    )


def workloads_state(memory: Memory) -> dict[str, dict[str, str]]:
    """Name, verdict and message of each workload, by its uid."""
    return {
        uid: {
            "name": f"{unit.kind} {unit.namespace}/{unit.name}",
            "verdict": unit.verdict,
            "message": unit.message,
        }
        for uid, unit in memory.units.items()
    }


def _node_state(
    operation: Operation, memory: Memory, name: str, *, leaving: bool, observed: Observed
) -> str:
    node = observed.view.nodes.get(name)
    if node is None:
        return "Removed"
    uid = node.metadata.uid
    if operation.done(UNCORDON, uid):
        # By the step's own answer: the view may be late, and an operation that ends looks no more.
        return "Cordoned" if memory.was_unschedulable.get(name) else "Given back"
    if operation.kind == "uncordon":
        return "Cordoned"
    if not operation.done(CORDON, uid):
        return "Cordoning"
    if operation.kind == "reschedule":
        return "Cordoned"
    return "Draining" if leaving or not operation.done(CONFIRM_EMPTY, uid) else "Drained"


def _awaited(operation: Operation, memory: Memory) -> tuple[Awaited, ...]:
    found = []
    for uid, unit in memory.units.items():
        target = f"{unit.kind}/{unit.namespace}/{unit.name}"
        if unit.path == "suspend_resume" and operation.done(SUSPEND, uid):
            over = operation.step(RESUME, uid) is not None
            found.append(
                Awaited(
                    AWAIT_STOPPED, target, uid, _stop_message(uid, memory, operation, over), over
                )
            )
        back = unit.verdict in SETTLED
        moving = operation.done(RESUME, uid) or unit.path == "evict"
        if moving and (back or unit.verdict != "Waiting"):
            message = (
                f"{unit.verdict}: {unit.message}" if unit.verdict != RETURNED else unit.message
            )
            found.append(Awaited(AWAIT_RETURNED, target, uid, message, back))
    return tuple(found)


def _stop_message(uid: str, memory: Memory, operation: Operation, over: bool) -> str:
    if not over:
        return "Waiting for every rank to stop."
    for choice in memory.choices:
        if choice.name == "resume" and choice.subject == uid:
            return f"{choice.by} chose to resume before every rank had stopped."
    if operation.cancel_requested_by or memory.stopped:
        return "No longer waited for: the operation takes back what it did."
    return "Every rank has stopped."
