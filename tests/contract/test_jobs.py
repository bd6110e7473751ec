"""How Jobs behave when they are suspended, resumed, and lose pods."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kubelet import Grounds

from k8s.errors import ApiError
from k8s.eviction import evict
from k8s.nodes import cordon
from k8s.objects import Job, Pod, condition
from k8s.resources import JOBS, PODS
from k8s.workloads.job import JobKind
from k8s.workloads.kind import SUSPENDED_BY_ANNOTATION, Workload, read_suspension

pytestmark = pytest.mark.contract
KIND = JobKind()
TRACKING = "batch.kubernetes.io/job-tracking"
IGNORE_DISRUPTION = {
    "rules": [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]
}


@pytest.fixture
def field(scheduled: Grounds) -> Grounds:
    """Grounds with four nodes, for gangs of two."""
    scheduled.add_nodes(4)
    return scheduled


def job_of(field: Grounds, name: str = "train") -> Job:
    return field.cluster.job(field.namespace, name)


def workload_of(field: Grounds, name: str = "train") -> Workload:
    return KIND.read(job_of(field, name))


def uids(pods: list[Pod]) -> set[str]:
    return {pod.metadata.uid for pod in pods}


def await_job(field: Grounds, what: str, holds: Any, name: str = "train") -> Job:
    def settled() -> Job | None:
        job = job_of(field, name)
        return job if holds(job) else None

    found: Job = field.cluster.until(settled, f"Job {name} {what}")
    return found


def await_stopped(field: Grounds) -> None:
    await_job(
        field,
        "has stopped",
        lambda job: job.spec.suspend and not job.status.active and not job.status.terminating,
    )


def test_an_indexed_job_runs_a_pod_a_rank_that_carries_its_index_and_its_finalizer(field):
    pods = field.job(parallelism=3)
    job = await_job(field, "counts its pods", lambda job: job.status.ready == 3)
    assert job.status.active == 3
    for rank, pod in enumerate(pods):
        key = "batch.kubernetes.io/job-completion-index"
        assert pod.metadata.labels[key] == pod.metadata.annotations[key] == str(rank)
        assert TRACKING in pod.metadata.finalizers
        assert pod.metadata.owner_references[0].uid == job.metadata.uid
    assert len({pod.spec.node_name for pod in pods}) == 3
    workload = KIND.read(job)
    assert (workload.gang, workload.restart_path, workload.wanted_pods) == (
        True,
        "suspend_resume",
        3,
    )


# --- suspend and resume ---------------------------------------------------------------------


def test_a_suspended_gang_counts_down_through_terminating_and_comes_back_whole(field):
    before = field.job(backoffLimit=0)
    field.await_ready("train", 2)
    field.kubelets.reluctant = True
    connection, workload = field.cluster.connection, workload_of(field)
    assert KIND.suspend(connection, workload, "op-1").kind == "done"
    ending = await_job(field, "has two pods that end", lambda job: job.status.terminating == 2)
    assert ending.status.active == 0
    field.kubelets.reluctant = False
    await_stopped(field)
    field.cluster.until(lambda: not field.cluster.pods(field.namespace), "its pods are gone")
    assert KIND.resume(connection, workload, "op-1").kind == "done"
    after = field.running_ranks("train", 2)
    assert not uids(before) & uids(after)
    job = await_job(field, "is whole", lambda job: job.status.ready == 2)
    assert job.status.failed == 0  # backoffLimit 0 would have failed it
    assert SUSPENDED_BY_ANNOTATION not in job.metadata.annotations


def test_a_suspended_job_says_so_in_its_conditions(field):
    field.job()
    KIND.suspend(field.cluster.connection, workload_of(field), "op-1")

    def suspended(job: Job) -> bool:
        said = condition(job.status.conditions, "Suspended")
        return said is not None and said.status == "True"

    await_job(field, "is Suspended", suspended)


def test_the_suspension_and_whose_it_is_are_written_together(field):
    field.cluster.create_job(field.namespace, "train", suspend=False)
    answer = KIND.suspend(field.cluster.connection, workload_of(field), "op-1")
    job = job_of(field)
    held = read_suspension(job.metadata)
    assert held is not None
    assert (held.operation, held.was_suspended, held.uid) == ("op-1", False, job.metadata.uid)
    assert job.spec.suspend
    assert answer.generation == job.metadata.generation == 2


def test_a_suspension_is_done_once_also_after_a_crash(field):
    field.cluster.create_job(field.namespace, "train")
    connection, workload = field.cluster.connection, workload_of(field)
    KIND.suspend(connection, workload, "op-1")
    version = job_of(field).metadata.generation
    assert KIND.suspend(connection, workload, "op-1").kind == "already"
    assert job_of(field).metadata.generation == version
    assert KIND.resume(connection, workload, "op-1").kind == "done"
    assert KIND.resume(connection, workload, "op-1").kind == "already"


def test_a_job_that_somebody_else_suspended_is_left_alone(field):
    field.cluster.create_job(field.namespace, "train", suspend=True)
    connection, workload = field.cluster.connection, workload_of(field)
    assert KIND.suspend(connection, workload, "op-1").kind == "foreign"
    assert KIND.resume(connection, workload, "op-1").kind == "foreign"
    assert job_of(field).spec.suspend
    assert SUSPENDED_BY_ANNOTATION not in job_of(field).metadata.annotations


def test_an_operation_resumes_only_what_it_suspended_itself(field):
    field.cluster.create_job(field.namespace, "train")
    connection, workload = field.cluster.connection, workload_of(field)
    KIND.suspend(connection, workload, "op-1")
    assert KIND.suspend(connection, workload, "op-2").kind == "foreign"
    assert KIND.resume(connection, workload, "op-2").kind == "foreign"
    assert job_of(field).spec.suspend


def test_a_job_that_a_person_has_resumed_meanwhile_only_loses_our_annotation(field):
    field.cluster.create_job(field.namespace, "train")
    connection, workload = field.cluster.connection, workload_of(field)
    KIND.suspend(connection, workload, "op-1")
    path = JOBS.path("train", namespace=field.namespace)
    field.cluster.patch(path, {"spec": {"suspend": False}}, params={"fieldManager": "kubectl"})
    assert KIND.suspend(connection, workload, "op-1").kind == "foreign"
    assert KIND.resume(connection, workload, "op-1").kind == "already"
    job = job_of(field)
    assert not job.spec.suspend
    assert SUSPENDED_BY_ANNOTATION not in job.metadata.annotations


def test_a_job_that_a_person_has_resumed_and_suspended_again_is_theirs(field):
    field.cluster.create_job(field.namespace, "train")
    connection, workload = field.cluster.connection, workload_of(field)
    KIND.suspend(connection, workload, "op-1")
    path = JOBS.path("train", namespace=field.namespace)
    managed = field.cluster.get(path)["metadata"].get("managedFields")
    if not managed:
        pytest.skip("the simulator keeps no managedFields, by which the owner of a field is known")
    for suspend in (False, True):
        field.cluster.patch(
            path, {"spec": {"suspend": suspend}}, params={"fieldManager": "kubectl"}
        )
    answer = KIND.resume(connection, workload, "op-1")
    assert answer.kind == "foreign"
    assert "kubectl" in answer.message
    assert job_of(field).spec.suspend


def test_a_job_of_the_same_name_is_not_the_job(field):
    field.cluster.create_job(field.namespace, "train")
    connection, workload = field.cluster.connection, workload_of(field)
    path = JOBS.path("train", namespace=field.namespace)
    field.cluster.delete(path, propagationPolicy="Background")
    field.cluster.until(lambda: field.cluster.find(path) is None, "the Job is gone")
    assert KIND.suspend(connection, workload, "op-1").kind == "gone"
    field.cluster.create_job(field.namespace, "train")
    assert KIND.suspend(connection, workload, "op-1").kind == "replaced"
    assert not job_of(field).spec.suspend


def test_a_suspension_can_be_rehearsed(field):
    field.cluster.create_job(field.namespace, "train")
    answer = KIND.suspend(field.cluster.connection, workload_of(field), "op-1", dry_run=True)
    assert answer.kind == "done"
    assert not job_of(field).spec.suspend
    assert SUSPENDED_BY_ANNOTATION not in job_of(field).metadata.annotations


def test_a_conflict_while_suspending_is_tried_again(field):
    field.cluster.create_job(field.namespace, "train")
    connection = field.cluster.connection
    original, raced = connection.request, []

    def request(method: str, path: str, **options: Any) -> Any:
        if method == "PATCH" and not raced:
            raced.append(1)
            field.cluster.patch(path, {"metadata": {"labels": {"raced": "yes"}}})
        return original(method, path, **options)

    connection.request = request
    try:
        assert KIND.suspend(connection, workload_of(field), "op-1").kind == "done"
    finally:
        del connection.request
    assert job_of(field).metadata.labels["raced"] == "yes"
    assert job_of(field).spec.suspend


def test_a_finished_job_is_not_suspended(field):
    for pod in field.job():
        field.kubelets.finish(pod, "Succeeded", exit_code=0)
    job = await_job(field, "is Complete", lambda job: KIND.read(job).finished == "Complete")
    assert job.status.succeeded == 2
    answer = KIND.suspend(field.cluster.connection, KIND.read(job), "op-1")
    assert answer.kind == "finished"
    assert not job_of(field).spec.suspend


def test_a_jobs_template_can_not_be_changed_while_it_runs(field):
    field.job()
    path = JOBS.path("train", namespace=field.namespace)
    change = {"spec": {"template": {"spec": {"nodeSelector": {"pool": "elsewhere"}}}}}
    with pytest.raises(ApiError) as raised:
        field.cluster.patch(path, change)
    assert (raised.value.status, raised.value.reason) == (422, "Invalid")


# --- pods that are lost ---------------------------------------------------------------------


def test_an_evicted_rank_is_replaced_once_its_phase_is_failed_and_a_policy_spares_the_backoff(
    field,
):
    first, second = field.job(backoffLimit=0, podFailurePolicy=IGNORE_DISRUPTION)
    field.await_ready("train", 2)
    assert workload_of(field).backoff_left is None
    field.kubelets.stubborn.add(first.metadata.uid)
    cordon(field.cluster.connection, first.spec.node_name)
    assert evict(field.cluster.connection, first).kind == "evicted"
    await_job(field, "counts a pod that ends", lambda job: job.status.terminating == 1)
    time.sleep(1.5)  # longer than a controller takes
    assert uids(field.live("train")) == {second.metadata.uid}
    field.kubelets.stubborn.clear()
    after = field.running_ranks("train", 2)  # the Job controller lets 10 s pass after a failure
    assert job_of(field).status.failed == 0
    assert after[1].metadata.uid == second.metadata.uid
    replacement = after[0]
    assert replacement.metadata.uid != first.metadata.uid
    assert replacement.spec.node_name not in (first.spec.node_name, second.spec.node_name)
    field.cluster.until(
        lambda: uids(field.cluster.pods(field.namespace)) == uids(after), "the old pod is gone"
    )


def test_an_evicted_rank_counts_towards_backoff_without_a_policy(field):
    first, _ = field.job(backoffLimit=0)
    field.await_ready("train", 2)
    assert workload_of(field).backoff_left == 0
    evict(field.cluster.connection, first)
    job = await_job(field, "has failed", lambda job: KIND.read(job).finished == "Failed")
    failed = condition(job.status.conditions, "Failed")
    assert failed is not None
    assert failed.reason == "BackoffLimitExceeded"


def test_a_policy_does_not_spare_a_rank_that_crashes_by_itself(field):
    first, _ = field.job(backoffLimit=0, podFailurePolicy=IGNORE_DISRUPTION)
    field.await_ready("train", 2)
    field.kubelets.finish(first, "Failed", exit_code=1)
    await_job(field, "has failed", lambda job: KIND.read(job).finished == "Failed")


def test_a_rank_on_a_dead_node_stays_terminating_and_gets_no_replacement(field):
    first, second = field.job(grace_seconds=1)
    field.await_ready("train", 2)
    field.kubelets.dead.add(first.spec.node_name)
    assert evict(field.cluster.connection, first).kind == "evicted"
    await_job(field, "counts a pod that ends", lambda job: job.status.terminating == 1)
    time.sleep(2.5)
    assert uids(field.live("train")) == {second.metadata.uid}
    job = job_of(field)
    assert (job.status.active, job.status.terminating) == (1, 1)


def test_a_gang_with_a_rank_on_a_dead_node_never_stops_when_suspended(field):
    first, _ = field.job(grace_seconds=1)
    field.await_ready("train", 2)
    field.kubelets.dead.add(first.spec.node_name)
    KIND.suspend(field.cluster.connection, workload_of(field), "op-1")
    await_job(
        field,
        "waits for the dead node's pod alone",
        lambda job: job.status.active == 0 and job.status.terminating == 1,
    )
    time.sleep(1.5)
    assert job_of(field).status.terminating == 1
    field.kubelets.dead.clear()  # the node answers again
    await_stopped(field)


def test_a_resumed_gang_lands_off_cordoned_nodes(field):
    before = field.job()
    connection, workload = field.cluster.connection, workload_of(field)
    for pod in before:
        cordon(connection, pod.spec.node_name)
    KIND.suspend(connection, workload, "op-1")
    await_stopped(field)
    KIND.resume(connection, workload, "op-1")
    after = field.running_ranks("train", 2)
    used = {pod.spec.node_name for pod in before}
    assert not used & {pod.spec.node_name for pod in after}


def test_a_gang_that_does_not_fit_waits_pending(field):
    pods = field.job(parallelism=4)
    connection, workload = field.cluster.connection, workload_of(field)
    cordon(connection, pods[0].spec.node_name)
    KIND.suspend(connection, workload, "op-1")
    await_stopped(field)
    KIND.resume(connection, workload, "op-1")

    def three_run_and_one_waits() -> bool:
        live = field.live("train")
        waiting = [pod for pod in live if not pod.spec.node_name]
        said = [condition(pod.status.conditions, "PodScheduled") for pod in waiting]
        return len(live) == 4 and [entry.reason for entry in said if entry] == ["Unschedulable"]

    field.cluster.until(three_run_and_one_waits, "one rank is Unschedulable")


def test_deleting_a_job_takes_its_pods_with_it(field):
    field.job()
    field.cluster.delete(
        JOBS.path("train", namespace=field.namespace), propagationPolicy="Background"
    )
    field.cluster.until(lambda: not field.cluster.pods(field.namespace), "its pods are gone")


def test_a_pod_of_a_gang_is_found_by_its_owner(field):
    first, _ = field.job()
    path = PODS.path(first.metadata.name, namespace=field.namespace)
    owner = field.cluster.get(path)["metadata"]["ownerReferences"][0]
    assert (owner["apiVersion"], owner["kind"], owner["controller"]) == ("batch/v1", "Job", True)
