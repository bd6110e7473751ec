"""Many nodes missed at once are the pipeline's incident and none of theirs."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.incidents import NodeFact, Standing, find_mass_silence
from tests.reports import at
from tests.unit.incidents.world import fault, fleet, group, keys, not_ready, silent


def test_silent_node_alone_is_its_own_incident() -> None:
    (found,) = group(silent("n1", 0))
    assert (found.key, found.cause) == (("node", "n1"), "silent")
    assert found.title == "n1 is silent: no report since 12:00:00 UTC"


def test_many_silent_at_once_are_one_incident_of_the_pipeline_that_hurts_nobody() -> None:
    (found,) = group(*[silent(f"n{number}", number) for number in range(6)])
    assert (found.key, found.cause) == (("pipeline", "agents"), "mass-silence")
    assert found.title.startswith("6 of 100 nodes fell silent together")
    assert found.jobs == ()


def test_many_not_ready_at_once_are_one_incident_of_the_kubelets() -> None:
    (found,) = group(*[not_ready(f"n{number}", number) for number in range(6)])
    assert (found.key, found.cause) == (("pipeline", "kubelets"), "mass-not-ready")


def test_nodes_missed_by_both_are_told_once() -> None:
    faults = [silent(f"n{number}", number) for number in range(8)]
    faults += [not_ready(f"n{number}", number + 5) for number in range(8)]
    (found,) = group(*faults)
    assert found.key == ("pipeline", "agents")
    assert len(found.roots) == 16


def test_node_that_failed_before_the_mass_fell_silent_keeps_its_incident() -> None:
    found = group(*[silent(f"n{number}", number) for number in range(6)], fault("n3"))
    assert keys(found) == [("pipeline", "agents"), ("node", "n3")]


def test_rack_that_neither_agents_nor_kubelets_speak_for_is_the_rack_and_not_the_pipeline() -> None:
    nodes = fleet(racks=10, size=12)
    gone = [name for name in nodes if name.startswith("r4-")]
    faults = [silent(name, 0) for name in gone] + [not_ready(name, 5) for name in gone]
    (found,) = group(*faults, nodes=nodes)
    assert found.key == ("rack", "r4")
    (agents,) = group(*faults[:12], nodes=nodes)
    assert agents.key == ("pipeline", "agents"), "kubelets that are Ready prove the nodes up"


def test_those_still_missed_when_the_mass_is_back_are_nodes_of_their_own_after_a_minute() -> None:
    left = silent("n3", 3)
    mass = Standing(
        "i1",
        "pipeline",
        "agents",
        "mass-silence",
        at(0),
        findings=frozenset({left.episode}),
        nodes=frozenset({"n3"}),
    )
    (found,) = group(left, standing=[mass])
    assert (found.key, found.is_over) == (("pipeline", "agents"), True)
    ended = Standing(**(vars(mass) | {"ended_at": at(550)}))
    (found,) = group(left, standing=[ended], now=600)
    assert found.key == ("pipeline", "agents")
    (found,) = group(left, standing=[ended], now=611)
    assert found.key == ("node", "n3")


@pytest.mark.parametrize(
    "fact",
    [
        NodeFact("n1", planned="upgrade: the driver"),
        NodeFact("n1", off_since=at(-10)),
        NodeFact("n1", reported=False),
    ],
    ids=["planned", "drained", "never heard"],
)
def test_absence_that_is_meant_is_no_incident_and_hardware_that_fails_is(fact: NodeFact) -> None:
    missed = [silent("n1", 0), not_ready("n1", 1)]
    missed += [
        fault(rule="gpu-count", severity="fatal"),
        fault(rule="nvml-silent", severity="warning"),
    ]
    assert group(*missed, nodes={"n1": fact}) == []
    (found,) = group(*missed, fault(rule="xid-79", severity="fatal"), nodes={"n1": fact})
    assert [one.rule for one in found.roots] == ["xid-79"]
    if fact.reported:
        assert found.jobs == ()


def test_incident_that_was_open_survives_the_drain_of_its_node() -> None:
    gone = silent("n1", 0)
    open_one = Standing("i1", "node", "n1", "silent", at(0), findings=frozenset({gone.episode}))
    drained = {"n1": NodeFact("n1", off_since=at(100))}
    assert keys(group(gone, nodes=drained, standing=[open_one])) == [("node", "n1")]
    assert keys(group(gone, nodes=drained)) == [("node", "n1")], "it was gone before it was drained"


def test_five_percent_exactly_is_not_yet_a_mass() -> None:
    missed = {f"n{number}": at(0) for number in range(5)}
    assert find_mass_silence(missed, nodes_total=100) == frozenset()
    assert len(find_mass_silence(missed, nodes_total=99)) == 5


def test_silence_spread_over_minutes_is_not_a_mass() -> None:
    missed = {f"n{number}": at(number * 30) for number in range(8)}
    assert find_mass_silence(missed, nodes_total=100) == frozenset()


def test_one_node_of_a_small_cluster_is_no_mass() -> None:
    assert find_mass_silence({"n1": at(0), "n2": at(1)}, nodes_total=16) == frozenset()


def test_node_that_fell_silent_long_before_is_not_of_the_mass() -> None:
    missed: dict[str, datetime] = {f"n{number}": at(1000 + number) for number in range(6)}
    missed["old"] = at(0)
    assert "old" not in find_mass_silence(missed, nodes_total=100)


@given(
    seconds=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4), st.integers(0, 600), max_size=40
    ),
    nodes_total=st.integers(1, 300),
)
def test_mass_is_what_a_plain_search_of_all_windows_finds(
    seconds: dict[str, int], nodes_total: int
) -> None:
    missed = {node: at(value) for node, value in seconds.items()}
    expected: set[str] = set()
    for start in seconds.values():
        inside = {node for node, value in seconds.items() if start <= value <= start + 60}
        if len(inside) >= 3 and len(inside) > 0.05 * nodes_total:
            expected |= inside
    assert find_mass_silence(missed, nodes_total=nodes_total) == expected
