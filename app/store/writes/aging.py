"""Nodes that fell silent become Unknown: a blind source is never Healthy."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from app.store.frames import refresh_frames, silence_frames
from app.store.writes.bulk import clock, parse_time, update
from app.store.writes.central import open_beside
from app.store.writes.events import append_events
from app.store.writes.node_health import combine_health, score
from app.store.writes.nodes import health_event, silence_reason

# A node's clock may run ahead: what was observed in the future was heard when it came.
_SILENT = """
SELECT name, health, observed_at, received_at FROM node
WHERE cluster = :cluster AND (observed_at < :limit OR received_at < :limit)
  AND NOT (reported_health = 'Unknown' AND reported_reason LIKE 'no report since %')
"""

_NEVER_HEARD = """
UPDATE node SET score = :score
WHERE cluster = :cluster AND observed_at IS NULL AND health_since < :limit AND score <> :score
"""


def age_nodes(
    connection: Connection, cluster: str, now: datetime, silence_seconds: float = 45.0
) -> list[str]:
    """Make nodes without a report for `silence_seconds` Unknown, with their GPUs and in the frames.

    Returns their names. Open findings stay open: that nobody looks does not mend a GPU. A node that
    never reported is Unknown from the start, and after as long one of those that need a person.
    """
    stored = clock(connection)
    limit = stored(now - timedelta(seconds=silence_seconds))
    connection.execute(
        text(_NEVER_HEARD), {"cluster": cluster, "limit": limit, "score": score("Unknown")}
    )
    rows = connection.execute(text(_SILENT), {"cluster": cluster, "limit": limit}).all()
    if not rows:
        return []
    at = stored(now)
    beside = open_beside(connection, cluster, [row[0] for row in rows])
    nodes, gpus, events = [], [], []
    failing = False
    for name, health, observed_at, _received_at in sorted(rows, key=lambda row: str(row[0])):
        heard_at = parse_time(observed_at)
        assert heard_at is not None
        reason = silence_reason(min(heard_at, now))
        others = beside.get(name, ())
        now_health, now_reason = combine_health("Unknown", reason, others)
        failing = failing or now_health != "Unknown"
        worth = score(now_health, [one.severity for one in others])
        nodes.append((now_health, at, now_health, now_reason, reason, worth, worth, cluster, name))
        gpus.append((at, reason, cluster, name))
        if health != now_health:
            events.append(health_event(name, now_health, now_reason, at=now))
    update(
        connection,
        "UPDATE node SET health_since = CASE WHEN health = ? THEN health_since ELSE ? END, "
        "health = ?, health_reason = ?, reported_health = 'Unknown', reported_reason = ?, "
        "score = CASE WHEN score > ? THEN score ELSE ? END WHERE cluster = ? AND name = ?",
        nodes,
    )
    update(
        connection,
        "UPDATE gpu SET health_since = CASE WHEN health = 'Unknown' THEN health_since ELSE ? END, "
        "health = 'Unknown', health_reason = ? WHERE cluster = ? AND node = ?",
        gpus,
    )
    append_events(connection, cluster, events)
    names = [row[-1] for row in nodes]
    silence_frames(connection, cluster, now, nodes=names)
    if failing:  # silence makes a node Unknown in the frames; one known to fail stays Failing
        refresh_frames(connection, cluster, now)
    return names
