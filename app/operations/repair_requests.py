"""A person's word on a node's way back: under repair, and back from it. In the caller's transaction.

Neither touches Kubernetes itself: a repair is a note in the store, and what returns from one is
uncordoned as by any other uncordon, with the same checks.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from app.errors import RequestRefused
from app.operations import admission
from app.operations.service import PROBATION, UNDER_REPAIR
from app.operations.wishes import Parameters, read_nodes
from app.store.requests import MAX_REASON_LENGTH
from app.store.writes.service import Kept, end_probation, read_kept, send_to_repair
from k8s.view import ClusterView

Uncordon = Callable[[tuple[str, ...]], str]
"""Opens an uncordon of these nodes and gives its id. Raises RequestRefused."""


def repair(
    connection: Connection, cluster: str, parameters: Parameters, *, request: Any, view: ClusterView
) -> None:
    """Notes that nodes are under repair, by whom and why. Raises RequestRefused, nothing being kept then.

    A node under repair already gets the new note.
    """
    nodes = read_nodes(parameters, view=view)
    note = (parameters.text or request.reason).strip()
    if not note:
        raise RequestRefused("Say what is to be repaired (text): others will read it.")
    if len(note) > MAX_REASON_LENGTH or "\x00" in note:
        raise RequestRefused(
            f"A repair's text has at most {MAX_REASON_LENGTH} characters and no NUL among them."
        )
    held = admission.held_nodes(connection, cluster)
    kept = read_kept(connection, cluster, names=nodes)
    for name in nodes:
        if name in held:
            raise RequestRefused(
                f"{name} is held by operation {held[name]}: wait for it, or cancel it first.",
                code="conflict",
            )
        if not view.nodes[name].spec.unschedulable:
            raise RequestRefused(
                f"{name} is schedulable, so pods may run on it: drain it first.", code="conflict"
            )
        _require_known(name, kept, view)
    send_to_repair(connection, cluster, nodes, by=request.author, note=note)


def give_back(
    connection: Connection,
    cluster: str,
    parameters: Parameters,
    *,
    view: ClusterView,
    uncordon: Uncordon,
) -> str | None:
    """Nodes under repair are uncordoned and go on probation; nodes on probation are in service at once.

    Gives the uncordon's id, None where none was needed. Raises RequestRefused, nothing being kept then.
    """
    nodes = read_nodes(parameters, view=view)
    kept = read_kept(connection, cluster, names=nodes)
    repaired, proven = [], []
    for name in nodes:
        row = _require_known(name, kept, view)
        # The store's state follows a person's word within a second; the word itself counts here.
        if row.repair_by and view.nodes[name].spec.unschedulable:
            repaired.append(name)
        elif row.service == PROBATION:
            proven.append(name)
        else:
            raise RequestRefused(
                f"{name} is {row.service}: only what is {UNDER_REPAIR} or on {PROBATION} returns"
                + (" (`pitwall uncordon` ends a cordon)." if row.service != "In service" else "."),
                code="conflict",
            )
    if proven:
        end_probation(connection, cluster, proven)
    return uncordon(tuple(repaired)) if repaired else None


def _require_known(name: str, kept: dict[str, Kept], view: ClusterView) -> Kept:
    row = kept.get(name)
    if row is None or row.uid != view.nodes[name].metadata.uid:
        raise RequestRefused(
            f"{name} is not known as a GPU node yet: see `pitwall nodes`, and ask again.",
            code="not_found",
        )
    return row
