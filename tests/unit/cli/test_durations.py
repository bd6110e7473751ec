from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.durations import read_duration, write_age, write_duration
from app.cli.outcome import BadUse

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("1d", 86400)],
)
def test_a_written_duration_is_read_as_seconds(text: str, seconds: float) -> None:
    assert read_duration(text, option="--deadline") == seconds


@pytest.mark.parametrize("text", ["", "soon", "1.5h", "-5m", "5 m", "h", "1h-"])
def test_what_is_no_duration_is_refused_with_the_options_name(text: str) -> None:
    with pytest.raises(BadUse, match="--deadline"):
        read_duration(text, option="--deadline")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (180, "3m"), (4800, "80m"), (7500, "2h5m"), (50400, "14h"), (172800, "2d")],
)  # fmt: skip
def test_an_age_is_short(seconds: float, text: str) -> None:
    assert write_age(NOW - timedelta(seconds=seconds), now=NOW) == text


def test_an_unknown_age_is_a_dash_and_a_clock_that_runs_ahead_is_zero() -> None:
    assert write_age(None, now=NOW) == "-"
    assert write_age(NOW + timedelta(seconds=9), now=NOW) == "0s"


@given(st.integers(0, 10**8))
def test_what_is_written_is_read_back_within_its_own_precision(seconds: int) -> None:
    again = read_duration(write_duration(seconds), option="--deadline")
    assert again <= seconds
    assert seconds - again <= max(60, seconds * 0.5)
