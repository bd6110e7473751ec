"""GPU-hours that stopping a workload throws away. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from k8s.objects import Pod, gpu_request
from k8s.view import ClusterView
from k8s.workloads.kind import Workload

CHECKPOINT_ANNOTATION = "pitwall.dev/checkpoint-at"
UNTOLD_SECONDS = 1800.0
"""Work lost where no checkpoint is told: min(runtime, 30 min) at hourly checkpoints (facts/reliability.md, Meta)."""


class Stake(msgspec.Struct, frozen=True):
    """GPU-hours at stake, and what they are reckoned from, in words."""

    gpu_hours: float
    basis: str
    checkpoint_at: datetime | None = None


def stake_of(workload: Workload, pods: Sequence[Pod], *, view: ClusterView, now: datetime) -> Stake:
    """GPU-hours since the last checkpoint that the job tells of, else the lesser of runtime and 30 minutes."""
    gpus = sum(gpu_request(pod) for pod in pods)
    started = [pod.status.start_time for pod in pods if pod.status.start_time is not None]
    runtime_seconds = max(0.0, (now - min(started)).total_seconds()) if started else 0.0
    checkpoint_at = checkpoint_of(workload.uid, view)
    if checkpoint_at is not None:
        since_seconds = max(0.0, (now - checkpoint_at).total_seconds())
        # A checkpoint of an earlier run: what this run has done is all that is lost.
        lost_seconds = min(since_seconds, runtime_seconds) if started else 0.0
        basis = f"since its checkpoint at {checkpoint_at:%Y-%m-%d %H:%M:%S} UTC"
        return Stake(round(gpus * lost_seconds / 3600, 2), basis, checkpoint_at)
    lost_seconds = min(runtime_seconds, UNTOLD_SECONDS)
    basis = "it tells of no checkpoint: its runtime, 30 minutes at most"
    return Stake(round(gpus * lost_seconds / 3600, 2), basis)


def checkpoint_of(workload_uid: str, view: ClusterView) -> datetime | None:
    """When the job says it last wrote a checkpoint (annotation, RFC 3339); None when it tells nothing usable."""
    job = view.jobs.get(workload_uid)
    text = job.metadata.annotations.get(CHECKPOINT_ANNOTATION) if job is not None else None
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo is not None else None
