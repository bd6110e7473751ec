"""apps/v1 StatefulSets: a pod returns under its name, and only once its predecessor is wholly gone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from k8s.objects import controller_of
from k8s.resources import Resource
from k8s.workloads.deployment import Replicated, read_replicated
from k8s.workloads.kind import Proof, Workload
from k8s.workloads.roles import RankLabels, Role
from k8s.workloads.suspension import Evicted

STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", True, Replicated)
POD_INDEX = RankLabels("apps.kubernetes.io/pod-index")
"""On pods of a StatefulSet since Kubernetes 1.28 (label of the StatefulSet controller)."""


@dataclass(frozen=True)
class StatefulSetKind(Evicted):
    """How Pitwall reads StatefulSets. Its pods are followed by UID, since their names come back."""

    name: str = "StatefulSet"
    resource: Resource = STATEFUL_SETS
    proof: Proof = "real controller"

    def read(self, obj: Replicated, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a StatefulSet: its pods move alone, each known by its index."""
        workload = read_replicated(
            obj,
            kind="StatefulSet",
            warnings=("a pod is made anew only once its predecessor of the same name is gone",),
        )
        if (
            controller_of(obj.metadata) is not None
        ):  # a link of an owner that numbers its pods itself
            return workload
        gpus = workload.gpus // workload.wanted_pods if workload.wanted_pods else 0
        role = Role("", workload.wanted_pods, gpus)
        return replace(workload, roles=(role,), rank_labels=POD_INDEX)
