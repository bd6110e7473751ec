"""Drains while the API server sheds load, collides, loses answers or refuses."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from operation_world import ENDED, Driver, World, world_of

JOBS = "/apis/batch/v1/namespaces/default/jobs/llm"
NODES = "/api/v1/nodes/"
PODS = "/api/v1/namespaces/default/pods/"
WORLDS_AT_ONCE = 10

# What is disturbed, and how often the write may then have been tried.
DISTURBANCES: dict[str, dict[str, Any]] = {
    "cordon collides": {"method": "PATCH", "path_prefix": NODES, "status": 409, "count": 2},
    "cordon is throttled": {
        "method": "PATCH",
        "path_prefix": NODES,
        "status": 429,
        "retry_after": 1,
    },
    "cordon's answer is lost": {
        "method": "PATCH",
        "path_prefix": NODES,
        "status": 504,
        "after_effect": True,
    },
    "suspend fails": {"method": "PATCH", "path_prefix": JOBS, "status": 500},
    "suspend's answer is lost": {
        "method": "PATCH",
        "path_prefix": JOBS,
        "status": 504,
        "after_effect": True,
    },
    "eviction is throttled": {
        "method": "POST",
        "path_prefix": PODS,
        "status": 429,
        "retry_after": 1,
    },
    "eviction collides": {"method": "POST", "path_prefix": PODS, "status": 409},
    "eviction times out": {"method": "POST", "path_prefix": PODS, "status": 504},
    "eviction's answer is lost": {
        "method": "POST",
        "path_prefix": PODS,
        "status": 504,
        "after_effect": True,
    },
    "reads fail": {"method": "GET", "path_prefix": PODS, "status": 503, "count": 3},
}


def _drain(folder: Path, name: str) -> None:
    folder.mkdir()
    with world_of(folder) as world:
        gang = world.create_job("llm", ranks=2)
        node = min(pod.spec.node_name for pod in world.wait(world.running(gang, 2)))
        beside = {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "side", "image": "side"}],
        }
        alone = world.create_job("side", ranks=1, gang=False, spec=beside)
        world.wait(world.running(alone, 1))
        driver = Driver(world)
        operation_id = world.drain(driver, node)
        world.disturb(**DISTURBANCES[name])

        def done() -> bool:
            found = world.operation(operation_id)
            back = found.workloads_state.get(gang, {}).get("verdict") == "Returned"
            open_steps = [step for step in found.steps if step.state in ("claimed", "waiting")]
            answered = all(step.name == "await_returned" for step in open_steps)
            return back and answered and found.nodes_state == {node: "Drained"}

        driver.run_until(done)
        said = f"{name}: {world.connection.tried}"
        lost = name == "eviction's answer is lost"
        evictions = [path for _, path in world.connection.tried if path.endswith("/eviction")]
        assert all(count == 1 for count in world.connection.evictions().values()), said
        assert len(evictions) == (2 if "eviction" in name and not lost else 1), said
        assert sum(world.connection.suspensions(True).values()) <= 1, said
        assert sum(world.connection.suspensions(False).values()) == 1, said
        assert not world.view().jobs[gang].spec.suspend


def test_a_drain_outlives_what_the_api_server_does_to_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(WORLDS_AT_ONCE) as pool:
        runs = [
            pool.submit(_drain, tmp_path / str(number), name)
            for number, name in enumerate(DISTURBANCES)
        ]
        for run in runs:
            run.result()


@pytest.fixture
def world(tmp_path: Path):
    with world_of(tmp_path) as made:
        yield made


def test_a_cordon_that_is_forbidden_fails_the_drain_and_touches_no_pod(world: World) -> None:
    uid = world.create_job("llm", ranks=1)
    node = world.wait(world.running(uid, 1))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node)
    world.disturb(method="PATCH", path_prefix=NODES, status=403)
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    ended = world.operation(operation_id)
    assert ended.state == "Failed"
    assert "could not be cordoned" in ended.message
    assert not world.connection.suspensions(True)
    assert not world.view().nodes[node].spec.unschedulable


def test_a_resume_that_is_forbidden_is_a_persons_matter_and_can_be_tried_again(
    world: World,
) -> None:
    uid = world.create_job("llm", ranks=2)
    node = world.wait(world.running(uid, 2))[0].spec.node_name
    driver = Driver(world)
    operation_id = world.drain(driver, node)
    driver.run_until(lambda: world.connection.suspensions(True))
    world.disturb(method="PATCH", path_prefix=JOBS, status=403)
    driver.run_until(lambda: world.state(operation_id) == "Blocked")
    names = {choice["name"] for choice in world.operation(operation_id).choices}
    assert names == {"retry", "leave"}
    world.answer(driver, "choose", operation_id=operation_id, choice="retry")
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
