"""What is found centrally, kept as findings: opened, said again, closed; and what that makes of a node's health.

A source (Kubernetes, a job's readings side by side) says each time the whole of what it finds. Reports of
nodes have their own way (app/store/writes/findings.py); neither closes what is the other's.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from app.store.frames import refresh_frames
from app.store.writes.bulk import clock, insert, parse_time, select_where_in, update
from app.store.writes.events import Event, append_events
from app.store.writes.node_health import Beside, combine_health, score
from app.store.writes.nodes import health_event
from collectors.central import CentralFinding

Key = tuple[str, str, str, str]
"""(rule, node, GPU UUID or "", subject): what a finding is known by within its source."""

_COLUMNS = (
    "cluster",
    "episode",
    "node",
    "gpu_uuid",
    "rule",
    "severity",
    "changes_health",
    "message",
    "action",
    "source",
    "subject",
    "job_uid",
    "rank",
    "pod_uids",
    "explanation",
    "look_next",
    "opened_at",
    "seen_at",
)

CENTRAL_SOURCES = ("kubernetes", "training")
"""Sources whose word on a node stands beside its own reports; dcgm-exporter's series are such reports."""


@dataclass(frozen=True)
class OpenCentral:
    """A finding that is open in the store."""

    key: Key
    episode: str
    severity: str
    message: str
    changes_health: bool
    opened_at: datetime
    seen_at: datetime


@dataclass
class CentralChanges:
    """Episodes opened and closed, and the nodes whose health is now another."""

    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)


def open_central(connection: Connection, cluster: str, source: str) -> list[OpenCentral]:
    """What a source has open: where it goes on after a restart."""
    rows = connection.execute(
        text(
            "SELECT rule, node, gpu_uuid, subject, episode, severity, message, changes_health, "
            "opened_at, seen_at FROM finding "
            "WHERE cluster = :cluster AND source = :source AND closed_at IS NULL"
        ),
        {"cluster": cluster, "source": source},
    )
    return [
        OpenCentral(
            key=(rule, node, gpu_uuid or "", subject),
            episode=episode,
            severity=severity,
            message=message,
            changes_health=bool(changes_health),
            opened_at=_time(opened_at),
            seen_at=_time(seen_at),
        )
        for (
            rule,
            node,
            gpu_uuid,
            subject,
            episode,
            severity,
            message,
            changes_health,
            opened_at,
            seen_at,
        ) in rows
    ]


def fold_central(
    connection: Connection,
    cluster: str,
    source: str,
    findings: Iterable[CentralFinding],
    now: datetime,
    *,
    kept: Collection[Key] = (),
) -> CentralChanges:
    """Make what a source has open equal to `findings`; what is in `kept` is not known now and stays as it is.

    Writes only what changed. A finding said twice is one: the first stands.
    """
    said: dict[Key, CentralFinding] = {}
    for finding in findings:
        said.setdefault(finding.key, finding)
    known = {one.key: one for one in open_central(connection, cluster, source)}
    stored = clock(connection)
    changes = CentralChanges()
    events: list[Event] = []
    touched: set[str] = set()
    closing = [one for key, one in known.items() if key not in said and key not in kept]
    for one in closing:
        changes.closed.append(one.episode)
        events.append(_closed(one, now))
        if one.changes_health:
            touched.add(one.key[1])
    again, rows = [], []
    for key, finding in said.items():
        before = known.get(key)
        if before is None:
            episode = uuid.uuid4().hex
            changes.opened.append(episode)
            rows.append(_row(cluster, episode, source, finding, stored, now))
            events.append(_opened(finding, episode, now))
            if finding.changes_health:
                touched.add(finding.node)
        elif (before.severity, before.message) != (finding.severity, finding.message):
            again.append(
                (
                    finding.severity,
                    finding.message,
                    finding.action,
                    finding.rank,
                    stored(now),
                    cluster,
                    before.episode,
                )
            )
            if finding.changes_health:  # the node's reason quotes the message
                touched.add(finding.node)
    update(
        connection,
        "UPDATE finding SET closed_at = ? WHERE cluster = ? AND episode = ? AND closed_at IS NULL",
        [(stored(now), cluster, one.episode) for one in closing],
    )
    update(
        connection,
        "UPDATE finding SET severity = ?, message = ?, action = ?, rank = ?, seen_at = ? "
        "WHERE cluster = ? AND episode = ? AND closed_at IS NULL",
        again,
    )
    insert(connection, "finding", _COLUMNS, rows)
    append_events(connection, cluster, events)
    changes.nodes = judge_again(connection, cluster, sorted(touched - {""}), now)
    return changes


def open_beside(
    connection: Connection,
    cluster: str,
    names: Sequence[str],
    *,
    sources: Collection[str] = CENTRAL_SOURCES,
) -> dict[str, list[Beside]]:
    """What sources other than a node's own reports have open on it and what changes its health, by node."""
    found: dict[str, list[Beside]] = {}
    wanted = set(names)
    for node, source, severity, message, opened_at, changes_health in select_where_in(
        connection,
        "SELECT node, source, severity, message, opened_at, changes_health FROM finding "
        "WHERE cluster = :cluster AND closed_at IS NULL AND {node IN (:names)}",
        names,
        cluster=cluster,
    ):
        if changes_health and source in sources and node in wanted:
            found.setdefault(node, []).append(Beside(severity, message, opened_at))
    return found


def judge_again(
    connection: Connection, cluster: str, names: Sequence[str], now: datetime
) -> list[str]:
    """Judge nodes anew after what is found beside their reports has changed; gives those whose health did."""
    if not names:
        return []
    stored = clock(connection)
    beside = open_beside(connection, cluster, names)
    changed, rows, events = [], [], []
    wanted = set(names)
    for name, health, reason, reported, reported_reason, own in select_where_in(
        connection,
        "SELECT name, health, health_reason, reported_health, reported_reason, score FROM node "
        "WHERE cluster = :cluster AND {name IN (:names)}",
        names,
        cluster=cluster,
    ):
        if name not in wanted:
            continue
        others = beside.get(name, ())
        new, new_reason = combine_health(reported, reported_reason, others)
        if (new, new_reason) == (health, reason):
            continue
        severities = [one.severity for one in others]
        worth = max(score(new, severities), int(own) if new == health else 0)
        rows.append((new, stored(now), new, new_reason, worth, cluster, name))
        if new != health:
            changed.append(name)
            events.append(health_event(name, new, new_reason, at=now))
    update(
        connection,
        "UPDATE node SET health_since = CASE WHEN health = ? THEN health_since ELSE ? END, "
        "health = ?, health_reason = ?, score = ? WHERE cluster = ? AND name = ?",
        rows,
    )
    append_events(connection, cluster, events)
    if changed:
        refresh_frames(connection, cluster, now)
    return changed


def _row(
    cluster: str, episode: str, source: str, finding: CentralFinding, stored: Any, now: datetime
) -> tuple[Any, ...]:
    return (
        cluster,
        episode,
        finding.node,
        finding.gpu_uuid,
        finding.rule,
        finding.severity,
        finding.changes_health,
        finding.message,
        finding.action,
        source,
        finding.subject,
        finding.job_uid,
        finding.rank,
        ",".join(finding.pod_uids) or None,
        finding.explanation,
        finding.look_next,
        stored(min(finding.since, now)),
        stored(now),
    )


def _opened(finding: CentralFinding, episode: str, now: datetime) -> Event:
    return Event(
        at=min(finding.since, now),
        node=finding.node,
        kind="finding_opened",
        code=finding.rule,
        severity=finding.severity,
        message=finding.message,
        gpu_uuid=finding.gpu_uuid,
        episode=episode,
    )


def _closed(one: OpenCentral, now: datetime) -> Event:
    rule, node, gpu_uuid, _ = one.key
    return Event(
        at=now,
        node=node,
        kind="finding_closed",
        code=rule,
        severity=one.severity,
        gpu_uuid=gpu_uuid or None,
        episode=one.episode,
    )


def _time(value: Any) -> datetime:
    at = parse_time(value)
    assert at is not None
    return at
