"""One step, carried out: a call or two to Kubernetes, and what its answer means. Every step is idempotent.

A step that was taken before, by this worker or one that died, finds that out itself: objects are read
by UID first, a deletion that was accepted is done, an annotation of ours is ours.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.operations.model import (
    BREAK_GLASS,
    CONFIRM_EMPTY,
    CORDON,
    EVICT,
    FORCE_DELETE,
    IN_SERVICE,
    OUT_OF_SERVICE,
    RESUME,
    SUSPEND,
    UNCORDON,
    Operation,
    Step,
)
from app.operations.modes import holds_node
from app.operations.survey import survey
from k8s.client import STRATEGIC_MERGE_PATCH, Connection, Params, Response
from k8s.drain import cordon, evict, uncordon
from k8s.errors import ApiError, KubernetesError, OwnershipError, UnreachableError
from k8s.listing import get_object, list_objects
from k8s.nodes import NodeGoneError, NodeHold, annotate_node, read_hold, write_hold
from k8s.objects import Node, Pod, is_mirror, is_ready, is_terminal
from k8s.out_of_service import put_in_service, put_out_of_service
from k8s.resources import NODES, PODS
from k8s.view import ClusterView
from k8s.workloads import kind_of

RETRY_SECONDS = 5.0
"""Pause before a step is taken again that may work later (kubectl's pause between evictions)."""

CONFIRM_RETRY_SECONDS = 0.5

BREAK_GLASS_HINT = (
    ". Giving up a powered-off node takes the account for emergencies: kubectl apply -k "
    "k8s/manifests/break-glass (docs/architecture.md), then choose to try again."
)


class Answer(msgspec.Struct, frozen=True):
    """What became of a step. state: done, waiting (again after retry_after_seconds), failed.

    outcome: for the audit, None when nothing was written. was_unschedulable: a cordon's finding.
    """

    state: str
    message: str
    outcome: str | None = "done"
    retry_after_seconds: float = RETRY_SECONDS
    was_unschedulable: bool | None = None


class FencedConnection(Connection):
    """A connection that asks before each write whether it may still be made.

    The guard raises when the lease is past its renewal deadline; reads pass.
    """

    def __init__(self, connection: Connection, guard: Callable[[], object]) -> None:
        # The same pool, credentials and time-outs as the connection that is fenced.
        self.__dict__.update(connection.__dict__)
        self._fenced = connection
        self._guard = guard

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Params | None = None,
        content_type: str | None = None,
        dry_run: bool = False,
        read_timeout_seconds: float | None = None,
    ) -> Response:
        """As Connection.request, after the guard has let a write pass."""
        if method != "GET":
            self._guard()
        return self._fenced.request(
            method,
            path,
            body=body,
            params=params,
            content_type=content_type,
            dry_run=dry_run,
            read_timeout_seconds=read_timeout_seconds,
        )


class Call(msgspec.Struct, frozen=True):
    """A step and what it is carried out with; has_ended as in carry_out."""

    step: Step
    operation: Operation
    connection: Connection
    view: ClusterView
    has_ended: Callable[[str], bool]


def carry_out(
    step: Step,
    operation: Operation,
    *,
    connection: Connection,
    view: ClusterView,
    has_ended: Callable[[str], bool],
) -> Answer:
    """Takes one step and says what came of it; errors of Kubernetes become answers.

    has_ended: whether the operation of that id is over, for a node that still carries its annotation.
    """
    try:
        return _CALLS[step.name](Call(step, operation, connection, view, has_ended))
    except OwnershipError as error:
        return Answer("failed", str(error), outcome="refused")
    except UnreachableError as error:
        return Answer(
            "waiting", f"{error}; whether it was done is looked at next.", outcome="failed"
        )
    except ApiError as error:
        if error.status in (409, 429, 500, 502, 503, 504):
            after = error.retry_after_seconds or RETRY_SECONDS
            return Answer(
                "waiting",
                f"{error}; it is tried again, after a look whether it was done.",
                outcome="failed",
                retry_after_seconds=after,
            )
        hint = BREAK_GLASS_HINT if error.status == 403 and step.name in BREAK_GLASS else ""
        outcome = "refused" if error.status == 403 else "failed"
        return Answer("failed", f"{error}{hint}", outcome=outcome)
    except KubernetesError as error:
        return Answer("failed", str(error), outcome="failed")


def _cordon(call: Call) -> Answer:
    node: Node | None = get_object(call.connection, NODES, call.step.node)
    if node is None or node.metadata.uid != call.step.uid:
        return Answer("done", f"Node {call.step.node} is gone.", outcome=None)
    hold = read_hold(node.metadata)
    if hold is not None and hold.operation != call.operation.id and call.has_ended(hold.operation):
        # What the earlier operation left is the state that this one finds.
        found = write_hold(NodeHold(call.operation.id, node.spec.unschedulable))
        annotate_node(call.connection, call.step.node, found)
    try:
        result = cordon(
            call.connection,
            call.step.node,
            annotation_value=lambda was: write_hold(NodeHold(call.operation.id, was)),
        )
    except NodeGoneError as error:
        return Answer("done", str(error), outcome=None)
    said = "was cordoned before" if result.was_unschedulable else "cordoned"
    return Answer(
        "done",
        f"{call.step.node} {said}." if result.changed else f"{call.step.node} {said}; found so.",
        was_unschedulable=result.was_unschedulable,
    )


def _uncordon(call: Call) -> Answer:
    by_person = call.operation.kind == "uncordon"
    try:
        result = uncordon(
            call.connection, call.step.node, operation_id=None if by_person else call.operation.id
        )
    except NodeGoneError as error:
        return Answer("done", str(error), outcome=None)
    except OwnershipError as error:
        # Whoever holds it now decides; what is not ours is not undone.
        return Answer("done", str(error), outcome="refused")
    if result.was_unschedulable and not by_person:
        return Answer(
            "done", f"{call.step.node} was cordoned before and stays so.", was_unschedulable=True
        )
    return Answer(
        "done", f"{call.step.node} uncordoned." if result.changed else f"{call.step.node} found so."
    )


def _evict(call: Call) -> Answer:
    pod = call.view.pods.get(call.step.uid)
    if pod is None:
        return Answer("done", "It is gone.", outcome=None)
    answer = evict(call.connection, pod)
    if answer.is_done:
        outcome = "done" if answer.kind == "evicted" and not answer.already else None
        return Answer("done", answer.message, outcome=outcome)
    if answer.retry_after_seconds is None:
        return Answer("failed", answer.message, outcome="refused")
    named = f"budget {pod.metadata.namespace}/{answer.budget}: " if answer.budget else ""
    words = {
        "throttled": "the API server is overloaded: ",
        "budget_unobserved": "its budget is not up to date yet: ",
    }.get(answer.kind, "")
    return Answer(
        "waiting",
        f"{pod.metadata.name} is not evicted yet; {words}{named}{answer.message}",
        outcome="refused",
        retry_after_seconds=answer.retry_after_seconds,
    )


def _suspend(call: Call) -> Answer:
    return _toggle(call, resume=False)


def _resume(call: Call) -> Answer:
    return _toggle(call, resume=True)


def _toggle(call: Call, *, resume: bool) -> Answer:
    workload = call.view.workloads.get(call.step.uid)
    if workload is None:
        return Answer("done", "It exists no more.", outcome=None)
    kind = kind_of(workload)
    if kind is None:
        return Answer(
            "failed", f"{workload.said} is no kind that Pitwall restarts.", outcome="refused"
        )
    act = kind.resume if resume else kind.suspend
    answer = act(call.connection, workload, call.operation.id)
    match answer.kind:
        case "done":
            return Answer("done", answer.message)
        case "already" | "gone" | "replaced" | "finished":
            return Answer("done", answer.message, outcome=None)
        case "asked":  # written; its controller must be seen to act on it
            return Answer("waiting", answer.message, retry_after_seconds=1.0)
        case "conflict":
            return Answer("waiting", answer.message, outcome="failed", retry_after_seconds=1.0)
        case "foreign" if not resume:
            # The next look at the job shows whose it is; then it is left to them.
            return Answer("waiting", answer.message, outcome="refused")
    return Answer("failed", answer.message, outcome="refused")


def _force_delete(call: Call) -> Answer:
    """Gives up a Terminating pod of a node that a person confirmed to be off.

    As the pod garbage collector does for out-of-service nodes: first the phase is written Failed, so
    that the Job's controller counts it and takes its finalizer off, then the object is deleted at once.
    """
    node: Node | None = (
        get_object(call.connection, NODES, call.step.node) if call.step.node else None
    )
    if node is not None and is_ready(node):
        return Answer(
            "failed",
            f"{call.step.node} answers again: nothing is force-deleted.",
            outcome="refused",
        )
    _, namespace, name = call.step.target.split("/", 2)
    pod: Pod | None = get_object(call.connection, PODS, name, namespace=namespace)
    if pod is None or pod.metadata.uid != call.step.uid:
        return Answer("done", f"{namespace}/{name} is gone.", outcome=None)
    if pod.metadata.deletion_timestamp is None:
        return Answer(
            "waiting",
            f"{namespace}/{name} is not Terminating yet.",
            outcome=None,
            retry_after_seconds=1.0,
        )
    if not is_terminal(pod):
        _write_failed(call.connection, pod)
    try:
        call.connection.request(
            "DELETE",
            PODS.path(name, namespace=namespace),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": 0,
                "preconditions": {"uid": call.step.uid},
            },
        )
    except ApiError as error:
        if error.status not in (404, 409):
            raise
    return Answer("done", f"{namespace}/{name} deleted: {call.step.node} was confirmed to be off.")


def _out_of_service(call: Call) -> Answer:
    """Taints a node that a person confirmed to be off; a node that answers is refused."""
    name = call.step.node
    try:
        result = put_out_of_service(
            call.connection, name, uid=call.step.uid, operation_id=call.operation.id
        )
    except NodeGoneError as error:
        return Answer("done", str(error), outcome=None)
    if result.changed:
        return Answer("done", f"{name} declared out of service: it was confirmed to be off.")
    whose = "by this operation" if result.ours else "by somebody else, who takes that back"
    return Answer("done", f"{name} is declared out of service already, {whose}.", outcome=None)


def _in_service(call: Call) -> Answer:
    name = call.step.node
    try:
        result = put_in_service(
            call.connection, name, uid=call.step.uid, operation_id=call.operation.id
        )
    except NodeGoneError as error:
        return Answer("done", str(error), outcome=None)
    if result.changed:
        return Answer("done", f"The out-of-service taint is off {name}.")
    return Answer("done", f"{name} has no out-of-service taint of this operation.", outcome=None)


def _write_failed(connection: Connection, pod: Pod) -> None:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPitwall",
        "message": "Pitwall: the node was confirmed to be off",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    try:
        connection.request(
            "PATCH",
            PODS.path(pod.metadata.name, namespace=pod.metadata.namespace, subresource="status"),
            body={
                "metadata": {"uid": pod.metadata.uid},
                "status": {"phase": "Failed", "conditions": [condition]},
            },
            content_type=STRATEGIC_MERGE_PATCH,
        )
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _confirm_empty(call: Call) -> Answer:
    """Asks the API server, not the view, for the node's pods: a bind may have landed after the last look."""
    listing = list_objects(call.connection, PODS, field_selector=f"spec.nodeName={call.step.node}")
    pods: list[Pod] = [pod for pod in listing.items if not is_mirror(pod)]
    judged = survey(pods, view=call.view, options=call.operation.options, now=datetime.now(UTC))
    left = [found for found in judged if holds_node(call.operation, found)]
    if left:
        return Answer(
            "waiting",
            f"{call.step.node} is not empty yet: {left[0].name} is on it.",
            outcome=None,
            retry_after_seconds=CONFIRM_RETRY_SECONDS,
        )
    return Answer("done", f"{call.step.node} holds no pod that must go.", outcome=None)


_CALLS: dict[str, Callable[[Call], Answer]] = {
    CORDON: _cordon,
    UNCORDON: _uncordon,
    EVICT: _evict,
    SUSPEND: _suspend,
    RESUME: _resume,
    FORCE_DELETE: _force_delete,
    OUT_OF_SERVICE: _out_of_service,
    IN_SERVICE: _in_service,
    CONFIRM_EMPTY: _confirm_empty,
}
