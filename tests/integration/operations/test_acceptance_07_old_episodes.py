"""Acceptance 7: after fault, recovery and a new fault, the old episode neither cancels nor drains the new one."""

from datetime import timedelta
from pathlib import Path

import msgspec
from operation_world import CLUSTER, ENDED, Driver, World, world_of

from app.store.engine import write
from app.store.reads.fleet import findings_of_node
from app.store.reads.fleet import node as node_of
from app.store.writes.reports import store_reports
from collectors.report import Report
from tests.reports import finding, report


def tell(world: World, node: str, sequence: int, *episodes: str, seconds: float) -> Report:
    """What the node's agent saw so many seconds ago, stored now."""
    at = world.clock() - timedelta(seconds=seconds)
    said = report(node, sequence, findings=[finding(one, since=at) for one in episodes])
    said = msgspec.structs.replace(said, cluster=CLUSTER, observed_at=at)
    with write(world.engine) as connection:
        store_reports(connection, CLUSTER, [said], world.clock())
    return said


def open_episodes(world: World, node: str) -> list[str]:
    return [one.episode for one in findings_of_node(world.engine, CLUSTER, node)]


def test_acceptance_07_the_recovery_of_an_old_episode_does_not_stop_the_drain_for_a_new_one(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        uid = world.create_job("llm", ranks=2)
        node = world.wait(world.running(uid, 2))[0].spec.node_name
        driver = Driver(world)
        tell(world, node, 1, "old", seconds=40)
        tell(world, node, 2, seconds=30)  # recovered
        tell(world, node, 4, "new", seconds=10)  # a new fault
        assert open_episodes(world, node) == ["new"]
        operation_id = world.drain(driver, node)
        driver.run_until(lambda: world.connection.suspensions(True))
        # What was late comes now: the old fault again, and its recovery.
        tell(world, node, 1, "old", seconds=40)
        tell(world, node, 3, seconds=20)
        assert open_episodes(world, node) == ["new"]
        assert node_of(world.engine, CLUSTER, node).health == "Failing"
        driver.run_until(lambda: world.state(operation_id) in ENDED)
        assert world.state(operation_id) == "Succeeded", world.describe()
        assert world.view().nodes[node].spec.unschedulable


def test_acceptance_07_a_node_with_a_new_fault_is_not_given_back_for_the_old_ones_recovery(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        driver = Driver(world)
        tell(world, node, 1, "old", seconds=30)
        operation_id = world.drain(driver, node, mode="complete")
        driver.run_until(lambda: world.view().nodes[node].spec.unschedulable)
        tell(world, node, 2, seconds=20)
        tell(world, node, 3, "new", seconds=10)
        tell(world, node, 2, seconds=20)  # once more, late
        if world.state(operation_id) not in ENDED:
            world.answer(driver, "cancel", operation_id=operation_id)
            driver.run_until(lambda: world.state(operation_id) in ENDED)
            assert f"{node} stays cordoned" in world.operation(operation_id).message
        assert world.view().nodes[node].spec.unschedulable
        back = world.answer(driver, "uncordon", nodes=[node])
        assert back.refusal_code == "protected"
        assert f"{node} is Failing" in back.refusal
