"""Jobs that Kueue admits: they are stopped and started through Kueue's Workload of them.

Kueue un-suspends what it has admitted, so toggling the job's own suspend would be fought. Workload.spec.active
false evicts it without queueing it again; true queues it, and it starts once it is admitted anew.
Topology-aware ones too: they are restarted whole, so that no second node of theirs fails meanwhile.
Field names read in kubernetes-sigs/kueue at ff69552 (2026-08-22).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from k8s.objects import Condition, Narrow, ObjectMeta, PodTemplate, condition, controller_of
from k8s.resources import Resource
from k8s.workloads.kind import (
    KUEUE_GROUP,
    QUEUED,
    Finished,
    Proof,
    RestartPath,
    Through,
    Workload,
    read_suspension,
    team_of,
)
from k8s.workloads.suspension import Switch, Switched


class PodSet(Narrow, frozen=True):
    name: str = ""
    count: int = 0
    template: PodTemplate = PodTemplate()


class KueueSpec(Narrow, frozen=True):
    active: bool | None = None
    queue_name: str = ""
    priority: int | None = None
    pod_sets: tuple[PodSet, ...] = ()


class KueueStatus(Narrow, frozen=True):
    conditions: tuple[Condition, ...] = ()


class KueueWorkload(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: KueueSpec = KueueSpec()
    status: KueueStatus = KueueStatus()


KUEUE_WORKLOADS = Resource(KUEUE_GROUP, "v1beta2", "workloads", "Workload", True, KueueWorkload)
OLDER_KUEUE_WORKLOADS = replace(
    KUEUE_WORKLOADS, version="v1beta1"
)  # all there is before Kueue 0.15


def finished_as(found: KueueWorkload) -> Finished | None:
    """How the job behind it ended, None while it has not."""
    said = condition(found.status.conditions, "Finished")
    if said is None or said.status != "True":
        return None
    return "Failed" if said.reason == "Failed" else "Complete"


KUEUE_SWITCH = Switch(
    is_stopped=lambda found: found.spec.active is False,
    has_ended=lambda found: finished_as(found) is not None,
    path=("spec", "active"),
    stopped=False,
)


@dataclass(frozen=True)
class KueueKind(Switched):
    """How Pitwall stops and starts what Kueue has admitted. Its objects only tell of their owners."""

    name: str = "Kueue"
    resource: Resource = KUEUE_WORKLOADS
    switch: Switch = KUEUE_SWITCH
    proof: Proof = "real controller"
    informs: bool = True

    def read(self, obj: KueueWorkload, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload object itself; what it says is put into its owner's (inform)."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        admitted = condition(obj.status.conditions, "Admitted")
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="Workload",
            api_version=self.resource.api_version,
            gang=True,
            suspended=obj.spec.active is False,
            suspended_by=held.operation if held else None,
            active=1 if admitted is not None and admitted.status == "True" else 0,
            wanted_pods=sum(pod_set.count for pod_set in obj.spec.pod_sets),
            finished=finished_as(obj),
            team=team_of(meta),
            queue=obj.spec.queue_name or None,
            generation=meta.generation,
            priority=obj.spec.priority or 0,
            owner_uid=owner.uid if owner else None,
        )

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """The job as Kueue lets it run: what only works together is stopped through Kueue's Workload."""
        if owner.finished or (owner.refusal and not owner.refusal.startswith(QUEUED)):
            return owner
        # A refused one has no path any more: one that only works together is stopped as a whole.
        path: RestartPath = "evict" if not owner.gang else "suspend_resume"
        return replace(
            owner,
            suspended=own.suspended,
            suspended_by=own.suspended_by,
            generation=own.generation,
            queue=own.queue or owner.queue,
            priority=own.priority or owner.priority,
            restart_path=path,
            refusal=None,
            backoff_left=None if owner.gang else owner.backoff_left,
            warnings=(
                *owner.warnings,
                f"restarted through Kueue: it gives up its quota and queues again in {own.queue}",
            )
            if owner.gang
            else owner.warnings,
            through=Through(own.api_version, own.kind, own.name, own.uid),
        )
