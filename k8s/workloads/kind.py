"""What a workload is to Pitwall, whatever its kind, and what a kind must be able to do."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from k8s.client import Connection
from k8s.objects import ObjectMeta, Pod, controller_of
from k8s.resources import Resource
from k8s.workloads.roles import RankLabels, Role

TEAM_LABEL = "pitwall.dev/team"
GANG_LABEL = "pitwall.dev/gang"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
KUEUE_GROUP = "kueue.x-k8s.io"
QUEUED = "queued by Kueue"  # how a refusal begins that Kueue's Workload lifts
SUSPENDED_BY_ANNOTATION = "pitwall.dev/suspended-by"

RestartPath = Literal["evict", "suspend_resume", "none"]
Finished = Literal["Complete", "Failed"]
# What its writes have been seen to do: a controller that acts on them, or less (docs/kinds.md).
Proof = Literal["real controller", "real CRD only", "recorded"]
AnswerKind = Literal[
    "done",  # written now (or would be, in a dry-run)
    "already",  # this operation had done it before
    "asked",  # written, and its controller has not acted on it yet: look again
    "foreign",  # somebody else had suspended it, or has changed it since: nothing was written
    "finished",  # it has ended: there is nothing to restart
    "gone",  # no object of that name
    "replaced",  # an object of that name with another UID
    "conflict",  # changed again and again while we tried: try later
]


@dataclass(frozen=True)
class Through:
    """Another object through which a workload is stopped and started: Kueue's Workload of a Job."""

    api_version: str
    kind: str
    name: str
    uid: str


@dataclass(frozen=True)
class Workload:
    """A workload as decisions see it.

    suspended_by: id of the operation that suspended it, from its annotation. wanted_pods: pods that run
    when it is whole. restart_path: how its pods are brought back elsewhere; "none" with the reason in
    refusal. backoff_left: how many more pods may fail before it fails as a whole, where an evicted pod
    counts as failed; None where evictions are not counted. warnings: told in the preview.
    generation: rises whenever it is suspended or resumed. gpus: what all its pods ask for by its
    template, 0 where that is not told. roles, rank_labels: how its pods are numbered. through: the object
    to write to, where that is another. lone: label and value of a pod that can not be lost alone,
    and is moved with the whole workload, or not at all for lone_refusal. failure: why it failed, in its controller's words.
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
    gpus: int = 0
    roles: tuple[Role, ...] = ()
    rank_labels: RankLabels | None = None
    through: Through | None = None
    lone: tuple[str, str] | None = None
    lone_refusal: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    failure: str = ""

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
    """Our annotation on a workload that an operation suspended.

    mark: how often it had been stopped before, for kinds that count that and have no field to switch.
    """

    operation: str
    was_suspended: bool
    uid: str
    mark: int = 0


@dataclass(frozen=True)
class Write:
    """A verb on a kind that suspending and resuming needs."""

    verb: str
    group: str
    plural: str


class WorkloadKind(Protocol):
    """A kind of workload; one file each in k8s/workloads, entered in KINDS."""

    @property
    def name(self) -> str:
        """What people call it, and what PITWALL_ENABLED_KINDS names: "Job", "VolcanoJob"."""
        ...

    @property
    def resource(self) -> Resource:
        """Where its objects are."""
        ...

    @property
    def proof(self) -> Proof:
        """What its restart path has been seen to do."""
        ...

    @property
    def informs(self) -> bool:
        """True when its objects tell something of their owner (see inform)."""
        ...

    @property
    def writes(self) -> tuple[Write, ...]:
        """What suspend and resume write."""
        ...

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """The owner's Workload once one of its objects, read as `own`, is known."""
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
    said: dict[str, object] = {
        "operation": suspension.operation,
        "was_suspended": suspension.was_suspended,
        "uid": suspension.uid,
    }
    if suspension.mark:
        said["mark"] = suspension.mark
    return json.dumps(said)


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
            str(said["operation"]),
            bool(said["was_suspended"]),
            str(said["uid"]),
            int(said.get("mark", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return suspension if suspension.uid == meta.uid else None


def team_of(meta: ObjectMeta) -> str | None:
    """The team a workload belongs to, by label; its Kueue queue where no team is named."""
    return meta.labels.get(TEAM_LABEL) or meta.labels.get(QUEUE_LABEL)


def refusal_of(
    meta: ObjectMeta,
    *,
    api_groups: Collection[str],
    managed_by: str | None = None,
    controller: str = "",
) -> str | None:
    """Why a workload may not be stopped and started by itself; None where nothing stands against it.

    controller: the value of managedBy that names the kind's own one. A queue's label refuses only until
    Kueue's Workload is seen, through which it is then restarted (k8s.workloads.kueue).
    """
    if managed_by and managed_by != controller:
        return f"managed by {managed_by}: only its own controller may stop and start it"
    owner = controller_of(meta)
    if owner is not None:
        return f"owned by {owner.kind} {owner.name}: it must be restarted there"
    if QUEUE_LABEL in meta.labels and KUEUE_GROUP in api_groups:
        return (
            f"{QUEUED} ({meta.labels[QUEUE_LABEL]}), which un-suspends what it has admitted, and "
            "Kueue's own Workload of it is not seen"
        )
    return None


def for_pods(workload: Workload, pods: Sequence[Pod]) -> Workload:
    """The workload as it must be moved when these pods of it go.

    One that is evicted pod by pod is restarted whole when a pod goes that it can not lose alone.
    """
    if workload.lone is None or workload.restart_path != "evict":
        return workload
    label, value = workload.lone
    if not any(pod.metadata.labels.get(label) == value for pod in pods):
        return workload
    if workload.lone_refusal:
        return replace(workload, restart_path="none", refusal=workload.lone_refusal)
    return replace(workload, restart_path="suspend_resume")
