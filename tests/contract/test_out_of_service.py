"""Giving a dead node up: the out-of-service taint, what the control plane does then, and its removal."""

from __future__ import annotations

import json

import pytest
from cluster import Cluster
from kubelet import Grounds

from k8s.client import STRATEGIC_MERGE_PATCH
from k8s.errors import OwnershipError
from k8s.nodes import OUT_OF_SERVICE, NodeGoneError, set_taint
from k8s.objects import Taint, is_ready, is_terminal
from k8s.out_of_service import (
    OUT_OF_SERVICE_ANNOTATION,
    GivenUp,
    is_out_of_service,
    put_in_service,
    put_out_of_service,
    read_given_up,
)
from k8s.resources import NODES, PODS

pytestmark = pytest.mark.contract
FOREIGN = Taint(key="example.com/maintenance", effect="NoSchedule")
# The collector of pods looks each 20 s, and two cores run a whole control plane.
COLLECTED_SECONDS = 70.0


@pytest.fixture
def node(grounds: Grounds) -> str:
    grounds.add_nodes(1)
    boot = {"nodeInfo": {"bootID": "boot-1"}}
    grounds.cluster.patch(
        NODES.path(grounds.nodes[0], subresource="status"),
        {"status": boot},
        content_type=STRATEGIC_MERGE_PATCH,
    )
    return grounds.nodes[0]


def let_die(grounds: Grounds, name: str) -> None:
    """The node falls silent, and the cluster says so at once rather than in its own time."""
    grounds.kubelets.dead.add(name)
    cluster = grounds.cluster

    def is_known() -> bool:
        cluster.say_ready(name, ready="Unknown")  # a heartbeat may have been under way
        return not is_ready(cluster.node(name))

    cluster.until(is_known, "the node is NotReady")


def give_up(cluster: Cluster, name: str, operation: str = "op-1") -> bool:
    uid = cluster.node(name).metadata.uid
    result = put_out_of_service(cluster.connection, name, uid=uid, operation_id=operation)
    return result.changed


def take_back(cluster: Cluster, name: str, operation: str = "op-1") -> bool:
    uid = cluster.node(name).metadata.uid
    return put_in_service(cluster.connection, name, uid=uid, operation_id=operation).changed


def test_a_dead_nodes_pods_stay_terminating_until_it_is_declared_out_of_service(grounds, node):
    cluster = grounds.cluster
    pod = grounds.running("rank", grace_seconds=1)
    let_die(grounds, node)
    path = PODS.path("rank", namespace=grounds.namespace)
    cluster.connection.request("DELETE", path)
    held = cluster.pod(grounds.namespace, "rank")
    assert held.metadata.uid == pod.metadata.uid
    assert held.metadata.deletion_timestamp is not None
    assert give_up(cluster, node)
    cluster.until(
        lambda: cluster.find(path) is None,
        "the pod is given up without its kubelet",
        COLLECTED_SECONDS,
    )


def test_what_still_runs_on_a_node_that_is_given_up_is_deleted_by_the_taint_itself(grounds, node):
    cluster = grounds.cluster
    grounds.running("rank", grace_seconds=1)
    let_die(grounds, node)
    give_up(cluster, node)
    path = PODS.path("rank", namespace=grounds.namespace)
    cluster.until(lambda: cluster.find(path) is None, "the pod is gone", COLLECTED_SECONDS)


def test_the_pod_of_a_gang_that_is_given_up_comes_back_elsewhere(scheduled):
    cluster = scheduled.cluster
    scheduled.add_nodes(2)
    (pod,) = scheduled.job(parallelism=1, grace_seconds=1)
    where = pod.spec.node_name
    let_die(scheduled, where)
    give_up(cluster, where)

    def back() -> bool:
        pods = [one for one in scheduled.live("train") if not is_terminal(one)]
        return any(
            one.metadata.uid != pod.metadata.uid
            and one.spec.node_name not in ("", where)
            and one.status.phase == "Running"
            for one in pods
        )

    cluster.until(back, "the rank runs on the other node", COLLECTED_SECONDS)


def test_the_taint_is_put_on_once_with_whose_it_is_and_which_boot_it_ended(grounds, node):
    cluster = grounds.cluster
    let_die(grounds, node)
    assert give_up(cluster, node)
    assert not give_up(cluster, node)
    found = cluster.node(node)
    assert is_out_of_service(found)
    assert read_given_up(found.metadata) == GivenUp("op-1", "boot-1")
    with pytest.raises(OwnershipError, match="op-1"):
        give_up(cluster, node, "op-2")


def test_a_node_that_answers_is_never_declared_out_of_service(grounds, node):
    with pytest.raises(OwnershipError, match="Ready"):
        give_up(grounds.cluster, node)
    assert not is_out_of_service(grounds.cluster.node(node))


def test_another_node_of_that_name_is_left_alone(grounds, node):
    let_die(grounds, node)
    with pytest.raises(NodeGoneError):
        put_out_of_service(grounds.cluster.connection, node, uid="another", operation_id="op-1")
    assert not is_out_of_service(grounds.cluster.node(node))


def test_only_our_own_taint_is_taken_off_and_every_other_stays(grounds, node):
    cluster = grounds.cluster
    set_taint(cluster.connection, node, FOREIGN, present=True)
    let_die(grounds, node)
    give_up(cluster, node)
    assert not take_back(cluster, node, "op-2")
    assert is_out_of_service(cluster.node(node))
    assert take_back(cluster, node)
    assert not take_back(cluster, node)
    found = cluster.node(node)
    assert not is_out_of_service(found)
    assert FOREIGN.key in {taint.key for taint in found.spec.taints}
    assert OUT_OF_SERVICE_ANNOTATION not in found.metadata.annotations


def test_a_taint_that_somebody_else_put_on_stays_theirs(grounds, node):
    cluster = grounds.cluster
    let_die(grounds, node)
    set_taint(cluster.connection, node, OUT_OF_SERVICE, present=True)
    assert not give_up(cluster, node)
    assert not take_back(cluster, node)
    assert is_out_of_service(cluster.node(node))


def test_it_can_be_rehearsed(grounds, node):
    cluster = grounds.cluster
    let_die(grounds, node)
    uid = cluster.node(node).metadata.uid
    said = put_out_of_service(cluster.connection, node, uid=uid, operation_id="op-1", dry_run=True)
    assert said.changed
    assert not is_out_of_service(cluster.node(node))
    assert "out-of-service" not in json.dumps(cluster.get(NODES.path(node)))
