"""A cluster's columns judged as each node's rows are, hold and keep times included."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.column_judgement import ColumnJudge
from collectors.health import GPU_RULES, NodeFacts, RuleSet
from collectors.judgement import judge
from collectors.ledger import Ledger, Moment
from collectors.readings import GpuReading

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SOME = tuple(
    rule
    for rule in GPU_RULES
    if rule.name in ("temperature-margin-low", "remap-pending", "nvlink-down", "ecc-off")
)
FIELDS = ("temperature_margin_celsius", "remap_pending", "nvlink_active_links", "ecc_mode")


def reading(number: int, values: tuple[float | None, ...]) -> GpuReading:
    margin, pending, links, ecc = values
    return GpuReading(
        uuid=f"GPU-{number}",
        temperature_margin_celsius=margin,
        remap_pending=None if pending is None else bool(pending),
        nvlink_active_links=None if links is None else int(links),
        ecc_mode=None if ecc is None else bool(ecc),
    )


VALUES = st.tuples(
    st.sampled_from([None, 3.0, 5.0, 20.0]),
    st.sampled_from([None, 0.0, 1.0]),
    st.sampled_from([None, 17.0, 18.0]),
    st.sampled_from([None, 0.0, 1.0]),
)


@given(st.lists(st.tuples(VALUES, VALUES, st.sampled_from([5, 20, 90])), max_size=20))
def test_columns_open_and_close_what_rows_open_and_close(
    story: list[tuple[tuple[float | None, ...], tuple[float | None, ...], int]],
) -> None:
    columns_judge = ColumnJudge(SOME)
    ledger, numbers = Ledger(), itertools.count()
    keys = ["GPU-0", "GPU-1"]
    opened: set[tuple[str, str]] = set()
    at = 0.0
    for first, second, seconds in story:
        at += seconds
        ledger = judge(
            ledger,
            moment=Moment(START + timedelta(seconds=at), "boot", lambda: f"e{next(numbers)}"),
            facts=NodeFacts(),
            gpus=[reading(0, first), reading(1, second)],
            rules=RuleSet(gpu=SOME, node=(), port=()),
        )
        table = {
            name: np.array([np.nan if v is None else v for v in pair], dtype=float)
            for name, pair in zip(FIELDS, zip(first, second, strict=True), strict=True)
        }
        for change in columns_judge.step(keys, table, at_seconds=at):
            pair = (change.rule.name, change.key)
            assert (pair in opened) is not change.opened
            opened ^= {pair}
        assert opened == {(f.rule, f.gpu_uuid) for f in ledger.findings}
        for rule in SOME:
            keyed = {key for name, key in opened if name == rule.name}
            assert set(columns_judge.open_keys(rule.name)) == keyed


def test_a_field_that_nobody_scrapes_opens_and_closes_nothing() -> None:
    judge_of_columns = ColumnJudge(SOME)
    pending = {"remap_pending": np.array([1.0, 0.0])}
    (change,) = judge_of_columns.step(["a", "b"], pending, at_seconds=0)
    assert (change.rule.name, change.key, change.opened) == ("remap-pending", "a", True)
    assert judge_of_columns.step(["a", "b"], {}, at_seconds=60) == []
    unknown = {"remap_pending": np.array([np.nan, np.nan])}
    assert judge_of_columns.step(["a", "b"], unknown, at_seconds=120) == []
    assert judge_of_columns.open_keys("remap-pending") == ["a"]


def test_gpus_that_come_go_and_change_places_keep_what_is_theirs() -> None:
    judge_of_columns = ColumnJudge(SOME)
    judge_of_columns.step(["a", "b"], {"remap_pending": np.array([1.0, 0.0])}, at_seconds=0)
    moved = {"remap_pending": np.array([0.0, 0.0, 1.0])}
    assert judge_of_columns.step(["b", "c", "a"], moved, at_seconds=15) == []
    assert judge_of_columns.open_keys("remap-pending") == ["a"]
    assert judge_of_columns.step(["b"], {"remap_pending": np.array([0.0])}, at_seconds=30) == []
    assert judge_of_columns.open_keys("remap-pending") == []


def test_a_poll_of_350000_gpus_costs_under_two_seconds_of_a_core() -> None:
    gpus = 350_000
    random = np.random.default_rng(1)
    keys = [f"GPU-{number:08x}" for number in range(gpus)]
    names = sorted(set().union(*(rule.fields for rule in GPU_RULES)))
    healthy = {**dict.fromkeys(names, 0.0), "ecc_mode": 1.0, "persistence_mode": 1.0}
    healthy |= {"nvlink_active_links": 18.0, "temperature_margin_celsius": 20.0}
    healthy |= {"fabric_state": 3.0}
    columns = {name: np.full(gpus, healthy[name]) for name in names}
    columns["remap_pending"][random.choice(gpus, 500, replace=False)] = 1.0
    columns["nvlink_active_links"][random.choice(gpus, 3_500, replace=False)] = np.nan
    cluster = ColumnJudge()
    seconds = []
    for poll in range(3):
        began = time.process_time()
        changes = cluster.step(keys, columns, at_seconds=15.0 * poll)
        seconds.append(time.process_time() - began)
        assert len(changes) == (500 if poll == 0 else 0)
    print(f"{len(GPU_RULES)} rules on {gpus} GPUs: {[round(one, 2) for one in seconds]} s a poll")
    assert max(seconds) < 2.0
