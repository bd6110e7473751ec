"""What the service state and planned absences need to remember of each node. Written by the active worker.

The state itself is written with what Kubernetes says (writes/kubernetes.py); here are its debts, its
clock, what is planned, and the end of a repair.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, or_, select
from sqlalchemy import update as sql_update

from app.store.reads.rows import table_of
from app.store.tables import Node
from app.store.writes.bulk import WHOLE_TABLE_AT, clock, update

_node = table_of(Node)


class Kept(msgspec.Struct, frozen=True):
    """A node as the store has it, as far as its next state depends on that."""

    uid: str | None
    service: str
    operation_id: str | None
    owes_probation: bool | None  # False: a person has ended it
    clean_since: datetime | None
    repair_by: str | None
    repair_note: str | None
    planned: str | None
    planned_since: datetime | None
    health: str
    health_reason: str
    health_since: datetime | None
    observed_at: datetime | None


class Standing(msgspec.Struct, frozen=True):
    """What is to be remembered of a node. keeps_repair: a cordon holds it, so a repair may go on."""

    uid: str
    owes_probation: bool
    clean_since: datetime | None
    planned: str | None
    planned_since: datetime | None
    keeps_repair: bool


def read_kept(
    connection: Connection,
    cluster: str,
    *,
    whole: bool = False,
    names: Sequence[str] | None = None,
) -> dict[str, Kept]:
    """Nodes whose next state depends on more than Kubernetes, by name; every node when `whole`, these
    when there are names."""
    if names is not None and len(names) >= WHOLE_TABLE_AT:
        wanted = frozenset(names)
        every = read_kept(connection, cluster, whole=True)
        return {name: row for name, row in every.items() if name in wanted}
    statement = select(
        _node.c.name,
        _node.c.uid,
        _node.c.service,
        _node.c.operation_id,
        _node.c.owes_probation,
        _node.c.clean_since,
        _node.c.repair_by,
        _node.c.repair_note,
        _node.c.planned,
        _node.c.planned_since,
        _node.c.health,
        _node.c.health_reason,
        _node.c.health_since,
        _node.c.observed_at,
    ).where(_node.c.cluster == cluster)
    if names is not None:
        statement = statement.where(_node.c.name.in_(names))
    elif not whole:
        statement = statement.where(
            or_(
                _node.c.service == "Probation",
                _node.c.owes_probation.is_not(None),
                _node.c.repair_by.is_not(None),
                _node.c.planned_since.is_not(None),
            )
        )
    rows: list[Any] = list(connection.execute(statement))
    return {row[0]: Kept(*row[1:]) for row in rows}


def end_probation(connection: Connection, cluster: str, names: Sequence[str]) -> None:
    """A person's word that these nodes, on Probation, are in service; the next look makes them so."""
    connection.execute(
        sql_update(_node)
        .where(_node.c.cluster == cluster, _node.c.name.in_(names), _node.c.service == "Probation")
        .values(owes_probation=False)
    )


def send_to_repair(
    connection: Connection, cluster: str, names: Sequence[str], *, by: str, note: str
) -> None:
    """A person's word that these nodes are under repair, and why; the next look makes them so."""
    connection.execute(
        sql_update(_node)
        .where(_node.c.cluster == cluster, _node.c.name.in_(names))
        .values(repair_by=by, repair_note=note)
    )


def store_standings(
    connection: Connection, cluster: str, standings: Mapping[str, Standing]
) -> None:
    """Store what changed. A person's word that came meanwhile stands: a probation that was ended stays
    ended while the node is on it, and a repair ends only when no cordon holds the node any more."""
    stored = clock(connection)
    rows = []
    for name, standing in sorted(standings.items()):
        clean = None if standing.clean_since is None else stored(standing.clean_since)
        since = None if standing.planned_since is None else stored(standing.planned_since)
        rows.append(
            (
                standing.owes_probation or None,
                clean,
                standing.planned,
                since,
                standing.keeps_repair,
                standing.keeps_repair,
                cluster,
                name,
                standing.uid,
            )
        )
    update(
        connection,
        "UPDATE node SET owes_probation = "
        "CASE WHEN service = 'Probation' AND NOT owes_probation THEN owes_probation ELSE ? END, "
        "clean_since = ?, planned = ?, planned_since = ?, "
        "repair_by = CASE WHEN ? THEN repair_by END, repair_note = CASE WHEN ? THEN repair_note END "
        "WHERE cluster = ? AND name = ? AND uid = ?",
        rows,
    )
