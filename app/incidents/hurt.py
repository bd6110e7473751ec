"""Whom an incident hurts, since when, and until when. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app.incidents.classes import INTERRUPTED, class_of
from app.incidents.model import Fault, HurtJob, JobFact, NodeFact, PodFact, World


@dataclass(frozen=True)
class Pods:
    """The pods of a world, found by node and by UID."""

    by_node: Mapping[str, Sequence[PodFact]]
    by_uid: Mapping[str, PodFact]


def index_pods(pods: Iterable[PodFact]) -> Pods:
    """The pods by node and by UID."""
    by_node: dict[str, list[PodFact]] = {}
    by_uid: dict[str, PodFact] = {}
    for pod in pods:
        by_node.setdefault(pod.node, []).append(pod)
        by_uid.setdefault(pod.uid, pod)
    return Pods(by_node, by_uid)


def job_of(fault: Fault, pods: Pods) -> str | None:
    """UID of the job that a fault concerns: as it says, or that of the pods it names."""
    if fault.job_uid is not None:
        return fault.job_uid
    for uid in fault.pod_uids:
        pod = pods.by_uid.get(uid)
        if pod is not None and pod.job_uid is not None:
            return pod.job_uid
    return None


def is_off(node: NodeFact | None) -> bool:
    """Whether a node is out of service on purpose, so that no job is hurt by what happens there."""
    return node is not None and (node.planned is not None or node.off_since is not None)


@dataclass
class _Sum:
    since: datetime
    pods: dict[str, PodFact] = field(default_factory=dict)
    is_all: bool = False  # all of the job, whatever pods are known
    holds: bool = False  # whatever the job does now


def find_hurt(
    faults: Iterable[Fault], world: World, pods: Pods, now: datetime
) -> dict[str, HurtJob]:
    """The jobs that these faults hurt now, by UID.

    Grave faults and absences hurt the jobs on their GPU's pods, or on the node where no pod is named; an
    application's XID hurts only the job of the pods named; a job's own fault hurts that job.
    """
    sums: dict[str, _Sum] = {}
    for fault in faults:
        kind = class_of(fault)
        if kind == "job":
            uid = job_of(fault, pods)
            if uid is not None:
                one = _add(sums, uid, fault.opened_at)
                one.is_all = True
                one.holds = one.holds or fault.rule != INTERRUPTED
        elif kind in ("hardware", "absence", "application"):
            for pod in _hit(fault, world, pods, named_only=kind == "application"):
                assert pod.job_uid is not None
                since = max(fault.opened_at, pod.since or fault.opened_at)
                one = _add(sums, pod.job_uid, since)
                one.pods[pod.uid] = pod
                # A pod that has left was hit all the same, though its job may be back by now.
                job = world.jobs.get(pod.job_uid)
                one.holds = one.holds or pod.until is None or job is None or not job.is_whole
    found = {}
    for uid, one in sums.items():
        job = world.jobs.get(uid)
        hurt = _hurt(job, one, now) if job is not None else None
        if hurt is not None:
            found[uid] = hurt
    return found


def carry_on(
    known: Sequence[HurtJob], hurt: Mapping[str, HurtJob], world: World, now: datetime
) -> tuple[HurtJob, ...]:
    """Whom the incident has hurt with what is so now: whoever is not back yet is hurt still.

    A job is back when it runs with all its pods and no fault of the incident hurts it, or when it ended.
    """
    found: dict[str, HurtJob] = {}
    for job in known:
        again = hurt.get(job.uid)
        if again is not None and again.until is None:
            found[job.uid] = _still(job, again)
        elif job.until is None:
            found[job.uid] = replace(job, until=_back_at(world.jobs.get(job.uid), job, now))
        else:
            found[job.uid] = job
    for uid, job in hurt.items():
        found.setdefault(uid, job)
    return tuple(found.values())


def _add(sums: dict[str, _Sum], uid: str, since: datetime) -> _Sum:
    one = sums.setdefault(uid, _Sum(since))
    one.since = min(one.since, since)
    return one


def _hit(fault: Fault, world: World, pods: Pods, *, named_only: bool) -> list[PodFact]:
    if is_off(world.nodes.get(fault.node)):
        return []
    named = [pods.by_uid[uid] for uid in fault.pod_uids if uid in pods.by_uid]
    named = [pod for pod in named if pod.job_uid is not None]
    there = named if named or named_only else pods.by_node.get(fault.node, ())
    return [pod for pod in there if pod.job_uid is not None and _was_hit(pod, fault, world)]


def _was_hit(pod: PodFact, fault: Fault, world: World) -> bool:
    if pod.until is None:
        job = world.jobs.get(pod.job_uid or "")
        # A pod that leaves while its job runs whole elsewhere hurts nobody any more.
        return not (pod.is_leaving and job is not None and job.is_whole)
    started = pod.since is None or pod.since <= fault.opened_at
    return started and fault.opened_at <= pod.until and (pod.job_uid or "") in world.jobs


def _hurt(job: JobFact, one: _Sum, now: datetime) -> HurtJob | None:
    # An interruption is told for a while after the job is back.
    until = now if job.is_whole and not one.holds else None
    if job.is_ended:
        if job.state == "Complete" or job.finished_at is None or job.finished_at < one.since:
            return None
        until = job.finished_at
    there = sum(pod.gpus for pod in one.pods.values())
    gpus = max(job.gpus, there) if job.gang or one.is_all else there
    ranks = tuple(sorted(pod.rank for pod in one.pods.values() if pod.rank is not None))
    return HurtJob(job.uid, job.namespace, job.name, gpus, one.since, until, ranks)


def _still(job: HurtJob, again: HurtJob) -> HurtJob:
    ranks = tuple(sorted({*job.ranks, *again.ranks}))
    gpus = max(job.gpus, again.gpus)
    if job.until is None:
        return replace(job, gpus=gpus, ranks=ranks)
    before = job.seconds_before + max((job.until - job.since).total_seconds(), 0.0)
    since = max(again.since, job.until)
    return replace(job, gpus=gpus, ranks=ranks, since=since, until=None, seconds_before=before)


def _back_at(job: JobFact | None, hurt: HurtJob, now: datetime) -> datetime | None:
    if job is None:
        return now
    if job.is_ended:
        return max(job.finished_at or now, hurt.since)
    return now if job.is_whole else None
