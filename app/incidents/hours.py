"""GPU-hours that an incident has cost its jobs so far. Pure.

In the store and for people a hurt job is {"uid", "namespace", "name", "gpus", "since", "until", "ranks"},
times in ISO 8601; "seconds_before" is there only where it was hurt, well, and hurt again.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from app.incidents.model import HurtJob

SECONDS_AN_HOUR = 3600.0


def gpu_hours_lost(jobs: Iterable[Mapping[str, Any]], now: datetime) -> float | None:
    """Sum of each job's GPUs times how long it has been hurt, in GPU-hours; None when nobody knows since when."""
    known = [job for job in jobs if job.get("since")]
    if not known:
        return None
    seconds = 0.0
    for job in known:
        hurt = read_job(job)
        spent = ((hurt.until or now) - hurt.since).total_seconds()
        seconds += hurt.gpus * (max(spent, 0.0) + hurt.seconds_before)
    return seconds / SECONDS_AN_HOUR


def count_gpus(jobs: Iterable[HurtJob]) -> int:
    """GPUs that do no work now."""
    return sum(job.gpus for job in jobs if job.until is None)


def write_job(job: HurtJob) -> dict[str, Any]:
    """A hurt job as the store keeps it."""
    document: dict[str, Any] = {
        "uid": job.uid,
        "namespace": job.namespace,
        "name": job.name,
        "gpus": job.gpus,
        "since": write_time(job.since),
        "until": None if job.until is None else write_time(job.until),
        "ranks": list(job.ranks),
    }
    if job.seconds_before:
        document["seconds_before"] = job.seconds_before
    return document


def read_job(document: Mapping[str, Any]) -> HurtJob:
    """A hurt job from what the store keeps."""
    until = document.get("until")
    return HurtJob(
        uid=document["uid"],
        namespace=document["namespace"],
        name=document["name"],
        gpus=int(document["gpus"]),
        since=datetime.fromisoformat(document["since"]),
        until=datetime.fromisoformat(until) if until else None,
        ranks=tuple(document.get("ranks", ())),
        seconds_before=float(document.get("seconds_before", 0.0)),
    )


def write_time(at: datetime) -> str:
    """A time within a document: UTC, ISO 8601."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
