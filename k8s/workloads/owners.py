"""Whose pod it is, and which rank of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from k8s.objects import ObjectMeta, OwnerReference, Pod, controller_of
from k8s.workloads.foreign import foreign_workload
from k8s.workloads.kind import Workload

# Where the kinds of facts/drain-and-reschedule.md keep a pod's rank, the outermost first: a JobSet's pod
# carries its Job's index too, and its global index is the rank.
RANK_KEYS = (
    "jobset.sigs.k8s.io/job-global-index",
    "training.kubeflow.org/replica-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "volcano.sh/task-index",
    "batch.kubernetes.io/job-completion-index",
)
# TrainJob -> JobSet -> Job -> Pod is the longest chain known; a cycle of references must not hold us.
LONGEST_CHAIN = 8


class KnownWorkloads(Protocol):
    """What owner_of looks into; a ClusterView is one."""

    @property
    def workloads(self) -> Mapping[str, Workload]:
        """By UID."""
        ...

    @property
    def controllers(self) -> Mapping[str, OwnerReference]:
        """The controller reference of each watched workload that has one, by the workload's UID."""
        ...


def rank_of(pod: Pod) -> int | None:
    """The pod's rank in its workload, by label or annotation; None where no kind gives one."""
    meta = pod.metadata
    for key in RANK_KEYS:
        text = meta.labels.get(key, meta.annotations.get(key))
        if text is not None and text.isdecimal():
            return int(text)
    return None


def owner_of(pod: Pod, view: KnownWorkloads) -> Workload | None:
    """The topmost workload of a pod, following controller references by UID; None for a bare pod.

    An owner that is no watched kind ends the chain as a Workload made from the reference alone.
    """
    return topmost(pod.metadata, view)


def topmost(meta: ObjectMeta, view: KnownWorkloads) -> Workload | None:
    """The topmost owner of an object with this metadata."""
    reference = controller_of(meta)
    found: Workload | None = None
    for _ in range(LONGEST_CHAIN):
        if reference is None:
            return found
        known = view.workloads.get(reference.uid)
        if known is None or not _same_kind(known, reference):
            return foreign_workload(reference, meta.namespace)
        found = known
        reference = view.controllers.get(known.uid)
    return found


def _same_kind(workload: Workload, reference: OwnerReference) -> bool:
    group = workload.api_version.rpartition("/")[0]
    return workload.kind == reference.kind and group == reference.group
