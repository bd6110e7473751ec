"""Workload kinds: one file each, one entry in KINDS."""

from k8s.workloads.deployment import DeploymentKind, ReplicaSetKind
from k8s.workloads.job import JobKind
from k8s.workloads.jobset import JobSetKind
from k8s.workloads.kind import Workload as Workload
from k8s.workloads.kind import WorkloadAnswer as WorkloadAnswer
from k8s.workloads.kind import WorkloadKind as WorkloadKind
from k8s.workloads.kind import for_pods as for_pods
from k8s.workloads.kubeflow import KUBEFLOW_KINDS
from k8s.workloads.kueue import OLDER_KUEUE_WORKLOADS, KueueKind
from k8s.workloads.leaderworkerset import LeaderWorkerSetKind
from k8s.workloads.owners import owner_of as owner_of
from k8s.workloads.owners import rank_of as rank_of
from k8s.workloads.ray import RayClusterKind, RayJobKind
from k8s.workloads.statefulset import StatefulSetKind
from k8s.workloads.trainjob import TrainJobKind
from k8s.workloads.volcano import VolcanoJobKind

# Of two versions of a kind the first that is served is watched.
KINDS: tuple[WorkloadKind, ...] = (
    JobKind(),
    DeploymentKind(),
    ReplicaSetKind(),
    StatefulSetKind(),
    JobSetKind(),
    KueueKind(),
    KueueKind(resource=OLDER_KUEUE_WORKLOADS, proof="recorded"),
    TrainJobKind(),
    *KUBEFLOW_KINDS,
    LeaderWorkerSetKind(),
    VolcanoJobKind(),
    RayClusterKind(),
    RayJobKind(),
)
_BY_TYPE = {(kind.resource.api_version, kind.resource.kind): kind for kind in KINDS}


def kind_of(workload: Workload) -> WorkloadKind | None:
    """The entry that can act on the workload, or on what it is stopped through; None for kinds we only name."""
    through = workload.through or workload
    return _BY_TYPE.get((through.api_version, through.kind))
