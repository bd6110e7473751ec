"""A node that a person confirmed to be off: the out-of-service taint, and its removal afterwards. Pure.

The taint comes before the first pod of the node is given up. It goes as soon as the node is back with
another boot, or when the operation would end and no pod is left that it would delete: a node that is
repaired and powered on must not lose its new pods to it.
"""

import msgspec

from app.operations.draft import Draft, summary
from app.operations.model import (
    IN_SERVICE,
    OUT_OF_SERVICE,
    Act,
    Blocked,
    Decision,
    Ended,
    Observed,
    Offer,
    Operation,
    Step,
    Wait,
)
from app.operations.survey import Surveyed, grace_seconds, is_dead
from k8s.nodes import OUT_OF_SERVICE as TAINT
from k8s.objects import Node, Pod, is_mirror, is_ready
from k8s.out_of_service import read_given_up
from k8s.selectors import tolerates
from k8s.view import ClusterView

LEAVE_TAINT = "leave_taint"


def is_given_up(draft: Draft, name: str, view: ClusterView) -> bool:
    """Whether pods of the node may be given up now; adds the taint's step where it is still to come."""
    node = view.nodes.get(name)
    if node is None:  # nothing is left to taint
        return True
    if _stands(draft.operation, node.metadata.uid):
        return True
    said = f"Declaring {name} out of service: it is confirmed off."
    step = Step(OUT_OF_SERVICE, f"Node/{name}", node.metadata.uid, said, node=name)
    if step not in draft.steps:
        draft.take(step)
    return False


def settle_taints(
    decision: Decision, operation: Operation, observed: Observed, *, draft: Draft
) -> Decision:
    """The decision, with taints of this operation taken off that have done their work.

    An operation ends only without one of them, unless a person chose to leave it. draft: an empty one of
    this operation, at this time, with the decision's memory.
    """
    ending = isinstance(decision, Ended)
    if observed.pause and not ending:
        return decision
    left = any(choice.name == LEAVE_TAINT for choice in draft.memory.choices)
    for name, node in _tainted(operation, observed.view):
        pods = pods_it_takes(name, observed.view)
        if _is_back(node) or (ending and not pods):
            said = f"Taking the out-of-service taint off {name}."
            draft.take(Step(IN_SERVICE, f"Node/{name}", node.metadata.uid, said, node=name))
        elif ending:
            _await_pods(draft, name, pods)
    if draft.steps:
        taken = decision.steps if isinstance(decision, Act) else ()
        if taken:
            return msgspec.structs.replace(decision, steps=(*taken, *draft.steps))
        return Act(
            tuple(draft.steps),
            summary([step.message for step in draft.steps]),
            draft.memory,
            decision.progress,
        )
    if not ending or left:
        return decision
    if draft.blocks:
        offers = (*draft.offers, leave_offer())
        return Blocked(summary(draft.blocks), offers, draft.memory, decision.progress)
    if draft.held or draft.waits:
        said = summary([*draft.held, *draft.waits])
        return Wait(said, draft.memory, decision.progress, held=True)
    return decision


def leave_offer() -> Offer:
    """End the operation and leave the taint to somebody else."""
    return Offer(
        LEAVE_TAINT,
        "End here and leave the out-of-service taint on",
        "The node takes no pods until somebody takes the taint off: "
        f"kubectl taint node NAME {TAINT.key}-.",
    )


def power_off_warnings(surveyed: list[Surveyed], view: ClusterView) -> list[str]:
    """For the preview: what a confirmed power-off would do to each node that does not answer."""
    nodes = dict.fromkeys(
        found.node for found in surveyed if found.leaving and is_dead(found.node, view)
    )
    return [
        f"{name} does not answer, so its pods stay Terminating. Once a person has confirmed that it is powered "
        f"off, it gets the taint {TAINT.key}={TAINT.value}:{TAINT.effect} and its pods are deleted without their "
        "kubelet, as the account for emergencies; the taint is taken off afterwards."
        for name in nodes
        if name in view.nodes
    ]


def pods_it_takes(name: str, view: ClusterView) -> list[Pod]:
    """Pods of the node that the taint deletes: all but static ones and those that tolerate it."""
    return [
        pod
        for pod in view.pods_on(name)
        if not is_mirror(pod)
        and not any(tolerates(toleration, TAINT) for toleration in pod.spec.tolerations)
    ]


def _stands(operation: Operation, uid: str) -> bool:
    """Whether this operation's taint was put on and not taken off since."""
    put, taken = operation.step(OUT_OF_SERVICE, uid), operation.step(IN_SERVICE, uid)
    if put is None or put.state != "done":
        return False
    if taken is None or taken.state != "done":
        return True
    if put.started_at is None or taken.started_at is None:
        return False
    return put.started_at > taken.started_at


def _tainted(operation: Operation, view: ClusterView) -> list[tuple[str, Node]]:
    """Nodes with a taint of this operation, by its answer or, where that was lost, by the node itself."""
    found = []
    for row in operation.steps.values():
        if row.name != OUT_OF_SERVICE:
            continue
        name = row.target.removeprefix("Node/")
        node = view.nodes.get(name)
        if node is None or node.metadata.uid != row.uid:
            continue
        given_up = read_given_up(node.metadata)
        ours = given_up is not None and given_up.operation == operation.id
        # A claim whose answer was lost may have landed without the view having shown it yet.
        if _stands(operation, row.uid) or ours or row.state in ("claimed", "waiting"):
            found.append((name, node))
    return found


def _is_back(node: Node) -> bool:
    """Ready, with another boot than the one that was given up."""
    given_up = read_given_up(node.metadata)
    boot_id = node.status.node_info.boot_id
    return (
        is_ready(node)
        and given_up is not None
        and bool(given_up.boot_id and boot_id)
        and boot_id != given_up.boot_id
    )


def _await_pods(draft: Draft, name: str, pods: list[Pod]) -> None:
    since = draft.waiting_since(f"taint:{name}")
    first = f"{pods[0].metadata.namespace}/{pods[0].metadata.name}"
    said = (
        f"{len(pods)} pods of {name} are not gone yet ({first} among them); until then its out-of-service "
        "taint stays."
    )
    if draft.now < draft.release_deadline(since, grace_seconds(pods)):
        draft.wait(said, held=True)
    else:
        draft.block(said, Offer("retry", "Wait again", "Nothing is changed."))
