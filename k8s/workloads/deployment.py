"""apps/v1 Deployments and the ReplicaSets between them and their pods: an evicted pod is made anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from k8s.objects import Narrow, ObjectMeta, PodTemplate, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import QUEUE_LABEL, Proof, Workload, team_of
from k8s.workloads.roles import gpus_of_template
from k8s.workloads.suspension import Evicted


class ReplicasSpec(Narrow, frozen=True):
    """The part of the spec that Deployment, ReplicaSet and StatefulSet have in common."""

    replicas: int = 1
    template: PodTemplate = PodTemplate()


class ReplicasStatus(Narrow, frozen=True):
    replicas: int = 0
    ready_replicas: int = 0


class Replicated(Narrow, frozen=True):
    """A Deployment, a ReplicaSet or a StatefulSet."""

    metadata: ObjectMeta
    spec: ReplicasSpec = ReplicasSpec()
    status: ReplicasStatus = ReplicasStatus()


DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", True, Replicated)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", True, Replicated)


def read_replicated(found: Replicated, *, kind: str, warnings: tuple[str, ...] = ()) -> Workload:
    """The Workload of equal pods that are made anew one by one."""
    meta, owner = found.metadata, controller_of(found.metadata)
    return Workload(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        kind=kind,
        api_version="apps/v1",
        active=found.status.replicas,
        ready=found.status.ready_replicas,
        wanted_pods=found.spec.replicas,
        team=team_of(meta),
        queue=meta.labels.get(QUEUE_LABEL),
        generation=meta.generation,
        priority=found.spec.template.spec.priority or 0,
        restart_path="evict",
        warnings=warnings if found.spec.replicas else (),
        owner_uid=owner.uid if owner else None,
        gpus=found.spec.replicas * gpus_of_template(found.spec.template),
        started_at=meta.creation_timestamp,
    )


@dataclass(frozen=True)
class DeploymentKind(Evicted):
    """How Pitwall reads Deployments."""

    name: str = "Deployment"
    resource: Resource = DEPLOYMENTS
    proof: Proof = "real controller"

    def read(self, obj: Replicated, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a Deployment: its pods move alone."""
        return read_replicated(obj, kind="Deployment")


@dataclass(frozen=True)
class ReplicaSetKind(Evicted):
    """How Pitwall reads ReplicaSets: mostly links between a Deployment and its pods."""

    name: str = "ReplicaSet"
    resource: Resource = REPLICA_SETS
    proof: Proof = "real controller"

    def read(self, obj: Replicated, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a ReplicaSet: its pods move alone."""
        return read_replicated(obj, kind="ReplicaSet")
