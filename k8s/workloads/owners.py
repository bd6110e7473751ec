"""Whose pod it is, and which rank of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from k8s.objects import ObjectMeta, OwnerReference, Pod, controller_of
from k8s.workloads.foreign import foreign_workload
from k8s.workloads.kind import Workload
from k8s.workloads.roles import rank_in

# Where the kinds of facts/drain-and-reschedule.md keep a pod's rank, the outermost first: a JobSet's pod
# carries its Job's index too, and its global index is the rank.
RANK_KEYS = (
    "jobset.sigs.k8s.io/job-global-index",
    "training.kubeflow.org/replica-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "volcano.sh/task-index",
    "batch.kubernetes.io/job-completion-index",
)
# An LWS worker -> StatefulSet -> leader Pod -> StatefulSet -> LWS is the longest chain known; a cycle of references must not hold us.
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

    @property
    def pods(self) -> Mapping[str, Pod]:
        """By UID: a pod may own workloads, as a LeaderWorkerSet's leader owns the set of its workers."""
        ...


def rank_of(pod: Pod, view: KnownWorkloads | None = None) -> int | None:
    """The pod's rank in its workload; None where no kind gives one.

    With a view the rank goes through all roles of the workload (a JobSet's Jobs, a PyTorchJob's master
    and workers), so that no two pods of a workload have the same. Without one it is what its labels say.
    """
    meta = pod.metadata
    if view is not None:
        for workload in _chain(meta, view):
            if isinstance(workload, Workload) and workload.rank_labels is not None:
                rank = rank_in(workload.roles, workload.rank_labels, meta)
                if rank is not None:
                    return rank
    for key in RANK_KEYS:
        text = meta.labels.get(key, meta.annotations.get(key))
        if text is not None and text.isdecimal():
            return int(text)
    return None


def owner_of(pod: Pod, view: KnownWorkloads) -> Workload | None:
    """The topmost unfinished workload of a pod, following controller references by UID; None for a bare pod.

    An owner that is no watched kind ends the chain as a Workload made from the reference alone. Where all
    owners have ended it is the topmost of them.
    """
    return topmost(pod.metadata, view)


def topmost(meta: ObjectMeta, view: KnownWorkloads) -> Workload | None:
    """The topmost unfinished owner of an object with this metadata."""
    found: Workload | None = None
    for workload in _chain(meta, view):
        if isinstance(workload, OwnerReference):
            return foreign_workload(workload, meta.namespace)
        if found is None or found.finished or not workload.finished:
            found = workload
    return found


def _chain(meta: ObjectMeta, view: KnownWorkloads) -> Iterator[Workload | OwnerReference]:
    """The owners from the nearest on; the reference itself for one that is not known, as the last."""
    reference = controller_of(meta)
    for _ in range(LONGEST_CHAIN):
        if reference is None:
            return
        known = view.workloads.get(reference.uid)
        if known is not None and _same_kind(known, reference):
            yield known
            reference = view.controllers.get(known.uid)
            continue
        pod = view.pods.get(reference.uid) if reference.kind == "Pod" else None
        if pod is None:
            yield reference
            return
        reference = controller_of(pod.metadata)


def _same_kind(workload: Workload, reference: OwnerReference) -> bool:
    group = workload.api_version.rpartition("/")[0]
    return workload.kind == reference.kind and group == reference.group
