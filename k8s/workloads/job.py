"""batch/v1 Jobs: independent pods are evicted, gangs are suspended and resumed.

Suspending costs no backoff: the controller deletes the pods itself and does not count them as failed.
An evicted pod is counted, unless podFailurePolicy ignores DisruptionTarget.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from k8s.client import Connection
from k8s.errors import ApiError, MalformedAnswerError
from k8s.listing import get_object, object_decoder
from k8s.objects import Job, Narrow, condition, controller_of
from k8s.resources import JOBS, Resource
from k8s.workloads.kind import (
    GANG_LABEL,
    QUEUE_LABEL,
    SUSPENDED_BY_ANNOTATION,
    Finished,
    RestartPath,
    Suspension,
    Workload,
    WorkloadAnswer,
    read_suspension,
    team_of,
    write_suspension,
)

JOB_CONTROLLER = "kubernetes.io/job-controller"
KUEUE_GROUP = "kueue.x-k8s.io"
DEFAULT_BACKOFF_LIMIT = 6  # batch/v1 JobSpec.backoffLimit
# The kubelet and the controllers write a Job's status at the same time; three collisions in a row are rare.
WRITE_ATTEMPTS = 5


class ManagedField(Narrow, frozen=True):
    manager: str = ""
    operation: str = ""
    fields_v1: dict[str, Any] = msgspec.field(name="fieldsV1", default={})
    subresource: str = ""


class _FieldsMeta(Narrow, frozen=True):
    managed_fields: tuple[ManagedField, ...] = ()


class _Fields(Narrow, frozen=True):
    metadata: _FieldsMeta = _FieldsMeta()


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


def ignores_disruption(policy: Mapping[str, Any] | None) -> bool:
    """True when podFailurePolicy takes an evicted pod out of the count (Ignore on DisruptionTarget).

    The first rule that matches decides; rules on exit codes come into play only once a pod has ended
    by itself, but an evicted container does end with a code (137, 143), so they count as matching.
    """
    for rule in (policy or {}).get("rules") or ():
        patterns = rule.get("onPodConditions") or ()
        if any(
            pattern.get("type") == "DisruptionTarget" and pattern.get("status", "True") == "True"
            for pattern in patterns
        ):
            return bool(rule.get("action") == "Ignore")
        if (codes := rule.get("onExitCodes")) and _catches_termination(codes):
            return bool(rule.get("action") == "Ignore")
    return False


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


def refusal_of(job: Job, api_groups: Collection[str]) -> str | None:
    """Why Pitwall does not restart this Job, None where it does."""
    manager = job.spec.managed_by
    if manager and manager != JOB_CONTROLLER:
        return f"managed by {manager}: only its own controller may stop and start it"
    owner = controller_of(job.metadata)
    if owner is not None:
        return f"owned by {owner.kind} {owner.name}: it must be restarted there"
    if QUEUE_LABEL in job.metadata.labels and KUEUE_GROUP in api_groups:
        return (
            f"queued by Kueue ({job.metadata.labels[QUEUE_LABEL]}): Kueue un-suspends an admitted "
            "Job, so suspending it would be fought"
        )
    return None


@dataclass(frozen=True)
class JobKind:
    """How Pitwall reads, suspends and resumes batch/v1 Jobs."""

    name: str = "Job"
    resource: Resource = JOBS

    def read(self, obj: Job, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a Job. wanted_pods: pods that run at once when the Job is whole."""
        job = obj
        gang, finished, refusal = is_gang(job), finished_as(job), refusal_of(job, api_groups)
        parallelism = 1 if job.spec.parallelism is None else job.spec.parallelism
        left = (
            parallelism
            if job.spec.completions is None
            else max(0, job.spec.completions - job.status.succeeded)
        )
        path: RestartPath = "suspend_resume" if gang else "evict"
        warnings, backoff_left = self._backoff(job, gang)
        suspension = read_suspension(job.metadata)
        owner = controller_of(job.metadata)
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
            wanted_pods=0 if finished else min(parallelism, left),
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
        )

    def suspend(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Suspends the Job; the same PATCH says which operation did and that it was running before.

        Raises ApiError, UnreachableError.
        """
        for _ in range(WRITE_ATTEMPTS):
            job, answer = self._observe(connection, workload)
            if job is None:
                return answer
            if finished_as(job):
                return WorkloadAnswer("finished", f"{workload.said} has ended")
            held = read_suspension(job.metadata)
            if job.spec.suspend:
                if held is not None and held.operation == operation_id:
                    return WorkloadAnswer(
                        "already", f"{workload.said} is suspended", job.metadata.generation
                    )
                whose = f"operation {held.operation}" if held else "somebody else"
                return WorkloadAnswer("foreign", f"{workload.said} is suspended by {whose}")
            if held is not None and held.operation == operation_id:
                # We had suspended it and it runs: somebody let it go on, and we do not fight.
                return WorkloadAnswer("foreign", f"{workload.said} was resumed by somebody else")
            text = write_suspension(Suspension(operation_id, False, job.metadata.uid))
            if (written := self._patch(connection, job, True, text, dry_run=dry_run)) is not None:
                return WorkloadAnswer("done", f"{workload.said} suspended", written)
        return WorkloadAnswer("conflict", f"{workload.said} keeps changing while it is suspended")

    def resume(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Resumes the Job if this operation suspended it and nobody has touched that since.

        A Job that somebody has resumed meanwhile only loses our annotation. Raises ApiError,
        UnreachableError.
        """
        for _ in range(WRITE_ATTEMPTS):
            job, answer = self._observe(connection, workload)
            if job is None:
                return answer
            held = read_suspension(job.metadata)
            if held is None or held.operation != operation_id:
                if held is None and not job.spec.suspend:
                    return WorkloadAnswer(
                        "already", f"{workload.said} is not suspended", job.metadata.generation
                    )
                whose = f"operation {held.operation}" if held else "somebody else"
                return WorkloadAnswer("foreign", f"{workload.said} is held by {whose}")
            if job.spec.suspend and (other := self._suspended_since_by(connection, workload)):
                return WorkloadAnswer(
                    "foreign", f"{workload.said} has been suspended again by {other}"
                )
            suspend = False if job.spec.suspend and not held.was_suspended else None
            if (
                written := self._patch(connection, job, suspend, None, dry_run=dry_run)
            ) is not None:
                if suspend is None:
                    return WorkloadAnswer("already", f"{workload.said} is released", written)
                return WorkloadAnswer("done", f"{workload.said} resumed", written)
        return WorkloadAnswer("conflict", f"{workload.said} keeps changing while it is resumed")

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

    def _observe(
        self, connection: Connection, workload: Workload
    ) -> tuple[Job | None, WorkloadAnswer]:
        job = get_object(connection, self.resource, workload.name, namespace=workload.namespace)
        if job is None:
            return None, WorkloadAnswer("gone", f"{workload.said} exists no more")
        if job.metadata.uid != workload.uid:
            return None, WorkloadAnswer(
                "replaced", f"{workload.said} is another object of the same name"
            )
        return job, WorkloadAnswer("already", "")

    def _patch(
        self,
        connection: Connection,
        job: Job,
        suspend: bool | None,
        annotation: str | None,
        *,
        dry_run: bool,
    ) -> int | None:
        """One conditional PATCH: the generation after it, None when somebody was quicker."""
        patch: dict[str, Any] = {
            "metadata": {
                "uid": job.metadata.uid,
                "resourceVersion": job.metadata.resource_version,
                "annotations": {SUSPENDED_BY_ANNOTATION: annotation},
            }
        }
        if suspend is not None:
            patch["spec"] = {"suspend": suspend}
        path = self.resource.path(job.metadata.name, namespace=job.metadata.namespace)
        try:
            body = connection.request("PATCH", path, body=patch, dry_run=dry_run).body
        except ApiError as error:
            if error.status == 409:
                return None
            raise
        try:
            return int(object_decoder(Job).decode(body).metadata.generation)
        except msgspec.DecodeError as error:
            raise MalformedAnswerError(f"PATCH {path} answered no Job: {error}") from error

    def _suspended_since_by(self, connection: Connection, workload: Workload) -> str | None:
        """Who owns spec.suspend, when that is somebody else than we (by managedFields)."""
        path = self.resource.path(workload.name, namespace=workload.namespace)
        fields = msgspec.json.decode(connection.get(path), type=_Fields).metadata.managed_fields
        owners = {
            entry.manager
            for entry in fields
            if not entry.subresource and "f:suspend" in (entry.fields_v1.get("f:spec") or {})
        }
        return ", ".join(sorted(owners)) if owners and "pitwall" not in owners else None
