"""Gangs of which ranks ended though nobody asked them to, from one look at the cluster to the next. Pure.

A rank's end is asked for when its pod was being deleted or disrupted, when a rank of its job was so
shortly before (its peers crash on their broken connections), when the job is suspended, or while an
operation has the job and shortly after. Kubernetes writes whole seconds: an end in the second of a
deletion came before it, as the Job's controller deletes what is left after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from collectors.row_judgement import Row
from k8s.objects import Job, Pod, condition, controller_of, gpu_request
from k8s.view import ClusterView
from k8s.workloads import owner_of, rank_of
from k8s.workloads.job import is_gang

JOB_FIELDS = ("ended_ranks", "ranks", "job", "first")
"""What a row of the rule job-interrupted tells."""

NEWS = timedelta(minutes=10)
"""The finding ends so long after the last rank; a rank that had ended longer ago is no news."""

AFTERMATH = timedelta(minutes=2)
"""Ranks that end so shortly after an operation, a deletion or a suspension follow from it."""

SETTLING = timedelta(seconds=10)
"""Kubelets tell of their ranks within so long: until then another may turn out to be the first."""

FAR = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Span:
    """A time in which a job's ranks end for a known reason: after `since`, up to `until`."""

    since: datetime
    until: datetime


@dataclass(frozen=True)
class RankEnd:
    """How a rank's pod ended."""

    pod_uid: str
    rank: int | None
    node: str
    at: datetime
    words: str


@dataclass(frozen=True)
class Episode:
    """One interruption of a job. node: what its finding is known by, the first rank's when it opened."""

    job: str
    ranks: int
    node: str
    first: RankEnd
    ended_ranks: int
    last_at: datetime
    seen_at: datetime


@dataclass(frozen=True)
class Interruptions:
    """What is kept between looks, by job UID; `ends` by pod UID: when a rank ended, as first seen.

    pinned: nodes of findings that an earlier worker opened, and how long they stay without a word.
    """

    episodes: Mapping[str, Episode] = field(default_factory=dict)
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    ends: Mapping[str, datetime] = field(default_factory=dict)
    pinned: Mapping[str, tuple[str, datetime]] = field(default_factory=dict)
    looked: bool = False

    @property
    def due_at(self) -> datetime | None:
        """When the first of them ends."""
        times = [episode.last_at + NEWS for episode in self.episodes.values()]
        return min([*times, *(until for _, until in self.pinned.values())], default=None)


def has_ended_ranks(view: ClusterView) -> bool:
    """Whether any pod has failed: without one there is nothing to ask the store about."""
    return any(pod.status.phase == "Failed" for pod in view.pods.values())


def look_at_jobs(
    before: Interruptions,
    view: ClusterView,
    *,
    operations: Mapping[str, Sequence[Span]],
    now: datetime,
) -> Interruptions:
    """What is known of interrupted jobs after a look at the cluster.

    operations: by job UID, when one had or has the job (an open one until FAR).
    """
    spans = {
        uid: left
        for uid, known in before.spans.items()
        if (left := tuple(span for span in known if span.until > now - NEWS))
    }
    failed: dict[str, list[Pod]] = {}
    for pod in view.pods.values():
        ended = pod.status.phase == "Failed"
        if not ended and pod.metadata.deletion_timestamp is None:
            continue
        job = _gang_of(pod, view)
        if job is None:
            continue
        owner = owner_of(pod, view)
        uid = owner.uid if owner is not None else job.metadata.uid
        for at in _disrupted_at(pod):
            _add(spans, uid, Span(at, at + AFTERMATH))
        if job.spec.suspend and (stopped_at := _suspended_at(job)) is not None:
            _add(spans, uid, Span(stopped_at - timedelta(seconds=5), now + AFTERMATH))
        if ended:
            failed.setdefault(uid, []).append(pod)
    ends: dict[str, datetime] = {}
    episodes: dict[str, Episode] = {}
    pinned = {uid: pin for uid, pin in before.pinned.items() if now < pin[1]}
    for uid, pods in failed.items():
        known = [
            end
            for pod in pods
            if (end := _end_of(pod, before, now)) is not None and not _was_asked(pod, end.at)
        ]
        ends.update((end.pod_uid, end.at) for end in known)
        excuses = (*spans.get(uid, ()), *operations.get(uid, ()))
        unasked = [
            end
            for end in known
            if now - end.at < NEWS
            and not any(span.since < end.at <= span.until for span in excuses)
        ]
        episode = before.episodes.get(uid)
        if unasked:
            episode = _tell(episode, pods[0], view, unasked, known, pinned.get(uid), now)
        if episode is not None:
            episodes[uid] = episode
    for uid, episode in before.episodes.items():
        episodes.setdefault(uid, episode)
    episodes = {uid: one for uid, one in episodes.items() if now - one.last_at < NEWS}
    return Interruptions(episodes, spans, ends, pinned, looked=True)


def job_rows(known: Interruptions) -> list[Row]:
    """The rows of interrupted jobs, and of findings of which nothing more is to be learnt."""
    rows = [
        Row(
            node=one.node,
            subject=uid,
            values={
                "ended_ranks": one.ended_ranks,
                "ranks": one.ranks,
                "job": one.job,
                "first": one.first.words,
            },
            since=one.first.at,
            job_uid=uid,
            rank=one.first.rank,
            pod_uids=(one.first.pod_uid,),
        )
        for uid, one in known.episodes.items()
    ]
    rows += [
        Row(node=node, subject=uid, values={"ended_ranks": None}, job_uid=uid)
        for uid, (node, _) in known.pinned.items()
        if uid not in known.episodes
    ]
    return rows


def adopt_jobs(opened: Iterable[tuple[str, str, datetime]]) -> Interruptions:
    """What a worker that starts knows: (job UID, node, last told) of findings that are open."""
    return Interruptions(pinned={uid: (node, at + NEWS) for uid, node, at in opened})


def _tell(
    before: Episode | None,
    pod: Pod,
    view: ClusterView,
    unasked: list[RankEnd],
    known: list[RankEnd],
    pin: tuple[str, datetime] | None,
    now: datetime,
) -> Episode:
    last_at = max(end.at for end in unasked)
    first = min(unasked, key=_order)
    if before is None:
        owner, job = owner_of(pod, view), _gang_of(pod, view)
        name = owner.name if owner is not None else pod.metadata.name
        before = Episode(
            job=f"{pod.metadata.namespace}/{name}",
            ranks=_ranks(job, known),
            node=pin[0] if pin is not None else first.node,
            first=first,
            ended_ranks=0,
            last_at=last_at,
            seen_at=now,
        )
    elif now - before.seen_at < SETTLING and _order(first) < _order(before.first):
        before = replace(before, first=first, node=first.node)
    begun, over = before.first.at, last_at + AFTERMATH
    ended = {
        end.pod_uid if end.rank is None else end.rank for end in known if begun <= end.at <= over
    }
    return replace(
        before,
        ended_ranks=max(before.ended_ranks, len(ended)),
        last_at=max(before.last_at, last_at),
    )


def _order(end: RankEnd) -> tuple[datetime, int, str]:
    return (end.at, end.rank if end.rank is not None else 0, end.pod_uid)


def _ranks(job: Job | None, known: list[RankEnd]) -> int:
    if job is not None and (job.spec.completions or job.spec.parallelism):
        return job.spec.completions or job.spec.parallelism or 1
    return len(known)


def _gang_of(pod: Pod, view: ClusterView) -> Job | None:
    """The Job of a pod with GPUs, where its pods only work together."""
    owner = controller_of(pod.metadata)
    job = view.jobs.get(owner.uid) if owner is not None else None
    return job if job is not None and is_gang(job) and gpu_request(pod) else None


def _disrupted_at(pod: Pod) -> Iterable[datetime]:
    """When somebody asked for the pod's end."""
    meta = pod.metadata
    if meta.deletion_timestamp is not None:
        # The timestamp is when the grace period ends.
        yield meta.deletion_timestamp - timedelta(seconds=meta.deletion_grace_period_seconds or 0)
    target = condition(pod.status.conditions, "DisruptionTarget")
    if target is not None and target.status == "True" and target.last_transition_time is not None:
        yield target.last_transition_time


def _suspended_at(job: Job) -> datetime | None:
    told = condition(job.status.conditions, "Suspended")
    return told.last_transition_time if told is not None and told.status == "True" else None


def _add(spans: dict[str, tuple[Span, ...]], uid: str, span: Span) -> None:
    """Put a span to the others, joined with one that it goes on from."""
    known = spans.get(uid, ())
    for place, one in enumerate(known):
        if one.since <= span.until and span.since <= one.until:
            joined = Span(min(one.since, span.since), max(one.until, span.until))
            if joined != one:
                spans[uid] = (*known[:place], joined, *known[place + 1 :])
            return
    spans[uid] = (*known, span)


def _was_asked(pod: Pod, ended_at: datetime) -> bool:
    target = condition(pod.status.conditions, "DisruptionTarget")
    if target is not None and target.status == "True":
        return True
    return any(at <= ended_at for at in _disrupted_at(pod))


def _end_of(pod: Pod, before: Interruptions, now: datetime) -> RankEnd | None:
    """How a failed pod ended; None where nothing tells when."""
    ends = [
        (state.state.terminated.finished_at, state.state.terminated)
        for state in pod.status.container_statuses
        if state.state.terminated is not None
        and state.state.terminated.exit_code
        and state.state.terminated.finished_at is not None
    ]
    ready = condition(pod.status.conditions, "Ready")
    at: datetime | None
    if ends:
        at, terminated = min(ends, key=lambda end: end[0])
        how = f"exit code {terminated.exit_code}"
        how += f" ({terminated.reason})" if terminated.reason else ""
    else:
        said = ready.last_transition_time if ready is not None else None
        at = said or pod.status.start_time or pod.metadata.creation_timestamp
        how = pod.status.reason or "no exit code"
    if at is None:
        return None
    at = before.ends.get(pod.metadata.uid) or _believable(at, before, now)
    rank = rank_of(pod)
    name = f"rank {rank}" if rank is not None else f"pod {pod.metadata.name}"
    node = pod.spec.node_name
    where = f" on {node}" if node else ""
    words = f"{name}{where} at {at.astimezone(UTC):%H:%M:%S} UTC with {how}"
    return RankEnd(pod.metadata.uid, rank, node, at, words)


def _believable(at: datetime, before: Interruptions, now: datetime) -> datetime:
    """A node's clock may be off: what ends while we look on has ended now."""
    if at > now or (before.looked and now - at >= NEWS):
        return now
    return at
