"""The taint that lets the control plane give up a node which is powered off, and its removal.

node.kubernetes.io/out-of-service=nodeshutdown:NoExecute deletes every pod of the node that does not
tolerate it; while the node is not Ready, the pod garbage collector then removes them without their kubelet,
and volumes are detached (Kubernetes, "Non-graceful node shutdown"). On a node that still runs this means
two pods for one rank, so only a person's word brings it, and a node that answers never gets it.

Which operation put it there, and the boot that it ended, is annotated in the same PATCH.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from k8s.client import Connection
from k8s.errors import OwnershipError
from k8s.nodes import (
    OUT_OF_SERVICE,
    WRITE_ATTEMPTS,
    NodeGoneError,
    collided,
    patch_node,
    read_node,
    write_taint,
)
from k8s.objects import Node, ObjectMeta, Taint, is_ready

OUT_OF_SERVICE_ANNOTATION = "pitwall.dev/out-of-service"


@dataclass(frozen=True)
class GivenUp:
    """Our annotation: which operation gave the node up, and the boot id that it had then ("" unknown)."""

    operation: str
    boot_id: str


@dataclass(frozen=True)
class TaintResult:
    """changed: a write was made. ours: the taint (before its removal) is this operation's."""

    changed: bool
    ours: bool


def read_given_up(meta: ObjectMeta) -> GivenUp | None:
    """Who gave the node up; None without an annotation or when it can not be read."""
    try:
        said = json.loads(meta.annotations.get(OUT_OF_SERVICE_ANNOTATION, ""))
        return GivenUp(str(said["operation"]), str(said["boot_id"]))
    except (ValueError, KeyError, TypeError):
        return None


def is_out_of_service(node: Node) -> bool:
    """Whether anybody has declared the node out of service."""
    return any(_is_the(taint) for taint in node.spec.taints)


def put_out_of_service(
    connection: Connection, name: str, *, uid: str, operation_id: str, dry_run: bool = False
) -> TaintResult:
    """Declares a node out of service, for that operation. No write when somebody has already.

    A taint that is not ours stays theirs: it is not annotated, and not taken off later. Raises
    OwnershipError when the node answers, or another operation gave it up; NodeGoneError, ApiError,
    UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = _read(connection, name, uid)
        given_up = read_given_up(node.metadata)
        if given_up is not None and given_up.operation != operation_id:
            raise OwnershipError(
                f"node {name} was declared out of service by operation {given_up.operation}: nothing was written"
            )
        if is_out_of_service(node):
            return TaintResult(False, given_up is not None)
        if is_ready(node):
            raise OwnershipError(
                f"node {name} answers (Ready), so it is not declared out of service: its pods still run"
            )
        annotation = json.dumps(
            {"operation": operation_id, "boot_id": node.status.node_info.boot_id}
        )
        taints = [*node.spec.taints, OUT_OF_SERVICE]
        if patch_node(connection, node, _patch_of(taints, annotation), dry_run=dry_run):
            return TaintResult(True, True)
    raise collided(name, "taint")


def put_in_service(
    connection: Connection, name: str, *, uid: str, operation_id: str, dry_run: bool = False
) -> TaintResult:
    """Takes that operation's taint and annotation off. No write when they are off, or are not its own.

    The cordon is another matter, and stays. Raises NodeGoneError, ApiError, UnreachableError.
    """
    for _ in range(WRITE_ATTEMPTS):
        node = _read(connection, name, uid)
        given_up = read_given_up(node.metadata)
        if given_up is None or given_up.operation != operation_id:
            return TaintResult(False, False)
        taints = [taint for taint in node.spec.taints if not _is_the(taint)]
        if patch_node(connection, node, _patch_of(taints, None), dry_run=dry_run):
            return TaintResult(True, True)
    raise collided(name, "untaint")


def _read(connection: Connection, name: str, uid: str) -> Node:
    node = read_node(connection, name)
    if node.metadata.uid != uid:
        raise NodeGoneError(
            f"node {name} is another one now ({node.metadata.uid}): it is left alone"
        )
    return node


def _is_the(taint: Taint) -> bool:
    return (taint.key, taint.effect) == (OUT_OF_SERVICE.key, OUT_OF_SERVICE.effect)


def _patch_of(taints: list[Taint], annotation: str | None) -> dict[str, Any]:
    return {
        "metadata": {"annotations": {OUT_OF_SERVICE_ANNOTATION: annotation}},
        "spec": {"taints": [write_taint(taint) for taint in taints]},
    }
