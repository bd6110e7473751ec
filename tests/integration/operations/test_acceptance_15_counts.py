"""Acceptance 15: every count shown equals the cluster's. Its alerts: test_acceptance_15_alerts.py."""

import time
from collections import Counter
from pathlib import Path

from operation_world import CLUSTER, World, world_of

from app.store.reads.operations import operations
from app.store.reads.status import counts
from app.store.requests import request
from app.worker import Worker
from k8s.client import connect
from k8s.objects import gpu_request, is_ready


def test_acceptance_15_every_count_shown_equals_the_clusters(tmp_path: Path) -> None:
    with world_of(tmp_path, nodes=12, local_user="pitwall:demo") as world:
        worker = Worker(
            world.settings,
            engine=world.engine,
            watching=connect(world.server.kubeconfig),
            acting=world.connection,
        )
        worker.start()
        try:
            uid = world.create_job("llm", ranks=3)
            nodes = sorted(pod.spec.node_name for pod in world.wait(world.running(uid, 3)))
            names = sorted(world.view().nodes)
            spare = [name for name in names if name not in nodes]
            world.people.request(
                "PATCH", f"/api/v1/nodes/{spare[0]}", body={"spec": {"unschedulable": True}}
            )
            asked = world.ask("drain", nodes=[nodes[0]])
            _until(lambda: _ended(world, asked), world)
            world.kill_node(spare[1])
            _until(lambda: _differences(world) == [], world)
            assert counts(world.engine, CLUSTER).operations_open == 0
        finally:
            worker.stop()
        assert not _differences(world), _differences(world)


def _ended(world: World, asked: str) -> bool:
    found = request(world.engine, CLUSTER, asked)
    assert found is not None
    if found.state == "pending":
        return False
    assert found.state == "accepted", found.refusal
    return not operations(world.engine, CLUSTER, open_only=True)


def _differences(world: World) -> list[str]:
    """What the page would show otherwise than the cluster is."""
    shown, view = counts(world.engine, CLUSTER), world.view()
    pods = [pod for pod in view.pods.values() if pod.spec.node_name]
    running = [pod for pod in pods if pod.status.phase in ("Pending", "Running")]
    services = Counter(
        "In service" if not node.spec.unschedulable else "out" for node in view.nodes.values()
    )
    out = sum(count for name, count in shown.nodes_by_service.items() if name != "In service")
    usable = {
        name for name, node in view.nodes.items() if is_ready(node) and not node.spec.unschedulable
    }
    wanted = {
        "nodes": (shown.nodes, len(view.nodes)),
        "out of service": (out, services["out"]),
        "jobs running": (shown.jobs_running, 1),
        "GPUs requested": (shown.gpus_requested, sum(gpu_request(pod) for pod in running)),
        "open operations": (shown.operations_open, 0),
        "usable at most": (min(shown.gpus_usable, 8 * len(usable)), shown.gpus_usable),
    }
    return [f"{what}: {a} shown, {b} there" for what, (a, b) in wanted.items() if a != b]


def _until(met, world: World) -> None:
    end = time.monotonic() + 30
    while not met():
        assert time.monotonic() < end, f"{_differences(world)}\n{world.describe()}"
        time.sleep(0.05)
