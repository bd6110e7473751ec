"""Rows 15, 16, 18, 23, 27 and 28: budgets, and the arithmetic that foretells their answers."""

from __future__ import annotations

import pytest
from draining import finish, seen
from evicting import APP, current, obstacles
from kubelet import UNREADY_LABEL, Grounds

from k8s.eviction import evict
from k8s.objects import condition
from k8s.resources import BUDGETS, PODS
from k8s.view import ClusterView
from tests.integration.operations.operation_world import Driver

pytestmark = pytest.mark.contract


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    """Grounds with one node."""
    grounds.add_nodes(1)
    return grounds


@pytest.fixture
def gangs(scheduled: Grounds) -> Grounds:
    """Grounds with four nodes, for gangs of two."""
    scheduled.add_nodes(4)
    return scheduled


def test_drain_row_15_an_exhausted_budget_is_named(field):
    pods = [field.running(f"p{i}", labels=APP) for i in range(2)]
    field.cluster.settled_budget(field.namespace, "keep-two", match=APP, healthy=2, minAvailable=2)
    answer = evict(field.cluster.connection, pods[0])
    assert (answer.kind, answer.budget, answer.is_done) == ("budget", "keep-two", False)
    assert answer.retry_after_seconds == 5
    assert current(field, pods[0]).metadata.deletion_timestamp is None
    assert obstacles(field, *pods) == ["exhausted"]


def test_drain_row_27_a_budget_with_room_for_one_lets_one_go(field):
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


def test_drain_row_27_a_dry_run_is_refused_by_a_budget_as_well(field):
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


def test_drain_row_28_a_budget_with_max_unavailable_over_a_job_refuses_for_ever(gangs):
    first, _ = gangs.job()
    gangs.cluster.create_budget(
        gangs.namespace, "one-at-a-time", match={"app": "train"}, maxUnavailable=1
    )

    def failed() -> str | None:
        budget = gangs.cluster.budget(gangs.namespace, "one-at-a-time")
        said = condition(budget.status.conditions, "DisruptionAllowed")
        return said.message if said and said.reason == "SyncFailed" else None

    assert gangs.cluster.until(failed, "the budget says it can not be computed")
    # The API server says "still being processed", however often it is asked.
    answer = evict(gangs.cluster.connection, first)
    assert (answer.kind, answer.budget) == ("budget", "one-at-a-time")
    assert "refuses for ever" in answer.message
    path = PODS.path(first.metadata.name, namespace=gangs.namespace)
    assert "deletionTimestamp" not in gangs.cluster.get(path)["metadata"]


def test_drain_row_28_an_integer_minimum_over_a_job_lets_pods_go(gangs):
    first, _ = gangs.job()
    gangs.cluster.settled_budget(
        gangs.namespace, "keep-one", match={"app": "train"}, healthy=2, minAvailable=1
    )
    assert evict(gangs.cluster.connection, first).kind == "evicted"


def test_drain_row_28_such_a_budget_is_found_before_anything_is_touched(gangs, world):
    first, _ = gangs.job()
    gangs.cluster.create_budget(
        gangs.namespace, "one-at-a-time", match={"app": "train"}, maxUnavailable=1
    )
    assert obstacles(gangs, first) == ["unsupported_controller"]
    # Of independent pods, which are evicted; a gang is suspended, which asks no budget.
    lone, _ = gangs.job("lone", labels={"pitwall.dev/gang": "false"})
    gangs.cluster.create_budget(gangs.namespace, "lone", match={"app": "lone"}, maxUnavailable=1)
    seen(world, first, lone)
    world.wait(lambda view: {"lone", "one-at-a-time"} <= names_of(view))
    refused = world.answer(Driver(world), "drain", nodes=[lone.spec.node_name])
    assert (refused.state, refused.refusal_code) == ("refused", "budget")
    assert "/lone" in refused.refusal
    assert "one-at-a-time" not in refused.refusal
    assert not world.connection.tried


def test_drain_row_18_several_budgets_are_found_before_anything_is_touched(field, world):
    pod = field.running("a", labels=APP)
    for name in ("b1", "b2"):
        field.cluster.settled_budget(field.namespace, name, match=APP, healthy=1, minAvailable=0)
    seen(world, pod)
    world.wait(lambda view: {"b1", "b2"} <= names_of(view))
    refused = world.answer(Driver(world), "drain", nodes=[field.nodes[0]], force=True)
    assert (refused.state, refused.refusal_code) == ("refused", "budget")
    assert "b1, b2" in refused.refusal
    assert not world.connection.tried


def test_drain_row_15_a_drain_waits_for_a_budget_and_names_it_with_its_pod(field, world):
    pods = [field.running(f"p{i}", labels=APP, gpus=1) for i in range(2)]
    field.cluster.settled_budget(field.namespace, "keep-two", match=APP, healthy=2, minAvailable=2)
    seen(world, *pods)
    world.wait(lambda view: "keep-two" in names_of(view))
    driver = Driver(world)
    operation_id = world.drain(driver, field.nodes[0], force=True)
    driver.run_until(lambda: world.state(operation_id) == "Waiting")
    said = world.operation(operation_id).message
    assert f"budget {field.namespace}/keep-two" in said
    assert pods[0].metadata.name in said
    assert not world.connection.evictions()
    field.cluster.patch(
        BUDGETS.path("keep-two", namespace=field.namespace), {"spec": {"minAvailable": 0}}
    )
    ended = finish(world, driver, operation_id)
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert world.connection.evictions() == {pod.metadata.uid: 1 for pod in pods}


def names_of(view: ClusterView) -> set[str]:
    return {budget.metadata.name for budget in view.budgets.values()}
