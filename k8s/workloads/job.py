"""batch/v1 Jobs: independent pods are evicted, gangs are suspended and resumed.

Suspending costs no backoff: the controller deletes the pods itself and does not count them as failed.
An evicted pod is counted, unless podFailurePolicy ignores DisruptionTarget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from k8s.objects import Job, condition, controller_of
from k8s.resources import JOBS, Resource
from k8s.workloads.kind import (
    GANG_LABEL,
    QUEUE_LABEL,
    Finished,
    Proof,
    RestartPath,
    Workload,
    read_suspension,
    refusal_of,
    team_of,
)
from k8s.workloads.roles import gpus_of_template
from k8s.workloads.suspension import Switch, Switched

JOB_CONTROLLER = "kubernetes.io/job-controller"
DEFAULT_BACKOFF_LIMIT = 6  # batch/v1 JobSpec.backoffLimit


def is_gang(job: Job) -> bool:
    """True when the Job's pods only work together: Indexed, with all of its indexes running at once.

    The label pitwall.dev/gang overrules, either way.
    """
    label = job.metadata.labels.get(GANG_LABEL, "").lower()
    if label in ("true", "false"):
        return label == "true"
    parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
    return (
        job.spec.completion_mode == "Indexed"
        and parallelism > 1
        and job.spec.completions in (None, parallelism)
    )


def action_on_disruption(policy: Mapping[str, Any] | None) -> str | None:
    """What podFailurePolicy does about an evicted pod: the action of the first rule that matches.

    None where none does, and the pod counts as failed. Rules on exit codes come into play only once a pod
    has ended by itself, but an evicted container does end with a code (137, 143), so they count as matching.
    """
    for rule in (policy or {}).get("rules") or ():
        patterns = rule.get("onPodConditions") or ()
        if any(
            pattern.get("type") == "DisruptionTarget" and pattern.get("status", "True") == "True"
            for pattern in patterns
        ):
            return str(rule.get("action"))
        if (codes := rule.get("onExitCodes")) and _catches_termination(codes):
            return str(rule.get("action"))
    return None


def ignores_disruption(policy: Mapping[str, Any] | None) -> bool:
    """True when podFailurePolicy takes an evicted pod out of the count (Ignore on DisruptionTarget)."""
    return action_on_disruption(policy) == "Ignore"


def _catches_termination(codes: Mapping[str, Any]) -> bool:
    listed = {137, 143} & set(codes.get("values") or ())
    return bool(listed) if codes.get("operator") == "In" else not listed


def finished_as(job: Job) -> Finished | None:
    """How the Job ended, None while it has not."""
    for kind in ("Complete", "Failed"):
        ended = condition(job.status.conditions, kind)
        if ended is not None and ended.status == "True":
            return "Complete" if kind == "Complete" else "Failed"
    return None


def _ended(job: Job) -> tuple[datetime | None, str]:
    """When the Job ended, and why it failed, in its controller's words."""
    for kind in ("Complete", "Failed"):
        said = condition(job.status.conditions, kind)
        if said is not None and said.status == "True":
            why = ": ".join(part for part in (said.reason, said.message) if part)
            at = job.status.completion_time or said.last_transition_time
            return at, why if kind == "Failed" else ""
    return None, ""


JOB_SWITCH = Switch(
    is_stopped=lambda job: job.spec.suspend,
    has_ended=lambda job: finished_as(job) is not None,
)


@dataclass(frozen=True)
class JobKind(Switched):
    """How Pitwall reads, suspends and resumes batch/v1 Jobs."""

    name: str = "Job"
    resource: Resource = JOBS
    switch: Switch = JOB_SWITCH
    proof: Proof = "real controller"

    def read(self, obj: Job, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a Job. wanted_pods: pods that run at once when the Job is whole."""
        job = obj
        gang, finished = is_gang(job), finished_as(job)
        refusal = refusal_of(
            job.metadata,
            api_groups=api_groups,
            managed_by=job.spec.managed_by,
            controller=JOB_CONTROLLER,
        )
        parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
        left = (
            parallelism
            if job.spec.completions is None
            else max(0, job.spec.completions - job.status.succeeded)
        )
        wanted = 0 if finished else min(parallelism, left)
        path: RestartPath = "suspend_resume" if gang else "evict"
        warnings, backoff_left = self._backoff(job, gang)
        suspension = read_suspension(job.metadata)
        owner = controller_of(job.metadata)
        finished_at, failure = _ended(job)
        return Workload(
            uid=job.metadata.uid,
            namespace=job.metadata.namespace,
            name=job.metadata.name,
            kind="Job",
            api_version="batch/v1",
            gang=gang,
            suspended=job.spec.suspend,
            suspended_by=suspension.operation if suspension else None,
            active=job.status.active,
            terminating=job.status.terminating,
            ready=job.status.ready,
            wanted_pods=wanted,
            finished=finished,
            managed_by=job.spec.managed_by,
            team=team_of(job.metadata),
            queue=job.metadata.labels.get(QUEUE_LABEL),
            generation=job.metadata.generation,
            priority=job.spec.template.spec.priority or 0,
            restart_path="none" if refusal or finished else path,
            refusal=refusal,
            backoff_left=backoff_left,
            warnings=warnings,
            owner_uid=owner.uid if owner else None,
            gpus=gpus_of_template(job.spec.template) * (wanted or parallelism or 1),
            started_at=job.status.start_time,
            finished_at=finished_at,
            failure=failure,
        )

    def _backoff(self, job: Job, gang: bool) -> tuple[tuple[str, ...], int | None]:
        if ignores_disruption(job.spec.pod_failure_policy):
            return (), None
        if job.spec.backoff_limit_per_index is not None and job.spec.backoff_limit is None:
            return (
                f"an evicted pod counts against its index: backoffLimitPerIndex "
                f"{job.spec.backoff_limit_per_index}",
            ), None
        limit = DEFAULT_BACKOFF_LIMIT if job.spec.backoff_limit is None else job.spec.backoff_limit
        left = max(0, limit - job.status.failed)
        if gang:  # suspended, not evicted
            return (), left
        return (
            f"each evicted pod counts as failed: {left} of backoffLimit {limit} left "
            "(podFailurePolicy does not ignore DisruptionTarget)",
        ), left
