"""kubeflow.org jobs: PyTorchJob and its kin, stopped and started by runPolicy.suspend.

Its restartPolicy ExitCode tries codes from 128 on again and Never fails the job, so a lost pod may end it; a
suspended one is counted nowhere. An elastic PyTorchJob of OnFailure goes on without an evicted pod.
Field names read in kubeflow/training-operator at v1.9.0, kubeflow/mpi-operator's as Kueue reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from k8s.objects import Condition, Narrow, ObjectMeta, PodTemplate, condition, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import (
    QUEUE_LABEL,
    Finished,
    RestartPath,
    Workload,
    read_suspension,
    refusal_of,
    team_of,
)
from k8s.workloads.roles import RankLabels, Role, gpus_in, gpus_of_template, number, pods_in
from k8s.workloads.suspension import Switch, Switched

GROUP = "kubeflow.org"
TRAINING_OPERATOR = "kubeflow.org/training-operator"
MPI_OPERATOR = "kubeflow.org/mpi-operator"
KUBEFLOW_RANKS = RankLabels(
    place="training.kubeflow.org/replica-index", role="training.kubeflow.org/replica-type"
)
# Who speaks for the others is the first of them; the rest follow by name.
LEADERS = ("Master", "Chief", "Launcher")


class ReplicaSpec(Narrow, frozen=True):
    replicas: int | None = None
    template: PodTemplate = PodTemplate()
    restart_policy: str = ""


Replicas = Mapping[str, ReplicaSpec]


class RunPolicy(Narrow, frozen=True):
    suspend: bool | None = None
    managed_by: str | None = None
    backoff_limit: int | None = None


class KubeflowSpec(Narrow, frozen=True):
    """The spec of any of them: one of the maps of replicas is filled."""

    run_policy: RunPolicy = RunPolicy()
    elastic_policy: dict[str, Any] | None = None
    pytorch_replica_specs: dict[str, ReplicaSpec] = msgspec.field(
        name="pytorchReplicaSpecs", default={}
    )
    tf_replica_specs: dict[str, ReplicaSpec] = msgspec.field(name="tfReplicaSpecs", default={})
    mpi_replica_specs: dict[str, ReplicaSpec] = msgspec.field(name="mpiReplicaSpecs", default={})
    xgb_replica_specs: dict[str, ReplicaSpec] = msgspec.field(name="xgbReplicaSpecs", default={})
    paddle_replica_specs: dict[str, ReplicaSpec] = msgspec.field(
        name="paddleReplicaSpecs", default={}
    )
    jax_replica_specs: dict[str, ReplicaSpec] = msgspec.field(name="jaxReplicaSpecs", default={})

    @property
    def replicas(self) -> Replicas:
        """The map that is filled."""
        return (
            self.pytorch_replica_specs
            or self.tf_replica_specs
            or self.mpi_replica_specs
            or self.xgb_replica_specs
            or self.paddle_replica_specs
            or self.jax_replica_specs
        )


class ReplicaCount(Narrow, frozen=True):
    active: int = 0


class KubeflowStatus(Narrow, frozen=True):
    conditions: tuple[Condition, ...] | None = None
    replica_statuses: dict[str, ReplicaCount] | None = None
    start_time: datetime | None = None
    completion_time: datetime | None = None


class KubeflowJob(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: KubeflowSpec = KubeflowSpec()
    status: KubeflowStatus = KubeflowStatus()


def ended(found: KubeflowJob) -> tuple[Finished | None, datetime | None, str]:
    """How and when the job ended, and why it failed."""
    conditions = found.status.conditions or ()
    for kind in ("Succeeded", "Failed"):
        said = condition(conditions, kind)
        if said is not None and said.status == "True":
            at = found.status.completion_time or said.last_transition_time
            if kind == "Succeeded":
                return "Complete", at, ""
            return "Failed", at, ": ".join(part for part in (said.reason, said.message) if part)
    return None, None, ""


def roles_of(found: KubeflowJob) -> tuple[Role, ...]:
    """Its replica types as groups of equal pods, the leading one first."""
    replicas = found.spec.replicas
    names = sorted(replicas, key=lambda name: (name not in LEADERS, name))
    return number(
        Role(
            name,
            pods=1 if replicas[name].replicas is None else replicas[name].replicas or 0,
            gpus=gpus_of_template(replicas[name].template),
        )
        for name in names
    )


def loses_pods_alone(found: KubeflowJob) -> bool:
    """True when the job goes on without an evicted pod: elastic, and its pods are made anew."""
    return found.spec.elastic_policy is not None and all(
        replica.restart_policy == "OnFailure" for replica in found.spec.replicas.values()
    )


KUBEFLOW_SWITCH = Switch(
    is_stopped=lambda found: bool(found.spec.run_policy.suspend),
    has_ended=lambda found: ended(found)[0] is not None,
    path=("spec", "runPolicy", "suspend"),
)


@dataclass(frozen=True)
class KubeflowKind(Switched):
    """How Pitwall reads, suspends and resumes one of the kubeflow.org jobs."""

    switch: Switch = KUBEFLOW_SWITCH
    controller: str = TRAINING_OPERATOR

    def read(self, obj: KubeflowJob, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of the job."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        finished, finished_at, failure = ended(obj)
        policy, roles, elastic = obj.spec.run_policy, roles_of(obj), loses_pods_alone(obj)
        refusal = refusal_of(
            meta, api_groups=api_groups, managed_by=policy.managed_by, controller=self.controller
        )
        path: RestartPath = "evict" if elastic else "suspend_resume"
        counts = (obj.status.replica_statuses or {}).values()
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind=self.resource.kind,
            api_version=self.resource.api_version,
            gang=not elastic,
            suspended=bool(policy.suspend),
            suspended_by=held.operation if held else None,
            active=sum(count.active for count in counts),
            wanted_pods=0 if finished else pods_in(roles),
            finished=finished,
            managed_by=policy.managed_by,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            restart_path="none" if refusal or finished else path,
            refusal=refusal,
            backoff_left=policy.backoff_limit if elastic else None,
            warnings=("elastic: it goes on with fewer pods until the evicted one is back",)
            if elastic
            else (),
            owner_uid=owner.uid if owner else None,
            gpus=gpus_in(roles),
            roles=roles,
            rank_labels=KUBEFLOW_RANKS,
            started_at=obj.status.start_time or meta.creation_timestamp,
            finished_at=finished_at,
            failure=failure,
        )


def _resource(kind: str, version: str = "v1") -> Resource:
    return Resource(GROUP, version, f"{kind.lower()}s", kind, True, KubeflowJob)


KUBEFLOW_KINDS = (
    KubeflowKind("PyTorchJob", _resource("PyTorchJob"), proof="real controller"),
    KubeflowKind("TFJob", _resource("TFJob"), proof="real controller"),
    KubeflowKind("MPIJob", _resource("MPIJob"), proof="real controller"),
    KubeflowKind("XGBoostJob", _resource("XGBoostJob"), proof="real controller"),
    KubeflowKind("PaddleJob", _resource("PaddleJob"), proof="real controller"),
    KubeflowKind("JAXJob", _resource("JAXJob"), proof="real controller"),
    # The mpi-operator's own: another version of the same kind, and another controller.
    KubeflowKind("MPIJobV2", _resource("MPIJob", "v2beta1"), controller=MPI_OPERATOR),
)
