"""Hold and keep times over rows: what opens, what stays, what closes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collectors.row_judgement import Judgement, Row, Standing, adopt, judge_rows, try_rules
from collectors.rules_kubernetes import CONDITION_RULES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULE = replace(CONDITION_RULES[0], hold_seconds=10.0, keep_firing_seconds=20.0)
RULES = {RULE.name: RULE}
KEY = (RULE.name, "n", "", "Ready")


def row(value: bool | None, **fields: Any) -> Row:
    return Row("n", "Ready", {"not_ready": value, "why": "x", "since": "y"}, **fields)


def look(
    standing: Standing, value: bool | None, seconds: float, rule: Any = RULE, **fields: Any
) -> Judgement:
    judged = try_rules([rule], row(value, **fields))
    return judge_rows(standing, judged, {rule.name: rule}, now=NOW + timedelta(seconds=seconds))


def test_a_rule_opens_after_its_hold_time_and_is_since_it_began_to_hold() -> None:
    first = look(Standing(), True, 0)
    assert (first.findings, first.due_at) == ((), NOW + timedelta(seconds=10))
    assert look(first.standing, True, 9).findings == ()
    (finding,) = look(first.standing, True, 10).findings
    assert (finding.since, finding.key) == (NOW, KEY)


def test_a_source_that_says_when_it_began_is_believed_but_not_for_the_hold_time() -> None:
    long_ago = NOW - timedelta(days=1)
    first = look(Standing(), True, 0, since=long_ago)
    assert first.findings == ()
    (finding,) = look(first.standing, True, 10, since=long_ago).findings
    assert finding.since == long_ago


def test_a_break_begins_the_hold_time_anew() -> None:
    first = look(Standing(), True, 0)
    broken = look(first.standing, False, 5)
    assert look(look(broken.standing, True, 6).standing, True, 15).findings == ()


def test_an_open_rule_is_kept_for_its_keep_time_then_closes() -> None:
    standing = adopt([KEY], now=NOW)
    held = look(standing, True, 2)
    assert len(held.findings) == 1
    kept = look(held.standing, False, 21)
    assert (kept.findings, kept.kept, kept.due_at) == ((), {KEY}, NOW + timedelta(seconds=22))
    closed = look(kept.standing, False, 22)
    assert (closed.kept, closed.standing.open) == (frozenset(), {})


def test_what_is_not_known_neither_opens_nor_closes() -> None:
    assert look(Standing(), None, 0).standing == Standing()
    unknown = look(adopt([KEY], now=NOW), None, 3600)
    assert unknown.kept == {KEY}
    waiting = look(look(Standing(), True, 0).standing, None, 60)
    assert (waiting.findings, len(look(waiting.standing, True, 61).findings)) == ((), 1)


def test_a_sticky_rule_stays_open() -> None:
    sticky = replace(RULE, sticky=True)
    assert look(adopt([KEY], now=NOW), False, 3600, sticky).kept == {KEY}


def test_what_a_rule_that_is_no_more_has_open_closes() -> None:
    assert judge_rows(adopt([KEY], now=NOW), [], {}, now=NOW).kept == frozenset()


def test_a_row_told_twice_counts_once() -> None:
    judged = try_rules([RULE], row(True)) * 2
    assert len(judge_rows(adopt([KEY], now=NOW), judged, RULES, now=NOW).findings) == 1


def test_a_clock_that_was_put_back_holds_nothing_open_for_ever() -> None:
    standing = adopt([KEY], now=NOW + timedelta(hours=1))
    kept = look(standing, False, 0)
    assert kept.kept == {KEY}
    assert look(kept.standing, False, 20).standing.open == {}


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.integers(1, 15)), max_size=40))
def test_any_course_of_events_opens_only_after_holding_and_closes_only_after_keeping(
    course: list[tuple[bool | None, int]],
) -> None:
    standing, at = Standing(), 0.0
    began: float | None = None
    last_held: float | None = None
    is_open = False
    for value, pause in course:
        at += pause
        judgement = look(standing, value, at)
        if value is True:
            began = at if began is None and not is_open else began
            if is_open or (began is not None and at - began >= 10):
                is_open, last_held = True, at
        elif value is False:
            began = None
            if is_open and last_held is not None and at - last_held >= 20:
                is_open = False
        assert (KEY in judgement.standing.open) is is_open
        assert bool(judgement.findings) is (is_open and value is True)
        assert (KEY in judgement.kept) is (is_open and value is not True)
        if not is_open and value is False:
            assert judgement.standing == Standing()
        standing = judgement.standing
