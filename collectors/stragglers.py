"""Stragglers: a GPU that is apart from its peers while their job works, so that all wait for it.

Compared with the median of its own job, never with a number: a job's level is its own. Pure; its
caller keeps a StragglerState a job.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from collectors.central import CentralFinding
from collectors.job_gpus import GAP_SECONDS, Column, JobGpus, Mask
from collectors.rule import Rule, describe
from collectors.rules_training import STRAGGLER

WORKING_RATIO = 0.5
"""A job whose median GPU is less busy does not work now; judgement."""

FEWEST_GPUS = 4
"""Of fewer GPUs the median tells nothing; judgement."""

CLOCK_RATIO = 0.9
"""SM clock under this share of the median; judgement."""

THROTTLED_CLOCK_RATIO = 0.97
"""The same where the GPU says that it is throttled; judgement."""

THROTTLE_BITS = 0x8 | 0x20 | 0x40 | 0x80
"""Hardware slowdown, software and hardware thermal slowdown, power brake (nvml.h)."""

POWER_RATIO = 0.75
"""Power under this share of the median; judgement."""

POWER_DEVIATIONS = 6.0
"""And further from it than so many robust deviations, as stages of a pipeline differ; judgement."""

DEVIATION_OF_MAD = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""

STRAGGLER_FIELDS = frozenset({"signs", "place", "job", "figures"})
"""What the rule may look at and name."""

NAMED = 3
"""At most so many are named a job, the worst first."""

Key = tuple[str, str, str, str]

EXPLANATION = (
    "In a gang each step is as long as its slowest GPU's: one that is slow slows all of them. It is "
    "compared with the median of its own job."
)
LOOK_NEXT = "Clock event reasons, temperature and power of the GPU, and those of its neighbours."


@dataclass(frozen=True)
class Apart:
    """Which GPUs are apart: how far (0 is furthest), and the medians that they are compared with."""

    known: Mask
    apart: Mask
    slow: Mask
    throttled: Mask
    nearness: Column
    clock_hertz: float
    power_watts: float


@dataclass(frozen=True)
class OpenStraggler:
    """One that is open: its finding (None for one taken over until it is said again), whose GPUs."""

    opened_at: datetime
    last_held_at: datetime
    finding: CentralFinding | None = None


@dataclass(frozen=True)
class StragglerState:
    """What is kept of a job: since when and until when GPUs were apart, and what is open by key."""

    waiting: Mapping[str, tuple[datetime, datetime]] = field(default_factory=dict)
    open: Mapping[Key, OpenStraggler] = field(default_factory=dict)


@dataclass(frozen=True)
class StragglerVerdict:
    """`findings` hold now; `kept` are open and neither said nor refuted."""

    state: StragglerState
    findings: tuple[CentralFinding, ...] = ()
    kept: frozenset[Key] = frozenset()


def judge_stragglers(
    state: StragglerState,
    job: JobGpus,
    *,
    now: datetime,
    rule: Rule = STRAGGLER,
    spins: bool = False,
) -> StragglerVerdict:
    """Say which GPUs slow the job down now. `spins`: it waits in a collective, so nobody works."""
    if not job.is_gang or not job.is_settled(now):
        return StragglerVerdict(StragglerState())
    look = look_at_peers(job) if job.is_heard and not spins else None
    if look is None:
        return StragglerVerdict(state, kept=frozenset(state.open))
    held = np.flatnonzero(look.apart).tolist()
    waiting = _wait(state, job, held, now=now)
    hold = timedelta(seconds=rule.hold_seconds)
    uuids = job.gpu_uuid
    ripe = [at for at in held if now - waiting[str(uuids[at])][0] >= hold]
    findings: list[CentralFinding] = []
    opened: dict[Key, OpenStraggler] = {}
    kept: set[Key] = set()
    covered: set[int] = set()
    for key, one in state.open.items():
        own = _places_of(job, key)
        still = [at for at in own if look.apart[at]]
        if still:
            covered.update(own)
            began = min(one.opened_at, now)
            finding = one.finding or _make(job, look, still, key=key, rule=rule, since=began)
            findings.append(finding)
            opened[key] = OpenStraggler(one.opened_at, now, finding)
        elif own and not any(look.known[at] for at in own):
            opened[key] = one
            kept.add(key)
        elif own and now - one.last_held_at < timedelta(seconds=rule.keep_firing_seconds):
            covered.update(own)
            opened[key] = one
            kept.add(key)
    new = _gather(job, [at for at in ripe if at not in covered])
    new.sort(key=lambda own: (min(float(look.nearness[at]) for at in own), _order(job, own)))
    for own in new[: max(0, NAMED - len(opened))]:
        key = _key_of(job, own, rule)
        since = min(waiting[str(uuids[at])][0] for at in own)
        finding = _make(job, look, own, key=key, rule=rule, since=since)
        findings.append(finding)
        opened[key] = OpenStraggler(since, now, finding)
    return StragglerVerdict(StragglerState(waiting, opened), tuple(findings), frozenset(kept))


def adopt_stragglers(
    state: StragglerState, key: Key, opened_at: datetime, *, now: datetime
) -> StragglerState:
    """The state with this finding open as well."""
    return replace(state, open={**state.open, key: OpenStraggler(opened_at, now)})


def look_at_peers(job: JobGpus) -> Apart | None:
    """Return which GPUs are apart, None while the job does not work or too little is known."""
    fresh = job.fresh
    if int(fresh.sum()) < FEWEST_GPUS:
        return None
    if float(np.median(job.utilization_ratio[fresh])) < WORKING_RATIO:
        return None
    works = fresh & (job.utilization_ratio >= WORKING_RATIO)
    clock, power = job.sm_clock_hertz, job.power_watts
    usual_clock, _ = _middle(clock[works])
    usual_power, deviation = _middle(power[works])
    slow = works & (clock < CLOCK_RATIO * usual_clock)
    bits = np.nan_to_num(job.reasons, nan=0.0).astype(np.int64)
    throttled = works & ((bits & THROTTLE_BITS) != 0)
    throttled &= clock < THROTTLED_CLOCK_RATIO * usual_clock
    if throttled.any() and not job.are_few(throttled):
        throttled[:] = False
    weak = works & (power < POWER_RATIO * usual_power)
    weak &= usual_power - power > POWER_DEVIATIONS * deviation
    if weak.any() and not job.are_few(weak):
        weak[:] = False  # many that draw less have other work
    ratios = np.vstack([clock / usual_clock, power / usual_power])
    return Apart(
        known=fresh,
        apart=slow | throttled | weak,
        slow=slow | throttled,
        throttled=throttled,
        nearness=np.min(np.nan_to_num(ratios, nan=1.0), axis=0),
        clock_hertz=usual_clock,
        power_watts=usual_power,
    )


def _middle(column: Column) -> tuple[float, float]:
    """The median and the robust deviation of what is known; NaN where that is too little."""
    known = column[column == column]
    if len(known) < FEWEST_GPUS:
        return float("nan"), float("nan")
    middle = float(np.median(known))
    return middle, DEVIATION_OF_MAD * float(np.median(np.abs(known - middle)))


def _wait(
    state: StragglerState, job: JobGpus, held: list[int], *, now: datetime
) -> dict[str, tuple[datetime, datetime]]:
    """Since when each is apart. One not heard of stays for a while; one that is like its peers goes."""
    gap = timedelta(seconds=GAP_SECONDS)
    waiting: dict[str, tuple[datetime, datetime]] = {}
    for at in held:
        uuid = str(job.gpu_uuid[at])
        since, last = state.waiting.get(uuid, (now, now))
        waiting[uuid] = (since if now - last <= gap else now, now)
    if len(state.waiting) > 0:
        known = set(job.gpu_uuid[job.fresh].tolist())
        for uuid, (since, last) in state.waiting.items():
            if uuid not in waiting and uuid not in known and now - last <= gap:
                waiting[uuid] = (since, last)
    return waiting


def _places_of(job: JobGpus, key: Key) -> list[int]:
    """The GPUs that a finding of this key is about: one, or all of the job's on a node."""
    _, node, uuid, _ = key
    is_own = (job.gpu_uuid == uuid) if uuid else (job.node == node)
    return [int(at) for at in np.flatnonzero(is_own)]


def _gather(job: JobGpus, places: list[int]) -> list[list[int]]:
    """GPUs as findings tell them: all of a node's as one where all of them are apart."""
    by_node: dict[str, list[int]] = {}
    for at in places:
        by_node.setdefault(str(job.node[at]), []).append(at)
    units: list[list[int]] = []
    for node, own in by_node.items():
        if len(own) > 1 and len(own) == int((job.node == node).sum()):
            units.append(own)
        else:
            units += [[at] for at in own]
    return units


def _order(job: JobGpus, own: list[int]) -> tuple[int, str, str]:
    return min((int(job.rank[at]), str(job.node[at]), str(job.gpu_uuid[at])) for at in own)


def _key_of(job: JobGpus, own: list[int], rule: Rule) -> Key:
    uuid = str(job.gpu_uuid[own[0]]) if len(own) == 1 else ""
    return (rule.name, str(job.node[own[0]]), uuid, job.uid)


def _make(
    job: JobGpus, look: Apart, own: list[int], *, key: Key, rule: Rule, since: datetime
) -> CentralFinding:
    mask = np.zeros(len(job.gpu_uuid), dtype=bool)
    mask[own] = True
    first = job.in_order(mask)[0]
    rank = int(job.rank[first])
    values: dict[str, Any] = {
        "signs": len(own),
        "place": _tell_place(job, own, first, is_node=not key[2]),
        "job": job.name,
        "figures": _tell_figures(job, look, mask),
    }
    return CentralFinding(
        rule=rule.name,
        node=key[1],
        severity=rule.severity,
        message=describe(rule, values.get),
        action=rule.action,
        since=since,
        gpu_uuid=key[2] or None,
        subject=job.uid,
        job_uid=job.uid,
        rank=rank if rank >= 0 else None,
        changes_health=rule.changes_health,
        explanation=EXPLANATION,
        look_next=LOOK_NEXT,
    )


def _tell_place(job: JobGpus, own: list[int], first: int, *, is_node: bool) -> str:
    said = job.tell_place(first)
    if not is_node:
        return f"{said}," if "," in said else said
    ranks = len({int(job.rank[at]) for at in own})
    whose = said.partition(",")[0] if ranks == 1 else f"{ranks} ranks on {job.node[first]}"
    return f"{whose}, with all of its {len(own)} GPUs,"


def _tell_figures(job: JobGpus, look: Apart, mask: Mask) -> str:
    peers = job.fresh & ~mask
    peers = peers if peers.any() else job.fresh
    said = []
    if look.slow[mask].any():
        own, usual = _median(job.sm_clock_hertz[mask]), _median(job.sm_clock_hertz[peers])
        said.append(
            f"SM clock {own / 1e6:,.0f} MHz, its {int(peers.sum()):,} peers {usual / 1e6:,.0f} MHz"
        )
    if look.throttled[mask].any():
        said.append("it is throttled")
    if not look.slow[mask].any():
        own, usual = _median(job.power_watts[mask]), _median(job.power_watts[peers])
        said.append(f"power {own:,.0f} W, its {int(peers.sum()):,} peers {usual:,.0f} W")
    return "; ".join(said)


def _median(column: Column) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmedian(column))
