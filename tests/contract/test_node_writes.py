"""Conditional PATCHes, dry-runs, cordons that say whose they are, taints."""

from __future__ import annotations

import threading

import pytest
from cluster import Cluster
from kubelet import Grounds

from k8s.client import STRATEGIC_MERGE_PATCH
from k8s.errors import ApiError, OwnershipError
from k8s.nodes import (
    OUT_OF_SERVICE,
    NodeGoneError,
    NodeHold,
    annotate_node,
    cordon,
    read_hold,
    set_taint,
    uncordon,
    write_hold,
)
from k8s.objects import Taint
from k8s.resources import NODES, PODS

pytestmark = pytest.mark.contract
GHOST = "no-such-node"


@pytest.fixture
def node(grounds: Grounds) -> str:
    """A node that nobody else writes to: its kubelet is silent for the test."""
    grounds.add_nodes(1)
    return grounds.nodes[0]


def hold(operation: str) -> object:
    return lambda was: write_hold(NodeHold(operation, was))


def spec_of(cluster: Cluster, name: str) -> tuple[bool, NodeHold | None]:
    node = cluster.node(name)
    return node.spec.unschedulable, read_hold(node.metadata)


def test_a_patch_from_a_stale_version_is_a_conflict(grounds, node):
    cluster, path = grounds.cluster, NODES.path(node)
    version = cluster.node(node).metadata.resource_version
    cluster.patch(path, {"metadata": {"labels": {"a": "1"}}})
    with pytest.raises(ApiError) as raised:
        cluster.patch(path, {"metadata": {"resourceVersion": version, "labels": {"a": "2"}}})
    assert (raised.value.status, raised.value.reason) == (409, "Conflict")
    assert cluster.node(node).metadata.labels["a"] == "1"


def test_a_patch_meant_for_a_predecessor_of_the_same_name_is_refused(grounds, node):
    cluster, path = grounds.cluster, NODES.path(node)
    before = cluster.node(node).metadata
    grounds.kubelets.dead.add(node)
    cluster.delete(path)
    cluster.create_node(node)
    seen = {"uid": before.uid, "resourceVersion": before.resource_version}
    with pytest.raises(ApiError) as raised:
        cluster.patch(path, {"metadata": {**seen, "labels": {"a": "2"}}})
    assert raised.value.status == 409
    # Without the version a real API server calls the other UID invalid (422): it is refused all the same.
    with pytest.raises(ApiError) as raised:
        cluster.patch(path, {"metadata": {"uid": before.uid, "labels": {"a": "2"}}})
    assert raised.value.status in (409, 422)
    assert "a" not in cluster.node(node).metadata.labels


def test_a_dry_run_answers_as_if_and_changes_nothing(grounds, node):
    cluster = grounds.cluster
    before = cluster.node(node).metadata.labels
    said = cluster.patch(NODES.path(node), {"spec": {"unschedulable": True}}, dry_run=True)
    assert said["spec"]["unschedulable"] is True
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    created = cluster.post(PODS.path(namespace=grounds.namespace), pod, dry_run=True)
    assert created["metadata"]["uid"]
    assert cluster.find(PODS.path("a", namespace=grounds.namespace)) is None
    assert not cluster.node(node).spec.unschedulable
    assert cluster.node(node).metadata.labels == before


def test_a_dry_run_is_refused_as_the_write_would_be(grounds):
    with pytest.raises(ApiError) as raised:
        grounds.cluster.patch(NODES.path(GHOST), {"spec": {"unschedulable": True}}, dry_run=True)
    assert (raised.value.status, raised.value.reason) == (404, "NotFound")
    bad = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "A B"}, "spec": {}}
    with pytest.raises(ApiError) as raised:
        grounds.cluster.post(PODS.path(namespace=grounds.namespace), bad, dry_run=True)
    assert (raised.value.status, raised.value.reason) == (422, "Invalid")


def test_the_status_and_the_rest_are_written_apart(grounds, node):
    cluster, path = grounds.cluster, NODES.path(node)
    cluster.patch(path + "/status", {"spec": {"unschedulable": True}})
    assert not cluster.node(node).spec.unschedulable


def test_a_strategic_merge_keeps_other_conditions_and_a_merge_patch_replaces_them(grounds, node):
    cluster, path = grounds.cluster, NODES.path(node, subresource="status")
    pressure = {
        "type": "MemoryPressure",
        "status": "False",
        "reason": "Enough",
        "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    body = {"status": {"conditions": [pressure]}}
    cluster.patch(path, body, content_type=STRATEGIC_MERGE_PATCH)
    kinds = {entry.type for entry in cluster.node(node).status.conditions}
    assert {"Ready", "MemoryPressure"} <= kinds
    said = cluster.patch(path, body, dry_run=True)
    assert [entry["type"] for entry in said["status"]["conditions"]] == ["MemoryPressure"]


# --- cordon and uncordon --------------------------------------------------------------------


def test_a_cordon_is_written_once(grounds, node):
    connection = grounds.cluster.connection
    first = cordon(connection, node)
    assert (first.was_unschedulable, first.changed) == (False, True)
    assert grounds.cluster.node(node).spec.unschedulable
    again = cordon(connection, node)
    assert (again.was_unschedulable, again.changed) == (True, False)


def test_an_uncordon_is_written_once(grounds, node):
    connection = grounds.cluster.connection
    cordon(connection, node)
    assert uncordon(connection, node).changed
    assert not grounds.cluster.node(node).spec.unschedulable
    assert not uncordon(connection, node).changed


def test_a_cordon_leaves_its_operation_and_remembers_what_it_found_also_after_a_crash(
    grounds, node
):
    connection = grounds.cluster.connection
    result = cordon(connection, node, annotation_value=hold("op-1"))
    assert result.was_unschedulable is False
    assert spec_of(grounds.cluster, node) == (True, NodeHold("op-1", False))
    again = cordon(connection, node, annotation_value=hold("op-1"))
    assert (again.was_unschedulable, again.changed) == (False, False)
    assert spec_of(grounds.cluster, node) == (True, NodeHold("op-1", False))


def test_an_operation_undoes_only_its_own_cordon(grounds, node):
    connection = grounds.cluster.connection
    cordon(connection, node)
    result = cordon(connection, node, annotation_value=hold("op-1"))
    assert result.was_unschedulable is True
    assert uncordon(connection, node, operation_id="op-1").changed
    assert spec_of(grounds.cluster, node) == (True, None)


def test_a_second_operation_is_kept_off(grounds, node):
    connection = grounds.cluster.connection
    cordon(connection, node, annotation_value=hold("op-1"))
    with pytest.raises(OwnershipError, match="op-1"):
        cordon(connection, node, annotation_value=hold("op-2"))
    with pytest.raises(OwnershipError, match="op-1"):
        uncordon(connection, node, operation_id="op-2")
    assert spec_of(grounds.cluster, node) == (True, NodeHold("op-1", False))


def test_a_persons_uncordon_frees_the_node_whoever_held_it(grounds, node):
    connection = grounds.cluster.connection
    cordon(connection, node, annotation_value=hold("op-1"))
    assert uncordon(connection, node).changed
    assert spec_of(grounds.cluster, node) == (False, None)


def test_a_cordon_can_be_rehearsed(grounds, node):
    result = cordon(grounds.cluster.connection, node, annotation_value=hold("op-1"), dry_run=True)
    assert result.changed
    assert spec_of(grounds.cluster, node) == (False, None)


def test_a_node_that_is_not_there_is_said_to_be_gone(grounds):
    with pytest.raises(NodeGoneError, match=GHOST):
        cordon(grounds.cluster.connection, GHOST)


def test_a_conflict_while_cordoning_is_tried_again_on_what_is_there_then(grounds, node):
    connection = grounds.cluster.connection
    original, raced = connection.request, []

    def request(method: str, path: str, **options: object) -> object:
        if method == "PATCH" and not raced:
            raced.append(1)
            grounds.cluster.patch(path, {"metadata": {"labels": {"raced": "yes"}}})
        return original(method, path, **options)

    connection.request = request
    try:
        assert cordon(connection, node, annotation_value=hold("op-1")).changed
    finally:
        del connection.request
    assert grounds.cluster.node(node).metadata.labels["raced"] == "yes"
    assert spec_of(grounds.cluster, node) == (True, NodeHold("op-1", False))


def test_of_ten_operations_that_cordon_at_once_one_holds_the_node(grounds, node):
    connection, won = grounds.cluster.connection, []
    refused: list[Exception] = []

    def attempt(operation: str) -> None:
        try:
            cordon(connection, node, annotation_value=hold(operation))
            won.append(operation)
        except OwnershipError as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt, args=(f"op-{i}",)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(won) == 1
    assert len(refused) == 9
    assert spec_of(grounds.cluster, node) == (True, NodeHold(won[0], False))


def test_an_annotation_is_set_and_taken_off_once(grounds, node):
    connection, text = grounds.cluster.connection, write_hold(NodeHold("op-1", False))
    assert annotate_node(connection, node, text)
    assert not annotate_node(connection, node, text)
    assert annotate_node(connection, node, None)
    assert not annotate_node(connection, node, None)


# --- taints ---------------------------------------------------------------------------------


def keys(cluster: Cluster, name: str) -> set[str]:
    return {taint.key for taint in cluster.node(name).spec.taints}


def test_a_taint_is_put_on_and_taken_off_beside_others(grounds, node):
    connection = grounds.cluster.connection
    other = Taint(key="example.com/other", effect="PreferNoSchedule")
    assert set_taint(connection, node, other, present=True)
    assert set_taint(connection, node, OUT_OF_SERVICE, present=True)
    assert not set_taint(connection, node, OUT_OF_SERVICE, present=True)
    assert keys(grounds.cluster, node) >= {other.key, OUT_OF_SERVICE.key}
    assert set_taint(connection, node, OUT_OF_SERVICE, present=False)
    assert not set_taint(connection, node, OUT_OF_SERVICE, present=False)
    assert other.key in keys(grounds.cluster, node)
    assert OUT_OF_SERVICE.key not in keys(grounds.cluster, node)


def test_taints_that_are_put_on_at_once_are_all_there(grounds, node):
    connection = grounds.cluster.connection
    taints = [Taint(key=f"example.com/t{i}", effect="PreferNoSchedule") for i in range(4)]
    threads = [
        threading.Thread(target=set_taint, args=(connection, node, taint), kwargs={"present": True})
        for taint in taints
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert keys(grounds.cluster, node) >= {taint.key for taint in taints}


def test_a_cordon_taints_the_node_and_an_uncordon_takes_that_off(grounds, node):
    connection, cluster = grounds.cluster.connection, grounds.cluster
    mark = "node.kubernetes.io/unschedulable"
    cordon(connection, node)
    cluster.until(lambda: mark in keys(cluster, node), "the cordon's taint is there")
    uncordon(connection, node)
    cluster.until(lambda: mark not in keys(cluster, node), "the cordon's taint is gone")


def await_unready(grounds: Grounds, node: str) -> None:
    cluster = grounds.cluster
    grounds.kubelets.dead.add(node)

    def unknown() -> bool:
        return any(
            entry.type == "Ready" and entry.status == "Unknown"
            for entry in cluster.node(node).status.conditions
        )

    cluster.until(unknown, "the node is NotReady", 70)
    cluster.until(
        lambda: "node.kubernetes.io/unreachable" in keys(cluster, node), "the node is tainted"
    )


def test_a_node_whose_kubelet_falls_silent_is_declared_unready(grounds, node):
    if grounds.cluster.kind == "simulator":
        pytest.skip("the simulator waits Kubernetes' own 40 s: make acceptance has it on both")
    await_unready(grounds, node)


@pytest.mark.acceptance
def test_a_node_whose_kubelet_falls_silent_is_declared_unready_in_kubernetes_own_time(
    grounds, node
):
    await_unready(grounds, node)
