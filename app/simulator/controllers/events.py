"""Kubernetes Events about what controllers and kubelets do; each lives for an hour."""

from collections import deque
from datetime import datetime, timedelta

from app.simulator.clock import as_rfc3339
from app.simulator.registry import Registry
from app.simulator.store import Key, Object

# A kube-apiserver's --event-ttl, and a bound on what one hour may hold.
EVENT_LIFE = timedelta(hours=1)
MOST_EVENTS = 10_000


class EventRecorder:
    """Writes Events; the same words about the same object count up instead."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[tuple[str, str, str], Key] = {}
        self._age: deque[tuple[datetime, tuple[str, str, str]]] = deque()

    def record(
        self,
        about: Object,
        reason: str,
        message: str,
        *,
        component: str,
        warning: bool = False,
    ) -> None:
        """Say `message` about an object."""
        now = self._registry.clock.now()
        self._forget(now)
        metadata = about["metadata"]
        # A node's events carry its name in the uid too: kubelets write them so.
        uid = metadata["name"] if about["kind"] == "Node" else metadata["uid"]
        identity = (metadata["uid"], reason, message)
        key = self._known.get(identity)
        if key is not None and self._registry.get("events", key) is not None:
            self._registry.modify("events", key, lambda event: _count_up(event, now))
            return
        namespace = metadata.get("namespace") or "default"
        suffix = self._registry.identity.suffix("event", *identity, as_rfc3339(now), length=16)
        name = f"{metadata['name']}.{suffix}"
        involved = {
            "kind": about["kind"],
            "apiVersion": about["apiVersion"],
            "name": metadata["name"],
            "uid": uid,
        }
        if metadata.get("namespace"):
            involved["namespace"] = metadata["namespace"]
        if self._registry.get("events", (namespace, name)) is not None:
            return
        moment = as_rfc3339(now)
        self._registry.create(
            "events",
            {
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "source": {"component": component},
                "reportingComponent": component,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            },
        )
        self._known[identity] = (namespace, name)
        self._age.append((now, identity))

    def _forget(self, now: datetime) -> None:
        while self._age and (self._age[0][0] < now - EVENT_LIFE or len(self._age) > MOST_EVENTS):
            _, identity = self._age.popleft()
            key = self._known.pop(identity, None)
            if key is not None and self._registry.get("events", key) is not None:
                self._registry.delete("events", key)


def _count_up(event: Object, now: datetime) -> None:
    event["count"] = event.get("count", 1) + 1
    event["lastTimestamp"] = as_rfc3339(now)
