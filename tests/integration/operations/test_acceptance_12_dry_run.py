"""Acceptance 12: a preview makes no write at the API server, and the plan equals what is then done."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import Driver, World, world_of


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def test_acceptance_12_a_preview_writes_nothing_at_the_api_server_and_is_what_then_happens(
    world: World,
) -> None:
    gang, alone = world.create_job("llm", ranks=2), world.create_job("solo", ranks=1, gang=False)
    pods = [*world.wait(world.running(gang, 2)), *world.wait(world.running(alone, 1))]
    nodes = sorted({pods[0].spec.node_name, pods[2].spec.node_name})
    driver = Driver(world)
    plan = world.answer(
        driver, "preview", action="drain", nodes=nodes, accept_no_capacity=["llm", "solo"]
    ).answer
    driver.reconciler.tick()
    assert world.connection.writes == []
    planned = {pod["uid"]: pod["action"] for pod in plan["pods"] if pod["action"] != "skip"}
    operation_id = world.drain(
        driver, *nodes, plan_hash=plan["hash"], accept_no_capacity=["llm", "solo"]
    )
    world.offset_seconds = 0
    driver.run_until(lambda: set(world.operation(operation_id).nodes_state.values()) == {"Drained"})
    evicted = set(world.connection.evictions())
    assert evicted == {uid for uid, action in planned.items() if action == "evict"}
    restarted = {uid for uid, action in planned.items() if action == "restart_with_gang"}
    assert restarted
    assert len(world.connection.suspensions(True)) == 1
