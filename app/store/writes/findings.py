"""Episodes of findings: opened, seen again, closed, and never opened twice.

A report carries every finding that is open on its node. One that a newer report lacks is closed at
that report's time. What an older report tells of episodes that nobody has heard of is history: they
are stored closed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from app.store.writes.bulk import Upsert, clock, select_where_in, update, upsert
from app.store.writes.events import Event
from app.store.writes.moments import sane_time
from app.store.writes.node_health import Beside
from app.store.writes.streams import NodeReports, Point, is_newer
from collectors.report import Finding, Report
from collectors.xid import find_entry

_FINDING = Upsert(
    table="finding",
    columns=(
        "cluster",
        "episode",
        "node",
        "gpu_uuid",
        "rule",
        "severity",
        "changes_health",
        "message",
        "action",
        "xid",
        "source",
        "subject",
        "pod_uids",
        "explanation",
        "look_next",
        "opened_at",
        "seen_at",
        "closed_at",
    ),
    key=("cluster", "episode"),
    updates={
        "severity": None,
        "changes_health": None,
        "message": None,
        "action": None,
        "xid": None,
        "pod_uids": None,
        "explanation": None,
        "look_next": None,
        "seen_at": None,
        "closed_at": None,
    },
    # An episode is its node's own, and what is closed stays closed.
    guard="old.node = new.node AND old.closed_at IS NULL",
)


@dataclass
class _Episode:
    """What is known of one episode while a batch is folded in. `finding` is None until it is seen in it."""

    node: str
    rule: str
    severity: str
    gpu_uuid: str | None
    closed: bool
    source: str
    finding: Finding | None = None
    opened_at: datetime | None = None
    seen_at: datetime | None = None
    closed_at: datetime | None = None
    changed: bool = False


@dataclass
class FoundEpisodes:
    """What a batch says of findings.

    `open_by_node`: the findings open after a node's newest report, where there are any. `closed`: episodes
    that a report still carries though they are closed here, by node; the agent is told. `beside`: what
    other sources have found on a node and what changes its health.
    """

    open_by_node: dict[str, list[Finding]] = field(default_factory=dict)
    closed: dict[str, list[str]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    beside: dict[str, list[Beside]] = field(default_factory=dict)


def fold_findings(
    connection: Connection,
    cluster: str,
    nodes: Mapping[str, NodeReports],
    *,
    source: str = "agent",
) -> FoundEpisodes:
    """Fold every report's findings into the store, and say what is open now.

    A report opens and closes findings of its own source only. An agent's takes a node over from
    dcgm-exporter's series: what these had found ends, as the agent judges it itself.
    """
    found = FoundEpisodes()
    known, open_of = _known(connection, cluster, nodes, source=source, found=found)
    for node, brought in nodes.items():
        if node in open_of or any(report.findings for report in brought.reports):
            _fold_node(node, brought, known=known, open_of=open_of, found=found, source=source)
    for name, episode in known.items():
        newest = nodes[episode.node].newest if episode.node in nodes else None
        if episode.source == "dcgm" != source and not episode.closed and newest is not None:
            _close(episode, name, newest.observed_at, found)
    _store(connection, cluster, known)
    return found


def _fold_node(
    node: str,
    brought: NodeReports,
    *,
    known: dict[str, _Episode],
    open_of: dict[str, set[str]],
    found: FoundEpisodes,
    source: str,
) -> None:
    point = brought.before
    opened = open_of.get(node, set())
    refused: list[str] = []
    for report in brought.reports:
        if not is_newer(report, point):
            _recall(node, report, known=known, closed_at=_at(point), found=found, source=source)
            continue
        point = Point(report.observed_at, report.spool_id, report.sequence)
        refused = []
        carried: set[str] = set()
        for finding in report.findings:
            episode = known.get(finding.episode)
            if episode is None:
                episode = known[finding.episode] = _open(
                    node, report, finding, found, source=source
                )
            if episode.node != node or episode.source != source:
                continue
            if episode.closed:
                refused.append(finding.episode)
                continue
            carried.add(finding.episode)
            episode.finding, episode.seen_at, episode.changed = finding, report.observed_at, True
            episode.severity = finding.severity
        for name in opened - carried:
            _close(known[name], name, report.observed_at, found)
        opened = carried
    if brought.newest is not None:
        found.open_by_node[node] = [
            finding for finding in brought.newest.findings if finding.episode in opened
        ]
        if refused:
            found.closed[node] = refused


def _open(
    node: str, report: Report, finding: Finding, found: FoundEpisodes, *, source: str
) -> _Episode:
    opened_at = sane_time(finding.since, report.observed_at)
    found.events.append(
        Event(
            at=opened_at,
            node=node,
            kind="finding_opened",
            code=finding.rule,
            severity=finding.severity,
            message=finding.message,
            gpu_uuid=finding.gpu_uuid,
            episode=finding.episode,
        )
    )
    return _Episode(
        node=node,
        rule=finding.rule,
        severity=finding.severity,
        gpu_uuid=finding.gpu_uuid,
        closed=False,
        source=source,
        finding=finding,
        opened_at=opened_at,
        changed=True,
    )


def _close(episode: _Episode, name: str, at: datetime, found: FoundEpisodes) -> None:
    episode.closed, episode.closed_at, episode.changed = True, at, True
    found.events.append(
        Event(
            at=at,
            node=episode.node,
            kind="finding_closed",
            code=episode.rule,
            severity=episode.severity,
            gpu_uuid=episode.gpu_uuid,
            episode=name,
        )
    )


def _recall(
    node: str,
    report: Report,
    *,
    known: dict[str, _Episode],
    closed_at: datetime,
    found: FoundEpisodes,
    source: str,
) -> None:
    """Store what an older report tells of episodes nobody has heard of: they are over."""
    for finding in report.findings:
        if finding.episode in known:
            continue
        episode = known[finding.episode] = _open(node, report, finding, found, source=source)
        episode.seen_at = report.observed_at
        _close(episode, finding.episode, closed_at, found)


def _known(
    connection: Connection,
    cluster: str,
    nodes: Mapping[str, NodeReports],
    *,
    source: str,
    found: FoundEpisodes,
) -> tuple[dict[str, _Episode], dict[str, set[str]]]:
    known: dict[str, _Episode] = {}
    open_of: dict[str, set[str]] = {}
    columns = "SELECT episode, node, rule, severity, gpu_uuid, source, closed_at"
    for (
        episode,
        node,
        rule,
        severity,
        gpu_uuid,
        owner,
        _,
        changes,
        message,
        opened_at,
    ) in select_where_in(
        connection,
        f"{columns}, changes_health, message, opened_at FROM finding "
        "WHERE cluster = :cluster AND closed_at IS NULL AND {node IN (:names)}",
        sorted(nodes),
        cluster=cluster,
    ):
        if owner == source or (owner == "dcgm" and source == "agent"):
            known[episode] = _Episode(node, rule, severity, gpu_uuid, closed=False, source=owner)
        if owner == source:
            open_of.setdefault(node, set()).add(episode)
        elif episode not in known and changes:
            found.beside.setdefault(node, []).append(Beside(severity, message, opened_at))
    told = {
        finding.episode
        for brought in nodes.values()
        for report in brought.reports
        for finding in report.findings
    }
    for episode, node, rule, severity, gpu_uuid, owner, closed_at in select_where_in(
        connection,
        f"{columns} FROM finding WHERE cluster = :cluster AND {{episode IN (:names)}}",
        sorted(told - known.keys()),
        cluster=cluster,
    ):
        known.setdefault(
            episode,
            _Episode(node, rule, severity, gpu_uuid, closed=closed_at is not None, source=owner),
        )
    return known, open_of


def _store(connection: Connection, cluster: str, known: Mapping[str, _Episode]) -> None:
    stored = clock(connection)
    rows, closing = [], []
    for name, episode in sorted(known.items()):
        if not episode.changed:
            continue
        closed_at = None if episode.closed_at is None else stored(episode.closed_at)
        if episode.finding is None:
            closing.append((closed_at, cluster, name))
            continue
        finding, seen_at = episode.finding, episode.seen_at
        assert seen_at is not None
        rows.append(
            (
                cluster,
                name,
                episode.node,
                finding.gpu_uuid,
                finding.rule,
                finding.severity,
                finding.changes_health,
                finding.message,
                finding.action,
                finding.xid,
                episode.source,
                "",
                ",".join(finding.pod_uids) or None,
                *_explain(finding),
                stored(episode.opened_at or seen_at),
                stored(seen_at),
                closed_at,
            )
        )
    upsert(connection, _FINDING, rows)
    update(
        connection,
        "UPDATE finding SET closed_at = ? WHERE cluster = ? AND episode = ? AND closed_at IS NULL",
        closing,
    )


def _explain(finding: Finding) -> tuple[str | None, str | None]:
    """What an XID means and where to look next; nothing for a rule, whose message says it."""
    if finding.xid is None:
        return None, None
    kind: Literal["xid", "sxid"] = "sxid" if finding.rule.startswith("sxid") else "xid"
    entry = find_entry(finding.xid, kind=kind, text=finding.message)
    return entry.explanation or None, entry.look_at or None


def _at(point: Point | None) -> datetime:
    assert point is not None, "a report is older only than one that is known"
    return point.observed_at
