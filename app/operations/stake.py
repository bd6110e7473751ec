"""GPU-hours that stopping a workload throws away, now and at its next checkpoint. Pure.

A job tells of its checkpoints by annotations on itself or on one of its pods: when it last wrote one
(RFC 3339), and how many seconds lie between two; or by a metric of the site (app/worker_checkpoints.py). The newer
counts.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from k8s.objects import ObjectMeta, Pod, gpu_request
from k8s.view import ClusterView
from k8s.workloads.kind import Workload

CHECKPOINT_ANNOTATION = "pitwall.dev/checkpoint-at"
INTERVAL_ANNOTATION = "pitwall.dev/checkpoint-interval-seconds"
UNTOLD_SECONDS = 1800.0
"""Work lost where no checkpoint is told: min(runtime, 30 min) at hourly checkpoints (facts/reliability.md, Meta)."""


class Checkpoint(msgspec.Struct, frozen=True):
    """The last checkpoint that a job tells of, and the seconds between two where it tells that."""

    at: datetime
    interval_seconds: float | None = None

    def next_at(self, now: datetime) -> datetime | None:
        """When the next one is due; None where no interval is told."""
        if self.interval_seconds is None:
            return None
        passed = max(0.0, (now - self.at).total_seconds())
        periods = int(passed // self.interval_seconds) + 1
        return self.at + timedelta(seconds=periods * self.interval_seconds)


class Stake(msgspec.Struct, frozen=True):
    """GPU-hours at stake, and what they are reckoned from, in words.

    gpu_hours_at_next: what is lost when it is stopped at its next checkpoint; None where none is told.
    """

    gpu_hours: float
    basis: str
    checkpoint_at: datetime | None = None
    next_checkpoint_at: datetime | None = None
    gpu_hours_at_next: float | None = None


def stake_of(workload: Workload, pods: Sequence[Pod], *, view: ClusterView, now: datetime) -> Stake:
    """GPU-hours since the last checkpoint that the job tells of, else the lesser of runtime and 30 minutes."""
    gpus = sum(gpu_request(pod) for pod in pods)
    started = [pod.status.start_time for pod in pods if pod.status.start_time is not None]
    runtime_seconds = max(0.0, (now - min(started)).total_seconds()) if started else 0.0
    checkpoint = checkpoint_of(workload.uid, view, pods)
    if checkpoint is not None:
        since_seconds = max(0.0, (now - checkpoint.at).total_seconds())
        # A checkpoint of an earlier run: what this run has done is all that is lost.
        lost_seconds = min(since_seconds, runtime_seconds) if started else 0.0
        basis = f"since its checkpoint at {checkpoint.at:%Y-%m-%d %H:%M:%S} UTC"
        hours = round(gpus * lost_seconds / 3600, 2)
        return Stake(hours, basis, checkpoint.at, checkpoint.next_at(now), 0.0)
    lost_seconds = min(runtime_seconds, UNTOLD_SECONDS)
    basis = "it tells of no checkpoint: its runtime, 30 minutes at most"
    return Stake(round(gpus * lost_seconds / 3600, 2), basis)


def checkpoint_of(
    workload_uid: str, view: ClusterView, pods: Iterable[Pod] = ()
) -> Checkpoint | None:
    """The newest checkpoint that the workload or a pod of it tells of; None when none is told usably."""
    metas = [pod.metadata for pod in pods]
    if (own := view.metas.get(workload_uid)) is not None:
        metas.append(own)
    annotated, workload = newest_checkpoint(metas), view.workloads.get(workload_uid)
    told = (
        view.told_checkpoints.get((workload.namespace, workload.name))
        if workload is not None
        else None
    )
    if told is None or (annotated is not None and annotated.at >= told):
        return annotated
    if annotated is not None and annotated.interval_seconds is not None:
        return Checkpoint(told, annotated.interval_seconds)
    return Checkpoint(told, next((found for meta in metas if (found := _interval(meta))), None))


def newest_checkpoint(metas: Iterable[ObjectMeta]) -> Checkpoint | None:
    """The newest checkpoint in annotations."""
    found = [checkpoint for meta in metas if (checkpoint := _read(meta)) is not None]
    if not found:
        return None
    newest = max(found, key=lambda checkpoint: checkpoint.at)
    intervals = [one.interval_seconds for one in found if one.interval_seconds is not None]
    if newest.interval_seconds is None and intervals:
        newest = Checkpoint(newest.at, intervals[0])
    return newest


def _read(meta: ObjectMeta) -> Checkpoint | None:
    text = meta.annotations.get(CHECKPOINT_ANNOTATION)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    return Checkpoint(at.astimezone(UTC), _interval(meta))


def _interval(meta: ObjectMeta) -> float | None:
    try:
        seconds = float(meta.annotations.get(INTERVAL_ANNOTATION, ""))
    except ValueError:
        return None
    return seconds if 1.0 <= seconds <= 366 * 86400 else None
