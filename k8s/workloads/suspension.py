"""Stopping and starting a workload by one field of it, so that it is known whose doing it was.

The value and our annotation (operation, what it was before, the object's UID) go in one conditional
PATCH; the object is read by UID first, so each call finds out itself what was done before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import msgspec

from k8s.client import Connection
from k8s.errors import ApiError, MalformedAnswerError, UnsupportedKindError
from k8s.listing import get_object, object_decoder
from k8s.objects import Narrow, ObjectMeta
from k8s.resources import Resource
from k8s.workloads.kind import (
    SUSPENDED_BY_ANNOTATION,
    Proof,
    Suspension,
    Workload,
    WorkloadAnswer,
    Write,
    read_suspension,
    write_suspension,
)

# Controllers write the status of what they run at the same time; three collisions in a row are rare.
WRITE_ATTEMPTS = 5
FIELD_MANAGER = "pitwall"


class ManagedField(Narrow, frozen=True):
    manager: str = ""
    operation: str = ""
    fields_v1: dict[str, Any] = msgspec.field(name="fieldsV1", default={})
    subresource: str = ""


class _FieldsMeta(Narrow, frozen=True):
    managed_fields: tuple[ManagedField, ...] = ()


class _Fields(Narrow, frozen=True):
    metadata: _FieldsMeta = _FieldsMeta()


@dataclass(frozen=True)
class Switch:
    """The field that stops a workload: its path, its value while stopped, and how an object is read.

    is_stopped: whether the field says so now. has_ended: whether there is nothing left to stop.
    """

    is_stopped: Callable[[Any], bool]
    has_ended: Callable[[Any], bool]
    path: tuple[str, ...] = ("spec", "suspend")
    stopped: bool = True

    def patch(self, stop: bool) -> dict[str, Any]:
        """A merge patch of the field alone."""
        value: Any = self.stopped if stop else not self.stopped
        for key in reversed(self.path):
            value = {key: value}
        return dict(value)

    def is_written_in(self, fields: dict[str, Any]) -> bool:
        """Whether a managedFields entry owns the field."""
        found: Any = fields
        for key in self.path:
            found = (found or {}).get(f"f:{key}")
        return found is not None


@dataclass(frozen=True)
class Target:
    """The object that is written to, named for people as its workload is."""

    namespace: str
    name: str
    uid: str
    said: str


def target_of(workload: Workload) -> Target:
    """The object to write to: the workload's own, or the one it is stopped and started through."""
    through = workload.through
    if through is None:
        return Target(workload.namespace, workload.name, workload.uid, workload.said)
    said = f"{workload.said} (by {through.kind} {through.name} of {through.api_version})"
    return Target(workload.namespace, through.name, through.uid, said)


def observe(
    connection: Connection, resource: Resource, target: Target
) -> tuple[Any | None, WorkloadAnswer]:
    """The object now; None with what to answer when it is not there any more."""
    found = get_object(connection, resource, target.name, namespace=target.namespace)
    if found is None:
        return None, WorkloadAnswer("gone", f"{target.said} exists no more")
    if found.metadata.uid != target.uid:
        return None, WorkloadAnswer("replaced", f"{target.said} is another object of the same name")
    return found, WorkloadAnswer("already", "")


@dataclass(frozen=True)
class Switched:
    """Base of kinds that are stopped and started by one field."""

    name: str
    resource: Resource
    switch: Switch
    proof: Proof = "recorded"
    informs: bool = False

    @property
    def writes(self) -> tuple[Write, ...]:
        """A PATCH of the object."""
        return (Write("patch", self.resource.group, self.resource.plural),)

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """Tells nothing of its owner."""
        return owner

    def suspend(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Stops it; the same PATCH says which operation did and that it was running before.

        Raises ApiError, UnreachableError.
        """
        target = target_of(workload)
        for _ in range(WRITE_ATTEMPTS):
            found, answer = observe(connection, self.resource, target)
            if found is None:
                return answer
            meta: ObjectMeta = found.metadata
            if self.switch.has_ended(found):
                return WorkloadAnswer("finished", f"{target.said} has ended")
            held = read_suspension(meta)
            if self.switch.is_stopped(found):
                if held is not None and held.operation == operation_id:
                    return WorkloadAnswer("already", f"{target.said} is suspended", meta.generation)
                whose = f"operation {held.operation}" if held else "somebody else"
                return WorkloadAnswer("foreign", f"{target.said} is suspended by {whose}")
            if held is not None and held.operation == operation_id:
                # We had suspended it and it runs: somebody let it go on, and we do not fight.
                return WorkloadAnswer("foreign", f"{target.said} was resumed by somebody else")
            text = write_suspension(Suspension(operation_id, False, meta.uid))
            written = patch_object(
                connection,
                self.resource,
                meta,
                annotation=text,
                change=self.switch.patch(True),
                dry_run=dry_run,
            )
            if written is not None:
                return WorkloadAnswer("done", f"{target.said} suspended", written)
        return WorkloadAnswer("conflict", f"{target.said} keeps changing while it is suspended")

    def resume(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Starts it again if this operation stopped it and nobody has touched that since.

        One that somebody has resumed meanwhile only loses our annotation. Raises ApiError,
        UnreachableError.
        """
        target = target_of(workload)
        for _ in range(WRITE_ATTEMPTS):
            found, answer = observe(connection, self.resource, target)
            if found is None:
                return answer
            meta: ObjectMeta = found.metadata
            stopped = self.switch.is_stopped(found)
            held = read_suspension(meta)
            if held is None or held.operation != operation_id:
                return _not_ours(target, held, stopped, meta)
            if stopped and (other := self._stopped_since_by(connection, target)):
                return WorkloadAnswer(
                    "foreign", f"{target.said} has been suspended again by {other}"
                )
            start = stopped and not held.was_suspended
            written = patch_object(
                connection,
                self.resource,
                meta,
                annotation=None,
                change=self.switch.patch(False) if start else {},
                dry_run=dry_run,
            )
            if written is not None:
                if not start:
                    return WorkloadAnswer("already", f"{target.said} is released", written)
                return WorkloadAnswer("done", f"{target.said} resumed", written)
        return WorkloadAnswer("conflict", f"{target.said} keeps changing while it is resumed")

    def _stopped_since_by(self, connection: Connection, target: Target) -> str | None:
        """Who owns the field, when that is somebody else than we (by managedFields)."""
        path = self.resource.path(target.name, namespace=target.namespace)
        fields = msgspec.json.decode(connection.get(path), type=_Fields).metadata.managed_fields
        owners = {
            entry.manager
            for entry in fields
            if not entry.subresource and self.switch.is_written_in(entry.fields_v1)
        }
        if not owners or FIELD_MANAGER in owners:
            return None
        return ", ".join(sorted(owners))


def _not_ours(
    target: Target, held: Suspension | None, stopped: bool, meta: ObjectMeta
) -> WorkloadAnswer:
    if held is None and not stopped:
        return WorkloadAnswer("already", f"{target.said} is not suspended", meta.generation)
    whose = f"operation {held.operation}" if held else "somebody else"
    return WorkloadAnswer("foreign", f"{target.said} is held by {whose}")


def patch_object(
    connection: Connection,
    resource: Resource,
    meta: ObjectMeta,
    *,
    annotation: str | None,
    change: dict[str, Any],
    dry_run: bool,
) -> int | None:
    """One conditional PATCH of our annotation and a change: the generation after it, None on a conflict."""
    patch = {
        **change,
        "metadata": {
            "uid": meta.uid,
            "resourceVersion": meta.resource_version,
            "annotations": {SUSPENDED_BY_ANNOTATION: annotation},
        },
    }
    path = resource.path(meta.name, namespace=meta.namespace)
    try:
        body = connection.request("PATCH", path, body=patch, dry_run=dry_run).body
    except ApiError as error:
        if error.status == 409:
            return None
        raise
    try:
        return int(object_decoder(resource.struct).decode(body).metadata.generation)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"PATCH {path} answered no {resource.kind}: {error}") from error


@dataclass(frozen=True)
class Evicted:
    """Base of kinds whose controller makes a new pod for an evicted one: nothing of theirs is written."""

    name: str
    resource: Resource
    proof: Proof = "recorded"
    informs: bool = False
    writes: tuple[Write, ...] = ()

    def inform(self, owner: Workload, own: Workload) -> Workload:
        """Tells nothing of its owner."""
        return owner

    def suspend(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Refuses. Raises UnsupportedKindError."""
        raise UnsupportedKindError(
            f"{workload.said} is moved by evicting its pods, never suspended"
        )

    def resume(
        self,
        connection: Connection,
        workload: Workload,
        operation_id: str,
        *,
        dry_run: bool = False,
    ) -> WorkloadAnswer:
        """Refuses. Raises UnsupportedKindError."""
        raise UnsupportedKindError(
            f"{workload.said} is moved by evicting its pods, never suspended"
        )


def is_enabled(name: str, proof: Proof, enabled: Collection[str]) -> bool:
    """Whether Pitwall restarts the kind: it was proven, or the site has enabled it at its own word."""
    return proof == "real controller" or name in enabled
