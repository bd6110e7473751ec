"""Cordon, uncordon, annotate, taint: conditional PATCHes of a node that do nothing when all is so already.

A node that an operation holds carries its id and whether it was cordoned before, written in the same
PATCH as the cordon, so that a program that dies in between leaves nothing unexplained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from k8s.client import MERGE_PATCH, Connection
from k8s.errors import ApiError, KubernetesError, OwnershipError
from k8s.listing import get_object
from k8s.objects import Node, ObjectMeta, Taint
from k8s.resources import NODES

OPERATION_ANNOTATION = "pitwall.dev/operation"
# Only after power-off has been confirmed: lets the control plane give up a dead node's pods and volumes.
OUT_OF_SERVICE = Taint(
    key="node.kubernetes.io/out-of-service", value="nodeshutdown", effect="NoExecute"
)
# Heartbeats write a node's status every ten seconds at most; five collisions in a row do not happen by chance.
WRITE_ATTEMPTS = 5


class NodeGoneError(KubernetesError):
    """There is no node of that name."""


@dataclass(frozen=True)
class NodeHold:
    """What our annotation says: which operation holds the node, and whether it found it cordoned."""

    operation: str
    was_unschedulable: bool


@dataclass(frozen=True)
class CordonResult:
    """was_unschedulable: before the operation first touched the node. changed: a write was made."""

    was_unschedulable: bool
    changed: bool


def write_hold(hold: NodeHold) -> str:
    """The annotation's text."""
    return json.dumps({"operation": hold.operation, "was_unschedulable": hold.was_unschedulable})


def read_hold(meta: ObjectMeta) -> NodeHold | None:
    """Which operation holds the node; None without an annotation or when it can not be read."""
    return _parse_hold(meta.annotations.get(OPERATION_ANNOTATION))


def _parse_hold(text: str | None) -> NodeHold | None:
    try:
        said = json.loads(text or "")
        return NodeHold(str(said["operation"]), bool(said["was_unschedulable"]))
    except (ValueError, KeyError, TypeError):
        return None


def cordon(
    connection: Connection,
    name: str,
    *,
    annotation_value: str | Callable[[bool], str] | None = None,
    dry_run: bool = False,
) -> CordonResult:
    """Makes the node unschedulable and, in the same PATCH, leaves the annotation on it.

    annotation_value: the text, or a function of whether the node was cordoned before (which only the
    read that the PATCH is conditional on can tell). A node that our operation holds already keeps its
    annotation, and was_unschedulable is what that says. No write when all is so already.
    Raises OwnershipError when another operation holds the node, NodeGoneError, ApiError, UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = read_node(connection, name)
        was = node.spec.unschedulable
        held = read_hold(node.metadata)
        text = annotation_value(was) if callable(annotation_value) else annotation_value
        asked = _parse_hold(text)
        if text is not None and held is not None:
            if asked is None or asked.operation != held.operation:
                raise OwnershipError(
                    f"node {name} is held by operation {held.operation}: cancel that one first"
                )
            was, text = held.was_unschedulable, None
        patch: dict[str, Any] = {}
        if not node.spec.unschedulable:
            patch["spec"] = {"unschedulable": True}
        if text is not None:
            patch["metadata"] = {"annotations": {OPERATION_ANNOTATION: text}}
        if not patch:
            return CordonResult(was, False)
        if patch_node(connection, node, patch, dry_run=dry_run):
            return CordonResult(was, True)
    raise collided(name, "cordon")


def uncordon(
    connection: Connection,
    name: str,
    *,
    operation_id: str | None = None,
    dry_run: bool = False,
) -> CordonResult:
    """Makes the node schedulable and takes our annotation off.

    With operation_id only what that operation did is undone: a node that was cordoned before stays so,
    and a node that it does not hold is refused. Without one (a person's own uncordon) the node is
    uncordoned whoever did it. No write when all is so already.
    Raises OwnershipError, NodeGoneError, ApiError, UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = read_node(connection, name)
        held = read_hold(node.metadata)
        if operation_id is not None and (held is None or held.operation != operation_id):
            whose = f"operation {held.operation}" if held else "no operation"
            raise OwnershipError(
                f"node {name} is held by {whose}, not by {operation_id}: nothing was undone"
            )
        keep = operation_id is not None and held is not None and held.was_unschedulable
        patch: dict[str, Any] = {}
        if node.spec.unschedulable and not keep:
            patch["spec"] = {"unschedulable": None}
        if OPERATION_ANNOTATION in node.metadata.annotations:
            patch["metadata"] = {"annotations": {OPERATION_ANNOTATION: None}}
        was = held.was_unschedulable if held else node.spec.unschedulable
        if not patch:
            return CordonResult(was, False)
        if patch_node(connection, node, patch, dry_run=dry_run):
            return CordonResult(was, True)
    raise collided(name, "uncordon")


def annotate_node(
    connection: Connection, name: str, annotation_value: str | None, *, dry_run: bool = False
) -> bool:
    """Sets our annotation, or takes it off with None; False when it was so already.

    Raises NodeGoneError, ApiError, UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = read_node(connection, name)
        if node.metadata.annotations.get(OPERATION_ANNOTATION) == annotation_value:
            return False
        patch = {"metadata": {"annotations": {OPERATION_ANNOTATION: annotation_value}}}
        if patch_node(connection, node, patch, dry_run=dry_run):
            return True
    raise collided(name, "annotate")


def set_taint(
    connection: Connection, name: str, taint: Taint, *, present: bool, dry_run: bool = False
) -> bool:
    """Puts a taint on the node or takes it off; False when it was so already.

    The list is sent whole, conditional on the version that was read: somebody else's taint, added in
    between, is never lost. Raises NodeGoneError, ApiError, UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = read_node(connection, name)
        others = [
            entry
            for entry in node.spec.taints
            if (entry.key, entry.effect) != (taint.key, taint.effect)
        ]
        wanted = [*others, taint] if present else others
        if {_identity(entry) for entry in wanted} == {
            _identity(entry) for entry in node.spec.taints
        }:
            return False
        patch = {"spec": {"taints": [write_taint(entry) for entry in wanted]}}
        if patch_node(connection, node, patch, dry_run=dry_run):
            return True
    raise collided(name, "taint")


def _identity(taint: Taint) -> tuple[str, str, str]:
    return taint.key, taint.value, taint.effect


def write_taint(taint: Taint) -> dict[str, str]:
    """As in a node's spec."""
    said = {"key": taint.key, "effect": taint.effect}
    if taint.value:
        said["value"] = taint.value
    if taint.time_added is not None:
        said["timeAdded"] = taint.time_added.strftime("%Y-%m-%dT%H:%M:%SZ")
    return said


def read_node(connection: Connection, name: str) -> Node:
    """The node as it is now. Raises NodeGoneError, ApiError, UnreachableError."""
    node: Node | None = get_object(connection, NODES, name)
    if node is None:
        raise NodeGoneError(f"there is no node {name}: check the name with kubectl get nodes")
    return node


def patch_node(
    connection: Connection, node: Node, patch: Mapping[str, Any], *, dry_run: bool
) -> bool:
    """PATCHes conditional on what was read; False when somebody was quicker."""
    metadata = {
        **patch.get("metadata", {}),
        "uid": node.metadata.uid,
        "resourceVersion": node.metadata.resource_version,
    }
    try:
        connection.request(
            "PATCH",
            NODES.path(node.metadata.name),
            body={**patch, "metadata": metadata},
            content_type=MERGE_PATCH,
            dry_run=dry_run,
        )
    except ApiError as error:
        if error.status == 409:
            return False
        raise
    return True


def collided(name: str, verb: str) -> ApiError:
    """For when somebody was quicker each time."""
    return ApiError(
        409,
        "Conflict",
        f"node {name} changed {WRITE_ATTEMPTS} times while we tried to {verb} it: try again",
    )
