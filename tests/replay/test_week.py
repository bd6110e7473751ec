"""A week of faults at the published rates on 2,000 nodes, and a day with each way of failing once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pynvml
import pytest
from sqlalchemy import Engine

from app.simulator.nvml import install
from tests.replay.happenings import Happenings
from tests.replay.mix import COUNTED, Planned, draw_each_once, draw_faults, draw_noise
from tests.replay.site import START, Site
from tests.replay.verdict import Verdict, judge, tell

DAY = 86_400.0
NOISE_OF_THE_DAY = 2.5


@pytest.fixture
def nvml() -> Iterator[None]:
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


def replay(
    directory: Path,
    engine: Engine,
    *,
    nodes: int,
    seconds: float,
    planned: list[Planned],
    seed: int,
    what: str,
) -> Verdict:
    begun = time.process_time()
    site = Site(directory, engine, nodes=nodes, seed=seed)
    install(site.library)
    site.begin()
    happenings = Happenings(site, seed=seed + 2, long_repairs=seconds > 2 * DAY)
    happenings.plan(planned)
    # What happens at the very end is given the time to be found, repaired and over.
    end = START + timedelta(seconds=seconds + 3 * 3600)
    site.run_to(end)
    verdict = judge(site.incidents(), happenings.faults, happenings.noises, engine=engine, end=end)
    polls = sum(agent.polls for agent in site.agents.values())
    print(f"\n{what}: {nodes:,} nodes, {seconds / DAY:.0f} days, seed {seed}")
    print(tell(verdict))
    print(
        f"{polls:,} polls, {sum(site.intake.counts.values()):,} reports {site.intake.counts}, "
        f"{site.rounds:,} rounds of the worker, {time.process_time() - begun:.0f} s of CPU"
    )
    return verdict


def assert_all_found(verdict: Verdict) -> None:
    assert not verdict.missed, [fault.label for fault in verdict.missed]
    assert not verdict.doubled, [fault.label for fault, _ in verdict.doubled]
    assert not verdict.accused, [(kind, one.title) for kind, one in verdict.accused]
    assert not verdict.left_open, [fault.label for fault, _ in verdict.left_open]


def test_the_mix_is_that_of_the_paper() -> None:
    assert COUNTED == 419


@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize(
    "gpu_variants",
    [
        pytest.param(3, id="the-commonest"),
        pytest.param(None, id="all", marks=pytest.mark.acceptance),
    ],
)
def test_each_way_of_failing_is_found_once_in_a_day_of_noise(
    tmp_path: Path, sqlite_engine: Engine, gpu_variants: int | None
) -> None:
    rng = random.Random(20260302)
    nodes, seconds = 400, DAY
    planned = draw_each_once(rng, seconds=seconds, gpu_variants=gpu_variants)
    planned += draw_noise(rng, nodes=nodes, seconds=seconds, factor=NOISE_OF_THE_DAY)
    verdict = replay(
        tmp_path,
        sqlite_engine,
        nodes=nodes,
        seconds=seconds,
        planned=planned,
        seed=11,
        what=f"each way of failing once, {NOISE_OF_THE_DAY} times the noise",
    )
    assert_all_found(verdict)


@pytest.mark.acceptance
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("nvml")
@pytest.mark.parametrize("seed", [1])
def test_a_week_at_the_published_rates_is_found_without_accusing_anyone(
    tmp_path: Path, sqlite_engine: Engine, seed: int
) -> None:
    rng = random.Random(seed)
    nodes, seconds = 2000, 7 * DAY
    planned = draw_faults(rng, nodes=nodes, seconds=seconds)
    planned += draw_noise(rng, nodes=nodes, seconds=seconds)
    verdict = replay(
        tmp_path,
        sqlite_engine,
        nodes=nodes,
        seconds=seconds,
        planned=planned,
        seed=seed,
        what="a week at 3.789 faults a 1,000 node-days in Llama 3's mix",
    )
    assert_all_found(verdict)
