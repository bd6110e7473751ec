"""The table of service states, and what leads from one to the next: cordons, drains, repairs, time."""

from datetime import datetime
from typing import Any

import pytest
from cluster_builders import NOW, at, node

from app.operations.service import (
    CORDONED,
    DRAINED,
    DRAINING,
    IN_SERVICE,
    PROBATION,
    STATES,
    TRANSITIONS,
    UNDER_REPAIR,
    Holding,
    Repair,
    Seen,
    Service,
    Sign,
    duration_text,
    next_service,
)

HOLD = '{"operation": "op1", "was_unschedulable": false}'
HOUR = 3600.0
OURS = node("a", cordoned=True, hold=HOLD)
FOREIGN = node("a", cordoned=True)
FREE = node("a")
EMPTIED = Holding("op1", "drain", "Drained", False)
ADA = Repair("ada", "GPU 3 is replaced")


def drain(state: str) -> Holding:
    return Holding("op1", "drain", state, True)


def seen(what: Any, **fields: Any) -> Seen:
    """A node that is Healthy and heard."""
    values = {"health": "Healthy", "health_since": at(-86400), "heard": True}
    return Seen(what, **(values | fields))


def after(before: Service | None, look: Seen, now: datetime = NOW) -> Service:
    return next_service(before, look, now=now, probation_seconds=HOUR)


def follow(*looks: tuple[float, Seen]) -> Service:
    """The state after these looks, each so many seconds after NOW."""
    state: Service | None = None
    for seconds, look in looks:
        state = after(state, look, at(seconds))
    assert state is not None
    return state


DRAINED_BEFORE = (0.0, seen(OURS, ended_holding=EMPTIED))
REPAIRED_BEFORE = (0.0, seen(FOREIGN, repair=ADA))


def test_the_table_has_a_next_state_for_every_state_and_sign() -> None:
    assert set(TRANSITIONS) == set(STATES)
    for row in TRANSITIONS.values():
        assert set(row) == set(Sign)
        assert set(row.values()) <= set(STATES)


def test_by_the_table_only_a_drain_or_what_it_left_makes_a_node_drained() -> None:
    ways = {
        (state, sign)
        for state, row in TRANSITIONS.items()
        for sign, to in row.items()
        if to == DRAINED
    }
    assert ways == {(state, Sign.DRAINED) for state in STATES} | {(DRAINED, Sign.KEPT)}


def test_by_the_table_who_owes_a_probation_gets_one_from_any_state() -> None:
    assert {row[Sign.OWING] for row in TRANSITIONS.values()} == {PROBATION}


@pytest.mark.parametrize(
    ("before", "look", "state"),
    [
        (IN_SERVICE, seen(FREE), IN_SERVICE),
        (IN_SERVICE, seen(FOREIGN), CORDONED),
        (IN_SERVICE, seen(FREE, open_holding=drain("Cordoning")), DRAINING),
        (CORDONED, seen(FREE), IN_SERVICE),
        (CORDONED, seen(OURS, open_holding=drain("Draining")), DRAINING),
        (CORDONED, seen(FOREIGN, repair=ADA), UNDER_REPAIR),
        (DRAINING, seen(OURS, open_holding=drain("Drained")), DRAINED),
        (DRAINING, seen(FREE, open_holding=drain("Given back")), IN_SERVICE),
        (DRAINING, seen(FOREIGN, open_holding=drain("Cordoned")), CORDONED),
        (DRAINED, seen(OURS, ended_holding=EMPTIED), DRAINED),
        (DRAINED, seen(OURS, ended_holding=EMPTIED, repair=ADA), UNDER_REPAIR),
        (DRAINED, seen(FREE), PROBATION),
        (UNDER_REPAIR, seen(FOREIGN, repair=ADA), UNDER_REPAIR),
        (UNDER_REPAIR, seen(FREE, repair=ADA), PROBATION),
        (UNDER_REPAIR, seen(OURS, repair=ADA, open_holding=drain("Draining")), DRAINING),
        (UNDER_REPAIR, seen(OURS, repair=ADA, open_holding=drain("Drained")), UNDER_REPAIR),
        (PROBATION, seen(OURS, open_holding=drain("Draining")), DRAINING),
        (PROBATION, seen(FOREIGN), CORDONED),
    ],
)
def test_a_state_and_a_look_give_the_next_state(before: str, look: Seen, state: str) -> None:
    owes = before in (DRAINED, UNDER_REPAIR, PROBATION)
    assert after(Service(before, owes_probation=owes), look).state == state


def test_a_drained_node_is_on_probation_until_its_time_has_passed_with_nothing_found() -> None:
    begun = follow(DRAINED_BEFORE, (10, seen(FREE)))
    assert begun.state == PROBATION
    assert "13:00:10 UTC" in begun.reason
    assert after(begun, seen(FREE), at(10 + HOUR - 1)).state == PROBATION
    ended = after(begun, seen(FREE), at(10 + HOUR))
    assert (ended.state, ended.owes_probation, ended.reason) == (IN_SERVICE, False, "")


@pytest.mark.parametrize("health", ["Degraded", "Failing", "Unknown"])
def test_a_finding_on_probation_starts_the_clock_again_and_the_reason_says_so(health: str) -> None:
    ill = seen(FREE, health=health, health_reason="xid-79", health_since=at(600))
    stopped = follow(DRAINED_BEFORE, (10, seen(FREE)), (600, ill))
    assert stopped.state == PROBATION
    assert health in stopped.reason
    assert "1 h" in stopped.reason
    assert after(stopped, ill, at(3 * HOUR)).state == PROBATION
    well = after(stopped, seen(FREE, health_since=at(3 * HOUR)), at(3 * HOUR))
    assert after(well, seen(FREE), at(4 * HOUR - 1)).state == PROBATION
    assert after(well, seen(FREE), at(4 * HOUR)).state == IN_SERVICE


def test_a_finding_that_came_and_went_between_two_looks_starts_the_clock_again_too() -> None:
    begun = follow(DRAINED_BEFORE, (10, seen(FREE)))
    again = seen(FREE, health_since=at(1800))
    assert after(begun, again, at(10 + HOUR)).state == PROBATION
    assert after(begun, again, at(1800 + HOUR)).state == IN_SERVICE


def test_a_node_that_is_not_heard_passes_no_probation() -> None:
    begun = follow(DRAINED_BEFORE, (10, seen(FREE)))
    silent = after(begun, seen(FREE, heard=False), at(10 + 2 * HOUR))
    assert silent.state == PROBATION
    assert "not been heard" in silent.reason


def test_an_agent_with_its_clock_ahead_does_not_put_the_end_off_for_ever() -> None:
    begun = follow(DRAINED_BEFORE, (10, seen(FREE, health_since=at(300))))
    assert begun.clean_since == at(10)


@pytest.mark.parametrize("before", [DRAINED_BEFORE, REPAIRED_BEFORE])
@pytest.mark.parametrize(
    "between",
    [
        [],
        [(1.0, seen(FREE)), (2.0, seen(FOREIGN))],
        [(1.0, seen(OURS, open_holding=drain("Draining"))), (2.0, seen(FOREIGN))],
        [(1.0, seen(FOREIGN, gpu_pods=True))],
    ],
    ids=["at once", "cordoned on probation", "drain cancelled", "annotation lost and used"],
)
def test_who_was_drained_or_repaired_goes_on_probation_whatever_comes_between(
    before: tuple[float, Seen], between: list[tuple[float, Seen]]
) -> None:
    assert follow(before, *between, (3, seen(FREE))).state == PROBATION


def test_a_node_that_was_merely_cordoned_goes_straight_into_service() -> None:
    assert follow((0, seen(FOREIGN)), (1, seen(FREE))).state == IN_SERVICE


def test_a_drain_that_is_cancelled_before_it_emptied_the_node_costs_no_probation() -> None:
    begun = (0.0, seen(OURS, open_holding=drain("Draining")))
    assert follow(begun, (1, seen(FREE, open_holding=drain("Given back")))).state == IN_SERVICE


def test_a_drained_node_whose_annotation_is_lost_stays_drained_while_it_is_empty() -> None:
    lost = follow(DRAINED_BEFORE, (1, seen(FOREIGN)))
    assert lost.state == DRAINED
    assert "annotation" in lost.reason
    used = after(lost, seen(FOREIGN, gpu_pods=True), at(2))
    assert used.state == CORDONED


def test_a_probation_that_a_person_ends_is_over() -> None:
    begun = follow(DRAINED_BEFORE, (1, seen(FREE)))
    forgiven = Service(begun.state, begun.reason, None, False, begun.clean_since)
    assert after(forgiven, seen(FREE, health="Failing"), at(2)).state == IN_SERVICE


def test_a_site_without_probation_has_none() -> None:
    state = next_service(Service(DRAINED), seen(FREE), now=NOW, probation_seconds=0)
    assert state.state == IN_SERVICE


def test_under_repair_says_who_and_why() -> None:
    assert follow(REPAIRED_BEFORE).reason == "sent to repair by ada: GPU 3 is replaced"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3600, "1 h"), (5400, "90 min"), (45, "45 s"), (630, "10 min"), (60, "1 min")],
)
def test_lengths_of_time_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
