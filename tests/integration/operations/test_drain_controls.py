"""Pause, checkpoints, protection and undo of drains, against the simulated cluster."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from operation_world import ENDED, Driver, World, world_of

from k8s.client import STRATEGIC_MERGE_PATCH


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def annotate(world: World, path: str, **metadata: dict[str, str]) -> None:
    world.people.request(
        "PATCH", path, body={"metadata": metadata}, content_type=STRATEGIC_MERGE_PATCH
    )


def test_a_pause_amid_a_restart_holds_it_and_the_restart_then_goes_on_once(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node)
    driver.run_until(lambda: sum(world.connection.suspensions(True).values()) == 1)
    world.answer(driver, "pause", text="somebody is looking")
    world.wait(lambda view: not view.pods_of(uid))
    for _ in range(5):
        driver.turn()
    held = world.operation(operation_id)
    assert held.state == "Waiting"
    assert "somebody is looking" in held.message
    assert "Job default/llm is suspended meanwhile" in held.message
    assert not world.connection.suspensions(False)
    world.answer(driver, "unpause", text="looked")
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    assert list(world.connection.suspensions(False).values()) == [1]


def test_a_paused_drain_can_be_cancelled_and_gives_everything_back(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node)
    driver.run_until(lambda: sum(world.connection.suspensions(True).values()) == 1)
    world.answer(driver, "pause", text="stop")
    world.answer(driver, "cancel", operation_id=operation_id)
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Cancelled", world.describe()
    world.wait(world.running(uid, 2))
    world.wait(lambda view: not view.nodes[node].spec.unschedulable)


def test_a_gang_is_stopped_once_it_has_written_its_next_checkpoint(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    job = "/apis/batch/v1/namespaces/default/jobs/llm"
    driver = Driver(world)
    untold = world.answer(driver, "drain", nodes=[node], mode="checkpoint")
    assert "tells of no checkpoint" in untold.refusal
    before = (world.clock() - timedelta(minutes=5)).isoformat()
    annotate(world, job, annotations={"pitwall.dev/checkpoint-at": before})
    world.wait(lambda view: view.metas[uid].annotations.get("pitwall.dev/checkpoint-at"))
    operation_id = world.drain(driver, node, mode="checkpoint")
    driver.run_until(lambda: "its next checkpoint" in world.operation(operation_id).message)
    assert not world.connection.suspensions(True)
    written = world.clock().isoformat()
    annotate(world, job, annotations={"pitwall.dev/checkpoint-at": written})
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    assert world.operation(operation_id).nodes_state == {node: "Drained"}


def test_a_protected_namespace_is_drained_only_by_its_own_word(world: World) -> None:
    uid = world.create_job("workers", ranks=1, gang=False)
    node = world.wait(world.running(uid, 1))[0].spec.node_name
    annotate(world, "/api/v1/namespaces/default", labels={"pitwall.dev/protected": "true"})
    world.wait(lambda view: "pitwall.dev/protected" in view.namespaces["default"].labels)
    driver = Driver(world)
    refused = world.answer(driver, "drain", nodes=[node], force=True, confirmation="default")
    assert refused.refusal_code == "protected"
    operation_id = world.drain(driver, node, accept_protected="default")
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()


def test_two_nodes_of_a_gang_are_one_restart_and_are_given_back_by_undo(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    nodes = sorted(pod.spec.node_name for pod in world.wait(world.running(uid, 2)))
    driver = Driver(world)
    operation_id = world.drain(driver, *nodes)
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    assert list(world.connection.suspensions(True).values()) == [1]
    world.wait(lambda view: all(view.nodes[name].spec.unschedulable for name in nodes))
    undone = world.answer(driver, "undo", operation_id=operation_id)
    assert undone.state == "accepted", undone.refusal
    driver.run_until(lambda: world.state(undone.operation_id) in ENDED)
    world.wait(lambda view: not any(view.nodes[name].spec.unschedulable for name in nodes))
