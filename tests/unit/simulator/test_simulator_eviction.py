"""Evictions meet budgets as on a real API server, and budgets are computed as there."""

from typing import Any

import pytest

MERGE = "application/merge-patch+json"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
PODS = "/api/v1/namespaces/default/pods"


def create_pod(api, name: str, *, phase: str = "Running", ready: bool = True) -> dict:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    api.call("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    api.call("POST", PODS, {"metadata": {"name": name, "labels": {"app": "a"}}, "spec": spec})
    api.call("POST", f"{PODS}/{name}/binding", {"target": {"name": "n"}})
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    status = {"status": {"phase": phase, "conditions": [condition]}}
    _, pod = api.call("PATCH", f"{PODS}/{name}/status", status, content_type=MERGE)
    return pod


def create_budget(api, name: str = "b", **spec: Any) -> None:
    body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": "a"}}, **spec}}
    assert api.call("POST", BUDGETS, body)[0] == 201


def budget_status(api, name: str = "b") -> dict:
    return api.call("GET", f"{BUDGETS}/{name}")[1]["status"]


def test_an_eviction_marks_the_pod_and_deletes_it_with_grace(api) -> None:
    pod = create_pod(api, "a")
    assert api.evict(pod)[0] == 201
    _, gone = api.call("GET", f"{PODS}/a")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 30
    conditions = {one["type"]: one.get("reason") for one in gone["status"]["conditions"]}
    assert conditions["DisruptionTarget"] == "EvictionByEvictionAPI"


def test_a_budget_lets_one_go_and_stops_the_next(api) -> None:
    pods = [create_pod(api, name) for name in ("x", "y", "z")]
    create_budget(api, minAvailable=2)
    api.advance(0)
    assert budget_status(api)["disruptionsAllowed"] == 1
    assert api.evict(pods[0])[0] == 201
    status, answer = api.evict(pods[1])
    assert (status, answer["reason"], answer["code"]) == (429, "TooManyRequests", 429)
    assert answer["message"] == "Cannot evict pod as it would violate the pod's disruption budget."
    cause = answer["details"]["causes"][0]
    assert cause["reason"] == "DisruptionBudget"
    api.advance(0)
    _, answer = api.evict(pods[1])
    text = "The disruption budget b needs 2 healthy pods and has 2 currently"
    assert answer["details"]["causes"][0]["message"] == text
    assert "retryAfterSeconds" not in answer["details"]


def test_a_budget_not_yet_observed_asks_to_come_back(api) -> None:
    pod = create_pod(api, "a")
    create_budget(api, minAvailable=0)
    status, answer = api.evict(pod)
    assert (status, answer["details"]["retryAfterSeconds"]) == (429, 10)
    assert answer["details"]["causes"][0]["reason"] == "DisruptionBudget"


def test_two_budgets_are_an_internal_error(api) -> None:
    pod = create_pod(api, "a")
    create_budget(api, "b", minAvailable=0)
    create_budget(api, "c", minAvailable=0)
    api.advance(0)
    status, answer = api.evict(pod)
    assert (status, answer["reason"]) == (500, "InternalError")
    assert "more than one PodDisruptionBudget" in answer["message"]


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
def test_pods_that_disrupt_nothing_bypass_budgets(api, phase: str) -> None:
    pod = create_pod(api, "a", phase=phase)
    create_budget(api, minAvailable=1)
    api.advance(0)
    assert api.evict(pod)[0] == 201


def test_a_terminating_pod_bypasses_budgets(api) -> None:
    pod = create_pod(api, "a")
    create_budget(api, minAvailable=1)
    api.call("DELETE", f"{PODS}/a")
    api.advance(0)
    assert api.evict(pod)[0] == 201


def test_an_eviction_of_another_uid_conflicts_and_of_none_is_not_found(api) -> None:
    pod = create_pod(api, "a")
    status, answer = api.evict(pod, preconditions={"uid": "another"})
    assert (status, answer["reason"]) == (409, "Conflict")
    pod["metadata"]["name"] = "none"
    assert api.evict(pod)[0] == 404


def test_a_dry_run_spends_nothing(api) -> None:
    pods = [create_pod(api, name) for name in ("x", "y")]
    create_budget(api, minAvailable=1)
    api.advance(0)
    for pod in pods:
        assert api.evict(pod, dryRun=["All"])[0] == 201
    assert budget_status(api)["disruptionsAllowed"] == 1
    assert "deletionTimestamp" not in api.get("pods", "x")["metadata"]


def test_an_unready_pod_goes_when_the_others_suffice_or_the_policy_allows_it(api) -> None:
    create_pod(api, "good")
    bad = create_pod(api, "bad", ready=False)
    create_budget(api, minAvailable=2)
    api.advance(0)
    assert api.evict(bad)[0] == 429
    patch = {"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}
    api.call("PATCH", f"{BUDGETS}/b", patch, content_type=MERGE)
    api.advance(0)
    assert api.evict(bad)[0] == 201
    worse = create_pod(api, "worse", ready=False)
    api.call("PATCH", f"{BUDGETS}/b", {"spec": {"minAvailable": 1}}, content_type=MERGE)
    api.advance(0)
    assert api.evict(worse)[0] == 201


def test_a_budget_over_a_job_by_max_unavailable_cannot_be_computed(cluster) -> None:
    cluster.create_job("train", pod={"terminationGracePeriodSeconds": 5})
    cluster.advance(5)
    labels = {"job-name": "train"}
    body = {
        "metadata": {"name": "b"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }
    cluster.call("POST", BUDGETS, body)
    cluster.advance(0)
    status = budget_status(cluster)
    assert status["disruptionsAllowed"] == 0
    condition = status["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "SyncFailed")
    assert condition["message"] == "jobs.batch does not implement the scale subresource"
    code, answer = cluster.evict(cluster.pods_of("train")[0])
    assert (code, answer["details"]["causes"][0]["reason"]) == (429, "DisruptionBudget")


def test_a_budget_over_a_deployment_counts_what_it_is_scaled_to(cluster) -> None:
    template = {
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    body = {
        "metadata": {"name": "web"},
        "spec": {"replicas": 4, "selector": {"matchLabels": {"app": "a"}}, "template": template},
    }
    assert cluster.call("POST", "/apis/apps/v1/namespaces/default/deployments", body)[0] == 201
    create_budget(cluster, maxUnavailable="50%")
    cluster.advance(10)
    status = budget_status(cluster)
    found = {
        name: status[name] for name in ("expectedPods", "desiredHealthy", "disruptionsAllowed")
    }
    assert found == {"expectedPods": 4, "desiredHealthy": 2, "disruptionsAllowed": 2}


def test_an_eviction_that_never_became_a_deletion_is_forgotten_in_two_minutes(api) -> None:
    for name in ("x", "y"):
        create_pod(api, name)
    create_budget(api, minAvailable=1)
    api.advance(0)
    held = {"status": {"disruptedPods": {"x": "2026-03-01T12:00:00Z"}, "disruptionsAllowed": 0}}
    api.call("PATCH", f"{BUDGETS}/b/status", held, content_type=MERGE)
    api.advance(60)
    assert budget_status(api)["disruptionsAllowed"] == 0
    api.advance(61)
    assert budget_status(api)["disruptionsAllowed"] == 1
