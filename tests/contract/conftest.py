"""The clusters of the contract suite; each test runs on every one that is there."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import Cluster
from control_plane import ControlPlane
from kubelet import Grounds

from app.simulator.api.interference import Switchboard
from app.simulator.registry import Registry
from app.simulator.server import serve_in_thread
from k8s.client import connect
from tests.integration.operations.operation_world import World

_numbers = itertools.count(1)


@contextmanager
def _unplugged(registry: Registry) -> Iterator[None]:
    """Nobody is told of budgets while this lasts."""
    listeners = registry.collection("poddisruptionbudgets").listeners
    held = list(listeners)
    listeners.clear()
    try:
        yield
    finally:
        listeners.extend(held)


@contextmanager
def _losing_evictions(board: Switchboard) -> Iterator[None]:
    """Evictions time out while this lasts."""
    held = {"method": "POST", "path_prefix": "/api/v1/namespaces/", "status": 504, "retry_after": 1}
    one = board.add({**held, "count": 1000})
    try:
        yield
    finally:
        board.active.remove(one)


@pytest.fixture(scope="session", params=["simulator", "real"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    if request.param == "simulator":
        with serve_in_thread(nodes=0, with_jobs=False, kubelets=False) as served:
            yield Cluster(
                "simulator",
                served.kubeconfig,
                connect(served.kubeconfig),
                forget_history=lambda: served.simulation.store.compact() and None,
                holding_controllers=lambda: _unplugged(served.simulation.registry),
                holding_store=lambda: _losing_evictions(served.simulation.api.switchboard),
                disturb=lambda **fault: served.simulation.api.switchboard.add(fault) and None,
            )
        return
    named = os.environ.get("KUBEBUILDER_ASSETS")
    if not named:
        pytest.skip("KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver")
    assets = Path(named)
    if missing := [one for one in ("etcd", "kube-apiserver") if not (assets / one).exists()]:
        pytest.skip(f"{assets} (KUBEBUILDER_ASSETS) holds no {' and no '.join(missing)}")
    plane = ControlPlane(tmp_path_factory.mktemp("control-plane"), assets)
    try:
        plane.start()
        yield Cluster(
            "real",
            plane.kubeconfig,
            plane.connection(),
            forget_history=plane.compact,
            holding_controllers=plane.holding_controllers,
            holding_store=plane.holding_store,
            stop_api_server=plane.stop_api_server,
            start_api_server=plane.start_api_server,
            has_controllers=plane.has_controllers,
            has_scheduler=plane.has_scheduler,
        )
    finally:
        plane.stop()


@pytest.fixture
def grounds(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Grounds]:
    """A namespace of the test's own, with kubelets that serve the nodes it adds."""
    if not cluster.has_controllers:
        pytest.skip("KUBEBUILDER_ASSETS holds no kube-controller-manager")
    short = re.sub(r"[^a-z0-9]+", "-", request.node.originalname.lower())[5:30].strip("-")
    ground = Grounds(cluster, f"{short}-{next(_numbers)}")
    yield ground
    ground.close()


@pytest.fixture
def scheduled(cluster: Cluster, grounds: Grounds) -> Grounds:
    """As grounds, where a scheduler binds pods."""
    if not cluster.has_scheduler:
        pytest.skip("KUBEBUILDER_ASSETS holds no kube-scheduler")
    return grounds


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> Iterator[World]:
    """A store, and a worker's eyes and hands on the cluster."""
    # Other tests' nodes come and go; limits have tests of their own.
    made = World(cluster, tmp_path, max_unavailable_nodes_ratio=1.0)
    yield made
    made.close()
