"""Acceptance 8: a foreign cordon stays after recovery; a manual uncordon stops the drain within 10 s."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import ENDED, Driver, World, world_of

from k8s.nodes import read_hold


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def test_acceptance_08_a_foreign_cordon_is_never_undone(world: World) -> None:
    node = next(iter(world.view().nodes))
    world.people.request("PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": True}})
    world.wait(lambda view: view.nodes[node].spec.unschedulable)
    uid = world.create_job("llm", ranks=2)
    world.wait(world.running(uid, 2))
    driver = Driver(world)
    operation_id = world.drain(driver, node, mode="complete")
    driver.run_until(lambda: world.connection.writes or world.state(operation_id) in ENDED)
    if world.state(operation_id) not in ENDED:
        world.answer(driver, "cancel", operation_id=operation_id)
        driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.view().nodes[node].spec.unschedulable
    refused = world.answer(driver, "uncordon", nodes=[node])
    if read_hold(world.view().nodes[node].metadata) is None:
        assert refused.refusal_code == "protected"


def test_acceptance_08_a_manual_uncordon_stops_the_drain_within_ten_seconds(world: World) -> None:
    uid = world.create_job("llm", ranks=1)
    node = world.wait(world.running(uid, 1))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node, mode="complete")
    driver.run_until(lambda: world.view().nodes[node].spec.unschedulable)
    driver.run_until(lambda: "run on" in world.operation(operation_id).message)
    world.people.request("PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": None}})
    driver.run_until(lambda: world.state(operation_id) in ENDED, seconds=10)
    ended = world.operation(operation_id)
    assert ended.state == "Cancelled"
    assert "uncordoned by somebody else" in ended.message
