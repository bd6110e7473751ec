"""Every answer of the eviction API that can be provoked, by facts/drain-and-reschedule.md's rows."""

from __future__ import annotations

import time

import pytest
from kubelet import UNREADY_LABEL, Grounds

from k8s.budgets import budget_obstacles
from k8s.client import Impersonation
from k8s.errors import ApiError
from k8s.eviction import classify, evict
from k8s.objects import Pod, condition
from k8s.resources import BUDGETS, PODS
from k8s.view import view_of

pytestmark = pytest.mark.contract
APP = {"app": "a"}


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    """Grounds with one node."""
    grounds.add_nodes(1)
    return grounds


def current(field: Grounds, pod: Pod) -> Pod:
    return field.cluster.pod(field.namespace, pod.metadata.name)


def gone(field: Grounds, pod: Pod) -> bool:
    found = field.cluster.find(PODS.path(pod.metadata.name, namespace=field.namespace))
    return found is None or found["metadata"]["uid"] != pod.metadata.uid


def obstacles(field: Grounds, *pods: Pod):
    """What the pre-flight arithmetic says of the same world."""
    budgets = field.cluster._items(
        field.cluster.connection.get(BUDGETS.path(namespace=field.namespace)), BUDGETS.struct
    )
    fresh = [current(field, pod) for pod in pods]
    return [found.kind for found in budget_obstacles(fresh, view_of(pods=fresh, budgets=budgets))]


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


def test_a_grace_of_ones_own_can_be_given(field):
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


def post_eviction(field: Grounds, pod: Pod, *, uid: str | None = None) -> None:
    name = pod.metadata.name
    field.cluster.post(
        PODS.path(name, namespace=field.namespace, subresource="eviction"),
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": field.namespace},
            "deleteOptions": {"preconditions": {"uid": uid or pod.metadata.uid}},
        },
    )


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


def test_drain_row_15_an_exhausted_budget_is_named(field):
    pods = [field.running(f"p{i}", labels=APP) for i in range(2)]
    field.cluster.settled_budget(field.namespace, "keep-two", match=APP, healthy=2, minAvailable=2)
    answer = evict(field.cluster.connection, pods[0])
    assert (answer.kind, answer.budget, answer.is_done) == ("budget", "keep-two", False)
    assert answer.retry_after_seconds == 5
    assert current(field, pods[0]).metadata.deletion_timestamp is None
    assert obstacles(field, *pods) == ["exhausted"]


def test_a_budget_with_room_for_one_lets_one_go(field):
    pods = [field.running(f"p{i}", labels=APP) for i in range(2)]
    field.cluster.settled_budget(field.namespace, "keep-one", match=APP, healthy=2, minAvailable=1)
    assert obstacles(field, pods[0]) == []
    assert obstacles(field, *pods) == ["exhausted"]
    field.kubelets.reluctant = True
    answers = [evict(field.cluster.connection, pod).kind for pod in pods]
    assert answers[0] == "evicted"
    assert answers[1] in ("budget", "budget_unobserved")


def test_drain_row_27_a_dry_run_changes_nothing_and_counts_nothing(field):
    pods = [field.running(f"p{i}", labels=APP) for i in range(2)]
    field.cluster.settled_budget(field.namespace, "keep-one", match=APP, healthy=2, minAvailable=1)
    answers = [evict(field.cluster.connection, pod, dry_run=True).kind for pod in pods]
    assert answers == ["evicted", "evicted"]
    for pod in pods:
        assert current(field, pod).metadata.deletion_timestamp is None
    budget = field.cluster.budget(field.namespace, "keep-one")
    assert budget.status.disruptions_allowed == 1
    assert not budget.status.disrupted_pods


def test_a_dry_run_is_refused_by_a_budget_as_well(field):
    pod = field.running("p", labels=APP)
    field.cluster.settled_budget(field.namespace, "keep", match=APP, healthy=1, minAvailable=1)
    assert evict(field.cluster.connection, pod, dry_run=True).kind == "budget"


def test_drain_row_16_a_budget_whose_status_lags_asks_for_time(field):
    pod = field.running("a", labels=APP)
    with field.cluster.holding_controllers():
        field.cluster.create_budget(field.namespace, "new", match=APP, minAvailable=0)
        answer = evict(field.cluster.connection, pod)
    assert (answer.kind, answer.budget) == ("budget_unobserved", "new")
    assert answer.retry_after_seconds == 10
    assert current(field, pod).metadata.deletion_timestamp is None


def test_drain_row_18_several_budgets_over_a_pod_never_let_it_go(field):
    pod = field.running("a", labels=APP)
    for name in ("b1", "b2"):
        field.cluster.settled_budget(field.namespace, name, match=APP, healthy=1, minAvailable=0)
    answer = evict(field.cluster.connection, pod)
    assert (answer.kind, answer.retry_after_seconds) == ("multiple_budgets", None)
    assert current(field, pod).metadata.deletion_timestamp is None
    assert obstacles(field, pod) == ["multiple"]


def test_a_pod_that_is_terminating_already_is_not_evicted_again(field):
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


def test_drain_row_23_an_unready_pod_counts_while_its_budget_is_not_met(field):
    pod = field.running("a", labels={**APP, UNREADY_LABEL: "yes"})
    field.cluster.settled_budget(field.namespace, "keep", match=APP, healthy=0, minAvailable=1)
    assert obstacles(field, pod) == ["exhausted"]
    assert evict(field.cluster.connection, pod).kind == "budget"


def test_drain_row_23_an_unready_pod_goes_where_its_budget_is_met_without_it(field):
    field.running("healthy", labels=APP)
    pod = field.running("a", labels={**APP, UNREADY_LABEL: "yes"})
    field.cluster.settled_budget(field.namespace, "keep", match=APP, healthy=1, minAvailable=1)
    assert obstacles(field, pod) == []
    assert evict(field.cluster.connection, pod).kind == "evicted"


def test_drain_row_23_an_unready_pod_goes_where_the_budget_always_allows(field):
    pod = field.running("a", labels={**APP, UNREADY_LABEL: "yes"})
    field.cluster.settled_budget(
        field.namespace,
        "keep",
        match=APP,
        healthy=0,
        minAvailable=1,
        unhealthyPodEvictionPolicy="AlwaysAllow",
    )
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


def test_a_pod_of_a_dead_node_stays_terminating(field):
    pod = field.running("a", grace_seconds=1)
    field.kubelets.dead.add(field.nodes[0])
    assert evict(field.cluster.connection, pod).kind == "evicted"
    time.sleep(2.5)  # past its grace: only its kubelet can end it
    assert current(field, pod).metadata.deletion_timestamp is not None
