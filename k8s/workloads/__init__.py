"""Workload kinds: one file each, one entry in KINDS."""

from k8s.workloads.job import JobKind
from k8s.workloads.kind import Workload as Workload
from k8s.workloads.kind import WorkloadAnswer as WorkloadAnswer
from k8s.workloads.kind import WorkloadKind as WorkloadKind
from k8s.workloads.owners import owner_of as owner_of
from k8s.workloads.owners import rank_of as rank_of

KINDS: tuple[WorkloadKind, ...] = (JobKind(),)


def kind_of(workload: Workload) -> WorkloadKind | None:
    """The entry that can act on the workload, by group and kind; None for kinds we only name."""
    group = workload.api_version.rpartition("/")[0]
    return next(
        (
            kind
            for kind in KINDS
            if kind.resource.kind == workload.kind and kind.resource.group == group
        ),
        None,
    )
