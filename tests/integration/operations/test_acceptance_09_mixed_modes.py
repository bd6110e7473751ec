"""Acceptance 9: on one node, the timed pod goes at its deadline beside one that is let complete."""

from pathlib import Path

from operation_world import ENDED, Driver, World, world_of


def beside(world: World, name: str, node: str) -> str:
    """A Job of one pod without GPUs on the node; gives its uid."""
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "containers": [{"name": "side", "image": "side"}],
    }
    uid = world.create_job(name, ranks=1, gang=False, spec=spec)
    world.wait(world.running(uid, 1))
    return uid


def test_acceptance_09_a_timed_pod_goes_at_its_deadline_beside_one_that_is_let_complete(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        timed, long = beside(world, "timed", node), beside(world, "long", node)
        pods = {uid: world.view().pods_of(uid)[0].metadata for uid in (timed, long)}
        driver = Driver(world)
        operation_id = world.drain(
            driver,
            node,
            mode="complete",
            modes={"default/timed": "deadline"},
            deadline_seconds=600,
            accept_no_capacity=["timed", "long"],
        )
        driver.run_until(lambda: "its deadline" in world.operation(operation_id).message)
        world.offset_seconds = 590
        driver.run_until(lambda: driver.lease.held() is not None)
        driver.turn()
        assert not world.connection.evictions()
        world.offset_seconds = 601
        driver.run_until(lambda: world.connection.evictions())
        world.wait(lambda view: pods[timed].uid not in view.pods)
        driver.turn()
        assert world.connection.evictions() == {pods[timed].uid: 1}
        assert world.operation(operation_id).nodes_state == {node: "Draining"}
        assert world.view().pods[pods[long].uid].metadata.deletion_timestamp is None
        # It ends by itself: the last pod that held the node.
        world.people.request(
            "PATCH",
            f"/api/v1/namespaces/default/pods/{pods[long].name}/status",
            body={"status": {"phase": "Succeeded"}},
        )
        driver.run_until(lambda: world.operation(operation_id).nodes_state == {node: "Drained"})
        assert world.state(operation_id) not in ENDED  # the timed one is not back yet
