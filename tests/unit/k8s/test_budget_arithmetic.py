from __future__ import annotations

from k8s.budgets import budget_obstacles
from k8s.objects import Pod, PodDisruptionBudget
from k8s.view import view_of
from tests.cluster_objects import make_budget, make_job, make_pod

REPLICAS = ("apps/v1", "ReplicaSet", "uid-web")


def pods(count: int, **options) -> list[Pod]:
    options.setdefault("owner", REPLICAS)
    return [make_pod(f"p{i}", labels={"app": "a"}, **options) for i in range(count)]


def obstacles(budgets: list[PodDisruptionBudget], evicted: list[Pod]):
    return budget_obstacles(evicted, view_of(budgets=budgets, pods=evicted, jobs=[make_job()]))


def budget(name: str = "b", **options) -> PodDisruptionBudget:
    options.setdefault("match", {"app": "a"})
    return make_budget(name, **options)


def test_eight_pods_do_not_pass_an_allowance_of_one():
    (found,) = obstacles([budget(allowed=1, healthy=8, desired=7, minAvailable=7)], pods(8))
    assert (found.kind, found.name, found.allowed, found.needed) == ("exhausted", "b", 1, 8)
    assert "allows 1 of 8" in found.message


def test_an_allowance_that_suffices_is_no_obstacle():
    assert obstacles([budget(allowed=8, minAvailable=0)], pods(8)) == []


def test_a_budget_of_other_pods_or_another_namespace_is_no_obstacle():
    other = budget(match={"app": "b"})
    assert obstacles([other], pods(1)) == []
    assert obstacles([budget()], pods(1, namespace="elsewhere")) == []


def test_a_budget_without_selector_selects_nothing():
    from k8s.objects import BudgetSpec, ObjectMeta

    bare = PodDisruptionBudget(ObjectMeta(name="b", namespace="default", uid="u"), BudgetSpec())
    assert obstacles([bare], pods(1)) == []


def test_pods_that_pass_budgets_by_are_not_counted():
    ended = pods(2, phase="Failed") + pods(1, phase="Pending")
    assert obstacles([budget()], ended) == []
    assert obstacles([budget()], pods(1, deletion="2026-03-01T00:00:00Z")) == []


def test_several_budgets_over_one_pod_are_named_together():
    (found,) = obstacles([budget("b1", allowed=9), budget("b2", allowed=9)], pods(2))
    assert (found.kind, found.name, found.needed) == ("multiple", "b1, b2", 2)


def test_a_percentage_over_a_job_never_allows_anything():
    of_job = pods(1, owner=("batch/v1", "Job", "uid-job"))
    for spec in ({"maxUnavailable": 1}, {"minAvailable": "50%"}):
        (found,) = obstacles([budget(allowed=1, **spec)], of_job)
        assert found.kind == "unsupported_controller"
        assert "use an integer minAvailable" in found.message


def test_an_integer_minimum_over_a_job_is_fine():
    of_job = pods(1, owner=("batch/v1", "Job", "uid-job"))
    assert obstacles([budget(allowed=1, minAvailable=1)], of_job) == []


def test_a_budget_that_says_it_can_not_be_computed_is_believed():
    failed = {
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "SyncFailed",
        "message": "jobs.batch does not implement the scale subresource",
    }
    (found,) = obstacles([budget(conditions=[failed])], pods(1))
    assert found.kind == "unsupported_controller"
    assert "does not implement the scale" in found.message


def test_a_status_that_is_not_up_to_date_allows_nothing():
    (found,) = obstacles([budget(allowed=5, generation=2, observed=1)], pods(1))
    assert (found.kind, found.allowed) == ("exhausted", 0)
    assert "not up to date" in found.message


def test_unready_pods_are_free_where_the_budget_is_met_or_always_allows():
    unready = pods(1, ready=False)
    assert obstacles([budget(healthy=4, desired=4)], unready) == []
    assert len(obstacles([budget(healthy=3, desired=4)], unready)) == 1
    assert len(obstacles([budget(healthy=0, desired=0)], unready)) == 1
    always = budget(healthy=3, desired=4, unhealthyPodEvictionPolicy="AlwaysAllow")
    assert obstacles([always], unready) == []
