"""A collective that hangs: all of a job's GPUs wait busily for a peer, and one does nothing.

No log line names it: a kernel of NCCL that waits for its peer keeps the GPU at 100 % with the power
of a loop, while the rank that it waits for is somewhere else. A compilation, an evaluation, a
checkpoint look alike for a while, so it must hold. Pure; its caller keeps a HangState a job.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np

from collectors.central import CentralFinding
from collectors.job_gpus import GAP_SECONDS, STALE_SECONDS, JobGpus, Mask
from collectors.rule import Rule, describe
from collectors.rules_training import HANG

IDLE_RATIO = 0.02
"""Utilisation of a GPU that does nothing; judgement."""

TOLERATED_SHARE = 0.01
"""Share of the peers that may be unlike the others for a reading; judgement."""

SILENT_SECONDS = 600.0
"""A rank silent for longer fell silent for another reason than this hang; judgement."""

NAMELESS_HOLDS = 5.0
"""Times the rule's hold that all ranks must spin where nobody stands out: phases of a healthy job
look like that for minutes; judgement."""

DROP_RATIO = 0.6
"""Nobody stands out: power must have fallen under this share of what the job drew before; judgement."""

SPIN_RATIO = 0.30
"""Or be under this share of the limit, where no more was ever seen; judgement."""

NAMED = 3

HANG_FIELDS = frozenset(
    {
        *("peer_utilization_ratio", "peer_power_ratio", "has_few_suspects", "job"),
        *("spinning", "gpus", "peer_watts", "suspect"),
    }
)
"""What the rule may look at and name: the keys that `look_at_collective` returns."""

Certainty = Literal["named", "likely", "nobody"]

EXPLANATION = (
    "A rank that waits in a collective keeps its GPU busy without doing work. All wait for the one "
    "that never came; a checkpoint that one rank alone writes looks the same while it lasts."
)
LOOK_NEXT = "The suspect's process: is it in the data loader, in I/O, or in a deadlock of its own?"


@dataclass(frozen=True)
class Suspect:
    """Who is waited for: "named" does nothing, "likely" is not heard, "nobody" stands out."""

    certainty: Certainty
    words: str
    node: str = ""
    rank: int | None = None
    gpu_uuid: str | None = None
    places: frozenset[str] = frozenset()
    """Nodes and GPUs of all that are suspected."""

    @property
    def who(self) -> tuple[str, int | None]:
        """What stays the same while one is suspected."""
        return (self.node, self.rank)


@dataclass(frozen=True)
class HangState:
    """What is kept of a job: since when it spins, for whom since when, and the finding while open.

    `opened` stands for a finding taken over from before a restart, known by its key and start.
    """

    since: datetime | None = None
    last_held_at: datetime | None = None
    suspect: Suspect | None = None
    suspect_since: datetime | None = None
    most_power_ratio: float = 0.0
    finding: CentralFinding | None = None
    adopted: tuple[tuple[str, str, str, str], datetime] | None = None

    @property
    def key(self) -> tuple[str, str, str, str] | None:
        """The key of what is open, None when nothing is."""
        if self.finding is not None:
            return self.finding.key
        return self.adopted[0] if self.adopted else None


@dataclass(frozen=True)
class HangVerdict:
    """`findings` hold now; `kept` are open and neither said nor refuted. `spins`: it waits now."""

    state: HangState
    findings: tuple[CentralFinding, ...] = ()
    kept: frozenset[tuple[str, str, str, str]] = frozenset()
    spins: bool = False


def judge_hang(
    state: HangState,
    job: JobGpus,
    *,
    now: datetime,
    rule: Rule = HANG,
    explained: Collection[str] = (),
) -> HangVerdict:
    """Say whether the job hangs now. `explained`: nodes whose hardware has a grave fault of its own,
    and UUIDs of GPUs with any XID; what hangs for them is theirs."""
    if not job.is_gang or not job.is_settled(now):
        return HangVerdict(HangState(most_power_ratio=state.most_power_ratio))
    look = look_at_collective(job) if job.is_heard else None
    if look is None:
        return _stay(state)
    values, suspect, power_ratio = look
    held = rule.test(values.get)
    if held and suspect.certainty == "nobody":
        held = _has_dropped(power_ratio, state.most_power_ratio)
    state = replace(state, most_power_ratio=max(state.most_power_ratio, power_ratio))
    if held is None:
        return _stay(state)
    if not held:
        return _refuse(state, rule, now)
    if state.key is None and _seconds_since(state.last_held_at, now) > GAP_SECONDS:
        state = replace(state, since=None, suspect=None)
    is_same = state.suspect is not None and state.suspect.who == suspect.who
    state = replace(
        state,
        since=state.since or now,
        last_held_at=now,
        suspect=suspect,
        suspect_since=state.suspect_since if is_same else now,
    )
    return replace(
        _hold(state, job, rule=rule, values=values, now=now, explained=explained), spins=True
    )


def adopt_hang(
    key: tuple[str, str, str, str], message: str, opened_at: datetime, *, now: datetime
) -> HangState:
    """The state of one that starts with this finding open."""
    return HangState(since=opened_at, last_held_at=now, adopted=(key, opened_at))


def look_at_collective(job: JobGpus) -> tuple[dict[str, Any], Suspect, float] | None:
    """Return the fields of the rule, the suspect, and the peers' median share of their power limit.

    None where power is not known of most GPUs.
    """
    fresh = job.fresh
    idle = fresh & (job.utilization_ratio <= IDLE_RATIO)
    peers = fresh & ~idle
    spinning = int(peers.sum())
    share = job.power_watts / np.where(job.power_limit_watts > 0, job.power_limit_watts, np.nan)
    known = share[peers & (share == share)]
    if spinning and len(known) < 0.5 * spinning:
        return None
    usual = float(np.median(known)) if len(known) else 0.0
    idling = int(idle.sum())
    is_few = spinning > 0 and spinning >= idling and (not idling or job.are_few(idle))
    suspect = _find_suspect(job, idle) if is_few else Suspect("nobody", "")
    tolerated = int(TOLERATED_SHARE * spinning)
    busy = np.sort(job.utilization_ratio[peers])
    values = {
        "peer_utilization_ratio": float(busy[tolerated]) if spinning else 0.0,
        "peer_power_ratio": float(np.sort(known)[-1 - int(TOLERATED_SHARE * len(known))])
        if len(known)
        else 1.0,
        "has_few_suspects": is_few,
        "job": job.name,
        "spinning": spinning,
        "gpus": len(fresh),
        "peer_watts": f"{float(np.nanmedian(job.power_watts[peers])):.0f}" if len(known) else "?",
        "suspect": suspect.words,
    }
    return values, suspect, usual


def _find_suspect(job: JobGpus, idle: Mask) -> Suspect:
    if idle.any():
        return _name(job, idle)
    unheard = ~job.fresh
    numbered = set(job.rank.tolist())
    absent = sorted(set(range(job.ranks)) - numbered) if min(numbered, default=0) >= 0 else []
    # A pod that runs where no agent ever spoke tells nothing; one that runs no more does.
    age = job.age_seconds
    silent = unheard & (((age > STALE_SECONDS) & (age <= SILENT_SECONDS)) | ~job.running)
    if len(absent) == 1 and not unheard.any():
        words = f"and rank {absent[0]} has no pod: it is likely the one they wait for"
        return Suspect("likely", words, rank=absent[0])
    if not absent and silent.any() and (silent == unheard).all() and job.are_few(silent):
        return _guess(job, silent)
    quiet = f"{int(unheard.sum())} are not heard" if unheard.any() else "nobody stands out"
    return Suspect("nobody", f"and {quiet}: which one they wait for is not known")


def _name(job: JobGpus, idle: Mask) -> Suspect:
    places = job.in_order(idle)
    first = places[0]
    own = [at for at in places if job.rank[at] == job.rank[first]]
    groups = _groups(job, places)
    words = "; ".join(groups[:NAMED])
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return Suspect(
        "named",
        f"and {words}{more}, {'does' if len(groups) == 1 else 'do'} nothing",
        node=str(job.node[first]),
        rank=_rank(job, first),
        gpu_uuid=str(job.gpu_uuid[first]) or None if len(own) == 1 else None,
        places=_places(job, places),
    )


def _guess(job: JobGpus, silent: Mask) -> Suspect:
    places = job.in_order(silent)
    first = places[0]
    age = job.age_seconds[first]
    since = f", not heard for {age:.0f} s," if age == age else ", whose pod does not run,"
    own = [at for at in places if job.rank[at] == job.rank[first]]
    return Suspect(
        "likely",
        f"and {_groups(job, places)[0]}{since} is likely the one they wait for",
        node=str(job.node[first]),
        rank=_rank(job, first),
        gpu_uuid=str(job.gpu_uuid[first]) or None if len(own) == 1 else None,
        places=_places(job, places),
    )


def _places(job: JobGpus, places: list[int]) -> frozenset[str]:
    return frozenset(str(names[at]) for names in (job.node, job.gpu_uuid) for at in places)


def _groups(job: JobGpus, places: list[int]) -> list[str]:
    """Each rank with its GPUs among these, in words."""
    by_rank: dict[tuple[int, str], list[int]] = {}
    for at in places:
        by_rank.setdefault((int(job.rank[at]), str(job.node[at])), []).append(at)
    return [
        job.tell_place(own[0])
        if len(own) == 1
        else f"{job.tell_place(own[0]).partition(',')[0]}, {len(own)} GPUs"
        for own in by_rank.values()
    ]


def _rank(job: JobGpus, at: int) -> int | None:
    rank = int(job.rank[at])
    return rank if rank >= 0 else None


def _has_dropped(power_ratio: float, most: float) -> bool:
    return power_ratio <= SPIN_RATIO or power_ratio <= DROP_RATIO * most


def _seconds_since(at: datetime | None, now: datetime) -> float:
    return (now - at).total_seconds() if at is not None else 0.0


def _stay(state: HangState) -> HangVerdict:
    return HangVerdict(state, kept=frozenset({state.key} if state.key else ()))


def _refuse(state: HangState, rule: Rule, now: datetime) -> HangVerdict:
    if state.key and _seconds_since(state.last_held_at, now) < rule.keep_firing_seconds:
        return _stay(state)
    return HangVerdict(HangState(most_power_ratio=state.most_power_ratio))


def _hold(
    state: HangState,
    job: JobGpus,
    *,
    rule: Rule,
    values: dict[str, Any],
    now: datetime,
    explained: Collection[str],
) -> HangVerdict:
    suspect, since, suspect_since = state.suspect, state.since, state.suspect_since
    assert suspect is not None
    assert since is not None
    assert suspect_since is not None
    made = CentralFinding(
        rule=rule.name,
        node=suspect.node,
        severity=rule.severity,
        message=describe(rule, values.get),
        action=rule.action,
        since=since,
        gpu_uuid=suspect.gpu_uuid,
        subject=job.uid,
        job_uid=job.uid,
        rank=suspect.rank,
        changes_health=rule.changes_health,
        explanation=EXPLANATION,
        look_next=LOOK_NEXT,
    )
    key = state.key
    if key is not None and (key == made.key or suspect.certainty != "named" or key[1] != ""):
        # Whom it named first stays; the words are those of its beginning.
        if state.finding is not None:
            return HangVerdict(state, findings=(state.finding,))
        if key == made.key:
            return HangVerdict(replace(state, finding=made, adopted=None), findings=(made,))
        return _stay(state)
    is_nameless = suspect.certainty == "nobody"
    begun = since if is_nameless else suspect_since
    hold = rule.hold_seconds * (NAMELESS_HOLDS if is_nameless else 1.0)
    if now - begun < timedelta(seconds=hold) or _is_explained(job, suspect, explained):
        if state.finding is not None:
            return HangVerdict(state, findings=(state.finding,))
        return _stay(state)
    return HangVerdict(replace(state, finding=made, adopted=None), findings=(made,))


def _is_explained(job: JobGpus, suspect: Suspect, explained: Collection[str]) -> bool:
    if not explained:
        return False
    places = suspect.places or {*job.node.tolist(), *job.gpu_uuid.tolist()}
    return any(place in explained for place in places)
