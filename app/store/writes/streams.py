"""Which reports of a batch are new, and which of a node is its newest.

A sequence at or below the last one taken of its spool was taken before. A node's newest report is
the one observed last, whichever spool it comes from; at the same moment the higher sequence of the
same spool is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec
from sqlalchemy import Connection

from app.store.writes.bulk import Upsert, clock, parse_time, select_where_in, upsert
from collectors.report import Report

Outcome = Literal["stored", "older", "duplicate"]

DCGM_SPOOLS = "dcgm-"
"""How the spools of what is told from dcgm-exporter's series are named. An agent that takes such a node
over is its newest word whatever its clock says, so that nothing it finds is taken for history."""

_STREAM = Upsert(
    table="report_stream",
    columns=("cluster", "node", "spool_id", "sequence", "observed_at", "received_at"),
    key=("cluster", "node", "spool_id"),
    updates={
        "sequence": None,
        # The clock of a node may step back within a spool; what was seen last stays known.
        "observed_at": "CASE WHEN new.observed_at > old.observed_at THEN new.observed_at ELSE old.observed_at END",
        "received_at": None,
    },
    guard="new.sequence > old.sequence",
)


class Point(msgspec.Struct, frozen=True):
    """How far a node has been heard."""

    observed_at: datetime
    spool_id: str
    sequence: int


class NodeReports(msgspec.Struct, frozen=True):
    """What a batch brings of one node: reports not had before, in order of observation.

    `before` is the newest had before the batch. `newest` is None when every report is older.
    """

    reports: Sequence[Report]
    before: Point | None
    newest: Report | None


@dataclass(frozen=True)
class Sorted:
    """A batch, sorted out: outcomes in the order of the batch, and what is new by node."""

    outcomes: list[Outcome]
    nodes: dict[str, NodeReports] = field(default_factory=dict)


def sort_reports(connection: Connection, cluster: str, reports: Sequence[Report]) -> Sorted:
    """Say of each report whether it is new, older than what is known, or was had before."""
    by_node: dict[str, list[int]] = {}
    for place, report in enumerate(reports):
        by_node.setdefault(report.node, []).append(place)
    by_agents = not any(report.spool_id.startswith(DCGM_SPOOLS) for report in reports)
    streams, newest = _heard(connection, cluster, by_node, by_agents=by_agents)
    outcomes: list[Outcome] = ["duplicate"] * len(reports)
    nodes: dict[str, NodeReports] = {}
    for node, places in by_node.items():
        fresh = _not_had(reports, places, streams.get(node, {}))
        if not fresh:
            continue
        before = newest.get(node)
        now, last = before, None
        for place in fresh:
            report = reports[place]
            if is_newer(report, now):
                outcomes[place], last = "stored", report
                now = Point(report.observed_at, report.spool_id, report.sequence)
            else:
                outcomes[place] = "older"
        nodes[node] = NodeReports([reports[place] for place in fresh], before, last)
    return Sorted(outcomes, nodes)


def is_newer(report: Report, than: Point | None) -> bool:
    """Whether a report was observed after what is known."""
    if than is None or report.observed_at > than.observed_at:
        return True
    same_spool = report.spool_id == than.spool_id and report.sequence > than.sequence
    return report.observed_at == than.observed_at and same_spool


def advance_streams(
    connection: Connection, cluster: str, nodes: Mapping[str, NodeReports], now: datetime
) -> None:
    """Note how far each spool has been taken."""
    stored = clock(connection)
    received_at = stored(now)
    rows = []
    for node, brought in nodes.items():
        last: dict[str, tuple[int, datetime]] = {}
        for report in brought.reports:
            sequence, observed_at = last.get(report.spool_id, (-1, report.observed_at))
            last[report.spool_id] = (
                max(sequence, report.sequence),
                max(observed_at, report.observed_at),
            )
        for spool_id, (sequence, observed_at) in last.items():
            rows.append((cluster, node, spool_id, sequence, stored(observed_at), received_at))
    upsert(connection, _STREAM, rows)


def _not_had(reports: Sequence[Report], places: list[int], taken: dict[str, int]) -> list[int]:
    """The places of a node's reports that were not had before, in order of observation.

    `taken`: the last sequence taken of each of its spools.
    """
    if len(places) > 1:
        places.sort(key=lambda place: reports[place].sequence)
    fresh = []
    for place in places:
        report = reports[place]
        if report.sequence > taken.get(report.spool_id, -1):
            taken[report.spool_id] = report.sequence
            fresh.append(place)
    if len(fresh) > 1:
        fresh.sort(key=lambda place: (reports[place].observed_at, reports[place].sequence))
    return fresh


def _heard(
    connection: Connection, cluster: str, nodes: Iterable[str], *, by_agents: bool
) -> tuple[dict[str, dict[str, int]], dict[str, Point]]:
    """Of each node: the last sequence taken of each spool, and the newest observation, `by_agents` of
    agents alone."""
    streams: dict[str, dict[str, int]] = {}
    newest: dict[str, tuple[object, str, int]] = {}
    # Times are compared as the driver gives them: SQLite's texts order as the times they stand for.
    for node, spool_id, sequence, observed_at in select_where_in(
        connection,
        "SELECT node, spool_id, sequence, observed_at FROM report_stream "
        "WHERE cluster = :cluster AND {node IN (:names)}",
        list(nodes),
        cluster=cluster,
    ):
        if by_agents and spool_id.startswith(DCGM_SPOOLS):
            continue
        taken = streams.get(node)
        if taken is None:
            streams[node] = {spool_id: sequence}
            newest[node] = (observed_at, spool_id, sequence)
            continue
        taken[spool_id] = sequence
        if observed_at > newest[node][0]:  # type: ignore[operator]
            newest[node] = (observed_at, spool_id, sequence)
    return streams, {
        node: Point(_time(at), spool_id, sequence)
        for node, (at, spool_id, sequence) in newest.items()
    }


def _time(value: object) -> datetime:
    at = parse_time(value)
    assert at is not None
    return at
