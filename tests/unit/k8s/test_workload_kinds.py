"""Each workload kind as it is read: whose pods, how many GPUs, how restarted, and why not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from k8s.drain import DrainOptions, judge_pod
from k8s.errors import UnsupportedKindError
from k8s.view import view_of
from k8s.workloads import KINDS, Workload, for_pods, kind_of, owner_of, rank_of
from k8s.workloads.kind import SUSPENDED_BY_ANNOTATION, Suspension, write_suspension
from tests.cluster_objects import make_job, make_pod

NOW = datetime(2026, 11, 25, tzinfo=UTC)
KIND = {kind.name: kind for kind in reversed(KINDS)}
GPUS = {"requests": {"nvidia.com/gpu": "8"}}
TEMPLATE = {"spec": {"containers": [{"name": "train", "resources": GPUS}]}}
HELPER = {"spec": {"containers": [{"name": "helper"}]}}
DISRUPTED = {"onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
SPARING = {
    "action": "RestartJobSetAndIgnoreMaxRestarts",
    "onJobFailureReasons": ["PodFailurePolicy"],
}


def make(
    name: str,
    spec: dict[str, Any],
    *,
    status: dict[str, Any] | None = None,
    owner: tuple[str, str, str] | None = None,
    uid: str = "uid-w",
    **meta: Any,
) -> tuple[Any, Any]:
    """An object of the kind, with its resource, as view_of takes it."""
    resource = KIND[name].resource
    metadata: dict[str, Any] = {"name": "w", "namespace": "default", "uid": uid, **meta}
    if owner is not None:
        version, kind, owner_uid = owner
        metadata["ownerReferences"] = [
            {"apiVersion": version, "kind": kind, "name": "o", "uid": owner_uid, "controller": True}
        ]
    body = {"metadata": metadata, "spec": spec, "status": status or {}}
    return resource, msgspec.json.decode(msgspec.json.encode(body), type=resource.struct)


def read(name: str, spec: dict[str, Any], **options: Any) -> Workload:
    _, found = make(name, spec, **options)
    return KIND[name].read(found)


def jobset(**spec: Any) -> dict[str, Any]:
    """A helper Job of one pod without GPUs before two Jobs of four ranks."""
    job = {"parallelism": 4, "template": TEMPLATE, **spec.pop("job", {})}
    helper = {"name": "driver", "template": {"spec": {"parallelism": 1, "template": HELPER}}}
    workers = {"name": "workers", "replicas": 2, "template": {"spec": job}}
    return {"replicatedJobs": [helper, workers] if spec.pop("driver", True) else [workers], **spec}


# Shortest spec that is restarted by switching a field, and the switch.
SWITCHED = {
    "JobSet": (jobset(), ("suspend",), True),
    "TrainJob": ({"trainer": {"numNodes": 2, "resourcesPerNode": GPUS}}, ("suspend",), True),
    "PyTorchJob": (
        {"pytorchReplicaSpecs": {"Worker": {"replicas": 3, "template": TEMPLATE}}, "runPolicy": {}},
        ("runPolicy", "suspend"),
        True,
    ),
    "MPIJob": (
        {
            "mpiReplicaSpecs": {
                "Launcher": {"template": HELPER},
                "Worker": {"replicas": 2, "template": TEMPLATE},
            },
            "runPolicy": {},
        },
        ("runPolicy", "suspend"),
        True,
    ),
}


@pytest.mark.parametrize("name", SWITCHED)
def test_a_switched_kind_tells_that_it_is_stopped_and_by_whom(name: str) -> None:
    spec, path, value = SWITCHED[name]
    assert (read(name, spec).restart_path, read(name, spec).suspended) == ("suspend_resume", False)
    stopped = msgspec.json.decode(msgspec.json.encode(spec))
    inner = stopped
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    text = write_suspension(Suspension("op-1", False, "uid-w"))
    workload = read(name, stopped, annotations={SUSPENDED_BY_ANNOTATION: text})
    assert (workload.suspended, workload.suspended_by) == (True, "op-1")


@pytest.mark.parametrize(
    ("name", "pods", "gpus"),
    [("JobSet", 9, 64), ("TrainJob", 2, 16), ("PyTorchJob", 3, 24), ("MPIJob", 3, 16)],
)
def test_a_kinds_pods_and_gpus_are_told_by_its_template(name: str, pods: int, gpus: int) -> None:
    workload = read(name, SWITCHED[name][0])
    assert (workload.wanted_pods, workload.gpus) == (pods, gpus)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("JobSet", {"managedBy": "kueue.x-k8s.io/multikueue"}),
        ("TrainJob", {"managedBy": "kueue.x-k8s.io/multikueue"}),
        ("PyTorchJob", {"runPolicy": {"managedBy": "kueue.x-k8s.io/multikueue"}}),
        ("RayCluster", {"managedBy": "kueue.x-k8s.io/multikueue"}),
        ("RayJob", {"managedBy": "kueue.x-k8s.io/multikueue"}),
    ],
)
def test_what_another_controller_manages_is_refused(name: str, spec: dict[str, Any]) -> None:
    workload = read(name, spec)
    assert workload.restart_path == "none"
    assert "multikueue" in (workload.refusal or "")


@pytest.mark.parametrize(
    ("name", "conditions", "how"),
    [
        ("JobSet", [{"type": "Completed", "status": "True"}], "Complete"),
        ("JobSet", [{"type": "Failed", "status": "True", "reason": "Why"}], "Failed"),
        ("TrainJob", [{"type": "Complete", "status": "True"}], "Complete"),
        ("PyTorchJob", [{"type": "Succeeded", "status": "True"}], "Complete"),
        ("PyTorchJob", [{"type": "Failed", "status": "True", "reason": "Why"}], "Failed"),
    ],
)
def test_what_has_ended_is_not_restarted(name: str, conditions: list[Any], how: str) -> None:
    workload = read(name, SWITCHED[name][0], status={"conditions": conditions})
    assert (workload.finished, workload.restart_path, workload.wanted_pods) == (how, "none", 0)
    assert workload.failure == ("Why" if how == "Failed" else "")


# --- JobSet -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job_rule", "set_rule", "path"),
    [
        ({"action": "FailJob", **DISRUPTED}, SPARING, "evict"),
        ({"action": "FailJob", **DISRUPTED}, {**SPARING, "onJobFailureReasons": []}, "evict"),
        ({"action": "Ignore", **DISRUPTED}, SPARING, "suspend_resume"),
        ({"action": "FailJob", **DISRUPTED}, {"action": "RestartJobSet"}, "suspend_resume"),
        (
            {"action": "FailJob", **DISRUPTED},
            {**SPARING, "targetReplicatedJobs": ["others"]},
            "suspend_resume",
        ),
        (
            {"action": "FailJob", **DISRUPTED},
            {**SPARING, "onJobFailureMessagePatterns": ["x"]},
            "suspend_resume",
        ),
    ],
)
def test_only_a_jobset_with_the_whole_pattern_is_restarted_by_one_eviction(
    job_rule: dict[str, Any], set_rule: dict[str, Any], path: str
) -> None:
    spec = jobset(
        driver=False,
        job={"podFailurePolicy": {"rules": [job_rule]}},
        failurePolicy={"maxRestarts": 3, "rules": [set_rule]},
    )
    workload = read("JobSet", spec, status={"restarts": 1})
    assert workload.restart_path == path
    if path == "evict":
        assert workload.backoff_left is None


@pytest.mark.parametrize(
    ("status", "left"),
    [({}, 3), ({"restarts": 2}, 1), ({"restarts": 5, "restartsCountTowardsMax": 1}, 2)],
)
def test_the_restarts_that_a_jobset_has_left_are_those_that_count(
    status: dict[str, Any], left: int
) -> None:
    assert (
        read("JobSet", jobset(failurePolicy={"maxRestarts": 3}), status=status).backoff_left == left
    )


def jobset_pod(role: str, index: int, place: int) -> Any:
    labels = {
        "jobset.sigs.k8s.io/replicatedjob-name": role,
        "jobset.sigs.k8s.io/job-index": str(index),
        "jobset.sigs.k8s.io/job-global-index": "0",
    }
    owner = ("batch/v1", "Job", "uid-job")
    return make_pod(f"{role}-{index}-{place}", owner=owner, rank=place, labels=labels)


def test_ranks_of_a_jobset_go_through_all_of_its_jobs_and_helpers_come_last() -> None:
    job = make_job(owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-w"))
    view = view_of(jobs=[job], others=[make("JobSet", jobset())])
    pods = [jobset_pod("workers", job_index, place) for job_index in (0, 1) for place in range(4)]
    assert [rank_of(pod, view) for pod in pods] == list(range(8))
    assert rank_of(jobset_pod("driver", 0, 0), view) == 8


# --- TrainJob ---------------------------------------------------------------------------------


def test_a_trainjob_owns_its_pods_through_jobset_and_job_and_learns_from_them() -> None:
    train = make("TrainJob", {}, uid="uid-train")
    inner = make(
        "JobSet",
        jobset(),
        uid="uid-set",
        owner=("trainer.kubeflow.org/v1alpha1", "TrainJob", "uid-train"),
    )
    job = make_job(owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-set"))
    pod = jobset_pod("workers", 1, 2)
    view = view_of(jobs=[job], pods=[pod], others=[inner, train])
    owner = owner_of(pod, view)
    assert owner is not None
    assert (owner.kind, owner.restart_path) == ("TrainJob", "suspend_resume")
    assert (owner.wanted_pods, owner.gpus) == (9, 64)
    assert [one.metadata.name for one in view.pods_of("uid-train")] == [pod.metadata.name]
    assert rank_of(pod, view) == 6
    assert "TrainJob" in (view.workloads["uid-set"].refusal or "")


def test_what_has_ended_hands_over_to_the_topmost_owner_that_has_not() -> None:
    cluster = make("RayCluster", {}, uid="uid-ray", owner=("ray.io/v1", "RayJob", "uid-job-of-ray"))
    job = make("RayJob", {}, uid="uid-job-of-ray", status={"jobDeploymentStatus": "Complete"})
    pod = make_pod("a", owner=("ray.io/v1", "RayCluster", "uid-ray"))
    owner = owner_of(pod, view_of(others=[cluster, job]))
    assert owner is not None
    assert owner.kind == "RayCluster"


def test_owners_that_own_each_other_end_the_chain() -> None:
    ring = make("JobSet", jobset(), owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-w"))
    view = view_of(others=[ring])
    pod = make_pod("a", owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-w"))
    assert owner_of(pod, view) == view.workloads["uid-w"]
    assert view.pods_of("uid-w") == ()


# --- kubeflow.org -----------------------------------------------------------------------------


def test_a_pytorchjobs_master_is_rank_0_and_its_workers_follow() -> None:
    replicas = {
        "Worker": {"replicas": 2, "template": TEMPLATE},
        "Master": {"replicas": 1, "template": TEMPLATE},
    }
    view = view_of(others=[make("PyTorchJob", {"pytorchReplicaSpecs": replicas})])

    def pod(role: str, index: int) -> Any:
        labels = {
            "training.kubeflow.org/replica-type": role,
            "training.kubeflow.org/replica-index": str(index),
        }
        owner = ("kubeflow.org/v1", "PyTorchJob", "uid-w")
        return make_pod(f"{role}-{index}", owner=owner, labels=labels)

    pods = [pod("master", 0), pod("worker", 0), pod("worker", 1)]
    assert [rank_of(one, view) for one in pods] == [0, 1, 2]


def test_an_mpijobs_launcher_has_no_index_and_comes_after_the_gpus() -> None:
    view = view_of(others=[make("MPIJob", SWITCHED["MPIJob"][0])])
    labels = {"training.kubeflow.org/replica-type": "launcher"}
    pod = make_pod("l", owner=("kubeflow.org/v1", "MPIJob", "uid-w"), labels=labels)
    assert rank_of(pod, view) == 2


@pytest.mark.parametrize(
    ("elastic", "policy", "path"),
    [
        ({"minReplicas": 1}, "OnFailure", "evict"),
        ({"minReplicas": 1}, "ExitCode", "suspend_resume"),
        ({"minReplicas": 1}, "Never", "suspend_resume"),
        (None, "OnFailure", "suspend_resume"),
    ],
)
def test_only_an_elastic_pytorchjob_of_on_failure_loses_pods_alone(
    elastic: dict[str, Any] | None, policy: str, path: str
) -> None:
    worker = {"replicas": 2, "restartPolicy": policy, "template": TEMPLATE}
    spec = {"pytorchReplicaSpecs": {"Worker": worker}, "elasticPolicy": elastic}
    workload = read("PyTorchJob", spec)
    assert (workload.restart_path, workload.gang) == (path, path != "evict")


# --- Kueue ------------------------------------------------------------------------------------


def admitted(**spec: Any) -> tuple[Any, Any]:
    return make(
        "Kueue",
        {"queueName": "gpus", **spec},
        uid="uid-kueue",
        owner=("batch/v1", "Job", "uid-job"),
        generation=5,
        annotations={
            SUSPENDED_BY_ANNOTATION: write_suspension(Suspension("op-1", False, "uid-kueue"))
        }
        if spec.get("active") is False
        else {},
    )


QUEUED = {"kueue.x-k8s.io/queue-name": "gpus"}
GROUPS = frozenset({"kueue.x-k8s.io"})


def test_a_queued_gang_is_restarted_through_kueues_workload_once_that_is_seen() -> None:
    job = make_job(labels=QUEUED)
    unseen = view_of(jobs=[job], api_groups=GROUPS).workloads["uid-job"]
    assert unseen.restart_path == "none"
    assert "Kueue" in (unseen.refusal or "")
    view = view_of(jobs=[job], others=[admitted()], api_groups=GROUPS)
    seen = view.workloads["uid-job"]
    assert (seen.restart_path, seen.refusal, seen.generation) == ("suspend_resume", None, 5)
    assert kind_of(seen) is KIND["Kueue"]
    assert "uid-kueue" not in view.workloads


def test_a_job_that_waits_for_admission_is_not_suspended_by_anybody() -> None:
    job = make_job(labels=QUEUED, suspend=True)
    waiting = view_of(jobs=[job], others=[admitted()], api_groups=GROUPS).workloads["uid-job"]
    assert (waiting.suspended, waiting.suspended_by) == (False, None)
    inactive = view_of(jobs=[job], others=[admitted(active=False)], api_groups=GROUPS)
    stopped = inactive.workloads["uid-job"]
    assert (stopped.suspended, stopped.suspended_by) == (True, "op-1")


def test_kueue_lifts_no_other_refusal() -> None:
    job = make_job(labels=QUEUED, managedBy="kueue.x-k8s.io/multikueue")
    workload = view_of(jobs=[job], others=[admitted()], api_groups=GROUPS).workloads["uid-job"]
    assert workload.restart_path == "none"


# --- LeaderWorkerSet, Volcano, Ray -----------------------------------------------------------


def test_a_worker_belongs_to_its_leader_worker_set_through_its_leaders_pod() -> None:
    version = "leaderworkerset.x-k8s.io/v1"
    template = {"size": 3, "workerTemplate": TEMPLATE}
    lws = make("LeaderWorkerSet", {"replicas": 2, "leaderWorkerTemplate": template}, uid="uid-lws")
    leaders = make(
        "StatefulSet", {"replicas": 2}, uid="uid-ls", owner=(version, "LeaderWorkerSet", "uid-lws")
    )
    workers = make("StatefulSet", {"replicas": 2}, uid="uid-ws", owner=("v1", "Pod", "uid-lead"))

    def labels(place: int) -> dict[str, str]:
        return {
            "leaderworkerset.sigs.k8s.io/worker-index": str(place),
            "leaderworkerset.sigs.k8s.io/group-index": "1",
        }

    lead = make_pod("lead", owner=("apps/v1", "StatefulSet", "uid-ls"), labels=labels(0))
    worker = make_pod("worker", owner=("apps/v1", "StatefulSet", "uid-ws"), labels=labels(2))
    view = view_of(pods=[lead, worker], others=[lws, leaders, workers])
    owner = owner_of(worker, view)
    assert owner is not None
    assert (owner.kind, owner.restart_path, owner.gpus) == ("LeaderWorkerSet", "evict", 48)
    assert {pod.metadata.name for pod in view.pods_of("uid-lws")} == {"lead", "worker"}
    assert [rank_of(pod, view) for pod in (lead, worker)] == [3, 5]
    assert "group of 3" in owner.warnings[0]


@pytest.mark.parametrize(
    ("spent", "path"), [(0, "suspend_resume"), (1, "suspend_resume"), (2, "none")]
)
def test_a_volcano_job_is_restarted_only_while_a_retry_is_left(spent: int, path: str) -> None:
    spec = {"maxRetry": 3, "tasks": [{"name": "w", "replicas": 2, "template": TEMPLATE}]}
    status = {"state": {"phase": "Running"}, "retryCount": spent}
    workload = read("VolcanoJob", spec, status=status)
    assert (workload.restart_path, workload.backoff_left) == (path, 2 - spent)
    assert (workload.refusal is not None) == (path == "none")


@pytest.mark.parametrize(
    ("phase", "version", "by"),
    [("Running", 4, None), ("Aborting", 5, "op-1"), ("Aborted", 5, "op-1"), ("Running", 6, "op-1")],
)
def test_an_abort_that_was_only_asked_for_is_not_one_that_was_taken_back(
    phase: str, version: int, by: str | None
) -> None:
    text = write_suspension(Suspension("op-1", False, "uid-w", mark=4))
    workload = read(
        "VolcanoJob",
        {"maxRetry": 3},
        status={"state": {"phase": phase}, "version": version},
        annotations={SUSPENDED_BY_ANNOTATION: text},
    )
    assert workload.suspended_by == by
    assert workload.suspended is phase.startswith("Abort")


def ray_pod(role: str) -> Any:
    return make_pod(
        role, owner=("ray.io/v1", "RayCluster", "uid-w"), labels={"ray.io/node-type": role}
    )


@pytest.mark.parametrize(
    ("annotations", "roles", "path"),
    [
        ({}, ("worker",), "evict"),
        ({}, ("worker", "head"), "suspend_resume"),
        ({"ray.io/ft-enabled": "true"}, ("worker", "head"), "evict"),
    ],
)
def test_a_ray_head_is_not_lost_alone_without_fault_tolerance(
    annotations: dict[str, str], roles: tuple[str, ...], path: str
) -> None:
    workload = read("RayCluster", {}, annotations=annotations)
    assert for_pods(workload, [ray_pod(role) for role in roles]).restart_path == path


def test_a_ray_job_that_can_not_be_suspended_refuses_to_lose_its_head() -> None:
    kept = for_pods(read("RayJob", {"shutdownAfterJobFinishes": True}), [ray_pod("head")])
    assert kept.restart_path == "suspend_resume"
    refused = for_pods(read("RayJob", {}), [ray_pod("head")])
    assert refused.restart_path == "none"
    assert "shutdownAfterJobFinishes" in (refused.refusal or "")


# --- the rest ---------------------------------------------------------------------------------


def test_a_deployment_owns_its_pods_through_its_replica_set() -> None:
    spec = {"replicas": 2, "template": TEMPLATE}
    deployment = make("Deployment", spec, uid="uid-d")
    middle = make("ReplicaSet", spec, uid="uid-rs", owner=("apps/v1", "Deployment", "uid-d"))
    pod = make_pod("a", owner=("apps/v1", "ReplicaSet", "uid-rs"))
    view = view_of(pods=[pod], others=[deployment, middle])
    owner = owner_of(pod, view)
    assert owner is not None
    assert (owner.kind, owner.restart_path, owner.gpus) == ("Deployment", "evict", 16)


def test_evicting_kinds_refuse_to_be_suspended() -> None:
    workload = read("Deployment", {})
    with pytest.raises(UnsupportedKindError):
        KIND["Deployment"].suspend(None, workload, "op-1")  # type: ignore[arg-type]


def test_a_pod_whose_replica_set_exists_no_more_is_made_anew_by_nobody() -> None:
    other = make("ReplicaSet", {}, uid="uid-other")
    pod = make_pod("a", owner=("apps/v1", "ReplicaSet", "uid-gone"))
    verdict = judge_pod(pod, view=view_of(others=[other]), options=DrainOptions(), now=NOW)
    assert verdict.action == "block"
    assert "exists no more" in verdict.reasons[0]


def test_a_kind_that_is_not_proven_is_refused_unless_the_site_enables_it() -> None:
    found = make("MPIJobV2", SWITCHED["MPIJob"][0])
    refused = view_of(others=[found]).workloads["uid-w"]
    assert refused.restart_path == "none"
    assert "PITWALL_ENABLED_KINDS=MPIJobV2" in (refused.refusal or "")
    enabled = view_of(others=[found], enabled=["MPIJobV2"]).workloads["uid-w"]
    assert (enabled.restart_path, enabled.refusal) == ("suspend_resume", None)


def test_an_owner_forgets_what_its_child_told_once_that_is_gone() -> None:
    from k8s.workloads.gathered import Gathered

    gathered = Gathered(KINDS)
    resource, item = admitted()
    gathered.put(KIND["Job"].resource, make_job(labels=QUEUED), GROUPS)
    gathered.put(resource, item, GROUPS)
    assert gathered.workloads["uid-job"].through is not None
    gathered.drop("uid-kueue")
    assert gathered.workloads["uid-job"].through is None
    assert gathered.workloads["uid-job"].restart_path == "none"
