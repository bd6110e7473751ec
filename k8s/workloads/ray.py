"""ray.io/v1 RayClusters and RayJobs: a worker is replaced, a lost head takes the cluster's state with it.

With GCS fault tolerance a new head finds that state again. Without it the whole is suspended and resumed.
Field names read in ray-project/kuberay at feeaf72 (2026-08-19).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from k8s.objects import Narrow, ObjectMeta, PodTemplate, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import (
    QUEUE_LABEL,
    Finished,
    Proof,
    Workload,
    read_suspension,
    refusal_of,
    team_of,
)
from k8s.workloads.roles import gpus_of_template
from k8s.workloads.suspension import Switch, Switched

GROUP = "ray.io"
RAY_OPERATOR = "ray.io/kuberay-operator"
HEAD = ("ray.io/node-type", "head")
FAULT_TOLERANT_ANNOTATION = "ray.io/ft-enabled"
HEAD_WARNING = (
    "without GCS fault tolerance a lost head loses the cluster's state: when its head must go, "
    "all of it is suspended and resumed"
)


class HeadGroup(Narrow, frozen=True):
    template: PodTemplate = PodTemplate()


class WorkerGroup(Narrow, frozen=True):
    group_name: str = ""
    replicas: int | None = None
    num_of_hosts: int = 1
    suspend: bool | None = None
    template: PodTemplate = PodTemplate()

    @property
    def pods(self) -> int:
        """Pods that it should have."""
        return 0 if self.suspend else (self.replicas or 0) * max(1, self.num_of_hosts)


class ClusterSpec(Narrow, frozen=True):
    suspend: bool | None = None
    managed_by: str | None = None
    gcs_fault_tolerance_options: dict[str, Any] | None = None
    head_group_spec: HeadGroup = HeadGroup()
    worker_group_specs: tuple[WorkerGroup, ...] = ()

    @property
    def pods(self) -> int:
        """Pods that it should have, its head included."""
        return 1 + sum(group.pods for group in self.worker_group_specs)

    @property
    def gpus(self) -> int:
        """GPUs of them."""
        workers = sum(
            group.pods * gpus_of_template(group.template) for group in self.worker_group_specs
        )
        return workers + gpus_of_template(self.head_group_spec.template)


class ClusterStatus(Narrow, frozen=True):
    state: str = ""


class RayCluster(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: ClusterSpec = ClusterSpec()
    status: ClusterStatus = ClusterStatus()


class RayJobSpec(Narrow, frozen=True):
    suspend: bool = False
    managed_by: str | None = None
    shutdown_after_job_finishes: bool = False
    cluster_selector: dict[str, str] | None = None
    ray_cluster_spec: ClusterSpec | None = None


class RayJobStatus(Narrow, frozen=True):
    job_deployment_status: str = ""
    reason: str = ""
    message: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


class RayJob(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: RayJobSpec = RayJobSpec()
    status: RayJobStatus = RayJobStatus()


RAY_CLUSTERS = Resource(GROUP, "v1", "rayclusters", "RayCluster", True, RayCluster)
RAY_JOBS = Resource(GROUP, "v1", "rayjobs", "RayJob", True, RayJob)


def outlives_its_head(meta: ObjectMeta, spec: ClusterSpec) -> bool:
    """True with GCS fault tolerance: a new head finds the state of the one that was lost."""
    annotated = meta.annotations.get(FAULT_TOLERANT_ANNOTATION, "").lower() == "true"
    return annotated or spec.gcs_fault_tolerance_options is not None


def finished_as(found: RayJob) -> Finished | None:
    """How the RayJob ended, None while it has not."""
    match found.status.job_deployment_status:
        case "Complete":
            return "Complete"
        case "Failed" | "ValidationFailed":
            return "Failed"
    return None


RAY_CLUSTER_SWITCH = Switch(
    is_stopped=lambda found: bool(found.spec.suspend), has_ended=lambda found: False
)


@dataclass(frozen=True)
class RayClusterKind(Switched):
    """How Pitwall reads, suspends and resumes RayClusters."""

    name: str = "RayCluster"
    resource: Resource = RAY_CLUSTERS
    switch: Switch = RAY_CLUSTER_SWITCH
    proof: Proof = "real controller"

    def read(self, obj: RayCluster, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a RayCluster: workers move alone, the head alone only where that is survived."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        refusal = refusal_of(
            meta, api_groups=api_groups, managed_by=obj.spec.managed_by, controller=RAY_OPERATOR
        )
        survives = outlives_its_head(meta, obj.spec)
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="RayCluster",
            api_version=self.resource.api_version,
            suspended=bool(obj.spec.suspend),
            suspended_by=held.operation if held else None,
            wanted_pods=obj.spec.pods,
            managed_by=obj.spec.managed_by,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            restart_path="none" if refusal else "evict",
            refusal=refusal,
            warnings=() if survives else (HEAD_WARNING,),
            owner_uid=owner.uid if owner else None,
            gpus=obj.spec.gpus,
            lone=None if survives else HEAD,
            started_at=meta.creation_timestamp,
        )


RAY_JOB_SWITCH = Switch(
    is_stopped=lambda found: found.spec.suspend,
    has_ended=lambda found: finished_as(found) is not None,
)


@dataclass(frozen=True)
class RayJobKind(Switched):
    """How Pitwall reads, suspends and resumes RayJobs: suspending one takes its RayCluster away."""

    name: str = "RayJob"
    resource: Resource = RAY_JOBS
    switch: Switch = RAY_JOB_SWITCH
    proof: Proof = "real controller"

    def read(self, obj: RayJob, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a RayJob."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        finished, cluster = finished_as(obj), obj.spec.ray_cluster_spec or ClusterSpec()
        refusal = refusal_of(
            meta, api_groups=api_groups, managed_by=obj.spec.managed_by, controller=RAY_OPERATOR
        )
        survives = outlives_its_head(meta, cluster)
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="RayJob",
            api_version=self.resource.api_version,
            suspended=obj.spec.suspend,
            suspended_by=held.operation if held else None,
            wanted_pods=0 if finished else cluster.pods,
            finished=finished,
            managed_by=obj.spec.managed_by,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            restart_path="none" if refusal or finished else "evict",
            refusal=refusal,
            warnings=() if survives else (HEAD_WARNING,),
            owner_uid=owner.uid if owner else None,
            gpus=cluster.gpus,
            lone=None if survives else HEAD,
            lone_refusal=_not_suspended(obj),
            started_at=obj.status.start_time or meta.creation_timestamp,
            finished_at=obj.status.end_time if finished else None,
            failure=": ".join(part for part in (obj.status.reason, obj.status.message) if part)
            if finished == "Failed"
            else "",
        )


def _not_suspended(found: RayJob) -> str | None:
    """Why KubeRay does not suspend it."""
    if found.spec.cluster_selector:
        return "its head must go, and KubeRay suspends no RayJob on a cluster that it only selects"
    if not found.spec.shutdown_after_job_finishes:
        return "its head must go, and KubeRay suspends a RayJob only with shutdownAfterJobFinishes"
    return None
