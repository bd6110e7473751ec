"""Acceptance 14: no report for 45 s is Unknown and never Healthy; new nodes trip no limit."""

from datetime import timedelta
from pathlib import Path

import msgspec
from operation_world import CLUSTER, SHIPPED_LIMITS, Driver, World, world_of

from app.store.engine import write
from app.store.reads.fleet import node as node_of
from app.store.writes.reports import store_reports
from app.worker_chores import Chores
from tests.reports import report


def tell(world: World, node: str, sequence: int, *, seconds: float = 0) -> None:
    """A report of a node that is well, observed so many seconds ago."""
    at = world.clock() - timedelta(seconds=seconds)
    said = msgspec.structs.replace(report(node, sequence), cluster=CLUSTER, observed_at=at)
    with write(world.engine) as connection:
        store_reports(connection, CLUSTER, [said], world.clock())


def test_acceptance_14_a_source_that_is_silent_for_45_seconds_is_unknown_and_never_healthy(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        chores = Chores(world.engine, settings=world.settings, clock=world.clock)
        tell(world, node, 1)
        world.offset_seconds = 44
        chores.tick()
        assert node_of(world.engine, CLUSTER, node).health == "Healthy"
        world.offset_seconds = 46
        chores.tick()
        blind = node_of(world.engine, CLUSTER, node)
        assert blind.health == "Unknown"
        assert blind.health_reason
        tell(world, node, 2, seconds=50)  # an old word that is late makes nothing Healthy
        assert node_of(world.engine, CLUSTER, node).health == "Unknown"
        tell(world, node, 3)
        assert node_of(world.engine, CLUSTER, node).health == "Healthy"


def test_acceptance_14_a_worker_that_does_not_hear_kubernetes_does_nothing_by_itself(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        driver = Driver(world)
        operation_id = world.drain(driver, node, mode="complete", automatic=True)
        world.offset_seconds = 90
        blind, world.seen = world.seen, lambda: world.watcher.view()  # heard 90 s ago
        deaf = Driver(world)
        deaf.lease.renew()
        assert deaf.lease.held() is not None
        deaf.turn()
        said = world.operation(operation_id)
        assert said.state == "Waiting"
        assert "not heard" in said.message
        asked = world.ask("drain", nodes=[sorted(world.view().nodes)[1]], automatic=True)
        deaf.desk.tick()
        world.offset_seconds = 200
        deaf.lease.renew()
        deaf.desk.tick()
        from app.store.requests import request

        refused = request(world.engine, CLUSTER, asked)
        assert refused is not None
        assert refused.refusal_code == "unavailable"
        assert not world.connection.tried
        world.seen = blind


def test_acceptance_14_new_nodes_that_are_not_ready_yet_trip_no_limit(tmp_path: Path) -> None:
    limits = {**SHIPPED_LIMITS, "max_drains_per_hour_ratio": 1.0}
    limits["max_unavailable_block_nodes_ratio"] = 1.0
    with world_of(tmp_path, nodes=20, **limits) as world:
        old = sorted(world.view().nodes)
        for number in range(10):
            world.create(
                "/api/v1/nodes",
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": f"new-{number}", "labels": {"nvidia.com/gpu.count": "8"}},
                    "status": {"capacity": {"nvidia.com/gpu": "8"}},
                },
            )
        world.wait(lambda view: len(view.nodes) == 30)
        driver = Driver(world)
        plan = world.answer(driver, "preview", action="drain", nodes=[old[0]]).answer
        stock = next(line for line in plan["limits"]["lines"] if line["name"] == "stock")
        assert (stock["limit"], stock["now"], stock["after"]) == (2, 0, 1)
        assert world.answer(driver, "drain", nodes=[old[0]], automatic=True).state == "accepted"
