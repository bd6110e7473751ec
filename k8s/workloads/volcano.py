"""batch.volcano.sh/v1alpha1 Jobs: stopped and started by Commands on Volcano's bus.

AbortJob, then ResumeJob: it costs one retry as RestartJob does (RetryCount against maxRetry), leaves the
time between the two for the nodes to be settled, and a Command that is sent twice changes nothing, where a
second RestartJob would restart twice. Commands vanish once they are read, so what was asked for is kept
in our annotation on the Job, with how often it had been stopped before (status.version).
Field names read in volcano-sh/volcano at ed72c7c (2026-08-20).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from k8s.client import Connection
from k8s.errors import ApiError
from k8s.objects import Narrow, ObjectMeta, PodTemplate, controller_of
from k8s.resources import Bare, Resource
from k8s.workloads.kind import (
    QUEUE_LABEL,
    Finished,
    Proof,
    Suspension,
    Workload,
    WorkloadAnswer,
    Write,
    read_suspension,
    refusal_of,
    team_of,
    write_suspension,
)
from k8s.workloads.roles import RankLabels, Role, gpus_in, gpus_of_template, number, pods_in
from k8s.workloads.suspension import WRITE_ATTEMPTS, observe, patch_object, target_of

VOLCANO_RANKS = RankLabels(place="volcano.sh/task-index", role="volcano.sh/task-spec")
STOPPED = ("Aborting", "Aborted")


class Task(Narrow, frozen=True):
    name: str = ""
    replicas: int = 0
    template: PodTemplate = PodTemplate()


class VolcanoSpec(Narrow, frozen=True):
    tasks: tuple[Task, ...] = ()
    max_retry: int = 0
    queue: str = ""


class State(Narrow, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None


class VolcanoStatus(Narrow, frozen=True):
    state: State = State()
    pending: int = 0
    running: int = 0
    terminating: int = 0
    version: int = 0
    retry_count: int = 0


class VolcanoJob(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: VolcanoSpec = VolcanoSpec()
    status: VolcanoStatus = VolcanoStatus()


VOLCANO_JOBS = Resource("batch.volcano.sh", "v1alpha1", "jobs", "Job", True, VolcanoJob)
COMMANDS = Resource("bus.volcano.sh", "v1alpha1", "commands", "Command", True, Bare)


def finished_as(found: VolcanoJob) -> Finished | None:
    """How the Job ended, None while it has not."""
    match found.status.state.phase:
        case "Completed" | "Completing":
            return "Complete"
        case "Failed" | "Terminated" | "Terminating":
            return "Failed"
    return None


def retries_left(found: VolcanoJob) -> int:
    """Restarts it survives: it fails when one makes RetryCount reach maxRetry."""
    return max(0, found.spec.max_retry - found.status.retry_count - 1)


@dataclass(frozen=True)
class VolcanoJobKind:
    """How Pitwall reads, aborts and resumes Volcano's Jobs."""

    name: str = "VolcanoJob"
    resource: Resource = VOLCANO_JOBS
    proof: Proof = "real controller"
    informs: bool = False

    @property
    def writes(self) -> tuple[Write, ...]:
        """Our annotation on the Job, and a Command."""
        return (
            Write("patch", self.resource.group, self.resource.plural),
            Write("create", COMMANDS.group, COMMANDS.plural),
        )

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """Tells nothing of its owner."""
        return owner

    def read(self, obj: VolcanoJob, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a Volcano Job. Its generation rises with each stop too."""
        meta, owner, held = obj.metadata, controller_of(obj.metadata), read_suspension(obj.metadata)
        status, finished, roles = obj.status, finished_as(obj), _roles(obj)
        stopped, left = status.state.phase in STOPPED, retries_left(obj)
        refusal = refusal_of(meta, api_groups=api_groups)
        if refusal is None and not left and not finished and not stopped:
            refusal = (
                f"a restart counts as a retry, and with {status.retry_count} of maxRetry "
                f"{obj.spec.max_retry} spent it would fail: raise spec.maxRetry"
            )
        asked = held is not None and (stopped or status.version > held.mark)
        return Workload(
            uid=meta.uid,
            namespace=meta.namespace,
            name=meta.name,
            kind="Job",
            api_version=self.resource.api_version,
            gang=True,
            suspended=stopped,
            # An abort that was not carried out yet is not one that somebody took back.
            suspended_by=held.operation if held is not None and asked else None,
            active=status.pending + status.running if status.state.phase != "Aborted" else 0,
            terminating=status.terminating,
            wanted_pods=0 if finished else pods_in(roles),
            finished=finished,
            team=team_of(meta),
            queue=obj.spec.queue or meta.labels.get(QUEUE_LABEL),
            generation=meta.generation + status.version,
            restart_path="none" if refusal or finished else "suspend_resume",
            refusal=refusal,
            backoff_left=left,
            warnings=(
                f"its restart counts as a retry: {left} of maxRetry {obj.spec.max_retry} left",
            ),
            owner_uid=owner.uid if owner else None,
            gpus=gpus_in(roles),
            roles=roles,
            rank_labels=VOLCANO_RANKS,
            started_at=meta.creation_timestamp,
            finished_at=status.state.last_transition_time if finished else None,
            failure=": ".join(part for part in (status.state.reason, status.state.message) if part)
            if finished == "Failed"
            else "",
        )

    def suspend(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Asks Volcano to abort the Job, which it can be resumed from. Raises ApiError, UnreachableError."""
        target = target_of(workload)
        for _ in range(WRITE_ATTEMPTS):
            found, answer = observe(connection, self.resource, target)
            if found is None:
                return answer
            if finished_as(found):
                return WorkloadAnswer("finished", f"{target.said} has ended")
            held = read_suspension(found.metadata)
            ours = held is not None and held.operation == operation_id
            if found.status.state.phase in STOPPED:
                if ours:
                    return WorkloadAnswer("already", f"{target.said} is stopped", _said(found))
                whose = f"operation {held.operation}" if held else "somebody else"
                return WorkloadAnswer("foreign", f"{target.said} is stopped by {whose}")
            if held is not None and ours and found.status.version > held.mark:
                return WorkloadAnswer("foreign", f"{target.said} was resumed by somebody else")
            if not ours:
                if not retries_left(found):
                    return WorkloadAnswer("foreign", f"{target.said} has no retry left")
                text = write_suspension(
                    Suspension(operation_id, False, found.metadata.uid, found.status.version)
                )
                if self._annotate(connection, found, text, dry_run=dry_run) is None:
                    continue
            self._command(connection, found, "AbortJob", operation_id, dry_run=dry_run)
            return WorkloadAnswer("done", f"{target.said} told to stop", _said(found))
        return WorkloadAnswer("conflict", f"{target.said} keeps changing while it is stopped")

    def resume(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Asks Volcano to resume the Job, and takes our annotation off once it has begun to.

        Raises ApiError, UnreachableError.
        """
        target = target_of(workload)
        for _ in range(WRITE_ATTEMPTS):
            found, answer = observe(connection, self.resource, target)
            if found is None:
                return answer
            held = read_suspension(found.metadata)
            stopped = found.status.state.phase in STOPPED
            if held is None or held.operation != operation_id:
                if held is None and not stopped:
                    return WorkloadAnswer("already", f"{target.said} is not stopped", _said(found))
                whose = f"operation {held.operation}" if held else "somebody else"
                return WorkloadAnswer("foreign", f"{target.said} is held by {whose}")
            if stopped and not held.was_suspended:
                self._command(connection, found, "ResumeJob", operation_id, dry_run=dry_run)
                return WorkloadAnswer("asked", f"{target.said} told to go on", _said(found))
            if not stopped and found.status.version <= held.mark:
                return WorkloadAnswer("asked", f"{target.said} has not stopped yet", _said(found))
            if self._annotate(connection, found, None, dry_run=dry_run) is not None:
                return WorkloadAnswer("done", f"{target.said} goes on", _said(found))
        return WorkloadAnswer("conflict", f"{target.said} keeps changing while it is resumed")

    def _annotate(
        self, connection: Connection, found: VolcanoJob, text: str | None, *, dry_run: bool
    ) -> int | None:
        return patch_object(
            connection, self.resource, found.metadata, annotation=text, change={}, dry_run=dry_run
        )

    def _command(
        self,
        connection: Connection,
        found: VolcanoJob,
        action: str,
        operation_id: str,
        *,
        dry_run: bool,
    ) -> None:
        """A Command with a name of its own: while it is not read, a second one of the name is refused."""
        meta = found.metadata
        owner = {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "name": meta.name,
            "uid": meta.uid,
            "controller": True,
        }
        body: dict[str, Any] = {
            "apiVersion": COMMANDS.api_version,
            "kind": COMMANDS.kind,
            "metadata": {
                "name": f"pitwall-{action.lower()}-{meta.uid}-{operation_id}".lower(),
                "ownerReferences": [owner],
            },
            "action": action,
            "target": owner,
            "reason": "Pitwall",
            "message": f"operation {operation_id}",
        }
        try:
            connection.request(
                "POST", COMMANDS.path(namespace=meta.namespace), body=body, dry_run=dry_run
            )
        except ApiError as error:
            if error.status != 409:
                raise


def _said(found: VolcanoJob) -> int:
    return found.metadata.generation + found.status.version


def _roles(found: VolcanoJob) -> tuple[Role, ...]:
    return number(
        Role(task.name or "default", task.replicas, gpus_of_template(task.template))
        for task in found.spec.tasks
    )
