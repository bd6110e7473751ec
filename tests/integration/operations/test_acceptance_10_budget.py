"""Acceptance 10: a budget's 429 is waiting, with budget and pod named; never force without a separate choice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import ENDED, Driver, World, world_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def test_acceptance_10_independent_pods_wait_for_their_budget_and_then_go(world: World) -> None:
    uid = world.create_job("workers", ranks=2, gang=False)
    pods = world.wait(world.running(uid, 2))
    node = pods[0].spec.node_name
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "keep", "namespace": "default"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "workers"}}},
    }
    path = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    world.create(path, budget)
    world.wait(lambda view: any(each.status.current_healthy == 2 for each in view.budgets.values()))
    driver = Driver(world)
    plan = world.answer(driver, "preview", action="drain", nodes=[node]).answer
    assert [each["kind"] for each in plan["budgets"]] == ["exhausted"]
    operation_id = world.drain(driver, node)
    driver.run_until(lambda: world.state(operation_id) == "Waiting")
    waiting = world.operation(operation_id)
    assert "keep" in waiting.message
    assert pods[0].metadata.name in waiting.message
    assert not world.connection.evictions()
    world.people.request("PATCH", f"{path}/keep", body={"spec": {"minAvailable": 1}})
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    assert world.connection.evictions() == {pods[0].metadata.uid: 1}


def test_acceptance_10_force_does_not_pass_a_budget(world: World) -> None:
    uid = world.create_job("workers", ranks=1, gang=False)
    pod = world.wait(world.running(uid, 1))[0]
    node = pod.spec.node_name
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "keep", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "workers"}}},
    }
    world.create("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget)
    world.wait(lambda view: any(each.status.current_healthy == 1 for each in view.budgets.values()))
    driver = Driver(world)
    operation_id = world.drain(driver, node, force=True, delete_emptydir_data=True)
    driver.run_until(lambda: world.state(operation_id) == "Waiting")
    for seconds in (10, 60, 600):
        world.offset_seconds = seconds
        driver.turn()
        waiting = world.operation(operation_id)
        assert waiting.state == "Waiting"
        assert "budget default/keep" in waiting.message
        assert pod.metadata.name in waiting.message
        assert not waiting.choices
    assert not world.connection.evictions()
    assert {method for method, _ in world.connection.tried} == {"PATCH", "POST"}
    assert world.view().pods[pod.metadata.uid].metadata.deletion_timestamp is None
