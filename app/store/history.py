"""Minute history: folded in memory as reports come, appended each minute, packed into hours when they are over.

A process that dies loses the minutes it has not appended: the running one and at most the one before.
"""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import numpy
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, text

from app.store.chunks import METRICS, Chunk, merge_chunks, pack_chunk, unpack_chunk
from app.store.engine import read, write
from app.store.writes.bulk import Row, Upsert, clock, insert, parse_time, select_where_in, upsert
from collectors.report import Report

MINUTE_SECONDS = 60
SETTLE_SECONDS = 10
"""So long after its end a minute is appended: reports on their way still belong to it."""

HOUR_SETTLE = timedelta(minutes=5)
"""So long after its end an hour is packed."""

NODES_AT_ONCE = 500
"""Nodes packed in one transaction, so that other writers wait for milliseconds."""

MOST_MINUTES_HELD = 120
"""Minutes held in memory. An agent's replayed spool spreads over hours; beyond this the oldest is appended."""

_MINUTE_COLUMNS = ("cluster", "minute_at", "node", "writer", "chunk")
_read = attrgetter(*METRICS)

_HISTORY = Upsert(
    table="gpu_history",
    columns=("cluster", "hour_at", "node", "chunk"),
    key=("cluster", "hour_at", "node"),
    updates={"chunk": None},
)
_HOUR = Upsert(
    table="gpu_hour",
    columns=("cluster", "day", "hour", "node", "chunk"),
    key=("cluster", "day", "hour", "node"),
    updates={"chunk": None},
)


@dataclass
class _Minute:
    """Running sums of one minute: a row for each GPU seen in it."""

    rows: dict[str, dict[str, int]] = field(default_factory=dict)  # node -> GPU -> row
    size: int = 0
    readings: NDArray[numpy.int64] = field(default_factory=lambda: numpy.zeros(0, numpy.int64))
    counts: NDArray[numpy.float64] = field(default_factory=lambda: _block(0, 0.0))
    sums: NDArray[numpy.float64] = field(default_factory=lambda: _block(0, 0.0))
    low: NDArray[numpy.float64] = field(default_factory=lambda: _block(0, numpy.nan))
    high: NDArray[numpy.float64] = field(default_factory=lambda: _block(0, numpy.nan))

    def add(self, reports: Sequence[Report]) -> None:
        """Add reports of nodes that differ from each other."""
        places, values = [], []
        for report in reports:
            known = self.rows.setdefault(report.node, {})
            for gpu in {gpu.uuid: gpu for gpu in report.gpus}.values():
                place = known.get(gpu.uuid)
                if place is None:
                    place = known[gpu.uuid] = self.size
                    self.size += 1
                places.append(place)
                values.append(_read(gpu))
        if not places:
            return
        self._grow()
        at = numpy.array(places, dtype=numpy.int64)
        new = numpy.array(values, dtype=numpy.float64)
        known_values = ~numpy.isnan(new)
        self.readings[at] += 1
        self.counts[at] += known_values
        self.sums[at] += numpy.where(known_values, new, 0.0)
        self.low[at] = numpy.fmin(self.low[at], new)
        self.high[at] = numpy.fmax(self.high[at], new)

    def chunk(self, minute: int, node: str) -> Chunk:
        """What was gathered of a node."""
        gpus = self.rows[node]
        at = numpy.fromiter(gpus.values(), numpy.int64, len(gpus))
        with numpy.errstate(invalid="ignore", divide="ignore"):
            mean = numpy.where(self.counts[at] > 0, self.sums[at] / self.counts[at], numpy.nan)
        return Chunk(
            (minute,),
            tuple(gpus),
            METRICS,
            numpy.minimum(self.readings[at], 65535).astype(numpy.uint16)[None],
            mean.astype(numpy.float32)[None],
            self.low[at].astype(numpy.float32)[None],
            self.high[at].astype(numpy.float32)[None],
        )

    def _grow(self) -> None:
        have = len(self.readings)
        if self.size <= have:
            return
        more = max(self.size, 2 * have) - have
        self.readings = numpy.concatenate([self.readings, numpy.zeros(more, numpy.int64)])
        self.counts = numpy.concatenate([self.counts, _block(more, 0.0)])
        self.sums = numpy.concatenate([self.sums, _block(more, 0.0)])
        self.low = numpy.concatenate([self.low, _block(more, numpy.nan)])
        self.high = numpy.concatenate([self.high, _block(more, numpy.nan)])


class HistoryBuffer:
    """Minutes not appended yet, of one ingest process. For one thread."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._minutes: dict[int, _Minute] = {}
        self._process = secrets.token_hex(4)
        self._flushes = 0

    def fold(self, reports: Iterable[Report]) -> None:
        """Add the readings of reports not had before."""
        for minute, waiting in _by_minute(reports).items():
            held = self._minutes.setdefault(minute, _Minute())
            while waiting:
                round_of: dict[str, Report] = {}
                later = []
                for report in waiting:
                    if report.node in round_of:
                        later.append(report)
                    else:
                        round_of[report.node] = report
                held.add(list(round_of.values()))
                waiting = later

    def is_due(self, now: datetime) -> bool:
        """Whether a minute is over."""
        return any(minute < self._open_from(now) for minute in self._minutes) or (
            len(self._minutes) > MOST_MINUTES_HELD
        )

    def flush(self, engine: Engine, now: datetime, *, final: bool = False) -> int:
        """Append every minute that is over (`final`: all) in one transaction; how many rows it were.

        What could not be appended stays held. Raises StoreError.
        """
        open_from = self._open_from(now)
        over = [minute for minute in sorted(self._minutes) if final or minute < open_from]
        if len(self._minutes) > MOST_MINUTES_HELD:
            over = sorted({*over, *sorted(self._minutes)[:-MOST_MINUTES_HELD]})
        if not over:
            return 0
        self._flushes += 1
        # A minute may be appended twice, its second part from a spool that came late.
        writer = f"{self._process}-{self._flushes}"
        with write(engine) as connection:
            stored = clock(connection)
            rows: list[Row] = []
            for minute in over:
                held = self._minutes[minute]
                at = stored(minute_time(minute))
                rows += [
                    (self._cluster, at, node, writer, pack_chunk(held.chunk(minute, node), level=1))
                    for node in sorted(held.rows)
                    if held.rows[node]
                ]
            insert(connection, "gpu_minute", _MINUTE_COLUMNS, rows)
        for minute in over:
            del self._minutes[minute]
        return len(rows)

    @staticmethod
    def _open_from(now: datetime) -> int:
        return int((now.timestamp() - SETTLE_SECONDS) // MINUTE_SECONDS)


def minute_time(minute: int) -> datetime:
    """The start of a minute counted since 1970."""
    return datetime.fromtimestamp(minute * MINUTE_SECONDS, UTC)


def pack_hours(engine: Engine, cluster: str, now: datetime) -> int:
    """Pack the minutes of hours that are over into gpu_history, and roll them up into gpu_hour.

    A few hundred nodes a transaction; may be stopped between any two. Returns how many chunks were packed.
    """
    packed = 0
    while True:
        with read(engine) as connection:
            oldest = connection.execute(
                text("SELECT MIN(minute_at) FROM gpu_minute WHERE cluster = :cluster"),
                {"cluster": cluster},
            ).scalar_one()
            hour = None if oldest is None else _hour_of(oldest)
            if hour is None or now < hour + timedelta(hours=1) + HOUR_SETTLE:
                return packed
            nodes = _nodes_of(connection, cluster, hour)
        for start in range(0, len(nodes), NODES_AT_ONCE):
            with write(engine) as connection:
                portion = nodes[start : start + NODES_AT_ONCE]
                packed += _pack_nodes(connection, cluster, hour, portion)


def _pack_nodes(connection: Connection, cluster: str, hour: datetime, nodes: Sequence[str]) -> int:
    stored = clock(connection)
    limits = {"cluster": cluster, "start": stored(hour), "end": stored(hour + timedelta(hours=1))}
    chunks: dict[str, list[Chunk]] = {}
    for statement in (
        "SELECT node, chunk FROM gpu_history WHERE cluster = :cluster AND hour_at = :start "
        "AND :end IS NOT NULL AND {node IN (:names)}",
        "SELECT node, chunk FROM gpu_minute WHERE cluster = :cluster AND minute_at >= :start "
        "AND minute_at < :end AND {node IN (:names)}",
    ):
        for node, chunk in select_where_in(connection, statement, nodes, **limits):
            chunks.setdefault(node, []).append(unpack_chunk(bytes(chunk)))
    history, hours = [], []
    day = hour.date().isoformat()
    for node, parts in sorted(chunks.items()):
        whole = merge_chunks(parts)
        history.append((cluster, limits["start"], node, pack_chunk(whole)))
        rolled = merge_chunks([whole], minutes_each=60)
        hours.append((cluster, day, hour.hour, node, pack_chunk(rolled)))
    upsert(connection, _HISTORY, history)
    upsert(connection, _HOUR, hours)
    named = {f"n{number}": name for number, name in enumerate(nodes)}
    listed = ", ".join(f":{name}" for name in named)
    connection.execute(
        text(
            "DELETE FROM gpu_minute WHERE cluster = :cluster AND minute_at >= :start "
            f"AND minute_at < :end AND node IN ({listed})"
        ),
        limits | named,
    )
    return len(history)


def _nodes_of(connection: Connection, cluster: str, hour: datetime) -> list[str]:
    stored = clock(connection)
    return list(
        connection.execute(
            text(
                "SELECT DISTINCT node FROM gpu_minute WHERE cluster = :cluster "
                "AND minute_at >= :start AND minute_at < :end ORDER BY node"
            ),
            {"cluster": cluster, "start": stored(hour), "end": stored(hour + timedelta(hours=1))},
        ).scalars()
    )


def _hour_of(value: object) -> datetime:
    at = parse_time(value)
    assert at is not None
    return at.replace(minute=0, second=0, microsecond=0)


def _by_minute(reports: Iterable[Report]) -> dict[int, list[Report]]:
    found: dict[int, list[Report]] = {}
    for report in reports:
        if report.gpus:
            minute = int(report.observed_at.timestamp() // MINUTE_SECONDS)
            found.setdefault(minute, []).append(report)
    return found


def _block(rows: int, value: float) -> NDArray[numpy.float64]:
    return numpy.full((rows, len(METRICS)), value)
