"""Trends over columns say what trends over rows say, whatever comes in."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.column_trends import ColumnTrends
from collectors.readings import GpuReading
from collectors.trends import REASON_MINUTES, RISES, Trends

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

VALUES = st.tuples(
    st.sampled_from([None, 0, 5, 40, 100, 2**40]),
    st.sampled_from([None, 0, 1, 7]),
    st.sampled_from([None, 0, 0x8, 0x48, 0x1]),
)


def reading(number: int, values: tuple[int | None, ...]) -> GpuReading:
    replays, recoveries, reasons = values
    return GpuReading(
        uuid=f"GPU-{number}",
        pcie_replay_total=replays,
        nvlink_recovery_errors_total=recoveries,
        clocks_event_reasons=reasons,
    )


@given(st.lists(st.tuples(VALUES, VALUES, st.sampled_from([5, 15, 61, 700])), max_size=25))
def test_columns_and_rows_agree_over_gaps_resets_and_windows(
    story: list[tuple[tuple[int | None, ...], tuple[int | None, ...], int]],
) -> None:
    rows, columns = Trends(), ColumnTrends()
    at = START
    for first, second, seconds in story:
        at += timedelta(seconds=seconds)
        gpus = [reading(0, first), reading(1, second)]
        wanted = rows.observe(gpus, now=at)
        names = ("pcie_replay_total", "nvlink_recovery_errors_total", "clocks_event_reasons")
        got = columns.observe(
            ["GPU-0", "GPU-1"],
            {
                name: np.array(
                    [math.nan if (v := getattr(gpu, name)) is None else v for gpu in gpus]
                )
                for name in names
            },
            at_seconds=at.timestamp(),
        )
        for name, column in got.items():
            told = [wanted[gpu.uuid][name] for gpu in gpus]
            assert [None if math.isnan(v) else v for v in column.tolist()] == told, name


def test_a_counter_without_a_column_adds_nothing() -> None:
    assert ColumnTrends().observe(["a"], {}, at_seconds=0) == {}


@pytest.mark.parametrize("odd", [math.nan, -5.0, 0.0])
def test_what_is_odd_raises_nothing_and_spoils_nothing(odd: float) -> None:
    trends = ColumnTrends()
    told = [
        trends.observe(["a"], {"pcie_replay_total": np.array([value])}, at_seconds=15.0 * number)[
            "pcie_replays_per_minute"
        ][0]
        for number, value in enumerate([100.0, odd, 100.0, 110.0])
    ]
    assert math.isnan(told[0])
    if odd != odd:
        assert math.isnan(told[1])
        assert told[2:] == [0.0, 10.0]
    elif odd < 0:
        assert told[1:] == [0.0, 0.0, 10.0], "what is below zero is no count to rise from"
    else:
        # A counter that began anew: its rise from there is real.
        assert told[1] == 0.0
        assert told[2:] == [100.0 - odd, 110.0 - odd]


def test_gpus_that_come_go_and_change_places_keep_their_windows() -> None:
    trends = ColumnTrends()

    def poll(keys: list[str], values: list[float], at: float) -> dict[str, float]:
        table = {"pcie_replay_total": np.array(values)}
        told = trends.observe(keys, table, at_seconds=at)["pcie_replays_per_minute"]
        return dict(zip(keys, told.tolist(), strict=True))

    poll(["a", "b"], [0, 0], 0)
    assert poll(["a", "b"], [10, 3], 15) == {"a": 10, "b": 3}
    moved = poll(["b", "c", "a"], [3, 50, 12], 30)
    assert (moved["a"], moved["b"]) == (12, 3)
    assert math.isnan(moved["c"])
    assert poll(["b", "c", "a"], [3, 50, 12], 74) == {"a": 12, "b": 3, "c": 0}
    assert poll(["b", "c", "a"], [3, 50, 12], 75) == {"a": 2, "b": 0, "c": 0}
    assert poll(["b", "c", "a"], [3, 50, 12], 90) == {"a": 0, "b": 0, "c": 0}


def test_every_window_of_the_rows_is_one_of_the_columns() -> None:
    trends = ColumnTrends()
    columns = {rise.counter: np.array([1.0]) for rise in RISES}
    columns["clocks_event_reasons"] = np.array([0.0])
    added = trends.observe(["a"], columns, at_seconds=0)
    assert set(added) == {*(rise.adds for rise in RISES), *REASON_MINUTES}
