"""Reads of repairs, diagnostics, and how often a node failed again after it had been given back."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine, select

from app.store.engine import read
from app.store.reads.rows import columns_of, limited, table_of
from app.store.records import DiagnosticRecord, RepairRecord
from app.store.tables import HealthEvent, NodeDiagnostic, NodeRepair, Operation, OperationNode

_repair, _diagnostic = table_of(NodeRepair), table_of(NodeDiagnostic)
_operation, _held, _event = table_of(Operation), table_of(OperationNode), table_of(HealthEvent)

DAYS = 30.0
"""As PITWALL_REOFFENCE_DAYS has by default."""


def repairs(
    engine: Engine,
    cluster: str,
    *,
    node: str | None = None,
    gpu: str | None = None,
    limit: int = 100,
) -> list[RepairRecord]:
    """Repairs, the newest first; of one node, or of the node that held a GPU (UUID or serial) then."""
    statement = select(*columns_of(NodeRepair, RepairRecord)).where(_repair.c.cluster == cluster)
    if node is not None:
        statement = statement.where(_repair.c.node == node)
    statement = statement.order_by(_repair.c.opened_at.desc(), _repair.c.id)
    with read(engine) as connection:
        if gpu is None:
            return [RepairRecord(*row) for row in connection.execute(limited(statement, limit))]
        found = (RepairRecord(*row) for row in connection.execute(statement))
        mine = [one for one in found if any(gpu in (g["uuid"], g["serial"]) for g in one.gpus)]
    return mine[:limit]


def diagnostics(
    engine: Engine, cluster: str, *, node: str | None = None, limit: int = 100
) -> list[DiagnosticRecord]:
    """Diagnostics, the newest first."""
    statement = select(*columns_of(NodeDiagnostic, DiagnosticRecord)).where(
        _diagnostic.c.cluster == cluster
    )
    if node is not None:
        statement = statement.where(_diagnostic.c.node == node)
    statement = statement.order_by(_diagnostic.c.requested_at.desc(), _diagnostic.c.id)
    with read(engine) as connection:
        return [DiagnosticRecord(*row) for row in connection.execute(limited(statement, limit))]


def last_diagnostic(
    connection: Connection, cluster: str, node: str, *, since: datetime | None
) -> DiagnosticRecord | None:
    """The node's last diagnostic that was asked for since then."""
    statement = select(*columns_of(NodeDiagnostic, DiagnosticRecord)).where(
        _diagnostic.c.cluster == cluster, _diagnostic.c.node == node
    )
    if since is not None:
        statement = statement.where(_diagnostic.c.requested_at >= since)
    row = connection.execute(
        statement.order_by(_diagnostic.c.requested_at.desc(), _diagnostic.c.id).limit(1)
    ).first()
    return None if row is None else DiagnosticRecord(*row)


def repair_opened_at(connection: Connection, cluster: str, node: str) -> datetime | None:
    """Since when the node's open repair lasts; None where none is open."""
    row = connection.execute(
        select(_repair.c.opened_at).where(
            _repair.c.cluster == cluster, _repair.c.node == node, _repair.c.returned_at.is_(None)
        )
    ).first()
    return None if row is None else row.opened_at


def reoffences(
    connection: Connection, cluster: str, nodes: Iterable[str], *, days: float, now: datetime
) -> dict[str, int]:
    """How often each node became Failing within so many days of a return, counted once a return, in three times as long.

    A return is an uncordon that ended well.
    """
    names, within = sorted(set(nodes)), timedelta(days=days)
    since = now - 3 * within
    returns: dict[str, list[datetime]] = {name: [] for name in names}
    for row in connection.execute(
        select(_held.c.node, _operation.c.ended_at)
        .join(_operation, _operation.c.id == _held.c.operation_id)
        .where(
            _held.c.cluster == cluster,
            _held.c.node.in_(names),
            _operation.c.kind == "uncordon",
            _operation.c.state == "Succeeded",
            _operation.c.ended_at >= since,
        )
        .order_by(_operation.c.ended_at)
    ):
        returns[row.node].append(row.ended_at)
    failures: dict[str, list[datetime]] = {name: [] for name in names}
    for row in connection.execute(
        select(_event.c.node, _event.c.at).where(
            _event.c.cluster == cluster,
            _event.c.node.in_(names),
            _event.c.kind == "node_health",
            _event.c.code == "Failing",
            _event.c.at >= since,
        )
    ):
        failures[row.node].append(row.at)
    return {name: _count(returns[name], failures[name], within) for name in names}


def failed_again(
    engine: Engine, cluster: str, nodes: Iterable[str], *, now: datetime
) -> dict[str, int]:
    """As reoffences, within the days that settings have by default; for whoever only looks."""
    with read(engine) as connection:
        return reoffences(connection, cluster, nodes, days=DAYS, now=now)


def _count(returns: list[datetime], failures: list[datetime], within: timedelta) -> int:
    """Returns that were followed by a failure in time and before the next return."""
    count = 0
    for number, returned in enumerate(returns):
        until = returned + within
        if number + 1 < len(returns):
            until = min(until, returns[number + 1])
        count += any(returned < failed <= until for failed in failures)
    return count
