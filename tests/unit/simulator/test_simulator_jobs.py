"""Jobs do what the Job controller of Kubernetes 1.36 does with them."""

from typing import Any

import pytest

from app.simulator.controllers.job_pods import parse_indexes, write_indexes

MERGE = "application/merge-patch+json"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
IGNORE = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}


def patch_job(cluster, name: str, spec: dict[str, Any]) -> dict:
    status, job = cluster.call("PATCH", f"{JOBS}/{name}", {"spec": spec}, content_type=MERGE)
    assert status == 200, job
    return job


def status_of(cluster, name: str) -> dict:
    return cluster.get("jobs", name)["status"]


def condition_of(cluster, name: str, type_: str) -> dict | None:
    conditions = status_of(cluster, name).get("conditions") or []
    return next((one for one in conditions if one["type"] == type_), None)


def active_pods(cluster, name: str) -> list[dict]:
    return [
        pod
        for pod in cluster.pods_of(name)
        if pod["status"]["phase"] in ("Pending", "Running")
        and not pod["metadata"].get("deletionTimestamp")
    ]


def fail_rank(cluster, name: str, index: int, *, exit_code: int = 1) -> None:
    pod = next(
        one
        for one in active_pods(cluster, name)
        if one["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == str(index)
    )
    metadata = pod["metadata"]
    key = (metadata["namespace"], metadata["name"])
    cluster.simulation.kubelets.end_pod(key, metadata["uid"], exit_code=exit_code)
    cluster.advance(1)


def test_an_indexed_job_gets_a_pod_for_each_index(cluster) -> None:
    cluster.create_job("train", parallelism=3, completions=3)
    cluster.advance(5)
    status = status_of(cluster, "train")
    assert (status["active"], status["ready"], status["terminating"]) == (3, 3, 0)
    pods = cluster.pods_of("train")
    label = "batch.kubernetes.io/job-completion-index"
    assert sorted(pod["metadata"]["annotations"][label] for pod in pods) == ["0", "1", "2"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 3
    assert all("batch.kubernetes.io/job-tracking" in pod["metadata"]["finalizers"] for pod in pods)
    assert {pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods} == {"Job"}


def test_suspension_deletes_the_pods_without_counting_failures(cluster) -> None:
    cluster.create_job("train", backoffLimit=0)
    cluster.advance(5)
    before = {pod["metadata"]["uid"] for pod in cluster.pods_of("train")}
    patch_job(cluster, "train", {"suspend": True})
    cluster.advance(0.1)
    assert status_of(cluster, "train")["terminating"] == 2
    cluster.advance(5)
    status = status_of(cluster, "train")
    assert ("active" in status, status["terminating"], "failed" in status) == (False, 0, False)
    assert "startTime" not in status
    assert condition_of(cluster, "train", "Suspended")["reason"] == "JobSuspended"
    patch_job(cluster, "train", {"suspend": False})
    cluster.advance(5)
    after = {pod["metadata"]["uid"] for pod in cluster.pods_of("train")}
    assert status_of(cluster, "train")["ready"] == 2
    assert not before & after
    assert condition_of(cluster, "train", "Suspended")["status"] == "False"


def test_a_suspended_job_makes_no_pods(cluster) -> None:
    cluster.create_job("train", suspend=True)
    cluster.advance(5)
    assert cluster.pods_of("train") == []


def test_with_policy_failed_a_replacement_waits_for_the_terminal_phase(cluster) -> None:
    slow = {"metadata": {"annotations": {"simulator.pitwall.dev/stop-seconds": "10"}}}
    job = {"podReplacementPolicy": "Failed", "parallelism": 1, "completions": 1}
    cluster.call("POST", JOBS, _job("train", slow, job))
    cluster.advance(5)
    cluster.evict(cluster.pods_of("train")[0])
    cluster.advance(9)
    assert len(cluster.pods_of("train")) == 1
    assert status_of(cluster, "train")["terminating"] == 1
    cluster.advance(14)
    pods = cluster.pods_of("train")
    assert len(pods) == 1
    assert "deletionTimestamp" not in pods[0]["metadata"]


def test_by_default_a_terminating_pod_is_replaced_at_once(cluster) -> None:
    slow = {"metadata": {"annotations": {"simulator.pitwall.dev/stop-seconds": "25"}}}
    job = {"parallelism": 1, "completions": 1, "podFailurePolicy": None}
    cluster.call("POST", JOBS, _job("train", slow, job))
    cluster.advance(5)
    cluster.evict(cluster.pods_of("train")[0])
    cluster.advance(12)
    assert len(cluster.pods_of("train")) == 2


def _job(name: str, template: dict, spec: dict) -> dict:
    container = {
        "name": "trainer",
        "image": "trainer:1",
        "resources": {"limits": {"nvidia.com/gpu": "8"}},
    }
    pod = {"restartPolicy": "Never", "containers": [container]}
    settings = {"completionMode": "Indexed", "template": {**template, "spec": pod}, **spec}
    return {"metadata": {"name": name}, "spec": settings}


def test_a_policy_that_ignores_disruptions_saves_the_evicted_pod(cluster) -> None:
    cluster.create_job(
        "train", podFailurePolicy=IGNORE, backoffLimit=0, parallelism=1, completions=1
    )
    cluster.advance(5)
    cluster.evict(cluster.pods_of("train")[0])
    cluster.advance(10)
    status = status_of(cluster, "train")
    assert (status["ready"], status.get("failed", 0)) == (1, 0)


def test_an_eviction_without_a_policy_burns_the_backoff(cluster) -> None:
    cluster.create_job("train", backoffLimit=0, parallelism=1, completions=1)
    cluster.advance(5)
    cluster.evict(cluster.pods_of("train")[0])
    cluster.advance(5)
    assert condition_of(cluster, "train", "Failed")["reason"] == "BackoffLimitExceeded"


def test_replacements_wait_longer_after_each_failure(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1)
    cluster.advance(5)
    fail_rank(cluster, "train", 0)
    cluster.advance(8)
    assert active_pods(cluster, "train") == []
    cluster.advance(6)
    assert len(active_pods(cluster, "train")) == 1
    fail_rank(cluster, "train", 0)
    cluster.advance(18)
    assert active_pods(cluster, "train") == []
    cluster.advance(5)
    assert len(active_pods(cluster, "train")) == 1
    assert status_of(cluster, "train")["failed"] == 2


def test_a_policy_can_fail_the_job_by_exit_code(cluster) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    cluster.create_job("train", podFailurePolicy={"rules": [rule]})
    cluster.advance(5)
    fail_rank(cluster, "train", 1, exit_code=42)
    cluster.advance(10)
    assert condition_of(cluster, "train", "Failed")["reason"] == "PodFailurePolicy"
    assert status_of(cluster, "train")["terminating"] == 0


def test_a_job_completes_when_every_index_has_succeeded(cluster) -> None:
    cluster.create_job("train", parallelism=2, completions=3)
    cluster.advance(5)
    for index in (0, 1, 2):
        fail_rank(cluster, "train", index, exit_code=0)
        cluster.advance(5)
    status = status_of(cluster, "train")
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    assert condition_of(cluster, "train", "Complete")["status"] == "True"
    assert status["completionTime"]


def test_fewer_parallel_pods_means_the_highest_indexes_go(cluster) -> None:
    cluster.create_job("train", parallelism=3, completions=3)
    cluster.advance(5)
    patch_job(cluster, "train", {"parallelism": 1})
    cluster.advance(5)
    left = [
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
        for pod in active_pods(cluster, "train")
    ]
    assert left == ["0"]
    assert "failed" not in status_of(cluster, "train")


@pytest.mark.parametrize(
    ("query", "left"),
    [("?propagationPolicy=Background", 0), ("", 2), ("?propagationPolicy=Foreground", 0)],
)
def test_deleting_a_job_takes_or_leaves_its_pods_as_asked(cluster, query: str, left: int) -> None:
    cluster.create_job("train")
    cluster.advance(5)
    uids = [pod["metadata"]["uid"] for pod in cluster.pods_of("train")]
    assert cluster.call("DELETE", f"{JOBS}/train{query}")[0] == 200
    cluster.advance(10)
    assert cluster.call("GET", f"{JOBS}/train")[0] == 404
    pods = cluster.simulation.registry.objects("pods", "default")
    kept = [pod for pod in pods if pod["metadata"]["uid"] in uids]
    assert len(kept) == left
    assert not any(pod["metadata"].get("finalizers") for pod in kept)


def test_a_job_managed_by_somebody_else_is_left_alone(cluster) -> None:
    cluster.create_job("train", managedBy="kueue.x-k8s.io/multikueue")
    cluster.advance(5)
    assert cluster.pods_of("train") == []


def test_a_finished_job_goes_after_its_time(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1, ttlSecondsAfterFinished=60)
    cluster.advance(5)
    fail_rank(cluster, "train", 0, exit_code=0)
    cluster.advance(50)
    assert status_of(cluster, "train")["succeeded"] == 1
    cluster.advance(15)
    assert cluster.call("GET", f"{JOBS}/train")[0] == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"completions": 5}, "spec.completions"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "spec.selector"),
        ({"template": {"spec": {"priority": 3}}}, "spec.template"),
    ],
)
def test_what_is_immutable_in_a_job_is_refused(cluster, change: dict, field: str) -> None:
    cluster.create_job("train")
    status, answer = cluster.call("PATCH", f"{JOBS}/train", {"spec": change}, content_type=MERGE)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, field)


def test_indexes_are_written_as_ranges_and_read_back() -> None:
    for indexes, text in (({0}, "0"), ({0, 1}, "0,1"), ({0, 1, 2, 5, 7, 8, 9}, "0-2,5,7-9")):
        assert write_indexes(indexes) == text
        assert parse_indexes(text) == indexes
