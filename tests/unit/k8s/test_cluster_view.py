from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from k8s.client import connect
from k8s.reflector import Change
from k8s.resources import BUDGETS, JOBS, NODES, PODS
from k8s.view import ClusterWatcher, view_of
from tests.cluster_objects import make_budget, make_job, make_node, make_pod


class Fed:
    """A watcher that is told of changes directly: its side of the seam to the reflectors."""

    def __init__(self) -> None:
        self.watcher = ClusterWatcher(connection=None)  # type: ignore[arg-type]

    def tell(self, resource, kind, item) -> None:
        self.watcher._take(Change(resource, kind, item.metadata.uid, item))

    @property
    def view(self):
        return self.watcher.view()


@pytest.fixture
def fed() -> Fed:
    return Fed()


def names(pods) -> list[str]:
    return sorted(pod.metadata.name for pod in pods)


def test_a_view_has_every_kind_by_its_key(fed):
    fed.tell(NODES, "added", make_node("n"))
    fed.tell(PODS, "added", make_pod("p", node="n"))
    fed.tell(JOBS, "added", make_job())
    fed.tell(BUDGETS, "added", make_budget())
    view = fed.view
    assert set(view.nodes) == {"n"}
    assert set(view.pods) == {"uid-p"}
    assert set(view.jobs) == set(view.workloads) == {"uid-job"}
    assert set(view.budgets) == {"uid-budget"}
    assert names(view.pods_on("n")) == names(view.pods_of("uid-job")) == ["p"]
    assert view.pods_on("elsewhere") == ()


def test_a_pod_moves_in_the_index_when_it_is_bound(fed):
    fed.tell(PODS, "added", make_pod("p", phase="Pending"))
    assert fed.view.pods_on("n") == ()
    fed.tell(PODS, "modified", make_pod("p", node="n"))
    assert names(fed.view.pods_on("n")) == ["p"]
    fed.tell(PODS, "deleted", make_pod("p", node="n"))
    assert fed.view.pods_on("n") == ()
    assert fed.view.pods_of("uid-job") == ()


def test_an_orphaned_pod_leaves_its_owner(fed):
    fed.tell(PODS, "added", make_pod("p"))
    fed.tell(PODS, "modified", make_pod("p", owner=None))
    assert fed.view.pods_of("uid-job") == ()


def test_a_view_does_not_change_once_taken(fed):
    fed.tell(PODS, "added", make_pod("a", node="n"))
    before = fed.view
    fed.tell(PODS, "added", make_pod("b", node="n"))
    fed.tell(PODS, "deleted", make_pod("a", node="n"))
    assert names(before.pods_on("n")) == names(before.pods.values()) == ["a"]
    assert names(fed.view.pods_on("n")) == ["b"]


def test_what_has_not_changed_is_shared_between_views(fed):
    fed.tell(NODES, "added", make_node("n"))
    before = fed.view
    fed.tell(PODS, "added", make_pod("a"))
    assert fed.view.nodes is before.nodes
    assert fed.view.pods is fed.view.pods


def test_the_deletion_of_a_nodes_predecessor_leaves_the_node(fed):
    fed.tell(NODES, "added", make_node("n", uid="first"))
    fed.tell(NODES, "added", make_node("n", uid="second"))
    fed.tell(NODES, "deleted", make_node("n", uid="first"))
    assert fed.view.nodes["n"].metadata.uid == "second"


def test_the_version_rises_with_each_change(fed):
    versions = [fed.watcher.version]
    for kind in ("added", "modified", "deleted"):
        fed.tell(NODES, kind, make_node("n"))
        versions.append(fed.watcher.version)
    assert all(a < b for a, b in pairwise(versions))
    assert fed.watcher.wait_changed(versions[0], 0.01) == versions[-1]


def test_a_view_nobody_has_synced_says_so(fed):
    assert not fed.view.synced
    assert fed.view.observed_at is None


def test_a_view_of_objects_is_indexed_and_synced():
    now = datetime(2026, 3, 1, tzinfo=UTC)
    view = view_of(nodes=[make_node("n")], pods=[make_pod("p", node="n")], observed_at=now)
    assert view.synced
    assert view.observed_at == now
    assert names(view.pods_on("n")) == ["p"]


def test_a_view_of_2000_nodes_and_5000_pods_stays_cheap_under_change(fed):
    for i in range(2000):
        fed.tell(NODES, "added", make_node(f"n{i}"))
    pods = [make_pod(f"p{i}", node=f"n{i % 2000}") for i in range(5000)]
    for pod in pods:
        fed.tell(PODS, "added", pod)
    began = time.perf_counter()
    for pod in pods[:500]:  # a change, then a look, 500 times over
        fed.tell(PODS, "modified", pod)
        assert len(fed.view.pods) == 5000
    assert (time.perf_counter() - began) / 500 < 0.01


def test_discovery_that_fails_leaves_the_view_unsynced(api, tmp_path):
    watcher = ClusterWatcher(connect(api.kubeconfig(tmp_path), connect_timeout_seconds=1))
    api.stop()
    watcher.start()
    try:
        assert not watcher.wait_synced(0.5)
        assert not watcher.view().synced
        assert "Node" in watcher.failures()
    finally:
        watcher.stop()
        api.start()
