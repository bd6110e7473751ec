"""kill -9 between any two steps: before a claimed step's call, and after it before its answer is stored.

The worker runs in the test's own process and an exception that nothing catches ends it at a boundary; a
second worker, which knows nothing of the first, takes over once the first one's lease has ended.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from operation_world import CLUSTER, Crossings, Driver, Killed, World, world_of

WORLDS_AT_ONCE = 10


def _start(world: World) -> tuple[str, str]:
    """A gang of two and a lone pod beside one of its ranks; gives the gang's UID and that node."""
    gang = world.create_job("llm", ranks=2)
    node = min(pod.spec.node_name for pod in world.wait(world.running(gang, 2)))
    side = {"nodeSelector": {"kubernetes.io/hostname": node}}
    beside = {"containers": [{"name": "side", "image": "side"}]}
    alone = world.create_job("side", ranks=1, gang=False, spec={**side, **beside})
    world.wait(world.running(alone, 1))
    return gang, node


def _is_done(world: World, operation_id: str, gang: str, node: str) -> bool:
    # The lone pod is bound to its node by name, so it waits for that node: no reason to wait here.
    found = world.operation(operation_id)
    back = found.workloads_state.get(gang, {}).get("verdict") == "Returned"
    return back and found.nodes_state == {node: "Drained"}


def _drain(folder: Path, kill_at: int | None) -> list[str]:
    """Drains a node, the worker being killed at that crossing; gives the crossings of the first worker."""
    folder.mkdir()
    with world_of(folder) as world:
        gang, node = _start(world)
        crossings = Crossings(kill_at)
        first = Driver(world, crossings.cross)
        operation_id = world.drain(first, node, accept_no_capacity=["side"])
        try:
            first.run_until(lambda: _is_done(world, operation_id, gang, node))
        except Killed:
            world.offset_seconds = 25  # the dead worker's lease has ended
            Driver(world).run_until(lambda: _is_done(world, operation_id, gang, node))
        said = f"killed at {crossings.names[-1]}: {world.describe()}"
        assert list(world.connection.evictions().values()) == [1], said
        assert list(world.connection.suspensions(True).values()) == [1], said
        assert list(world.connection.suspensions(False).values()) == [1], said
        audited = [each.action for each in world.audited() if each.operation_id == operation_id]
        assert sorted(set(audited)) == ["cordon", "drain", "evict", "resume", "suspend"], said
        assert {each.cluster for each in world.audited()} == {CLUSTER}
        return crossings.names


def test_acceptance_06_a_worker_killed_at_any_step_evicts_and_restarts_nothing_twice(
    tmp_path: Path,
) -> None:
    whole = _drain(tmp_path / "whole", None)
    assert {name.split()[1] for name in whole} == {
        "cordon",
        "evict",
        "suspend",
        "resume",
        "confirm_empty",
    }
    with ThreadPoolExecutor(WORLDS_AT_ONCE) as pool:
        runs = [pool.submit(_drain, tmp_path / str(number), number) for number in range(len(whole))]
        killed = [run.result()[-1] for run in runs]
    # The order of steps may differ from run to run; each kind of boundary must have been hit.
    assert set(killed) == set(whole)
