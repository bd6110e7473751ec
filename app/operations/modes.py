"""When each pod of a drain is due: now, at its next checkpoint, at the deadline, or at its own end. Pure.

A mode may be given for all, for a workload and for a pod of it; a gang has one mode, since it moves as one.
A pod that tells of no checkpoint can't be taken at its next one: a preview refuses that mode for it, and
one that comes later runs to its end.
"""

from collections.abc import Mapping
from datetime import datetime

from app.operations.model import Operation, Options
from app.operations.stake import Checkpoint, checkpoint_of, newest_checkpoint
from app.operations.survey import Surveyed, live_pods
from k8s.objects import is_terminal
from k8s.view import ClusterView

NOW = "now"
CHECKPOINT = "checkpoint"
COMPLETE = "complete"
DEADLINE = "deadline"
MODES = (NOW, CHECKPOINT, COMPLETE, DEADLINE)

ACTIONS: Mapping[str, str] = {
    CHECKPOINT: "at_checkpoint",
    COMPLETE: "let_complete",
    DEADLINE: "at_deadline",
}


def mode_of(found: Surveyed, options: Options) -> str:
    """The mode of a pod: its own, else its workload's, else the drain's."""
    if not options.modes:
        return options.mode
    names = [] if found.is_gang else [found.name]
    if found.workload is not None:
        names.append(f"{found.workload.namespace}/{found.workload.name}")
    return next((options.modes[name] for name in names if name in options.modes), options.mode)


def holds_node(operation: Operation, found: Surveyed) -> bool:
    """True while the pod keeps its node from being Drained."""
    # Who lets pods complete has no use for their remains: finished pods stay where they are.
    if is_terminal(found.pod) and mode_of(found, operation.options) != NOW:
        return False
    return found.leaving


def is_due(found: Surveyed, operation: Operation, *, view: ClusterView, now: datetime) -> bool:
    """Whether the pod goes now. Once it is due it stays so."""
    mode = mode_of(found, operation.options)
    if mode == NOW:
        return True
    if mode == COMPLETE:
        return False
    if operation.deadline_at is not None and now >= operation.deadline_at:
        return True
    if mode == DEADLINE:
        return False
    checkpoint = checkpoint_of_pod(found, view)
    return checkpoint is not None and checkpoint.at > operation.created_at


def checkpoint_of_pod(found: Surveyed, view: ClusterView) -> Checkpoint | None:
    """The last checkpoint told by what the pod belongs to, or by the pod itself."""
    if found.workload is None:
        return newest_checkpoint([found.pod.metadata])
    pods = live_pods(found.workload, view) if found.is_gang else ()
    return checkpoint_of(found.workload.uid, view, (found.pod, *pods))


def wait_text(found: Surveyed, operation: Operation, *, view: ClusterView, now: datetime) -> str:
    """What a pod that is not due is waited for, in words."""
    mode = mode_of(found, operation.options)
    until = operation.deadline_at
    if mode == CHECKPOINT:
        checkpoint = checkpoint_of_pod(found, view)
        if checkpoint is None:
            return "its end, since it tells of no checkpoint"
        due = checkpoint.next_at(now)
        said = "its next checkpoint"
        if due is not None:
            said += f", due at {due:%H:%M:%S} UTC"
        return said + (f", {until:%Y-%m-%d %H:%M:%S} UTC at the latest" if until else "")
    if mode == DEADLINE and until is not None:
        return f"its deadline, {until:%Y-%m-%d %H:%M:%S} UTC"
    return "its end"
