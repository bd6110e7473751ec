"""Each workload kind against its own controller: whose the pods are, how they stop, how they come back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import kind_manifests as manifests
import pytest
from cluster import Cluster
from controllers import Controllers
from kubelet import Grounds

from k8s.client import STRATEGIC_MERGE_PATCH
from k8s.errors import ApiError
from k8s.eviction import evict
from k8s.nodes import cordon
from k8s.objects import Pod, gpu_request, is_terminal
from k8s.resources import NODES
from k8s.view import ClusterView, ClusterWatcher
from k8s.workloads import KINDS, Workload, kind_of, owner_of, rank_of
from k8s.workloads.kind import SUSPENDED_BY_ANNOTATION

pytestmark = [
    pytest.mark.contract,
    pytest.mark.parametrize("cluster", ["real"], indirect=True),
]
PATIENCE_SECONDS = 60.0
PLURALS = {(kind.resource.api_version, kind.resource.kind): kind.resource for kind in KINDS}


@pytest.fixture(scope="session")
def controllers(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Controllers]:
    found = Controllers(cluster, tmp_path_factory.mktemp("controllers"))
    yield found
    found.stop()


class Field:
    """Grounds with a watcher on them."""

    def __init__(self, grounds: Grounds) -> None:
        self.grounds, self.cluster = grounds, grounds.cluster
        self.namespace = grounds.namespace
        # All of them, so that what is not proven yet can be.
        self.watcher = ClusterWatcher(
            self.cluster.connection,
            discovery_seconds=1.0,
            enabled=[kind.name for kind in KINDS],
        )

    def create(self, *objects: dict[str, Any]) -> None:
        for body in objects:
            known = PLURALS.get((body["apiVersion"], body["kind"]))
            plural = known.plural if known is not None else f"{body['kind'].lower()}s"
            scope = (
                ""
                if body["kind"] in ("ResourceFlavor", "ClusterQueue", "Queue")
                else f"/namespaces/{self.namespace}"
            )
            self.cluster.post(f"/apis/{body['apiVersion']}{scope}/{plural}", body)

    def until(self, holds: Callable[[ClusterView], Any], what: str) -> Any:
        return self.cluster.until(
            lambda: self.watcher.wait_synced(1.0) and holds(self.watcher.view()),
            what,
            PATIENCE_SECONDS,
        )

    def live(self, view: ClusterView, workload: Workload) -> list[Pod]:
        pods = [
            pod
            for pod in view.pods_of(workload.uid)
            if not is_terminal(pod) and pod.metadata.deletion_timestamp is None and gpu_request(pod)
        ]
        return sorted(pods, key=lambda pod: (rank_of(pod, view) or 0, pod.metadata.name))

    def find(self, kind: str) -> Workload:
        """The workload of the test, once it is seen."""

        def look(view: ClusterView) -> Workload | None:
            return next(
                (
                    found
                    for found in view.workloads.values()
                    if found.namespace == self.namespace
                    and found.kind == kind
                    and found.name == "train"
                ),
                None,
            )

        found: Workload = self.until(look, f"{kind} train is seen")
        return found

    def running(self, workload: Workload, count: int) -> list[Pod]:
        """Its pods once that many run, by rank."""

        def all_run(view: ClusterView) -> list[Pod] | None:
            pods = self.live(view, workload)
            whole = len(pods) == count and all(pod.status.phase == "Running" for pod in pods)
            return pods if whole else None

        found: list[Pod] = self.until(all_run, f"{count} pods of {workload.said} run")
        return found

    def now(self, workload: Workload) -> Workload:
        return self.watcher.view().workloads[workload.uid]


@pytest.fixture
def field(scheduled: Grounds) -> Iterator[Field]:
    scheduled.add_nodes(6)
    for name in scheduled.nodes:  # what an MPIJob's launcher asks for
        storage = {"ephemeral-storage": "100Gi"}
        scheduled.cluster.patch(
            NODES.path(name, subresource="status"),
            {"status": {"capacity": storage, "allocatable": storage}},
            content_type=STRATEGIC_MERGE_PATCH,
        )
    found = Field(scheduled)
    found.watcher.start()
    yield found
    found.watcher.stop()


def uids(pods: list[Pod]) -> set[str]:
    return {pod.metadata.uid for pod in pods}


def restart(field: Field, kind: str, *, pods: int = 2, ranks: bool = True) -> Workload:
    """Stops and starts a workload by its kind and proves both; returns it as it is afterwards."""
    workload = field.find(kind)
    before = field.running(workload, pods)
    view = field.watcher.view()
    owners = {owner.uid for pod in before if (owner := owner_of(pod, view)) is not None}
    assert owners == {workload.uid}
    if ranks:
        assert [rank_of(pod, view) for pod in before] == list(range(pods))
    workload = field.now(workload)
    assert (workload.wanted_pods, workload.gpus) == (pods, 8 * pods)
    assert workload.restart_path in ("suspend_resume", "evict")
    assert workload.refusal is None
    acting, connection = kind_of(workload), field.cluster.connection
    assert acting is not None
    assert acting.suspend(connection, workload, "op-1", dry_run=True).kind == "done"
    assert acting.suspend(connection, workload, "op-1").kind == "done"
    cordon(connection, before[0].spec.node_name)

    def stopped(view: ClusterView) -> bool:
        now = view.workloads[workload.uid]
        gone = not any(not is_terminal(pod) for pod in view.pods_of(workload.uid))
        return now.suspended and now.suspended_by == "op-1" and gone and not now.active

    field.until(stopped, f"{workload.said} has stopped, and it is known for whom")
    assert field.now(workload).generation > workload.generation
    assert acting.suspend(connection, workload, "op-1").kind == "already"
    assert acting.suspend(connection, workload, "op-2").kind == "foreign"
    assert acting.resume(connection, workload, "op-2").kind == "foreign"

    def resumed() -> bool:
        answer = acting.resume(connection, field.now(workload), "op-1")
        assert answer.kind in ("asked", "done"), answer
        return answer.kind == "done"

    field.cluster.until(resumed, f"{workload.said} goes on", PATIENCE_SECONDS)
    after = field.running(workload, pods)
    assert not uids(before) & uids(after)
    assert before[0].spec.node_name not in {pod.spec.node_name for pod in after}
    field.until(
        lambda view: not view.workloads[workload.uid].suspended, f"{workload.said} is seen to run"
    )
    now = field.now(workload)
    assert (now.suspended_by, now.finished) == (None, None)
    assert SUSPENDED_BY_ANNOTATION not in field.watcher.view().metas[workload.uid].annotations
    assert acting.resume(connection, now, "op-1").kind == "already"
    return now


def move(field: Field, workload: Workload, pod: Pod, count: int) -> list[Pod]:
    """Cordons the pod's node, evicts it, and waits until as many pods run elsewhere."""
    cordon(field.cluster.connection, pod.spec.node_name)
    assert evict(field.cluster.connection, pod).kind == "evicted"

    def back(view: ClusterView) -> list[Pod] | None:
        pods = field.live(view, workload)
        whole = len(pods) == count and all(one.status.phase == "Running" for one in pods)
        return pods if whole and pod.metadata.uid not in uids(pods) else None

    after: list[Pod] = field.until(back, f"{workload.said} is whole without {pod.metadata.name}")
    assert pod.spec.node_name not in {one.spec.node_name for one in after}
    return after


# --- built in ---------------------------------------------------------------------------------


def test_a_deployments_evicted_pod_is_made_anew_elsewhere(field: Field) -> None:
    field.create(manifests.deployment(field.namespace))
    workload = field.find("Deployment")
    before = field.running(workload, 2)
    assert owner_of(before[0], field.watcher.view()) == field.now(workload)
    assert (workload.restart_path, workload.gpus) == ("evict", 16)
    after = move(field, workload, before[0], 2)
    assert before[1].metadata.uid in uids(after)


def test_a_stateful_sets_evicted_pod_returns_under_its_name(field: Field) -> None:
    field.create(manifests.deployment(field.namespace, "StatefulSet"))
    workload = field.find("StatefulSet")
    before = field.running(workload, 2)
    assert [rank_of(pod, field.watcher.view()) for pod in before] == [0, 1]
    after = move(field, workload, before[0], 2)
    assert [pod.metadata.name for pod in after] == ["train-0", "train-1"]
    assert after[1].metadata.uid == before[1].metadata.uid


# --- by their own controllers -----------------------------------------------------------------


def test_a_jobset_is_suspended_and_resumed_without_spending_a_restart(
    field: Field, controllers: Controllers
) -> None:
    controllers.need("jobset")
    field.create(manifests.jobset(field.namespace))
    assert restart(field, "JobSet").backoff_left == 0


def test_a_jobset_that_spares_disruptions_is_restarted_by_one_eviction(
    field: Field, controllers: Controllers
) -> None:
    controllers.need("jobset")
    field.create(manifests.jobset(field.namespace, sparing=True))
    workload = field.find("JobSet")
    before = field.running(workload, 2)
    assert (workload.restart_path, workload.backoff_left) == ("evict", None)
    after = move(field, workload, before[0], 2)
    assert not uids(before) & uids(after)
    assert field.now(workload).finished is None


def test_a_trainjob_is_suspended_and_resumed_itself(field: Field, controllers: Controllers) -> None:
    controllers.need("jobset", "trainer")
    field.create(manifests.training_runtime(field.namespace), manifests.trainjob())
    restart(field, "TrainJob")


@pytest.mark.parametrize(
    "kind", ["PyTorchJob", "TFJob", "MPIJob", "XGBoostJob", "PaddleJob", "JAXJob"]
)
def test_a_kubeflow_job_is_suspended_and_resumed_by_its_run_policy(
    field: Field, controllers: Controllers, kind: str
) -> None:
    controllers.need("training-operator")
    field.create(manifests.kubeflow_job(field.namespace, kind))
    restart(field, kind)


def test_an_elastic_pytorchjobs_evicted_pod_is_made_anew(
    field: Field, controllers: Controllers
) -> None:
    controllers.need("training-operator")
    field.create(manifests.kubeflow_job(field.namespace, "PyTorchJob", elastic=True))
    workload = field.find("PyTorchJob")
    before = field.running(workload, 2)
    assert field.now(workload).restart_path == "evict"
    after = move(field, workload, before[0], 2)
    assert before[1].metadata.uid in uids(after)
    assert field.now(workload).finished is None


def test_an_evicted_pod_renews_its_group_of_a_leader_worker_set(
    field: Field, controllers: Controllers
) -> None:
    controllers.need("lws")
    field.create(manifests.leader_worker_set(field.namespace))
    workload = field.find("LeaderWorkerSet")
    before = field.running(workload, 4)
    view = field.watcher.view()
    assert [rank_of(pod, view) for pod in before] == [0, 1, 2, 3]
    assert {owner_of(pod, view) for pod in before} == {field.now(workload)}
    after = move(field, workload, before[1], 4)
    assert not {before[0].metadata.uid, before[1].metadata.uid} & uids(after)
    assert {before[2].metadata.uid, before[3].metadata.uid} <= uids(after)


def make_queue(field: Field) -> None:
    """Volcano's default queue, which its admission makes otherwise."""
    queue = {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "Queue",
        "metadata": {"name": "default"},
        "spec": {"weight": 1, "reclaimable": True},
    }
    if field.cluster.find(f"/apis/{queue['apiVersion']}/queues/default") is None:
        field.create(queue)


@pytest.fixture
def enqueued(field: Field) -> Iterator[Field]:
    """Plays Volcano's scheduler, which lets a PodGroup have pods."""
    groups = f"/apis/scheduling.volcano.sh/v1beta1/namespaces/{field.namespace}/podgroups"
    over = threading.Event()

    def admit() -> None:
        while not over.wait(0.2):
            try:
                for group in field.cluster.get(groups)["items"]:
                    if group.get("status", {}).get("phase", "Pending") == "Pending":
                        path = f"{groups}/{group['metadata']['name']}"
                        field.cluster.patch(path, {"status": {"phase": "Inqueue"}})
            except ApiError:
                continue  # not installed yet, or gone in between

    scheduler = threading.Thread(target=admit, name="scheduler of PodGroups", daemon=True)
    scheduler.start()
    yield field
    over.set()
    scheduler.join(10)


def test_a_volcano_job_is_aborted_and_resumed_for_one_retry(
    enqueued: Field, controllers: Controllers
) -> None:
    controllers.need("volcano")
    make_queue(enqueued)
    enqueued.create(manifests.volcano_job(enqueued.namespace))
    assert enqueued.find("Job").backoff_left == 2
    assert restart(enqueued, "Job").backoff_left == 1


def test_a_volcano_job_without_a_retry_left_is_refused(
    enqueued: Field, controllers: Controllers
) -> None:
    controllers.need("volcano")
    enqueued.create(manifests.volcano_job(enqueued.namespace, max_retry=1))
    workload = enqueued.find("Job")
    assert workload.restart_path == "none"
    assert "maxRetry" in (workload.refusal or "")


def test_a_ray_clusters_worker_is_replaced_and_the_whole_is_suspended_and_resumed(
    field: Field, controllers: Controllers
) -> None:
    controllers.need("ray")
    field.create(manifests.ray_cluster(field.namespace))
    workload = field.find("RayCluster")
    before = field.running(workload, 2)
    worker = next(pod for pod in before if pod.metadata.labels["ray.io/node-type"] == "worker")
    after = move(field, workload, worker, 2)
    assert len(uids(before) & uids(after)) == 1
    restart(field, "RayCluster", ranks=False)


def test_a_ray_job_is_suspended_and_resumed_itself(field: Field, controllers: Controllers) -> None:
    controllers.need("ray")
    field.create(manifests.ray_job(field.namespace))
    restart(field, "RayJob", ranks=False)


@pytest.mark.parametrize("kind", ["Job", "JobSet", "TrainJob"])
def test_what_kueue_admits_is_stopped_and_started_through_its_workload(
    field: Field, controllers: Controllers, kind: str
) -> None:
    controllers.need("jobset", "trainer", "kueue")
    field.create(*manifests.queues(field.namespace))
    labels = {manifests.QUEUE: "gpus"}
    if kind == "TrainJob":
        field.create(manifests.training_runtime(field.namespace))
    body = {
        "Job": lambda: manifests.job(field.namespace, labels=labels),
        "JobSet": lambda: manifests.jobset(field.namespace, labels=labels),
        "TrainJob": lambda: manifests.trainjob(labels=labels),
    }[kind]()
    body["spec"]["suspend"] = True
    if kind == "TrainJob":  # where Kueue writes the nodes it chose
        patch = {"template": {"spec": {}}}
        body["spec"]["runtimePatches"] = [
            {"manager": "kueue.x-k8s.io/manager", "trainingRuntimeSpec": patch}
        ]
    field.create(body)
    now = restart(field, kind)
    assert now.through is not None
    assert now.queue == "gpus"
