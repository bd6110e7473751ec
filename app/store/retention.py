"""What is dropped when it is old, whole days at a time; run by the worker each hour.

Kept for ever: audit_entry, operation and operation_step. Counts by day and hourly roll-ups outlive the
events and minutes they are of.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, text

from app.store.engine import read, write
from app.store.frames import refresh_frames
from app.store.history import pack_hours
from app.store.writes.bulk import Upsert, clock, parse_time, upsert

LONG_DAYS = 400
"""Roll-ups and daily counts: a year and its neighbours, to compare with the year before."""

STREAM_DAYS = 30
"""A spool that was not heard for so long does not come again: reports are taken for 7 days."""

# Table, column of time, and what else must hold for a row to go, by how many days it is kept.
_BY_EVENTS = (
    ("finding", "closed_at", ""),
    ("placement", "to_at", ""),
    ("incident", "resolved_at", ""),
    (
        "incident_event",
        "at",
        "AND incident_id NOT IN (SELECT id FROM incident WHERE cluster = :cluster)",
    ),
    ("job", "finished_at", "AND state IN ('Complete', 'Failed', 'Removed')"),
    ("request", "answered_at", ""),
    ("reservation", "released_at", ""),
    ("gpu", "observed_at", "AND health = 'Unknown'"),
    ("alert", "ended_at", ""),
    ("alert_delivery", "created_at", "AND state IN ('sent', 'dropped')"),
    ("silence", "ends_at", ""),
    # While its finding is known, its row says that the episode was dealt with.
    (
        "automatic_action",
        "updated_at",
        "AND episode NOT IN (SELECT episode FROM finding WHERE cluster = :cluster)",
    ),
    ("node_diagnostic", "ended_at", ""),
)
_MARK = Upsert(
    table="retention_mark",
    columns=("cluster", "table_name", "kept_from"),
    key=("cluster", "table_name"),
    updates={"kept_from": None},
    guard="new.kept_from > old.kept_from",
)


def drop_old(
    engine: Engine, cluster: str, *, event_days: int, history_days: int, now: datetime
) -> dict[str, int]:
    """Pack hours that are over and drop what is older than its days; rows dropped by table.

    Each day of each table is a transaction of its own, so that it may be ended between any two.
    Raises StoreError.
    """
    pack_hours(engine, cluster, now)
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    events_from = today - timedelta(days=event_days)
    history_from = today - timedelta(days=history_days)
    with write(engine) as connection:
        kept_from = clock(connection)(events_from)
        upsert(connection, _MARK, [(cluster, "health_event", kept_from)])
    dropped = {
        "health_event": _drop_by_day(engine, cluster, "health_event", "at", "", before=events_from),
        "gpu_history": _drop_by_day(
            engine, cluster, "gpu_history", "hour_at", "", before=history_from
        ),
        "gpu_minute": _drop_by_day(
            engine, cluster, "gpu_minute", "minute_at", "", before=history_from
        ),
        "report_stream": _drop_by_day(
            engine,
            cluster,
            "report_stream",
            "received_at",
            "",
            before=today - timedelta(days=STREAM_DAYS),
        ),
    }
    for table, column, condition in _BY_EVENTS:
        dropped[table] = _drop_by_day(engine, cluster, table, column, condition, before=events_from)
    if dropped["gpu"]:
        with write(engine) as connection:
            refresh_frames(connection, cluster, now, whole=True)
    first_day = (today - timedelta(days=LONG_DAYS)).date().isoformat()
    for table in ("event_day", "gpu_hour"):
        with write(engine) as connection:
            dropped[table] = _delete(
                connection,
                f"DELETE FROM {table} WHERE cluster = :cluster AND day < :day",
                cluster=cluster,
                day=first_day,
            )
    return {table: count for table, count in dropped.items() if count}


def _drop_by_day(
    engine: Engine, cluster: str, table: str, column: str, condition: str, *, before: datetime
) -> int:
    dropped = 0
    while True:
        with read(engine) as connection:
            oldest = parse_time(
                connection.execute(
                    text(f"SELECT MIN({column}) FROM {table} WHERE cluster = :cluster {condition}"),
                    {"cluster": cluster},
                ).scalar_one()
            )
        if oldest is None or oldest >= before:
            return dropped
        day = oldest.replace(hour=0, minute=0, second=0, microsecond=0)
        with write(engine) as connection:
            stored = clock(connection)
            dropped += _delete(
                connection,
                f"DELETE FROM {table} WHERE cluster = :cluster AND {column} >= :start "
                f"AND {column} < :end {condition}",
                cluster=cluster,
                start=stored(day),
                end=stored(day + timedelta(days=1)),
            )


def _delete(connection: Connection, statement: str, **parameters: Any) -> int:
    return int(connection.execute(text(statement), parameters).rowcount)
