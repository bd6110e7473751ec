"""jobset.x-k8s.io/v1alpha2 JobSets: several Jobs that start, stop and restart together.

Its default rule makes a lost pod a restart that counts towards maxRestarts; suspending costs none. The
pattern that takes disruptions out of the count: each Job fails on DisruptionTarget, and a rule of the set
answers that with RestartJobSetAndIgnoreMaxRestarts; then evicting one pod restarts the whole set.
Field names read in kubernetes-sigs/jobset at 08dfbdf (2026-08-18).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from k8s.objects import Condition, JobSpec, Narrow, ObjectMeta, condition, controller_of
from k8s.resources import Resource
from k8s.workloads.job import action_on_disruption
from k8s.workloads.kind import (
    QUEUE_LABEL,
    Finished,
    Proof,
    RestartPath,
    Workload,
    read_suspension,
    refusal_of,
    team_of,
)
from k8s.workloads.roles import RankLabels, Role, gpus_in, gpus_of_template, number, pods_in
from k8s.workloads.suspension import Switch, Switched

JOBSET_CONTROLLER = "jobset.sigs.k8s.io/jobset-controller"
SPARING = "RestartJobSetAndIgnoreMaxRestarts"
BY_POLICY = "PodFailurePolicy"  # reason of a Job that failed by a rule of its podFailurePolicy
JOBSET_RANKS = RankLabels(
    place="batch.kubernetes.io/job-completion-index",
    role="jobset.sigs.k8s.io/replicatedjob-name",
    replica="jobset.sigs.k8s.io/job-index",
)


class JobTemplate(Narrow, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec = JobSpec()


class ReplicatedJob(Narrow, frozen=True):
    name: str = ""
    replicas: int = 1
    template: JobTemplate = JobTemplate()


class FailureRule(Narrow, frozen=True):
    action: str = ""
    on_job_failure_reasons: tuple[str, ...] = ()
    on_job_failure_message_patterns: tuple[str, ...] = ()
    target_replicated_jobs: tuple[str, ...] = ()


class FailurePolicy(Narrow, frozen=True):
    max_restarts: int = 0
    rules: tuple[FailureRule, ...] = ()


class JobSetSpec(Narrow, frozen=True):
    replicated_jobs: tuple[ReplicatedJob, ...] = ()
    failure_policy: FailurePolicy | None = None
    suspend: bool | None = None
    managed_by: str | None = None


class JobsCount(Narrow, frozen=True):
    name: str = ""
    ready: int = 0
    active: int = 0


class JobSetStatus(Narrow, frozen=True):
    conditions: tuple[Condition, ...] = ()
    restarts: int = 0
    restarts_count_towards_max: int = 0
    replicated_jobs_status: tuple[JobsCount, ...] = ()


class JobSet(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: JobSetSpec = JobSetSpec()
    status: JobSetStatus = JobSetStatus()


JOBSETS = Resource("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet", True, JobSet)


def finished_as(found: JobSet) -> Finished | None:
    """How the JobSet ended, None while it has not."""
    for kind, finished in (("Completed", "Complete"), ("Failed", "Failed")):
        said = condition(found.status.conditions, kind)
        if said is not None and said.status == "True":
            return "Complete" if finished == "Complete" else "Failed"
    return None


def roles_of(found: JobSet) -> tuple[Role, ...]:
    """Its replicated Jobs as groups of equal pods."""
    return number(
        Role(
            job.name,
            pods=1 if job.template.spec.parallelism is None else job.template.spec.parallelism,
            gpus=gpus_of_template(job.template.spec.template),
            replicas=job.replicas,
        )
        for job in found.spec.replicated_jobs
    )


def spares_disruptions(found: JobSet) -> bool:
    """True when an evicted pod restarts the whole set and no restart is counted for it."""
    policy = found.spec.failure_policy
    jobs = found.spec.replicated_jobs
    return bool(jobs) and policy is not None and all(_spares(job, policy) for job in jobs)


def _spares(job: ReplicatedJob, policy: FailurePolicy) -> bool:
    if action_on_disruption(job.template.spec.pod_failure_policy) != "FailJob":
        return False
    for rule in policy.rules:  # the first that matches decides
        if rule.target_replicated_jobs and job.name not in rule.target_replicated_jobs:
            continue
        if rule.on_job_failure_message_patterns:
            return False  # it may or may not match: not counted on
        if not rule.on_job_failure_reasons or BY_POLICY in rule.on_job_failure_reasons:
            return rule.action == SPARING
    return False


JOB_SET_SWITCH = Switch(
    is_stopped=lambda found: bool(found.spec.suspend),
    has_ended=lambda found: finished_as(found) is not None,
)


@dataclass(frozen=True)
class JobSetKind(Switched):
    """How Pitwall reads, suspends and resumes JobSets."""

    name: str = "JobSet"
    resource: Resource = JOBSETS
    switch: Switch = JOB_SET_SWITCH
    proof: Proof = "real controller"
    informs: bool = True

    def read(self, obj: JobSet, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a JobSet."""
        meta, finished = obj.metadata, finished_as(obj)
        refusal = refusal_of(
            meta,
            api_groups=api_groups,
            managed_by=obj.spec.managed_by,
            controller=JOBSET_CONTROLLER,
        )
        roles, suspension, owner = roles_of(obj), read_suspension(meta), controller_of(meta)
        spares = spares_disruptions(obj)
        path: RestartPath = "evict" if spares else "suspend_resume"
        policy = obj.spec.failure_policy
        left = max(0, policy.max_restarts - _restarts_counted(obj)) if policy else 0
        failed = condition(obj.status.conditions, "Failed")
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="JobSet",
            api_version=self.resource.api_version,
            gang=True,
            suspended=bool(obj.spec.suspend),
            suspended_by=suspension.operation if suspension else None,
            active=sum(count.active for count in obj.status.replicated_jobs_status),
            wanted_pods=0 if finished else pods_in(roles),
            finished=finished,
            managed_by=obj.spec.managed_by,
            team=team_of(meta),
            queue=meta.labels.get(QUEUE_LABEL),
            generation=meta.generation,
            priority=max(
                (job.template.spec.template.spec.priority or 0 for job in obj.spec.replicated_jobs),
                default=0,
            ),
            restart_path="none" if refusal or finished else path,
            refusal=refusal,
            backoff_left=None if spares else left,
            warnings=(
                "evicting a pod restarts all of its Jobs, which its maxRestarts does not count",
            )
            if spares
            else (),
            owner_uid=owner.uid if owner else None,
            gpus=gpus_in(roles),
            roles=roles,
            rank_labels=JOBSET_RANKS,
            started_at=meta.creation_timestamp,
            finished_at=_finished_at(obj),
            failure=": ".join(part for part in (failed.reason, failed.message) if part)
            if failed is not None and finished == "Failed"
            else "",
        )

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """A TrainJob is made of what its JobSet is made of."""
        if owner.kind != "TrainJob":
            return owner
        return replace(
            owner,
            wanted_pods=0 if owner.finished else own.wanted_pods,
            gpus=own.gpus or owner.gpus,
            roles=own.roles,
            rank_labels=own.rank_labels,
            active=own.active,
        )


def _restarts_counted(found: JobSet) -> int:
    status = found.status
    # Releases before 0.5 count all restarts, and have no field for those that count.
    return status.restarts_count_towards_max or (0 if _tells_counted(found) else status.restarts)


def _tells_counted(found: JobSet) -> bool:
    policy = found.spec.failure_policy
    return policy is not None and any(rule.action == SPARING for rule in policy.rules)


def _finished_at(found: JobSet) -> datetime | None:
    for kind in ("Completed", "Failed"):
        said = condition(found.status.conditions, kind)
        if said is not None and said.status == "True":
            return said.last_transition_time
    return None
