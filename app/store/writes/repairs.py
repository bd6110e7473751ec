"""Writes of repairs and diagnostics. Inside the caller's transaction."""

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from app.errors import RequestRefused
from app.store.reads.rows import table_of
from app.store.tables import Gpu, Incident, IncidentEvent, NodeDiagnostic, NodeRepair

MAX_NOTES = 200

_repair, _diagnostic = table_of(NodeRepair), table_of(NodeDiagnostic)
_gpu, _incident, _told = table_of(Gpu), table_of(Incident), table_of(IncidentEvent)


def open_repair(
    connection: Connection,
    cluster: str,
    node: str,
    *,
    by: str,
    note: str,
    action: str,
    calls: bool,
    now: datetime,
) -> str:
    """Begins a node's repair, or adds the note to the one that is open; gives its id. calls: tell the webhook."""
    entry = {"at": now.isoformat(), "by": by, "text": note}
    known = _open(connection, cluster, node)
    call = (
        {"call": "pending", "call_next_at": now, "call_attempts": 0, "call_error": ""}
        if calls
        else {}
    )
    if known is not None:
        connection.execute(
            update(_repair)
            .where(_repair.c.cluster == cluster, _repair.c.id == known.id)
            .values(notes=[*known.notes, entry][-MAX_NOTES:], action=action or known.action, **call)
        )
        return str(known.id)
    repair_id = uuid.uuid4().hex[:12]
    connection.execute(
        insert(_repair).values(
            **{"call": "none", "call_attempts": 0, "call_error": "", **call},
            cluster=cluster,
            id=repair_id,
            node=node,
            opened_at=now,
            opened_by=by,
            action=action,
            notes=[entry],
            gpus=_gpus(connection, cluster, node),
            incident_id=_open_incident(connection, cluster, node),
        )
    )
    return repair_id


def add_note(
    connection: Connection, cluster: str, node: str, *, by: str, text: str, now: datetime
) -> None:
    """Adds a note to the node's last repair, also after its return. Raises RequestRefused where there is none."""
    row = connection.execute(
        select(_repair.c.id, _repair.c.notes)
        .where(_repair.c.cluster == cluster, _repair.c.node == node)
        .order_by(_repair.c.opened_at.desc())
    ).first()
    if row is None:
        raise RequestRefused(
            f"{node} was never under repair: `pitwall repair` begins one.", code="not_found"
        )
    notes = [*row.notes, {"at": now.isoformat(), "by": by, "text": text}][-MAX_NOTES:]
    connection.execute(
        update(_repair)
        .where(_repair.c.cluster == cluster, _repair.c.id == row.id)
        .values(notes=notes)
    )


def close_repairs(
    connection: Connection, cluster: str, nodes: Sequence[str], *, by: str, now: datetime
) -> None:
    """The nodes were given back; a call that was not sent yet is not needed any more."""
    mine = (
        _repair.c.cluster == cluster,
        _repair.c.node.in_(nodes),
        _repair.c.returned_at.is_(None),
    )
    connection.execute(
        update(_repair).where(*mine, _repair.c.call == "pending").values(call="none")
    )
    connection.execute(update(_repair).where(*mine).values(returned_at=now, returned_by=by))


def open_diagnostic(
    connection: Connection,
    cluster: str,
    *,
    node: str,
    node_uid: str,
    request: Any,
    namespace: str,
    now: datetime,
) -> str:
    """Notes that a diagnostic is wanted; the worker makes its Job. Raises RequestRefused where one is open."""
    known = connection.execute(
        select(_diagnostic.c.id).where(
            _diagnostic.c.cluster == cluster,
            _diagnostic.c.node == node,
            _diagnostic.c.ended_at.is_(None),
        )
    ).first()
    if known is not None:
        raise RequestRefused(
            f"Diagnostic {known.id} is at {node} already: wait for its end.", code="conflict"
        )
    diagnostic_id = uuid.uuid4().hex[:10]
    groups = request.author_groups
    connection.execute(
        insert(_diagnostic).values(
            cluster=cluster,
            id=diagnostic_id,
            node=node,
            node_uid=node_uid,
            requested_by=request.author,
            requested_groups=None if groups is None else json.dumps(list(groups)),
            requested_at=now,
            namespace=namespace,
            job=f"pitwall-diagnostic-{diagnostic_id}",
            state="asked",
            message="",
        )
    )
    return diagnostic_id


def change_diagnostic(
    connection: Connection, cluster: str, diagnostic_id: str, **values: Any
) -> None:
    """Writes what has become of a diagnostic that is open."""
    connection.execute(
        update(_diagnostic)
        .where(
            _diagnostic.c.cluster == cluster,
            _diagnostic.c.id == diagnostic_id,
            _diagnostic.c.ended_at.is_(None),
        )
        .values(**values)
    )


def change_call(connection: Connection, cluster: str, repair_id: str, **values: Any) -> None:
    """Writes what has become of a call to the webhook that was pending."""
    connection.execute(
        update(_repair)
        .where(_repair.c.cluster == cluster, _repair.c.id == repair_id, _repair.c.call == "pending")
        .values(**values)
    )


def tell_node(connection: Connection, cluster: str, node: str, text: str, *, now: datetime) -> None:
    """Puts a note on the timeline of the node's open incident, where there is one."""
    incident_id = _open_incident(connection, cluster, node)
    if incident_id is not None:
        connection.execute(
            insert(_told).values(
                cluster=cluster,
                incident_id=incident_id,
                at=now,
                kind="note",
                author="Pitwall",
                message=text,
            )
        )


def _open(connection: Connection, cluster: str, node: str) -> Any:
    return connection.execute(
        select(_repair.c.id, _repair.c.notes, _repair.c.action).where(
            _repair.c.cluster == cluster, _repair.c.node == node, _repair.c.returned_at.is_(None)
        )
    ).first()


def _gpus(connection: Connection, cluster: str, node: str) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(_gpu.c.uuid, _gpu.c.serial, _gpu.c.index)
        .where(_gpu.c.cluster == cluster, _gpu.c.node == node)
        .order_by(_gpu.c.index, _gpu.c.uuid)
    )
    return [{"uuid": row.uuid, "serial": row.serial, "index": row.index} for row in rows]


def _open_incident(connection: Connection, cluster: str, node: str) -> str | None:
    rows = connection.execute(
        select(_incident.c.id, _incident.c.subject, _incident.c.nodes)
        .where(_incident.c.cluster == cluster, _incident.c.resolved_at.is_(None))
        .order_by(_incident.c.opened_at)
    )
    return next((row.id for row in rows if row.subject == node or node in row.nodes), None)
