"""What nodes share is named when enough of it is hit at once, with how certain that is."""

import pytest

from app.incidents import Fault, NodeFact, Standing, Trouble
from tests.reports import at
from tests.unit.incidents.world import fault, fleet, group, keys, silent


def port_down(node: str, seconds: float = 0, **fields: object) -> Fault:
    values: dict = {
        "rule": "infiniband-port-down",
        "message": "mlx5_0 is down",
        "gpu_uuid": None,
        "opened_at": at(seconds),
    }
    return fault(node, **(values | fields))


def hot(node: str, seconds: float = 0) -> Fault:
    return port_down(
        node,
        seconds,
        rule="temperature-margin-low",
        severity="warning",
        message="GPU 0 is 4 C below its slowdown",
    )


def of_rack(nodes: dict[str, NodeFact], rack: int) -> list[str]:
    return [name for name in nodes if name.startswith(f"r{rack}-")]


def told(trouble: Trouble) -> list[str]:
    return [one.text for one in trouble.evidence]


def test_twelve_nodes_behind_one_leaf_are_one_incident_that_names_it() -> None:
    nodes = fleet(size=6)
    behind = [name for name, fact in nodes.items() if fact.places["leaf"] == "l3"]
    (found,) = group(*[port_down(name, place) for place, name in enumerate(behind)], nodes=nodes)
    assert found.key == ("leaf", "l3")
    assert (found.certainty, found.certainty_ratio) == ("certain", 1.0)
    assert "12 of 12 nodes of leaf l3, 0 of 88 elsewhere" in told(found)
    assert found.nodes == tuple(sorted(behind))
    assert found.cause == "infiniband-port-down"
    assert "leaf switch" in found.action


def test_rack_and_leaf_of_the_same_nodes_name_the_leaf_for_links_and_the_rack_for_heat() -> None:
    nodes = fleet(same_leaf=True)
    (links,) = group(*[port_down(name) for name in of_rack(nodes, 3)], nodes=nodes)
    assert (links.key, links.certainty) == (("leaf", "l3"), "likely")
    assert "rack r3 holds the very same nodes: it may be that one" in told(links)
    (heat,) = group(*[hot(name) for name in of_rack(nodes, 3)], nodes=nodes)
    assert (heat.key, heat.severity) == (("rack", "r3"), "warning")


def test_half_of_a_rack_with_or_without_troubles_elsewhere_is_only_likely() -> None:
    nodes = fleet()
    hit = of_rack(nodes, 3)[:9]
    (found,) = group(*[hot(name) for name in hit], nodes=nodes)
    assert (found.key, found.certainty, found.certainty_ratio) == (("rack", "r3"), "likely", 0.75)
    (found,) = group(*[hot(name) for name in [*hit, "r5-n0", "r7-n0", "r9-n0"]], nodes=nodes)
    assert (found.certainty, found.certainty_ratio) == ("likely", 0.5625)
    assert "9 of 12 nodes of rack r3, 3 of 108 elsewhere" in told(found)


def test_warnings_of_two_nodes_of_a_rack_are_no_incident() -> None:
    nodes = fleet()
    assert group(*[hot(name) for name in of_rack(nodes, 3)[:2]], nodes=nodes) == []


def test_three_of_a_rack_are_enough_when_nobody_else_is_hit() -> None:
    nodes = fleet()
    (found,) = group(*[hot(name) for name in of_rack(nodes, 3)[:3]], nodes=nodes)
    assert (found.key, found.certainty) == (("rack", "r3"), "possible")


def test_three_nodes_of_a_large_block_share_no_cause() -> None:
    nodes = fleet()
    apart = ["r0-n0", "r4-n1", "r8-n2"]
    assert group(*[hot(name) for name in apart], nodes=nodes) == []
    found = group(*[port_down(name) for name in apart], nodes=nodes)
    assert keys(found) == [("node", name) for name in apart]


def test_troubles_minutes_apart_are_not_of_one_cause() -> None:
    nodes = fleet()
    spread = [port_down(name, 130 * place) for place, name in enumerate(of_rack(nodes, 3)[:4])]
    assert {scope for scope, _ in keys(group(*spread, nodes=nodes))} == {"node"}


def test_node_with_a_grave_fault_of_another_family_keeps_its_incident() -> None:
    nodes = fleet()
    hit = of_rack(nodes, 3)
    own = fault(hit[0], rule="xid-79", severity="fatal", opened_at=at(-500))
    found = group(own, *[hot(name) for name in hit], nodes=nodes)
    assert keys(found) == [("rack", "r3"), ("node", hit[0])]


def test_nodes_missed_after_their_power_is_short_are_of_that_incident() -> None:
    nodes = fleet(racks=20, size=4)
    fed = [name for name, fact in nodes.items() if fact.places["power"] == "p1"]
    brakes = [port_down(name, 0, rule="power-brake", message="power brake") for name in fed[:-1]]
    (found,) = group(*brakes, silent(fed[0], 50), silent(fed[-1], 60), nodes=nodes)
    assert (found.key, found.cause, found.certainty) == (("power", "p1"), "power-brake", "certain")
    assert found.nodes == tuple(sorted(fed))


def test_domain_stays_named_while_one_of_its_nodes_is_still_hit_and_takes_in_late_ones() -> None:
    nodes = fleet()
    hit = of_rack(nodes, 3)
    faults = [hot(name) for name in hit[:8]]
    (first,) = group(*faults, nodes=nodes)
    standing = Standing(
        "i1",
        "rack",
        "r3",
        first.cause,
        first.opened_at,
        findings=first.episodes,
        nodes=frozenset(first.nodes),
        certainty=first.certainty,
        certainty_ratio=first.certainty_ratio,
    )
    (left,) = group(faults[0], nodes=nodes, standing=[standing])
    assert (left.key, left.nodes, left.certainty) == (("rack", "r3"), (hit[0],), first.certainty)
    (grown,) = group(faults[0], hot(hit[11], 300), nodes=nodes, standing=[standing])
    assert "9 of 12 nodes of rack r3, 0 of 108 elsewhere" in told(grown)


@pytest.mark.parametrize("places", [{}, {"rack": "r1"}], ids=["none known", "only the rack"])
def test_nodes_whose_places_are_not_known_are_on_their_own(places: dict[str, str]) -> None:
    nodes = {f"n{number}": NodeFact(f"n{number}", places=places) for number in range(3)}
    found = group(*[port_down(name) for name in nodes], nodes=nodes)
    assert len(found) == (1 if places else 3)
