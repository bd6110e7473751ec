"""Faults and silence become incidents: one a node, one of the pipeline when many fall silent together."""

from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from app.incidents import (
    Fault,
    HurtJob,
    NodeTrouble,
    Trouble,
    find_mass_silence,
    group_troubles,
)
from tests.reports import NOW, at


def fault(episode: str = "e1", **fields: object) -> Fault:
    values: dict = {
        "episode": episode,
        "rule": "gpu-lost",
        "severity": "critical",
        "message": "GPU 0 fell off the bus",
        "action": "restart the node",
        "opened_at": NOW,
    }
    return Fault(**(values | fields))


def group(*troubles: NodeTrouble, nodes_total: int = 100) -> list[Trouble]:
    return group_troubles(troubles, nodes_total=nodes_total, now=at(100))


def test_no_trouble_is_no_incident() -> None:
    assert group() == []


def test_warning_alone_is_no_incident() -> None:
    assert group(NodeTrouble("n1", [fault(severity="warning")])) == []


def test_faults_of_a_node_are_one_incident_caused_by_the_first() -> None:
    late = fault("e2", rule="nvml-silent", severity="fatal", opened_at=at(9))
    (found,) = group(NodeTrouble("n1", [late, fault("e1")]))
    assert (found.scope, found.subject, found.cause) == ("node", "n1", "gpu-lost")
    assert (found.severity, found.opened_at, found.faults) == ("fatal", NOW, ("e1", "e2"))
    assert found.title == "n1: GPU 0 fell off the bus"


def test_incident_names_whom_it_hurts() -> None:
    job = HurtJob("j1", "ml", "train", 64)
    (found,) = group(NodeTrouble("n1", [fault()], jobs=[job]))
    assert found.jobs == (job,)


def test_silent_node_alone_is_its_own_incident() -> None:
    (found,) = group(NodeTrouble("n1", silent_since=at(0)))
    assert (found.subject, found.cause) == ("n1", "silent")
    assert "no report since 12:00:00 UTC" in found.title


def test_many_silent_at_once_are_one_incident_of_the_pipeline() -> None:
    troubles = [NodeTrouble(f"n{number}", silent_since=at(number)) for number in range(6)]
    (found,) = group(*troubles)
    assert (found.scope, found.subject, found.cause) == ("pipeline", "agents", "mass-silence")
    assert found.title.startswith("6 of 100 nodes")


def test_node_that_failed_before_the_mass_fell_silent_keeps_its_incident() -> None:
    troubles = [NodeTrouble(f"n{number}", silent_since=at(number)) for number in range(6)]
    troubles[3] = NodeTrouble("n3", [fault()], silent_since=at(3))
    found = group(*troubles)
    assert [(one.scope, one.subject) for one in found] == [("pipeline", "agents"), ("node", "n3")]


def test_five_percent_exactly_is_not_yet_a_mass() -> None:
    silent = {f"n{number}": at(0) for number in range(5)}
    assert find_mass_silence(silent, nodes_total=100) == frozenset()
    assert len(find_mass_silence(silent, nodes_total=99)) == 5


def test_silence_spread_over_minutes_is_not_a_mass() -> None:
    silent = {f"n{number}": at(number * 30) for number in range(8)}
    assert find_mass_silence(silent, nodes_total=100) == frozenset()


def test_one_node_of_a_small_cluster_is_no_mass() -> None:
    assert find_mass_silence({"n1": at(0), "n2": at(1)}, nodes_total=16) == frozenset()


def test_node_that_fell_silent_long_before_is_not_of_the_mass() -> None:
    silent: dict[str, datetime] = {f"n{number}": at(1000 + number) for number in range(6)}
    silent["old"] = at(0)
    assert "old" not in find_mass_silence(silent, nodes_total=100)


@given(
    seconds=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4), st.integers(0, 600), max_size=40
    ),
    nodes_total=st.integers(1, 300),
)
def test_mass_is_what_a_plain_search_of_all_windows_finds(
    seconds: dict[str, int], nodes_total: int
) -> None:
    silent = {node: at(value) for node, value in seconds.items()}
    expected: set[str] = set()
    for start in seconds.values():
        inside = {node for node, value in seconds.items() if start <= value <= start + 60}
        if len(inside) >= 3 and len(inside) > 0.05 * nodes_total:
            expected |= inside
    assert find_mass_silence(silent, nodes_total=nodes_total) == expected
