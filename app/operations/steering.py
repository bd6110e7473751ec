"""What steers operations that are there, and Pitwall as a whole: cancel, choose, uncordon, undo, pause, reset.

Each in the caller's transaction. Raises RequestRefused, nothing being kept then.
"""

from typing import Any

import msgspec
from sqlalchemy import select, update

from app.errors import RequestRefused
from app.operations import admission, trips
from app.operations.case import Case
from app.operations.counted import held_nodes, read_facts
from app.operations.model import Choice, Memory
from app.operations.pause import pause, unpause
from app.store.reads.rows import table_of
from app.store.tables import Operation as OperationTable
from app.store.tables import OperationNode
from k8s.nodes import read_hold

_operation = table_of(OperationTable)
_node = table_of(OperationNode)


def uncordon(case: Case, nodes: tuple[str, ...]) -> str:
    """Opens an uncordon of these nodes and gives its id."""
    held = held_nodes(case.connection, case.cluster)
    typed = set(case.parameters.confirmation.replace(",", " ").split())
    health = _health(case)
    for name in nodes:
        if name in held:
            raise RequestRefused(
                f"{name} is held by operation {held[name]}: cancel that one first.",
                code="conflict",
            )
        if case.parameters.force or name in typed:
            continue
        if health.get(name) == "Failing":
            raise RequestRefused(
                f"{name} is Failing: repair it first, or type its name (--confirm) to put it in service all the same.",
                code="protected",
            )
        node = case.view.nodes[name]
        hold = read_hold(node.metadata)
        if node.spec.unschedulable and (hold is None or hold.was_unschedulable):
            raise RequestRefused(
                f"{name} was cordoned by somebody else, not by Pitwall: type its name (--confirm) to "
                "uncordon it all the same, or use kubectl uncordon.",
                code="protected",
            )
    return admission.open_operation(
        case.connection,
        case.cluster,
        kind="uncordon",
        subject=", ".join(nodes),
        nodes=nodes,
        request=case.request,
        now=case.now,
    )


def cancel(case: Case) -> str:
    """Asks an open operation to take back what it did; gives its id."""
    row = _open_operation(case, case.parameters.operation_id)
    if row.cancel_requested_by is None:
        case.connection.execute(
            update(_operation)
            .where(_operation.c.id == row.id)
            .values(
                cancel_requested_by=case.request.author,
                cancel_groups=case.request.author_groups,
                state="Cancelling",
                message=f"Cancelled by {case.request.author}: taking back what was done.",
                choices=[],
                updated_at=case.now,
            )
        )
    return str(row.id)


def choose(case: Case) -> str:
    """Answers a blocked operation with one of its choices; gives its id."""
    row = _open_operation(case, case.parameters.operation_id)
    offered = [offer for offer in row.choices if offer.get("name") == case.parameters.choice]
    if not offered:
        names = ", ".join(dict.fromkeys(str(offer.get("name")) for offer in row.choices))
        raise RequestRefused(
            f"Operation {row.id} does not offer {case.parameters.choice or 'an empty choice'}: "
            + (f"it offers {names}." if names else "it waits for no choice."),
            code="conflict",
        )
    chosen = [offer for offer in offered if _is_confirmed(offer, case.parameters.confirmation)]
    if not chosen:
        words = " or ".join(str(offer.get("confirmation")) for offer in offered)
        raise RequestRefused(
            f"{offered[0].get('label')}: to confirm, type {words} (--confirm).", code="invalid"
        )
    memory = msgspec.convert(row.memory or {}, Memory)
    made = tuple(
        Choice(
            case.parameters.choice,
            str(offer.get("subject") or ""),
            case.request.author,
            case.now,
            None if case.request.author_groups is None else tuple(case.request.author_groups),
        )
        for offer in chosen
    )
    memory = msgspec.structs.replace(memory, choices=memory.choices + made)
    case.connection.execute(
        update(_operation)
        .where(_operation.c.id == row.id)
        .values(
            memory=msgspec.to_builtins(memory),
            state="Running",
            message=f"{case.request.author} chose: {chosen[0].get('label')}.",
            choices=[],
            updated_at=case.now,
        )
    )
    return str(row.id)


def undo(case: Case) -> str:
    """Takes back what can be: an open operation is cancelled, the nodes of an ended drain are given back.

    Only nodes that it cordoned and that still carry its word; what was evicted stays evicted. Gives the
    id of the operation that undoes.
    """
    row = _find_operation(case, case.parameters.operation_id)
    if row.ended_at is None:
        return cancel(case)
    if row.kind == "uncordon":
        raise RequestRefused(
            f"Operation {row.id} was an uncordon: drain the nodes to take it back.", code="conflict"
        )
    names = case.connection.execute(select(_node.c.node).where(_node.c.operation_id == row.id))
    ours = []
    for name in sorted(found.node for found in names):
        node = case.view.nodes.get(name)
        hold = read_hold(node.metadata) if node is not None else None
        if node is None or hold is None or hold.operation != row.id or hold.was_unschedulable:
            continue
        if node.spec.unschedulable:
            ours.append(name)
    if not ours:
        raise RequestRefused(
            f"Operation {row.id} holds no node any more that it cordoned: there is nothing to take back.",
            code="conflict",
        )
    return uncordon(case, tuple(ours))


def standing_word(case: Case) -> str:
    """A pause, its end, or the reset of a limit; gives what was done, for the audit."""
    text = case.parameters.text or case.request.reason
    author = case.request.author
    match case.request.kind:
        case "pause":
            pause(case.connection, case.cluster, by=author, reason=text, now=case.now)
            return "Paused."
        case "unpause":
            unpause(case.connection, case.cluster, reason=text)
            return "Taken up again."
    return trips.reset(
        case.connection,
        case.cluster,
        case.parameters.limit,
        by=author,
        reason=text,
        now=case.now,
    )


def _health(case: Case) -> dict[str, str]:
    facts = read_facts(case.connection, case.cluster)
    return {name: node.health for name, node in facts.items()}


def _open_operation(case: Case, operation_id: str) -> Any:
    row = _find_operation(case, operation_id)
    if row.ended_at is not None:
        raise RequestRefused(
            f"Operation {operation_id} has ended ({row.state}): there is nothing to do.",
            code="conflict",
        )
    return row


def _find_operation(case: Case, operation_id: str) -> Any:
    row = case.connection.execute(
        select(_operation)
        .where(_operation.c.cluster == case.cluster, _operation.c.id == operation_id)
        .with_for_update()
    ).first()
    if row is None:
        raise RequestRefused(
            f"There is no operation {operation_id or '(none named)'}: see `pitwall operations --all`.",
            code="not_found",
        )
    return row


def _is_confirmed(offer: dict[str, Any], typed: str) -> bool:
    wanted = str(offer.get("confirmation") or "")
    return not wanted or typed.strip() in (wanted, f"{wanted} is powered off")
