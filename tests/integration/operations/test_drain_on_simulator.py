"""A drain from request to end, against the simulated cluster."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from operation_world import ENDED, Driver, World, world_of

from k8s.nodes import read_hold


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path) as made:
        yield made


def test_a_gang_is_drained_off_its_node_and_returns_elsewhere(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    before = world.wait(world.running(uid, 2))
    node = before[0].spec.node_name
    driver = Driver(world)
    plan = world.answer(driver, "preview", action="drain", nodes=[node]).answer
    assert plan["jobs"][0]["fit"]["verdict"] == "fits"
    operation_id = world.drain(driver, node, plan_hash=plan["hash"])
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    ended = world.operation(operation_id)
    assert ended.state == "Succeeded", world.describe()
    assert ended.nodes_state == {node: "Drained"}
    assert ended.workloads_state[uid]["verdict"] == "Returned"
    after = world.view().pods_of(uid)
    assert {pod.metadata.uid for pod in after}.isdisjoint(pod.metadata.uid for pod in before)
    assert all(pod.spec.node_name != node for pod in after)
    held = world.view().nodes[node]
    assert held.spec.unschedulable
    hold = read_hold(held.metadata)
    assert hold is not None
    assert (hold.operation, hold.was_unschedulable) == (operation_id, False)
    assert [entry.action for entry in world.audited() if entry.operation_id == operation_id] == [
        "drain",
        "cordon",
        "suspend",
        "resume",
    ]


def test_the_node_comes_back_with_uncordon(world: World) -> None:
    node = next(iter(world.view().nodes))
    driver = Driver(world)
    drained = world.drain(driver, node)
    driver.run_until(lambda: world.state(drained) in ENDED)
    record = world.answer(driver, "uncordon", nodes=[node])
    driver.run_until(lambda: world.state(record.operation_id) in ENDED)
    world.wait(lambda view: not view.nodes[node].spec.unschedulable)
    assert read_hold(world.view().nodes[node].metadata) is None


def test_cancel_resumes_the_gang_and_gives_the_node_back(world: World) -> None:
    uid = world.create_job("llm", ranks=2, spec={"terminationGracePeriodSeconds": 5})
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node)
    driver.run_until(lambda: world.connection.suspensions(True))
    world.answer(driver, "cancel", operation_id=operation_id)
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Cancelled"
    world.wait(lambda view: not view.nodes[node].spec.unschedulable)
    world.wait(world.running(uid, 2))
    assert not world.view().jobs[uid].spec.suspend


def test_a_gang_with_a_pod_on_a_dead_node_blocks_and_ends_by_a_persons_word(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    pods = world.wait(world.running(uid, 2))
    dying, draining = pods[0].spec.node_name, pods[1].spec.node_name
    world.kill_node(dying)
    driver = Driver(world)
    operation_id = world.drain(driver, draining)
    driver.run_until(lambda: world.state(operation_id) == "Waiting")
    assert not world.connection.suspensions(True)
    world.offset_seconds = 120
    driver.run_until(lambda: world.state(operation_id) == "Blocked")
    blocked = world.operation(operation_id)
    assert {choice["name"] for choice in blocked.choices} == {"confirm_power_off", "retry"}
    assert not world.view().jobs[uid].spec.suspend
    wrong = world.answer(
        driver, "choose", operation_id=operation_id, choice="confirm_power_off", confirmation="yes"
    )
    assert wrong.state == "refused"
    world.answer(
        driver, "choose", operation_id=operation_id, choice="confirm_power_off", confirmation=dying
    )
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    assert world.operation(operation_id).workloads_state[uid]["verdict"] == "Returned"


def test_two_workers_have_one_lease_and_take_over(world: World) -> None:
    first, second = Driver(world), Driver(world)
    assert first.lease.renew() is not None
    assert second.lease.renew() is None
    node = next(iter(world.view().nodes))
    world.ask("drain", nodes=[node])
    assert second.desk.tick() == 0
    assert first.desk.tick() == 1
    world.offset_seconds = 15  # past the first one's renewal deadline, before the lease's end
    assert first.reconciler.tick() == 0
    assert not world.connection.writes
    world.offset_seconds = 30
    held = second.lease.renew()
    assert held is not None
    assert held.epoch == 2
    assert first.lease.renew() is None
    second.run_until(lambda: world.connection.writes)
    assert {step.name for step in world.operation(_only(world)).steps} >= {"cordon"}


def _only(world: World) -> str:
    from app.store.reads.operations import operations

    return operations(world.engine, "test")[0].id


def test_a_plan_is_void_once_the_world_has_moved(world: World) -> None:
    uid = world.create_job("llm", ranks=2)
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    driver = Driver(world)
    plan = world.answer(driver, "preview", action="drain", nodes=[node]).answer
    world.people.request(
        "PATCH", "/apis/batch/v1/namespaces/default/jobs/llm", body={"spec": {"backoffLimit": 3}}
    )
    world.wait(lambda view: view.jobs[uid].metadata.generation > plan["jobs"][0]["generation"])
    refused = world.answer(driver, "drain", nodes=[node], plan_hash=plan["hash"])
    assert refused.refusal_code == "plan_changed"
    assert "default/llm was edited" in refused.refusal
    fresh = world.answer(driver, "preview", action="drain", nodes=[node]).answer
    world.offset_seconds = 601
    late = world.answer(driver, "drain", nodes=[node], plan_hash=fresh["hash"])
    assert late.refusal_code == "plan_expired"


def test_a_limit_holds_for_force_too(world: World) -> None:
    driver = Driver(world)
    nodes = sorted(world.view().nodes)
    refused = world.answer(driver, "drain", nodes=nodes[:3], force=True)
    assert refused.refusal_code == "limit"
    assert "2 are allowed" in refused.refusal
