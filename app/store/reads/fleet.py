"""Reads of the fleet: nodes, GPUs, what is wrong with them, and the packed vectors of the map."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Engine, Select, and_, func, or_, select

from app.store.engine import read
from app.store.reads.rows import (
    EPOCH,
    columns_of,
    contains,
    document_of,
    known_cursor,
    limited,
    table_of,
)
from app.store.records import (
    EventRecord,
    FindingRecord,
    FrameRecord,
    GpuRecord,
    NodeRecord,
    PodRecord,
    Topology,
)
from app.store.tables import Finding, FleetFrame, Gpu, HealthEvent, Node, Pod
from app.store.vectors import decode_topology

_NODE = table_of(Node)
_GPU = table_of(Gpu)
_FINDING = table_of(Finding)
_EVENT = table_of(HealthEvent)
_POD = table_of(Pod)
_FRAME = table_of(FleetFrame)

EMPTY_TOPOLOGY = Topology(version="", slots=8, blocks=())


def topology(engine: Engine, cluster: str) -> Topology:
    """Blocks, racks and nodes in the order of the frames; empty while no node is known."""
    found = frame(engine, cluster, "topology")
    return EMPTY_TOPOLOGY if found is None else decode_topology(found.data)


def frame(engine: Engine, cluster: str, metric: str) -> FrameRecord | None:
    """The packed vector of one metric (app.store.vectors says how it is packed), None while there is none."""
    statement = select(*columns_of(FleetFrame, FrameRecord)).where(
        _FRAME.c.cluster == cluster, _FRAME.c.metric == metric
    )
    with read(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else FrameRecord(*row)


def frames(engine: Engine, cluster: str, metrics: list[str]) -> dict[str, FrameRecord]:
    """Several frames of one moment, so that they are of one topology."""
    statement = select(*columns_of(FleetFrame, FrameRecord)).where(
        _FRAME.c.cluster == cluster, _FRAME.c.metric.in_(metrics)
    )
    with read(engine) as connection:
        found = [FrameRecord(*row) for row in connection.execute(statement)]
    return {record.metric: record for record in found}


def nodes(
    engine: Engine,
    cluster: str,
    *,
    health: str | None = None,
    service: str | None = None,
    block: str | None = None,
    rack: str | None = None,
    search: str | None = None,
    order: str = "name",
    limit: int = 100,
    after: str | None = None,
) -> list[NodeRecord]:
    """Nodes in order of "name", or of "worst": score from high to low, then longest, then name.

    `search` is a part of the name or of the reason. `after` is the name of the last node had.
    """
    statement = select(*columns_of(Node, NodeRecord)).where(_NODE.c.cluster == cluster)
    for column, wanted in (
        (_NODE.c.health, health),
        (_NODE.c.service, service),
        (_NODE.c.block, block),
        (_NODE.c.rack, rack),
    ):
        if wanted is not None:
            statement = statement.where(column == wanted)
    if search:
        pattern = contains(search)
        statement = statement.where(
            or_(
                _NODE.c.name.ilike(pattern, escape="\\"),
                _NODE.c.health_reason.ilike(pattern, escape="\\"),
            )
        )
    with read(engine) as connection:
        if order == "worst":
            statement = _worst_first(statement, _last_of(connection, cluster, after))
        else:
            statement = statement.order_by(_NODE.c.name)
            if after is not None:
                statement = statement.where(_NODE.c.name > after)
        return [NodeRecord(*row) for row in connection.execute(limited(statement, limit))]


def worst_nodes(engine: Engine, cluster: str, *, limit: int = 20) -> list[NodeRecord]:
    """The nodes that need a person most, none that is well; the order is stable between reads."""
    statement = select(*columns_of(Node, NodeRecord)).where(
        _NODE.c.cluster == cluster, _NODE.c.score > 0
    )
    with read(engine) as connection:
        return [
            NodeRecord(*row)
            for row in connection.execute(limited(_worst_first(statement, None), limit))
        ]


def node(engine: Engine, cluster: str, name: str) -> NodeRecord | None:
    """One node, None when it is not known."""
    statement = select(*columns_of(Node, NodeRecord)).where(
        _NODE.c.cluster == cluster, _NODE.c.name == name
    )
    with read(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else NodeRecord(*row)


def nodes_named(engine: Engine, cluster: str, names: Sequence[str]) -> list[NodeRecord]:
    """Those of these nodes that are known, by name; some hundreds of names at most."""
    statement = (
        select(*columns_of(Node, NodeRecord))
        .where(_NODE.c.cluster == cluster, _NODE.c.name.in_(list(names)))
        .order_by(_NODE.c.name)
    )
    with read(engine) as connection:
        return [NodeRecord(*row) for row in connection.execute(statement)]


def gpus(
    engine: Engine,
    cluster: str,
    *,
    node: str | None = None,
    health: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[GpuRecord]:
    """GPUs by node, index and UUID. `after` is the UUID of the last one had."""
    index = func.coalesce(_GPU.c.index, -1)
    statement = select(*columns_of(Gpu, GpuRecord)).where(_GPU.c.cluster == cluster)
    if node is not None:
        statement = statement.where(_GPU.c.node == node)
    if health is not None:
        statement = statement.where(_GPU.c.health == health)
    statement = statement.order_by(_GPU.c.node, index, _GPU.c.uuid)
    with read(engine) as connection:
        if after is not None:
            named = connection.execute(
                select(_GPU.c.node, index).where(_GPU.c.cluster == cluster, _GPU.c.uuid == after)
            ).first()
            last = known_cursor(named, after)
            statement = statement.where(
                or_(
                    _GPU.c.node > last[0],
                    and_(_GPU.c.node == last[0], index > last[1]),
                    and_(_GPU.c.node == last[0], index == last[1], _GPU.c.uuid > after),
                )
            )
        rows = connection.execute(limited(statement, limit)).all()
    return [_gpu(row) for row in rows]


def gpu(engine: Engine, cluster: str, uuid: str) -> GpuRecord | None:
    """One GPU by UUID, None when it is not known."""
    statement = select(*columns_of(Gpu, GpuRecord)).where(
        _GPU.c.cluster == cluster, _GPU.c.uuid == uuid
    )
    with read(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else _gpu(row)


def pods_of_node(engine: Engine, cluster: str, name: str) -> list[PodRecord]:
    """The pods on a node, by namespace and name."""
    statement = (
        select(*columns_of(Pod, PodRecord))
        .where(_POD.c.cluster == cluster, _POD.c.node == name)
        .order_by(_POD.c.namespace, _POD.c.name, _POD.c.uid)
    )
    with read(engine) as connection:
        return [PodRecord(*row) for row in connection.execute(limited(statement, 1000))]


def findings_of_node(
    engine: Engine, cluster: str, name: str, *, open_only: bool = True, limit: int = 200
) -> list[FindingRecord]:
    """A node's findings, newest first; only the open ones unless asked otherwise."""
    statement = select(*columns_of(Finding, FindingRecord)).where(
        _FINDING.c.cluster == cluster, _FINDING.c.node == name
    )
    if open_only:
        statement = statement.where(_FINDING.c.closed_at.is_(None))
    statement = statement.order_by(_FINDING.c.opened_at.desc(), _FINDING.c.episode)
    with read(engine) as connection:
        return [FindingRecord(*row) for row in connection.execute(limited(statement, limit))]


def findings(
    engine: Engine, cluster: str, *, severity: str | None = None, limit: int = 200
) -> list[FindingRecord]:
    """Open findings of the whole cluster, newest first."""
    statement = select(*columns_of(Finding, FindingRecord)).where(
        _FINDING.c.cluster == cluster, _FINDING.c.closed_at.is_(None)
    )
    if severity is not None:
        statement = statement.where(_FINDING.c.severity == severity)
    statement = statement.order_by(_FINDING.c.opened_at.desc(), _FINDING.c.episode)
    with read(engine) as connection:
        return [FindingRecord(*row) for row in connection.execute(limited(statement, limit))]


def events_of_node(
    engine: Engine, cluster: str, name: str, *, since: datetime | None = None, limit: int = 100
) -> list[EventRecord]:
    """A node's events, newest first."""
    statement = select(*columns_of(HealthEvent, EventRecord)).where(
        _EVENT.c.cluster == cluster, _EVENT.c.node == name
    )
    return _events(engine, statement, since=since, limit=limit)


def events(
    engine: Engine, cluster: str, *, since: datetime | None = None, limit: int = 100
) -> list[EventRecord]:
    """The cluster's events, newest first."""
    statement = select(*columns_of(HealthEvent, EventRecord)).where(_EVENT.c.cluster == cluster)
    return _events(engine, statement, since=since, limit=limit)


def _events(
    engine: Engine, statement: Select[Any], *, since: datetime | None, limit: int
) -> list[EventRecord]:
    if since is not None:
        statement = statement.where(_EVENT.c.at >= since)
    statement = statement.order_by(_EVENT.c.at.desc(), _EVENT.c.id.desc())
    with read(engine) as connection:
        return [EventRecord(*row) for row in connection.execute(limited(statement, limit))]


def _last_of(connection: Any, cluster: str, after: str | None) -> Any:
    if after is None:
        return None
    last = connection.execute(
        select(_NODE.c.score, func.coalesce(_NODE.c.health_since, EPOCH), _NODE.c.name).where(
            _NODE.c.cluster == cluster, _NODE.c.name == after
        )
    ).first()
    return known_cursor(last, after)


def _worst_first(statement: Select[Any], last: Any) -> Select[Any]:
    since = func.coalesce(_NODE.c.health_since, EPOCH)
    if last is not None:
        score, last_since, name = last
        statement = statement.where(
            or_(
                _NODE.c.score < score,
                and_(_NODE.c.score == score, since > last_since),
                and_(_NODE.c.score == score, since == last_since, _NODE.c.name > name),
            )
        )
    return statement.order_by(_NODE.c.score.desc(), since, _NODE.c.name)


def _gpu(row: Any) -> GpuRecord:
    record = GpuRecord(*row)
    missing = record.missing
    return msgspec.structs.replace(
        record, missing=document_of(missing if isinstance(missing, str) else None)
    )
