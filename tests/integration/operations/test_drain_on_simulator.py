"""A drain from request to end, against the simulated cluster."""

from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

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


def test_independent_pods_wait_for_their_budget_and_then_go(world: World) -> None:
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


def test_a_manual_uncordon_stops_the_drain_within_ten_seconds(world: World) -> None:
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


def test_a_foreign_cordon_is_never_undone(world: World) -> None:
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


def test_fifty_requests_for_one_node_make_one_operation(world: World) -> None:
    node = next(iter(world.view().nodes))
    start = Barrier(10)
    asked: list[str] = []

    def ask(person: int) -> None:
        start.wait()
        for number in range(5):
            asked.append(world.ask("drain", author=f"p{person}-{number}", nodes=[node]))

    threads = [Thread(target=ask, args=(person,)) for person in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    from app.store.requests import request

    driver = Driver(world)
    driver.lease.renew()
    while driver.desk.tick():
        pass
    answers = [request(world.engine, "test", each) for each in asked]
    accepted = [each for each in answers if each.state == "accepted"]
    assert len(asked) == 50
    assert len(accepted) == 1
    refused = [each for each in answers if each.state == "refused"]
    assert {each.refusal_code for each in refused} == {"conflict"}
    assert all(accepted[0].operation_id in each.refusal for each in refused)


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


def test_a_preview_writes_nothing_at_the_api_server_and_is_what_then_happens(world: World) -> None:
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
