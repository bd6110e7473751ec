"""What a workload is to Pitwall, whatever its kind, and what a kind must be able to do."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from k8s.client import Connection
from k8s.objects import ObjectMeta
from k8s.resources import Resource

TEAM_LABEL = "pitwall.dev/team"
GANG_LABEL = "pitwall.dev/gang"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
SUSPENDED_BY_ANNOTATION = "pitwall.dev/suspended-by"

RestartPath = Literal["evict", "suspend_resume", "none"]
Finished = Literal["Complete", "Failed"]
AnswerKind = Literal[
    "done",  # written now (or would be, in a dry-run)
    "already",  # this operation had done it before
    "foreign",  # somebody else had suspended it, or has changed it since: nothing was written
    "finished",  # it has ended: there is nothing to restart
    "gone",  # no object of that name
    "replaced",  # an object of that name with another UID
    "conflict",  # changed again and again while we tried: try later
]


@dataclass(frozen=True)
class Workload:
    """A workload as decisions see it.

    suspended_by: id of the operation that suspended it, from its annotation. wanted_pods: pods that run
    when it is whole. restart_path: how its pods are brought back elsewhere; "none" with the reason in
    refusal. backoff_left: how many more pods may fail before it fails as a whole, where an evicted pod
    counts as failed; None where evictions are not counted. warnings: told in the preview.
    """

    uid: str
    namespace: str
    name: str
    kind: str
    api_version: str
    gang: bool = False
    suspended: bool = False
    suspended_by: str | None = None
    active: int = 0
    terminating: int = 0
    ready: int = 0
    wanted_pods: int = 0
    finished: Finished | None = None
    managed_by: str | None = None
    team: str | None = None
    queue: str | None = None
    generation: int = 0
    priority: int = 0
    restart_path: RestartPath = "none"
    refusal: str | None = None
    backoff_left: int | None = None
    warnings: tuple[str, ...] = ()
    owner_uid: str | None = None

    @property
    def said(self) -> str:
        """Name for people: "Job default/llm-7b"."""
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class WorkloadAnswer:
    """What became of a suspend or resume; generation is the object's after it, 0 when unknown."""

    kind: AnswerKind
    message: str
    generation: int = 0


@dataclass(frozen=True)
class Suspension:
    """Our annotation on a workload that an operation suspended."""

    operation: str
    was_suspended: bool
    uid: str


class WorkloadKind(Protocol):
    """A kind of workload; one file each in k8s/workloads, entered in KINDS."""

    @property
    def name(self) -> str:
        """Kind as in the object, "Job"."""
        ...

    @property
    def resource(self) -> Resource:
        """Where its objects are."""
        ...

    def read(self, obj: Any, *, api_groups: Collection[str] = frozenset()) -> Workload:
        """The Workload of a narrow object; api_groups: those that the API server serves."""
        ...

    def suspend(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Stops all pods of the workload, leaving whose doing that was on it. Idempotent."""
        ...

    def resume(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Lets it run again, only if that operation suspended it and nobody has changed that since."""
        ...


def write_suspension(suspension: Suspension) -> str:
    """The annotation's text."""
    return json.dumps(
        {
            "operation": suspension.operation,
            "was_suspended": suspension.was_suspended,
            "uid": suspension.uid,
        }
    )


def read_suspension(meta: ObjectMeta) -> Suspension | None:
    """Our annotation; None when absent, or when it is not ours to understand.

    An annotation that was copied along with the object (another UID) is nobody's.
    """
    text = meta.annotations.get(SUSPENDED_BY_ANNOTATION)
    if text is None:
        return None
    try:
        said = json.loads(text)
        suspension = Suspension(
            str(said["operation"]), bool(said["was_suspended"]), str(said["uid"])
        )
    except (ValueError, KeyError, TypeError):
        return None
    return suspension if suspension.uid == meta.uid else None


def team_of(meta: ObjectMeta) -> str | None:
    """The team a workload belongs to, by label; its Kueue queue where no team is named."""
    return meta.labels.get(TEAM_LABEL) or meta.labels.get(QUEUE_LABEL)
