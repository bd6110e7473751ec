"""Acceptance 1: no automatic drain takes more than the stock, counted on what the cluster says, or the floor."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import ENDED, SHIPPED_LIMITS, Driver, World, world_of

NODES = 40  # of which 10 % are 4


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # The rate has a test of its own.
    limits = {**SHIPPED_LIMITS, "max_drains_per_hour": 100, "max_drains_per_hour_ratio": 1.0}
    wide = {"max_unavailable_block_nodes_ratio": 1.0}
    with world_of(tmp_path, nodes=NODES, **{**limits, **wide}) as made:
        yield made


def cordon(world: World, name: str, value: bool | None = True) -> None:
    world.people.request("PATCH", f"/api/v1/nodes/{name}", body={"spec": {"unschedulable": value}})
    world.wait(lambda view: view.nodes[name].spec.unschedulable is bool(value))


def test_acceptance_01_foreign_cordons_and_dead_nodes_count_and_drains_one_by_one_pass_nothing(
    world: World,
) -> None:
    names = sorted(world.view().nodes)
    cordon(world, names[0])
    world.kill_node(names[1])
    driver = Driver(world)
    came = []
    for name in names[2:10]:
        asked = world.answer(driver, "drain", nodes=[name], automatic=True)
        came.append(asked.refusal_code or asked.state)
        if asked.operation_id:
            ended = asked.operation_id
            driver.run_until(lambda ended=ended: world.state(ended) in ENDED)
    assert came == ["accepted"] * 2 + ["limit"] * 6
    out = [name for name, node in world.view().nodes.items() if node.spec.unschedulable]
    assert len(out) == 3  # and the dead one


def test_acceptance_01_a_person_who_cordons_without_evicting_is_warned_and_never_refused(
    world: World,
) -> None:
    names = sorted(world.view().nodes)
    driver = Driver(world)
    asked = {"nodes": names[:30], "mode": "complete"}
    plan = world.answer(driver, "preview", action="drain", **asked).answer
    warned = " ".join(plan["warnings"])
    assert "goes past the limit stock" in warned
    assert "goes past the limit floor" in warned
    assert not plan["blockers"]
    assert world.answer(driver, "drain", **asked).state == "accepted"
    assert world.answer(driver, "drain", **asked, automatic=True).state == "refused"


def test_acceptance_01_the_floor_of_usable_nodes_is_passed_by_no_word(world: World) -> None:
    names = sorted(world.view().nodes)
    for name in names[:18]:
        cordon(world, name)
    driver = Driver(world)
    typed = {"past_limits": ["stock", "floor", "rate", "block"], "force": True}
    assert world.answer(driver, "drain", nodes=names[18:19], **typed).state == "accepted"
    refused = world.answer(driver, "drain", nodes=names[19:21], **typed)
    assert refused.refusal_code == "limit"
    assert "would stay usable" in refused.refusal
