"""What of the store alerts are made of, of one moment. Inside the caller's transaction."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, or_, select

from app.alerts.identity import FAILED_SECONDS, SOURCE_OF
from app.alerts.model import make_matcher
from app.alerts.seen import IncidentSeen, OperationSeen, Seen, SourceSeen
from app.alerts.silences import ActiveSilence
from app.store.reads.rows import table_of
from app.store.reads.status import SOURCE_SILENCE_SECONDS
from app.store.tables import (
    AlertDelivery,
    Finding,
    Incident,
    Job,
    LimitMark,
    Node,
    Operation,
    OperationNode,
    Request,
    Silence,
    SourceStatus,
)

WATCHED = ("agents", "ingest", "kubernetes", "prometheus", "training", "watchdog")
"""Sources whose silence is told; Alertmanager's peers are among them by their prefix."""

_incident, _finding, _node, _job = (
    table_of(Incident),
    table_of(Finding),
    table_of(Node),
    table_of(Job),
)
_operation, _held, _source = table_of(Operation), table_of(OperationNode), table_of(SourceStatus)
_mark, _request, _delivery = table_of(LimitMark), table_of(Request), table_of(AlertDelivery)
_silence = table_of(Silence)


def read_seen(
    connection: Connection,
    cluster: str,
    *,
    incidents: Collection[str],
    requests: Collection[str],
    receivers: Collection[str],
    away_since: datetime | None,
    now: datetime,
) -> Seen:
    """All of this moment. incidents, requests: those that open alerts are about, also where they are over."""
    return Seen(
        cluster,
        incidents=_incidents(connection, cluster, incidents),
        operations=_operations(connection, cluster, now),
        sources=_sources(connection, cluster, now),
        limits=[
            (row.name, row.tripped_at, row.message)
            for row in connection.execute(select(_mark).where(_mark.c.cluster == cluster))
        ],
        approvals=_approvals(connection, cluster, requests),
        dead=_dead(connection, cluster),
        receivers=sorted(receivers),
        away_since=away_since,
    )


def read_silences(connection: Connection, cluster: str, now: datetime) -> list[ActiveSilence]:
    """The silences that hold now."""
    rows = connection.execute(
        select(_silence).where(
            _silence.c.cluster == cluster, _silence.c.starts_at <= now, _silence.c.ends_at > now
        )
    )
    return [
        ActiveSilence(
            row.id,
            tuple(make_matcher(one["label"], one["op"], one["value"]) for one in row.matchers),
            row.starts_at,
            row.ends_at,
            row.ended_by,
        )
        for row in rows
    ]


def _incidents(connection: Connection, cluster: str, asked: Collection[str]) -> list[IncidentSeen]:
    rows = connection.execute(
        select(_incident).where(
            _incident.c.cluster == cluster,
            or_(_incident.c.resolved_at.is_(None), _incident.c.id.in_(sorted(asked))),
        )
    ).all()
    episodes = {episode for row in rows for episode in row.findings or ()}
    sources: dict[str, str] = {}
    for part in _parts(sorted(episodes)):
        found = connection.execute(
            select(_finding.c.episode, _finding.c.source).where(
                _finding.c.cluster == cluster, _finding.c.episode.in_(part)
            )
        )
        sources |= {row.episode: row.source for row in found}
    nodes = {_first_node(row) for row in rows} - {""}
    places: dict[str, dict[str, str]] = {}
    for part in _parts(sorted(nodes)):
        found = connection.execute(
            select(
                _node.c.name, _node.c.rack, _node.c.leaf, _node.c.block, _node.c.power_domain
            ).where(_node.c.cluster == cluster, _node.c.name.in_(part))
        )
        for row in found:
            told = {
                "rack": row.rack,
                "leaf": row.leaf,
                "block": row.block,
                "power": row.power_domain,
            }
            places[row.name] = {name: value for name, value in told.items() if value}
    teams = _teams(connection, cluster, rows)
    return [
        IncidentSeen(
            row.id, row.scope, row.subject, row.severity, row.title, row.cause, row.action, row.opened_at,
            resolved_at=row.resolved_at, resolved_by=row.resolved_by, acknowledged_at=row.acknowledged_at,
            acknowledged_by=row.acknowledged_by, gpus_hurt=row.gpus_hurt, jobs=row.jobs or (),
            nodes=tuple(row.nodes or ()), first=row.first or {},
            sources=frozenset(SOURCE_OF.get(sources[e], sources[e]) for e in row.findings or () if e in sources),
            places=places.get(_first_node(row), {}), team=teams.get(row.id),
        )
        for row in rows
        if row.merged_into is None
    ]  # fmt: skip


def _first_node(row: Any) -> str:
    if row.scope == "node":
        return str(row.subject)
    return str((row.first or {}).get("node") or next(iter(row.nodes or ()), ""))


def _teams(connection: Connection, cluster: str, rows: Any) -> dict[str, str]:
    """The team of the job that is hurt most."""
    most = {
        row.id: max(row.jobs, key=lambda job: (int(job.get("gpus") or 0), str(job.get("uid"))))[
            "uid"
        ]
        for row in rows
        if row.jobs
    }
    teams: dict[str, str] = {}
    for part in _parts(sorted(set(most.values()))):
        found = connection.execute(
            select(_job.c.uid, _job.c.team).where(_job.c.cluster == cluster, _job.c.uid.in_(part))
        )
        teams |= {row.uid: row.team for row in found if row.team}
    return {name: teams[uid] for name, uid in most.items() if uid in teams}


def _operations(connection: Connection, cluster: str, now: datetime) -> list[OperationSeen]:
    since = now - timedelta(seconds=FAILED_SECONDS)
    rows = connection.execute(
        select(_operation).where(
            _operation.c.cluster == cluster,
            _operation.c.kind.in_(("drain", "reschedule")),
            or_(_operation.c.ended_at.is_(None), _operation.c.ended_at > since),
        )
    ).all()
    nodes: dict[str, list[str]] = {}
    for part in _parts([row.id for row in rows]):
        for held in connection.execute(
            select(_held.c.operation_id, _held.c.node)
            .where(_held.c.cluster == cluster, _held.c.operation_id.in_(part))
            .order_by(_held.c.node)
        ):
            nodes.setdefault(held.operation_id, []).append(held.node)
    return [
        OperationSeen(
            row.id, row.kind, row.subject, row.state, row.message, row.author, row.created_at, row.updated_at,
            ended_at=row.ended_at, deadline_at=row.deadline_at, nodes=tuple(nodes.get(row.id, ())),
            waiting=tuple(
                str(one.get("name")) for one in (row.workloads_state or {}).values()
                if one.get("verdict") == "Waiting for capacity"
            ),
        )
        for row in rows
    ]  # fmt: skip


def _sources(connection: Connection, cluster: str, now: datetime) -> list[SourceSeen]:
    rows = connection.execute(select(_source).where(_source.c.cluster == cluster))
    silence = timedelta(seconds=SOURCE_SILENCE_SECONDS)
    return [
        SourceSeen(
            row.source,
            row.state == "blind" or now - row.updated_at > silence,
            row.message,
            row.last_ok_at,
            row.updated_at,
        )
        for row in rows
        if row.source in WATCHED or row.source.startswith("alertmanager:")
    ]


def _approvals(
    connection: Connection, cluster: str, asked: Collection[str]
) -> list[tuple[str, str, str, datetime, bool]]:
    rows = connection.execute(
        select(
            _request.c.id,
            _request.c.kind,
            _request.c.author,
            _request.c.created_at,
            _request.c.state,
        ).where(
            _request.c.cluster == cluster,
            or_(_request.c.state == "awaiting_approval", _request.c.id.in_(sorted(asked))),
        )
    )
    return [
        (row.id, row.kind, row.author, row.created_at, row.state == "awaiting_approval")
        for row in rows
    ]


def _dead(connection: Connection, cluster: str) -> list[tuple[str, int, datetime]]:
    rows = connection.execute(
        select(
            _delivery.c.receiver,
            func.count(),
            func.min(_delivery.c.created_at, type_=_delivery.c.created_at.type),
        )
        .where(_delivery.c.cluster == cluster, _delivery.c.state == "dead")
        .group_by(_delivery.c.receiver)
    )
    return [(str(row[0]), int(row[1]), row[2]) for row in rows]


def _parts(names: list[str], size: int = 500) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]
