"""Health events: appended, never changed, and counted by day beside it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection

from app.store.writes.bulk import Upsert, clock, insert, select_where_in, upsert

_COLUMNS = (
    "cluster",
    "at",
    "node",
    "gpu_uuid",
    "kind",
    "code",
    "severity",
    "episode",
    "message",
    "count",
)
_DAY = Upsert(
    table="event_day",
    columns=("cluster", "day", "node", "code", "count"),
    key=("cluster", "day", "node", "code"),
    updates={"count": "old.count + new.count"},
)
COUNTED_BY_DAY = frozenset({"finding_opened", "xid"})
"""Kinds that are counted by day: what goes wrong, not how it ends."""

HEALTH_SEVERITY = {
    "Healthy": "info",
    "Degraded": "warning",
    "Failing": "critical",
    "Unknown": "warning",
}


class Event(msgspec.Struct, frozen=True):
    """One event to append. `episode` is the finding's, or an XID's event id."""

    at: datetime
    node: str
    kind: str
    code: str
    severity: str
    message: str = ""
    gpu_uuid: str | None = None
    episode: str | None = None
    count: int = 1


def append_events(connection: Connection, cluster: str, events: Sequence[Event]) -> None:
    """Append events and add them to their day's counts."""
    stored = clock(connection)
    insert(
        connection,
        "health_event",
        _COLUMNS,
        [
            (
                cluster,
                stored(event.at),
                event.node,
                event.gpu_uuid,
                event.kind,
                event.code,
                event.severity,
                event.episode,
                event.message,
                event.count,
            )
            for event in events
        ],
    )
    days: Counter[tuple[str, str, str]] = Counter()
    for event in events:
        if event.kind in COUNTED_BY_DAY:
            days[event.at.astimezone(UTC).date().isoformat(), event.node, event.code] += event.count
    upsert(
        connection,
        _DAY,
        [(cluster, day, node, code, count) for (day, node, code), count in sorted(days.items())],
    )


def stored_xids(
    connection: Connection, cluster: str, event_ids: Iterable[str]
) -> dict[tuple[str, str], int]:
    """How many occurrences of each (node, event id) are stored already."""
    found: Counter[tuple[str, str]] = Counter()
    for node, episode, count in select_where_in(
        connection,
        "SELECT node, episode, count FROM health_event "
        "WHERE cluster = :cluster AND kind = 'xid' AND {episode IN (:names)}",
        sorted(set(event_ids)),
        cluster=cluster,
    ):
        found[node, episode] += count
    return found
