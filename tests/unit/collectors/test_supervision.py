"""What is concluded from silence, by time alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from collectors.supervision import (
    RESTART_LONGEST_SECONDS,
    Supervision,
    answered,
    ask,
    check,
    failed,
    may_start,
)

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def look(watch: Supervision, seconds: float) -> tuple[Supervision, bool]:
    return check(watch, at=seconds, now=at(seconds), timeout_seconds=15)


def test_a_question_within_its_time_is_no_silence() -> None:
    watch = ask(answered(Supervision(), now=at(0)), at=100)
    assert look(watch, 114.9) == (watch, False)


def test_silence_counts_from_the_question_and_its_age_goes_on() -> None:
    watch = ask(answered(Supervision(), now=at(0)), at=100)
    watch, give_up = look(watch, 115)
    assert give_up
    assert watch.nvml is not None
    assert (watch.nvml.answering, watch.nvml.since) == (False, at(100))
    assert watch.nvml.message == "NVML does not answer for 15 s"
    watch, give_up = look(watch, 131)
    assert not give_up, "a child is given up once"
    assert watch.nvml is not None
    assert watch.nvml.message == "NVML does not answer for 31 s"


def test_a_new_child_waits_longer_each_time_up_to_a_limit() -> None:
    watch, seconds, pauses = Supervision(), 0.0, []
    for _ in range(8):
        assert may_start(watch, at=seconds)
        watch = ask(watch, at=seconds)
        seconds += 15
        watch, give_up = look(watch, seconds)
        assert give_up
        pauses.append(watch.restart_at - seconds)
        assert not may_start(watch, at=seconds)
        seconds = watch.restart_at
    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[-1] == RESTART_LONGEST_SECONDS
    assert watch.nvml is not None
    assert watch.nvml.since == at(0), "the silence is one, however many children it took"


def test_an_answer_ends_the_silence_and_the_back_off() -> None:
    watch, _ = look(ask(Supervision(), at=0), 20)
    watch = answered(watch, now=at(30))
    assert watch.nvml is not None
    assert (watch.nvml.answering, watch.nvml.since, watch.nvml.message) == (True, at(30), None)
    assert may_start(watch, at=20)
    assert not watch.hung


def test_an_nvml_that_says_no_is_known_at_once_in_its_own_words() -> None:
    watch = failed(ask(Supervision(), at=0), "Driver Not Loaded", now=at(1), at=1)
    assert watch.nvml is not None
    assert (watch.nvml.answering, watch.nvml.message) == (False, "Driver Not Loaded")
    assert not watch.waiting
    later, give_up = look(watch, 60)
    assert (later, give_up) == (watch, False)
    again = failed(watch, "Driver Not Loaded", now=at(60), at=60)
    assert again.nvml is not None
    assert again.nvml.since == at(1)
