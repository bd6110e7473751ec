"""Rows 11 to 22: evictions, what is sent, and every answer that can be provoked (facts/drain-and-reschedule.md)."""

from __future__ import annotations

import time

import pytest
from draining import Diverted, bare, finish, not_exempt, seen, shedding, straight
from evicting import APP, current, gone, obstacles, post_eviction
from kubelet import Grounds

from k8s.client import Impersonation
from k8s.errors import ApiError
from k8s.eviction import classify, evict
from k8s.objects import condition
from k8s.resources import PODS
from tests.integration.operations.operation_world import Driver

pytestmark = pytest.mark.contract


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    """Grounds with one node."""
    grounds.add_nodes(1)
    return grounds


def test_drain_row_13_an_eviction_is_accepted_and_the_pod_ends_in_its_grace(field):
    pod = field.running("a")
    field.kubelets.reluctant = True
    answer = evict(field.cluster.connection, pod)
    assert (answer.kind, answer.already, answer.is_done) == ("evicted", False, True)
    ending = current(field, pod)
    assert ending.metadata.deletion_timestamp is not None
    assert ending.metadata.deletion_grace_period_seconds == 5
    why = condition(ending.status.conditions, "DisruptionTarget")
    assert why is not None
    assert (why.status, why.reason) == ("True", "EvictionByEvictionAPI")
    field.kubelets.reluctant = False
    field.cluster.until(lambda: gone(field, pod), "the pod is gone")


def test_drain_row_12_a_grace_of_ones_own_can_be_given(field):
    pod = field.running("a")
    field.kubelets.reluctant = True
    assert evict(field.cluster.connection, pod, grace_seconds=2).kind == "evicted"
    assert current(field, pod).metadata.deletion_grace_period_seconds == 2


def test_drain_row_14_a_pod_that_is_gone_is_done(field):
    pod = field.running("a")
    field.cluster.delete(PODS.path("a", namespace=field.namespace), gracePeriodSeconds=0)
    field.cluster.until(lambda: gone(field, pod), "the pod is gone")
    answer = evict(field.cluster.connection, pod)
    assert (answer.kind, answer.is_done) == ("gone", True)
    with pytest.raises(ApiError) as raised:
        post_eviction(field, pod)
    assert classify(raised.value).kind == "gone"


def test_drain_row_22_a_replacement_of_the_same_name_is_never_touched(field):
    first = field.running("a")
    field.cluster.delete(PODS.path("a", namespace=field.namespace), gracePeriodSeconds=0)
    field.cluster.until(lambda: gone(field, first), "the first pod is gone")
    second = field.running("a")
    answer = evict(field.cluster.connection, first)
    assert (answer.kind, answer.is_done) == ("replaced", True)
    assert second.metadata.uid in answer.message
    assert current(field, second).metadata.deletion_timestamp is None


def test_drain_row_20_the_precondition_holds_an_eviction_to_its_pod(field):
    pod = field.running("a")
    with pytest.raises(ApiError) as raised:
        post_eviction(field, pod, uid="00000000-0000-0000-0000-000000000000")
    assert (raised.value.status, raised.value.reason) == (409, "Conflict")
    assert classify(raised.value).kind == "conflict"
    assert current(field, pod).metadata.deletion_timestamp is None


def test_drain_row_20_a_conflict_with_a_replacement_is_found_out(field):
    """The pod is replaced between our GET and the eviction."""
    pod = field.running("a")
    connection = field.cluster.connection
    original, raced = connection.request, []

    def request(method: str, path: str, **options: object) -> object:
        if path.endswith("/eviction") and not raced:
            raced.append(1)
            field.cluster.delete(PODS.path("a", namespace=field.namespace), gracePeriodSeconds=0)
            field.cluster.until(lambda: gone(field, pod), "the first pod is gone")
            field.cluster.create_pod(field.namespace, "a", node=field.nodes[0])
        return original(method, path, **options)

    connection.request = request
    try:
        answer = evict(connection, pod)
    finally:
        del connection.request
    assert answer.kind == "replaced"
    assert current(field, pod).metadata.deletion_timestamp is None


def test_drain_row_06_a_pod_that_is_terminating_already_is_not_evicted_again(field):
    pod = field.running("a", grace_seconds=60)
    field.kubelets.reluctant = True
    evict(field.cluster.connection, pod)
    before = current(field, pod).metadata
    answer = evict(field.cluster.connection, pod)
    assert (answer.kind, answer.already) == ("evicted", True)
    assert current(field, pod).metadata.resource_version == before.resource_version


def test_drain_row_13_pods_that_have_ended_pass_budgets_by(field):
    pod = field.running("a", labels=APP)
    field.cluster.settled_budget(field.namespace, "keep", match=APP, healthy=1, minAvailable=1)
    field.kubelets.finish(pod, "Failed", exit_code=1)
    assert obstacles(field, pod) == []
    assert evict(field.cluster.connection, pod).kind == "evicted"


def test_drain_row_13_pending_pods_pass_budgets_by(field):
    pod = field.cluster.create_pod(field.namespace, "a", labels=APP, schedulerName="nobody")
    field.cluster.settled_budget(field.namespace, "keep", match=APP, healthy=0, minAvailable=1)
    assert obstacles(field, pod) == []
    assert evict(field.cluster.connection, pod).kind == "evicted"


def test_drain_row_19_a_namespace_that_ends_refuses_evictions(field):
    pod = field.running("a")
    path = PODS.path("a", namespace=field.namespace)
    field.cluster.patch(path, {"metadata": {"finalizers": ["test.example/stays"]}})
    field.cluster.delete(f"/api/v1/namespaces/{field.namespace}")
    with pytest.raises(ApiError) as raised:
        post_eviction(field, pod)
    assert classify(raised.value).kind == "namespace_terminating"
    assert classify(raised.value).retry_after_seconds == 5


def test_drain_row_19_who_may_not_evict_is_told_so(field):
    pod = field.running("a")
    nobody = field.cluster.connection.impersonating(Impersonation("nobody", ("nobodies",)))
    with pytest.raises(ApiError) as raised:
        nobody.request(
            "POST",
            PODS.path("a", namespace=field.namespace, subresource="eviction"),
            body={
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": "a", "namespace": field.namespace},
            },
        )
    assert classify(raised.value).kind == "forbidden"
    assert current(field, pod).metadata.deletion_timestamp is None


def test_drain_row_24_a_pod_of_a_dead_node_stays_terminating(field):
    pod = field.running("a", grace_seconds=1)
    field.kubelets.dead.add(field.nodes[0])
    assert evict(field.cluster.connection, pod).kind == "evicted"
    time.sleep(2.5)  # past its grace: only its kubelet can end it
    assert current(field, pod).metadata.deletion_timestamp is not None


def test_drain_row_11_without_an_eviction_api_nothing_is_deleted_instead(field):
    pod = field.running("a")

    def way(send, method, path, options):
        # What this server says of a subresource that it does not have.
        return send(method, path.replace("/eviction", "/no-such-thing"), **options)

    connection = Diverted(field.cluster.connection, way)
    answer = evict(connection, pod)
    assert (answer.kind, answer.is_done, answer.retry_after_seconds) == ("unsupported", False, None)
    assert {method for method, _ in connection.tried} == {"POST"}
    assert current(field, pod).metadata.deletion_timestamp is None


def test_drain_row_12_every_eviction_names_its_pod_by_uid_and_the_grace_only_when_given(field):
    pods = [field.running(name) for name in ("a", "b")]
    connection = Diverted(field.cluster.connection, straight)
    evict(connection, pods[0])
    evict(connection, pods[1], grace_seconds=2)
    sent = [body["deleteOptions"] for _, _, body in connection.writes]
    assert sent == [
        {"preconditions": {"uid": pods[0].metadata.uid}},
        {"preconditions": {"uid": pods[1].metadata.uid}, "gracePeriodSeconds": 2},
    ]


def test_drain_row_17_an_overloaded_api_server_is_told_apart_from_a_budget(field, world):
    pod = bare(field, "a")
    seen(world, pod)
    asking = not_exempt(field.cluster)
    world.connection = Diverted(asking, straight)
    driver = Driver(world)
    operation_id = world.drain(driver, field.nodes[0], force=True)
    with shedding(field.cluster, field.namespace, asking=asking):
        driver.run_until(lambda: "overloaded" in world.operation(operation_id).message)
        said = world.operation(operation_id)
        assert said.state == "Waiting"
        assert "budget" not in said.message
    ended = finish(world, driver, operation_id)
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert world.connection.evictions() == {pod.metadata.uid: 1}


def test_drain_row_21_an_eviction_that_times_out_is_tried_again(field):
    pod = field.running("a")
    lost = []

    def way(send, method, path, options):
        if method != "POST" or lost:
            return send(method, path, **options)
        lost.append(path)
        with field.cluster.holding_store():
            return send(method, path, **{**options, "params": {"timeout": "1s"}})

    connection = Diverted(field.cluster.connection, way)
    answer = evict(connection, pod)
    assert (answer.kind, answer.is_done) == ("server_timeout", False)
    assert answer.retry_after_seconds
    assert evict(connection, pod).kind == "evicted"
    field.cluster.until(lambda: gone(field, pod), "the pod is gone")
