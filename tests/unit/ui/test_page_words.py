"""States to tones, ages and counts in words."""

from datetime import UTC, datetime, timedelta

import pytest

from app.store.vectors import HEALTH_CODES, SERVICE_CODES
from app.ui import words

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (7800, "2 h 10 min"), (36_060, "10 h"), (90_000, "1 d 1 h"), (864_000, "10 d")],
)  # fmt: skip
def test_ages_have_two_units_at_most(seconds: int, said: str) -> None:
    assert words.age(NOW - timedelta(seconds=seconds), NOW) == said


def test_an_age_is_never_negative_and_unknown_is_said() -> None:
    assert words.age(NOW + timedelta(seconds=5), NOW) == "0 s"
    assert words.age(None, NOW) == "unknown"


def test_red_is_for_a_node_that_needs_a_person_now() -> None:
    assert words.node_tone("Failing", "In service") == "act"
    assert words.node_tone("Failing", "Cordoned") == "act"  # its job still runs on it
    assert words.node_tone("Failing", "Draining") == "busy"
    assert words.node_tone("Failing", "Drained") == "quiet"
    assert words.node_tone("Unknown", "In service") == "blank"
    assert words.node_tone("Healthy", "In service") == "calm"


def test_a_list_says_what_is_done_about_a_node_once_something_is() -> None:
    assert words.node_state("Failing", "In service")[0] == "Failing"
    assert words.node_state("Failing", "Draining")[0] == "Draining"
    assert words.node_state("Failing", "Cordoned")[0] == "Failing"
    assert words.node_state("Healthy", "Cordoned")[0] == "Cordoned"


def test_codes_of_the_frames_are_those_of_the_store() -> None:
    assert {name: code for code, name in enumerate(words.HEALTH)} == HEALTH_CODES
    assert {name: code for code, name in enumerate(words.SERVICE)} == SERVICE_CODES


def test_counts_lists_and_ranks_read_as_a_person_writes_them() -> None:
    assert words.count(1, "node") == "1 node"
    assert words.count(43_750, "node") == "43,750 nodes"
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert words.listed([]) == ""
    assert words.ranks([3, 0, 1, 2, 7, 9, 10]) == "0-3, 7, 9-10"
