"""A node's minute history, from minutes just appended and hours packed before."""

from datetime import UTC, datetime

from sqlalchemy import Engine, func, select

from app.store.chunks import METRICS, Chunk, merge_chunks, unpack_chunk
from app.store.engine import read
from app.store.page_records import StayRecord
from app.store.reads.rows import table_of
from app.store.tables import GpuHistory, GpuHour, GpuMinute, Job, Placement

_MINUTE = table_of(GpuMinute)
_HISTORY = table_of(GpuHistory)
_HOUR = table_of(GpuHour)
_PLACEMENT, _JOB = table_of(Placement), table_of(Job)

_MOST_MINUTES = 2 * 24 * 60
"""Minutes looked up one by one; hours are packed minutes after they end, so there are seldom more than 70."""


def node_minutes(
    engine: Engine, cluster: str, node: str, *, since: datetime, until: datetime
) -> Chunk | None:
    """Means, minima and maxima of each minute from `since` until before `until`; None without any."""
    hour = since.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    with read(engine) as connection:
        oldest = connection.execute(
            select(func.min(_MINUTE.c.minute_at)).where(_MINUTE.c.cluster == cluster)
        ).scalar_one()
        rows = [
            *connection.execute(
                select(_HISTORY.c.chunk).where(
                    _HISTORY.c.cluster == cluster,
                    _HISTORY.c.node == node,
                    _HISTORY.c.hour_at >= hour,
                    _HISTORY.c.hour_at < until,
                )
            ),
            *connection.execute(
                select(_MINUTE.c.chunk).where(
                    _MINUTE.c.cluster == cluster,
                    _MINUTE.c.node == node,
                    # Each minute by name: a range would walk over every node's rows of it.
                    _MINUTE.c.minute_at.in_(_minutes(max(since, oldest or until), until)),
                )
            ),
        ]
    if not rows:
        return None
    merged = merge_chunks([unpack_chunk(bytes(row[0])) for row in rows])
    first, end = since.timestamp() // 60, until.timestamp() / 60
    return _within(merged, first, end)


def node_hours(
    engine: Engine, cluster: str, node: str, *, since: datetime, until: datetime
) -> Chunk | None:
    """The same by hours, which are kept longer."""
    first, last = since.astimezone(UTC).date().isoformat(), until.astimezone(UTC).date().isoformat()
    with read(engine) as connection:
        rows = connection.execute(
            select(_HOUR.c.chunk).where(
                _HOUR.c.cluster == cluster,
                _HOUR.c.node == node,
                _HOUR.c.day >= first,
                _HOUR.c.day <= last,
            )
        ).all()
    if not rows:
        return None
    merged = merge_chunks([unpack_chunk(bytes(row[0])) for row in rows], minutes_each=60)
    return _within(merged, since.timestamp() / 60 - 60 + 1e-9, until.timestamp() / 60)


def stays_on_node(
    engine: Engine, cluster: str, node: str, *, since: datetime, until: datetime
) -> list[StayRecord]:
    """The jobs that held GPUs of the node in that time, by when they came. One that left and came back is two."""
    with read(engine) as connection:
        rows = connection.execute(
            select(
                _PLACEMENT.c.job_uid,
                _PLACEMENT.c.pod_uid,
                _JOB.c.namespace,
                _JOB.c.name,
                func.count(func.distinct(_PLACEMENT.c.gpu_uuid)),
                func.min(_PLACEMENT.c.from_at, type_=_PLACEMENT.c.from_at.type),
                func.max(_PLACEMENT.c.to_at, type_=_PLACEMENT.c.to_at.type),
                func.count().filter(_PLACEMENT.c.to_at.is_(None)),
            )
            .outerjoin(
                _JOB,
                (_JOB.c.cluster == _PLACEMENT.c.cluster) & (_JOB.c.uid == _PLACEMENT.c.job_uid),
            )
            .where(
                _PLACEMENT.c.cluster == cluster,
                _PLACEMENT.c.node == node,
                _PLACEMENT.c.from_at < until,
                (_PLACEMENT.c.to_at.is_(None)) | (_PLACEMENT.c.to_at > since),
            )
            .group_by(_PLACEMENT.c.job_uid, _PLACEMENT.c.pod_uid, _JOB.c.namespace, _JOB.c.name)
        ).all()
    found = [
        StayRecord(
            str(row[0] or row[1]),
            f"{row[2]}/{row[3]}" if row[3] else "a pod without a job",
            int(row[4]),
            row[5],
            None if row[7] else row[6],
        )
        for row in rows
    ]
    return sorted(found, key=lambda stay: (stay.from_at, stay.job_uid))


def _minutes(since: datetime, until: datetime) -> list[datetime]:
    first = int(since.timestamp() // 60)
    last = min(int(-(-until.timestamp() // 60)), first + _MOST_MINUTES)
    return [datetime.fromtimestamp(minute * 60, UTC) for minute in range(first, last)]


def _within(chunk: Chunk, first: float, end: float) -> Chunk | None:
    kept = [row for row, minute in enumerate(chunk.minutes) if first <= minute < end]
    if not kept:
        return None
    return Chunk(
        tuple(chunk.minutes[row] for row in kept),
        chunk.gpus,
        chunk.metrics,
        chunk.counts[kept],
        chunk.mean[kept],
        chunk.low[kept],
        chunk.high[kept],
    )


__all__ = ["METRICS", "node_hours", "node_minutes"]
