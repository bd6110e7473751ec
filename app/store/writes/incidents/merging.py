"""One incident turns out to be a consequence of another."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import update as update_row

from app.incidents.hours import count_gpus, write_job
from app.store.writes.incidents.rows import EVENT, INCIDENT, Row, Timeline, jobs_of

MOST_COPIED = 50


def merge(
    connection: Connection,
    cluster: str,
    row: Row,
    target_id: str,
    *,
    timeline: Timeline,
    now: datetime,
) -> None:
    """Resolve an incident into another, which gets its jobs' beginnings, its people and its timeline."""
    target = (
        connection.execute(
            select(INCIDENT).where(INCIDENT.c.cluster == cluster, INCIDENT.c.id == target_id)
        )
        .mappings()
        .one()
    )
    jobs = {job.uid: job for job in jobs_of(target)}
    for job in jobs_of(row):
        known = jobs.get(job.uid)
        if known is None:
            jobs[job.uid] = job
        elif job.since < known.since:
            jobs[job.uid] = job if known.until is None else known
    values: dict[str, Any] = {
        "jobs": [write_job(job) for job in jobs.values()] or target["jobs"],
        "gpus_hurt": count_gpus(jobs.values()),
        "findings": list(dict.fromkeys([*target["findings"], *row["findings"]])),
        "updated_at": now,
    }
    for column in ("owner", "acknowledged_by", "acknowledged_at"):
        if target[column] is None and row[column] is not None:
            values[column] = row[column]
    _update(connection, cluster, target_id, values)
    _update(
        connection,
        cluster,
        row["id"],
        {
            "resolved_at": row["resolved_at"] or now,
            "ended_at": row["ended_at"] or now,
            "updated_at": now,
            "merged_into": target_id,
            "resolution": f"it is a consequence of incident {target_id}: {target['title']}",
            "gpus_hurt": 0,
        },
    )
    timeline.add(
        cluster, row["id"], now, "merged", f"it is a consequence of {target_id}: {target['title']}"
    )
    timeline.add(
        cluster, target_id, now, "merged", f"{row['id']} is a consequence of this: {row['title']}"
    )
    told = connection.execute(
        select(EVENT)
        .where(EVENT.c.cluster == cluster, EVENT.c.incident_id == row["id"])
        .order_by(EVENT.c.at, EVENT.c.id)
        .limit(MOST_COPIED)
    ).mappings()
    for event in told:
        message = f"{row['id']}: {event['message']}"
        timeline.add(cluster, target_id, event["at"], _kind(event), message, event["author"])


def _kind(event: Mapping[Any, Any]) -> str:
    """What opened the one followed in the other; what people said stays what it is."""
    return "consequence" if event["kind"] in ("opened", "finding") else str(event["kind"])


def _update(connection: Connection, cluster: str, incident_id: str, values: dict[str, Any]) -> None:
    connection.execute(
        update_row(INCIDENT)
        .where(INCIDENT.c.cluster == cluster, INCIDENT.c.id == incident_id)
        .values(**values)
    )
