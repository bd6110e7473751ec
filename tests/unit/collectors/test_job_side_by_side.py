"""One job's GPUs side by side: a hang names who is waited for, a straggler is told by its peers alone."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.central import CentralFinding
from collectors.collective import HangState, adopt_hang, judge_hang
from collectors.job_gpus import JobGpus, make_columns
from collectors.stragglers import StragglerState, judge_stragglers

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RANKS = 8
GPUS = 8 * RANKS


def job(**columns: Any) -> JobGpus:
    """A gang of 8 ranks with 8 GPUs each that works, but for the columns given."""
    values: dict[str, Any] = {
        "rank": [at // 8 for at in range(GPUS)],
        "node": [f"n{at // 8}" for at in range(GPUS)],
        "gpu_index": [at % 8 for at in range(GPUS)],
        "gpu_uuid": [f"GPU-{at}" for at in range(GPUS)],
        "running": [True] * GPUS,
        "age_seconds": [5.0] * GPUS,
        "utilization_ratio": [0.98] * GPUS,
        "power_watts": [600.0 + at % 5 for at in range(GPUS)],
        "power_limit_watts": [700.0] * GPUS,
        "sm_clock_hertz": [1.98e9] * GPUS,
        "reasons": [4] * GPUS,
    }
    kept = {name: columns.pop(name) for name in list(columns) if name not in values}
    return JobGpus(
        uid="j1",
        name="ml/llama",
        ranks=kept.pop("ranks", RANKS),
        running_since=kept.pop("running_since", NOW - timedelta(hours=1)),
        **make_columns(values | columns),
        **kept,
    )


def spinning(idle: int | None = 19, **columns: Any) -> JobGpus:
    """A job whose GPUs all spin at 200 W, but one that does nothing."""
    return job(
        utilization_ratio=[0.0 if at == idle else 1.0 for at in range(GPUS)],
        power_watts=[80.0 if at == idle else 200.0 for at in range(GPUS)],
        **columns,
    )


def watch_hang(
    found: JobGpus, seconds: int = 75, state: HangState | None = None, **options: Any
) -> tuple[HangState, tuple[CentralFinding, ...]]:
    state = state or HangState()
    findings: tuple[CentralFinding, ...] = ()
    for passed in range(0, seconds + 1, 15):
        verdict = judge_hang(state, found, now=NOW + timedelta(seconds=passed), **options)
        state, findings = verdict.state, verdict.findings
    return state, findings


def watch_stragglers(found: JobGpus, seconds: int = 240) -> tuple[CentralFinding, ...]:
    state, findings = StragglerState(), ()
    for passed in range(0, seconds + 1, 15):
        verdict = judge_stragglers(state, found, now=NOW + timedelta(seconds=passed))
        state, findings = verdict.state, verdict.findings
    return findings


def test_hang_names_the_rank_that_does_nothing() -> None:
    _, (found,) = watch_hang(spinning())
    assert (found.rule, found.severity, found.changes_health) == (
        "collective-hang",
        "critical",
        False,
    )
    assert (found.rank, found.node, found.gpu_uuid, found.subject) == (2, "n2", "GPU-19", "j1")
    assert "63 of its 64 GPUs" in found.message
    assert "rank 2 on n2, GPU 3" in found.message


def test_hang_must_hold_a_minute() -> None:
    assert watch_hang(spinning(), seconds=45)[1] == ()


def test_hang_without_anybody_idle_takes_five_minutes_and_names_nobody() -> None:
    assert watch_hang(spinning(idle=None), seconds=240)[1] == ()
    _, (found,) = watch_hang(spinning(idle=None), seconds=330)
    assert (found.node, found.rank, found.gpu_uuid) == ("", None, None)


def test_hang_waits_likely_for_the_rank_whose_node_fell_silent() -> None:
    ages = [120.0 if at // 8 == 5 else 5.0 for at in range(GPUS)]
    _, (found,) = watch_hang(spinning(idle=None, age_seconds=ages))
    assert (found.node, found.rank) == ("n5", 5)
    assert "likely" in found.message


@pytest.mark.parametrize("explained", ["n2", "GPU-19"])
def test_hang_that_hardware_explains_is_no_finding_of_its_own(explained: str) -> None:
    assert watch_hang(spinning(), explained={explained})[1] == ()


def test_hang_that_is_open_stays_when_hardware_explains_it_later() -> None:
    state, _ = watch_hang(spinning())
    verdict = judge_hang(state, spinning(), now=NOW + timedelta(seconds=90), explained={"n2"})
    assert len(verdict.findings) == 1


def test_hang_ends_when_the_job_works_again() -> None:
    state, _ = watch_hang(spinning())
    verdict = judge_hang(state, job(), now=NOW + timedelta(seconds=150))
    assert (verdict.findings, verdict.kept) == ((), frozenset())


def test_hang_taken_over_from_before_a_restart_is_the_same() -> None:
    _, (found,) = watch_hang(spinning())
    state = adopt_hang(found.key, found.message, found.since, now=NOW)
    verdict = judge_hang(state, spinning(), now=NOW)
    assert {one.key for one in verdict.findings} | verdict.kept == {found.key}


NOT_HANGING = {
    "it works": job(),
    "it has just started": spinning(running_since=NOW - timedelta(seconds=30)),
    "all load data": job(utilization_ratio=[0.0] * GPUS, power_watts=[80.0] * GPUS),
    "all write a checkpoint": job(utilization_ratio=[0.2] * GPUS, power_watts=[150.0] * GPUS),
    "half evaluates": job(
        utilization_ratio=[1.0 if at % 2 else 0.0 for at in range(GPUS)],
        power_watts=[200.0] * GPUS,
    ),
    "no gang": spinning(is_gang=False),
    "readings are old": spinning(age_seconds=[60.0] * GPUS),
    "most ranks are not heard": spinning(
        age_seconds=[5.0 if at < 24 else 700.0 for at in range(GPUS)]
    ),
    "power is not known": spinning(power_limit_watts=[None] * GPUS),
}


@pytest.mark.parametrize("why", NOT_HANGING)
def test_what_only_looks_like_a_hang_is_none(why: str) -> None:
    assert watch_hang(NOT_HANGING[why], seconds=120)[1] == ()


def without(found: JobGpus, rank: int) -> JobGpus:
    """The job less the pod of one rank."""
    kept = found.rank != rank
    columns = {
        name: value[kept]
        for name, value in vars(found).items()
        if isinstance(value, np.ndarray) and name != "fresh"
    }
    return replace(found, **columns)


def test_hang_waits_likely_for_the_rank_without_a_pod() -> None:
    _, (found,) = watch_hang(without(spinning(idle=None), 6))
    assert (found.node, found.rank, found.gpu_uuid) == ("", 6, None)
    assert "rank 6 has no pod" in found.message


def test_node_silent_for_long_before_is_no_suspect() -> None:
    ages = [7200.0 if at // 8 == 5 else 5.0 for at in range(GPUS)]
    silent = spinning(idle=None, age_seconds=ages)
    assert watch_hang(silent, seconds=120)[1] == ()
    _, (found,) = watch_hang(silent, seconds=330)
    assert (found.node, "8 are not heard" in found.message) == ("", True)


def test_node_whose_clock_is_an_hour_ahead_is_no_suspect() -> None:
    ages = [-3600.0 if at // 8 == 5 else 5.0 for at in range(GPUS)]
    assert watch_hang(spinning(idle=None, age_seconds=ages), seconds=120)[1] == ()


def test_job_that_never_drew_more_does_not_hang() -> None:
    light = job(utilization_ratio=[1.0] * GPUS, power_watts=[280.0] * GPUS)
    assert watch_hang(light, seconds=900)[1] == ()
    state, _ = watch_hang(job(), seconds=15)
    assert len(watch_hang(light, seconds=330, state=state)[1]) == 1


def test_all_gpus_of_a_rank_are_one_suspect() -> None:
    idle = job(
        utilization_ratio=[0.0 if at // 8 == 4 else 1.0 for at in range(GPUS)],
        power_watts=[200.0] * GPUS,
    )
    _, (found,) = watch_hang(idle)
    assert (found.node, found.rank, found.gpu_uuid) == ("n4", 4, None)
    assert "rank 4 on n4, 8 GPUs" in found.message


def test_suspect_that_changes_each_look_is_none() -> None:
    state = HangState()
    for turn in range(12):
        at = NOW + timedelta(seconds=15 * turn)
        verdict = judge_hang(state, spinning(idle=8 * (turn % 4)), now=at)
        state = verdict.state
        assert verdict.findings == ()


def test_hang_keeps_whom_it_named_first() -> None:
    state, (named,) = watch_hang(spinning())
    verdict = judge_hang(state, spinning(idle=40), now=NOW + timedelta(seconds=90))
    assert verdict.findings == (named,)


def test_hang_that_named_nobody_gives_way_to_one_that_names() -> None:
    state, (nameless,) = watch_hang(spinning(idle=None), seconds=330)
    for passed in range(345, 420, 15):
        verdict = judge_hang(state, spinning(), now=NOW + timedelta(seconds=passed))
        state = verdict.state
    (found,) = verdict.findings
    assert (nameless.node, found.node) == ("", "n2")


def test_hang_is_kept_while_too_little_is_known() -> None:
    state, (named,) = watch_hang(spinning())
    old = spinning(age_seconds=[60.0] * GPUS)
    verdict = judge_hang(state, old, now=NOW + timedelta(hours=1))
    assert (verdict.findings, verdict.kept) == ((), {named.key})


def test_hang_ends_at_once_when_its_job_starts_anew() -> None:
    state, _ = watch_hang(spinning())
    now = NOW + timedelta(seconds=90)
    verdict = judge_hang(state, job(running_since=now), now=now)
    assert (verdict.findings, verdict.kept) == ((), frozenset())


def test_straggler_is_told_with_its_peers_figures() -> None:
    clocks = [990e6 if at == 19 else 1.98e9 for at in range(GPUS)]
    (found,) = watch_stragglers(job(sm_clock_hertz=clocks))
    assert (found.rule, found.severity, found.gpu_uuid, found.rank) == (
        "straggler",
        "warning",
        "GPU-19",
        2,
    )
    assert "SM clock 990 MHz, its 63 peers 1,980 MHz" in found.message


def test_whole_node_that_is_slow_is_one_straggler() -> None:
    clocks = [1.2e9 if at // 8 == 3 else 1.98e9 for at in range(GPUS)]
    (found,) = watch_stragglers(job(sm_clock_hertz=clocks))
    assert (found.node, found.gpu_uuid) == ("n3", None)


def test_straggler_by_power_must_be_far_out() -> None:
    powers = [300.0 if at == 7 else 600.0 + at % 5 for at in range(GPUS)]
    (found,) = watch_stragglers(job(power_watts=powers))
    assert found.gpu_uuid == "GPU-7"
    stages = [420.0 if at % 2 else 600.0 for at in range(GPUS)]
    assert watch_stragglers(job(power_watts=stages)) == ()


def test_at_most_three_are_named() -> None:
    clocks = [990e6 if at in (1, 9, 17, 25) else 1.98e9 for at in range(GPUS)]
    assert len(watch_stragglers(job(sm_clock_hertz=clocks))) == 3


def test_straggler_must_hold_three_minutes() -> None:
    clocks = [990e6 if at == 19 else 1.98e9 for at in range(GPUS)]
    assert watch_stragglers(job(sm_clock_hertz=clocks), seconds=150) == ()


NOT_STRAGGLING: dict[str, dict[str, Any]] = {
    "the job does not work": {"utilization_ratio": [0.1] * GPUS},
    "it has just started": {"running_since": NOW - timedelta(seconds=30)},
    "no gang": {"is_gang": False},
    "readings are old": {"age_seconds": [60.0] * GPUS},
    "the slow GPU does nothing": {
        "utilization_ratio": [0.0 if at == 19 else 0.98 for at in range(GPUS)]
    },
    "nobody knows clocks": {"sm_clock_hertz": [None] * GPUS},
    "the slow GPU is not heard": {"age_seconds": [60.0 if at == 19 else 5.0 for at in range(GPUS)]},
}


@pytest.mark.parametrize("why", NOT_STRAGGLING)
def test_what_only_looks_like_a_straggler_is_none(why: str) -> None:
    clocks = [990e6 if at == 19 else 1.98e9 for at in range(GPUS)]
    columns = {"sm_clock_hertz": clocks, **NOT_STRAGGLING[why]}
    assert watch_stragglers(job(**columns)) == ()


def test_throttled_gpu_is_told_that_is_a_little_slow_and_a_job_that_is_throttled_is_not() -> None:
    clocks = [1.88e9 if at == 19 else 1.98e9 for at in range(GPUS)]
    assert watch_stragglers(job(sm_clock_hertz=clocks)) == ()
    throttled = [0x40 if at == 19 else 0 for at in range(GPUS)]
    (found,) = watch_stragglers(job(sm_clock_hertz=clocks, reasons=throttled))
    assert (found.gpu_uuid, "it is throttled" in found.message) == ("GPU-19", True)
    assert watch_stragglers(job(sm_clock_hertz=clocks, reasons=[0x40] * GPUS))
    many = [1.88e9 if at % 3 == 0 else 1.98e9 for at in range(GPUS)]
    assert watch_stragglers(job(sm_clock_hertz=many, reasons=[0x40] * GPUS)) == ()


def test_straggler_pauses_with_its_job_and_ends_when_it_is_like_its_peers() -> None:
    clocks = [990e6 if at == 19 else 1.98e9 for at in range(GPUS)]
    state = StragglerState()
    for passed in range(0, 241, 15):
        at = NOW + timedelta(seconds=passed)
        state = judge_stragglers(state, job(sm_clock_hertz=clocks), now=at).state
    key = ("straggler", "n2", "GPU-19", "j1")
    paused = judge_stragglers(
        state, job(utilization_ratio=[0.0] * GPUS), now=NOW + timedelta(hours=1)
    )
    assert (paused.findings, paused.kept) == ((), {key})
    spins = judge_stragglers(state, job(), now=NOW + timedelta(hours=1), spins=True)
    assert spins.kept == {key}
    like = judge_stragglers(paused.state, job(), now=NOW + timedelta(hours=1))
    assert (like.findings, like.kept) == ((), frozenset())


def test_job_of_16384_gpus_is_judged_within_50_milliseconds() -> None:
    gpus = 16_384
    random = np.random.default_rng(1)
    clocks = np.full(gpus, 1.98e9)
    clocks[: gpus // 4] *= 0.5
    spin = np.ones(gpus)
    spin[77] = 0.0
    columns = {
        "rank": np.arange(gpus) // 8,
        "node": [f"n{at // 8}" for at in range(gpus)],
        "gpu_index": np.arange(gpus) % 8,
        "gpu_uuid": [f"GPU-{at}" for at in range(gpus)],
        "running": [True] * gpus,
        "age_seconds": random.uniform(0, 30, gpus),
        "power_limit_watts": [700.0] * gpus,
        "reasons": [4] * gpus,
    }
    cases = {
        "slow": {
            "utilization_ratio": [0.98] * gpus,
            "power_watts": random.normal(600, 20, gpus),
            "sm_clock_hertz": clocks,
        },
        "hung": {
            "utilization_ratio": spin,
            "power_watts": [200.0] * gpus,
            "sm_clock_hertz": [1.98e9] * gpus,
        },
    }
    for name, readings in cases.items():
        found = job(ranks=2048, **columns, **readings)
        began = time.process_time()
        hang = judge_hang(HangState(), found, now=NOW)
        judge_stragglers(StragglerState(), found, now=NOW, spins=hang.spins)
        seconds = time.process_time() - began
        print(f"a job of {gpus} GPUs that is {name}: {seconds * 1e3:.1f} ms")
        assert hang.spins == (name == "hung")
        assert seconds < 0.05


@given(
    use=st.floats(0.0, 1.0),
    watts=st.floats(45.0, 700.0),
    clock=st.floats(2e8, 2e9),
    reasons=st.integers(0, 0xFF),
)
def test_uniform_job_is_never_accused_of_a_straggler(
    use: float, watts: float, clock: float, reasons: int
) -> None:
    uniform = job(
        utilization_ratio=[use] * GPUS,
        power_watts=[watts] * GPUS,
        sm_clock_hertz=[clock] * GPUS,
        reasons=[reasons] * GPUS,
    )
    assert watch_stragglers(uniform) == ()


def reorder(one: JobGpus, order: list[int]) -> JobGpus:
    columns = {
        name: value[np.array(order)]
        for name, value in vars(one).items()
        if isinstance(value, np.ndarray) and name != "fresh"
    }
    return replace(one, **columns)


@given(
    order=st.permutations(range(GPUS)),
    odd=st.sets(st.integers(0, GPUS - 1), min_size=1, max_size=4),
)
def test_order_of_the_gpus_changes_nothing(order: list[int], odd: set[int]) -> None:
    hung = job(
        utilization_ratio=[0.0 if at in odd else 1.0 for at in range(GPUS)],
        power_watts=[200.0] * GPUS,
    )
    assert watch_hang(reorder(hung, order))[1] == watch_hang(hung)[1]
    slow = job(sm_clock_hertz=[1e9 if at in odd else 1.98e9 for at in range(GPUS)])
    told = watch_stragglers(reorder(slow, order))
    assert told == watch_stragglers(slow)
    assert len(told) == min(len(odd), 3)
