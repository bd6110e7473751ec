"""Storing a batch of agents' reports: one call, in the caller's one transaction.

Idempotent by (cluster, node, spool id, sequence); an older observation never overwrites a newer.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection

from app.store.writes.events import Event, append_events, stored_xids
from app.store.writes.findings import fold_findings
from app.store.writes.gpus import (
    GpuRows,
    build_rows,
    miss_gpus,
    move_gpus,
    note_xids,
    store_rows,
)
from app.store.writes.moments import sane_time
from app.store.writes.nodes import silence_reason, store_nodes
from app.store.writes.streams import NodeReports, Outcome, advance_streams, sort_reports
from collectors.garbage import collector_paused
from collectors.report import Report
from collectors.xid import find_entry

SILENCE_SECONDS = 45.0
"""From this age on an observation says nothing of now (facts/gpu-health.md)."""

MOST_REPEATS = 1_000_000
"""Repeats of one XID counted at once, so that no report can carry a day's count out of its column."""


@dataclass(frozen=True)
class Stored:
    """What became of a batch.

    `outcomes` in the order of the batch: stored, older (its XIDs and episodes are kept as history),
    duplicate. `accepted` are the reports not had before. `health` is each node's with a newest report.
    `closed_episodes`: by node, episodes its newest report carries that are closed here.
    """

    outcomes: list[Outcome]
    accepted: list[Report]
    health: Mapping[str, str]
    gpu_rows: GpuRows
    closed_episodes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def store_reports(
    connection: Connection,
    cluster: str,
    reports: Sequence[Report],
    now: datetime,
    *,
    silence_seconds: float = SILENCE_SECONDS,
    source: str = "agent",
) -> Stored:
    """Store a batch: latest state, findings, events and daily counts. `source` is whose reports they are.

    Frames and history are the caller's next steps (app.store.frames, app.store.history). Raises
    what the database raises; the transaction must then be given up whole.
    """
    with collector_paused():
        batch = sort_reports(connection, cluster, reports)
        newest = {
            node: brought.newest
            for node, brought in batch.nodes.items()
            if brought.newest is not None
        }
        silent_before = now - timedelta(seconds=silence_seconds)
        stale = {
            node: silence_reason(report.observed_at)
            for node, report in newest.items()
            if report.observed_at < silent_before
        }
        found = fold_findings(connection, cluster, batch.nodes, source=source)
        judged = store_nodes(
            connection,
            cluster,
            newest,
            open_by_node=found.open_by_node,
            beside=found.beside,
            stale=stale,
            now=now,
            source=source,
        )
        unlike = [newest[node] for node in judged.unlike]
        move_gpus(
            connection,
            cluster,
            [*unlike, *(newest[node] for node in judged.new)],
            silent_before=silent_before,
        )
        built = build_rows(
            connection, cluster, newest, open_by_node=found.open_by_node, stale=stale
        )
        store_rows(connection, built)
        miss_gpus(
            connection,
            cluster,
            [(report, stale.get(report.node) or _absence(report)) for report in unlike],
        )
        xids, last = _new_xids(connection, cluster, batch.nodes)
        note_xids(connection, cluster, last)
        append_events(connection, cluster, [*found.events, *xids, *judged.events])
        advance_streams(connection, cluster, batch.nodes, now)
    return Stored(
        outcomes=batch.outcomes,
        accepted=[report for brought in batch.nodes.values() for report in brought.reports],
        health=judged.health,
        gpu_rows=built,
        closed_episodes=found.closed,
    )


def _absence(report: Report) -> str:
    if report.nvml.answering:
        return "not in its node's last report"
    return report.nvml.message or "NVML does not answer"


def _new_xids(
    connection: Connection, cluster: str, nodes: Mapping[str, NodeReports]
) -> tuple[list[Event], list[tuple[str, str, int, datetime]]]:
    """XIDs not stored yet, and each GPU's last ones.

    The same event may come again with more repeats folded in: a further row says how many more.
    """
    told = [
        (report, xid)
        for brought in nodes.values()
        for report in brought.reports
        for xid in report.xids
    ]
    if not told:
        return [], []
    had: Counter[tuple[str, str]] = Counter(
        stored_xids(connection, cluster, (xid.event_id for _, xid in told))
    )
    events, last = [], []
    for report, xid in told:
        more = xid.count - had[report.node, xid.event_id]
        if more <= 0:
            continue
        first = had[report.node, xid.event_id] == 0
        had[report.node, xid.event_id] = xid.count
        at = sane_time(xid.at if first else xid.last_at, report.observed_at)
        entry = find_entry(xid.xid, kind=xid.kind, text=xid.text, recovery=xid.recovery_action)
        events.append(
            Event(
                at=at,
                node=report.node,
                kind="xid",
                code=f"{xid.kind}-{xid.xid}",
                severity=entry.severity,
                message=xid.text or entry.name,
                gpu_uuid=xid.gpu_uuid,
                episode=xid.event_id,
                count=min(more, MOST_REPEATS),
            )
        )
        if xid.kind == "xid" and xid.gpu_uuid is not None:
            last.append(
                (report.node, xid.gpu_uuid, xid.xid, sane_time(xid.last_at, report.observed_at))
            )
    return events, last
