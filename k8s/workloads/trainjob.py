"""trainer.kubeflow.org/v1alpha1 TrainJobs: each makes a JobSet, and is stopped and started itself.

What it is made of (roles, pods, GPUs) is told by its JobSet, once that is there.
Field names read in kubeflow/trainer at 8c0f505 (2026-08-21).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from k8s.objects import (
    Condition,
    Container,
    Narrow,
    ObjectMeta,
    PodSpec,
    Resources,
    condition,
    controller_of,
    gpus_of_spec,
)
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
from k8s.workloads.suspension import Switch, Switched

TRAINJOB_CONTROLLER = "trainer.kubeflow.org/trainjob-controller"


class Trainer(Narrow, frozen=True):
    num_nodes: int | None = None
    resources_per_node: Resources = Resources()


class TrainJobSpec(Narrow, frozen=True):
    trainer: Trainer | None = None
    suspend: bool | None = None
    managed_by: str | None = None


class TrainJobStatus(Narrow, frozen=True):
    conditions: tuple[Condition, ...] = ()


class TrainJob(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: TrainJobSpec = TrainJobSpec()
    status: TrainJobStatus = TrainJobStatus()


TRAINJOBS = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob", True, TrainJob)


def ended(found: TrainJob) -> tuple[Finished | None, datetime | None, str]:
    """How and when the TrainJob ended, and why it failed."""
    for kind in ("Complete", "Failed"):
        said = condition(found.status.conditions, kind)
        if said is not None and said.status == "True":
            why = ": ".join(part for part in (said.reason, said.message) if part)
            if kind == "Complete":
                return "Complete", said.last_transition_time, ""
            return "Failed", said.last_transition_time, why
    return None, None, ""


TRAIN_JOB_SWITCH = Switch(
    is_stopped=lambda found: bool(found.spec.suspend),
    has_ended=lambda found: ended(found)[0] is not None,
)


@dataclass(frozen=True)
class TrainJobKind(Switched):
    """How Pitwall reads, suspends and resumes TrainJobs."""

    name: str = "TrainJob"
    resource: Resource = TRAINJOBS
    switch: Switch = TRAIN_JOB_SWITCH
    proof: Proof = "real controller"

    def read(self, obj: TrainJob, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a TrainJob."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        finished, finished_at, failure = ended(obj)
        refusal = refusal_of(
            meta,
            api_groups=api_groups,
            managed_by=obj.spec.managed_by,
            controller=TRAINJOB_CONTROLLER,
        )
        trainer = obj.spec.trainer or Trainer()
        nodes = trainer.num_nodes or 0
        each = gpus_of_spec(PodSpec(containers=(Container(resources=trainer.resources_per_node),)))
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="TrainJob",
            api_version=self.resource.api_version,
            gang=True,
            suspended=bool(obj.spec.suspend),
            suspended_by=held.operation if held else None,
            wanted_pods=0 if finished else nodes,
            finished=finished,
            managed_by=obj.spec.managed_by,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            restart_path="none" if refusal or finished else "suspend_resume",
            refusal=refusal,
            owner_uid=owner.uid if owner else None,
            gpus=nodes * each,
            started_at=meta.creation_timestamp,
            finished_at=finished_at,
            failure=failure,
        )
