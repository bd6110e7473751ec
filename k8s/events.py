"""Events on nodes and workloads: what `kubectl describe` shows of what was done to them.

Written as core/v1, which every API server stores as events.k8s.io and which needs one right alone.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from k8s.client import Connection
from k8s.resources import Resource

# What the API server takes; longer notes are refused.
NOTE_LENGTH = 1024
# Where events on objects without a namespace live.
CLUSTER_NAMESPACE = "default"


@dataclass(frozen=True)
class Subject:
    """An object that an event is about, or that is named beside it."""

    api_version: str
    kind: str
    name: str
    uid: str
    namespace: str = ""

    @classmethod
    def of(cls, resource: Resource, name: str, uid: str, *, namespace: str = "") -> Subject:
        """The object of that kind."""
        return cls(resource.api_version, resource.kind, name, uid, namespace)

    def write(self) -> dict[str, str]:
        """As an ObjectReference."""
        said = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "namespace": self.namespace,
        }
        return {key: value for key, value in said.items() if value}


@dataclass(frozen=True)
class Note:
    """One event. reason: one CamelCase word; action: the verb; at: aware UTC."""

    about: Subject
    reason: str
    action: str
    text: str
    at: datetime
    related: Subject | None = None
    warning: bool = False


def write_event(connection: Connection, note: Note, *, component: str, instance: str) -> None:
    """Creates the event; a repeat is another event, as each write is told of.

    component: what writes it ("pitwall.dev/worker"); instance: which of them. Raises ApiError,
    UnreachableError.
    """
    namespace = note.about.namespace or CLUSTER_NAMESPACE
    at = note.at.astimezone(UTC)
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Event",
        # As client-go names them: unique, and told apart at a glance.
        "metadata": {
            "name": f"{note.about.name[:200]}.{uuid.uuid4().hex[:16]}",
            "namespace": namespace,
        },
        "involvedObject": note.about.write(),
        "reason": note.reason,
        "action": note.action,
        "message": note.text[:NOTE_LENGTH],
        "type": "Warning" if note.warning else "Normal",
        "eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "firstTimestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lastTimestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "count": 1,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": instance[:128],
    }
    if note.related is not None:
        body["related"] = note.related.write()
    connection.request("POST", f"/api/v1/namespaces/{namespace}/events", body=body)
