"""What clears up: dependents of deleted owners, namespaces that end, pods whose node is no more."""

from functools import partial

from app.simulator.clock import Schedule, WorkQueue
from app.simulator.controllers.conditions import condition_is, put_condition
from app.simulator.controllers.pods import is_terminal, is_terminating
from app.simulator.registry import DeleteOptions, Registry, key_of
from app.simulator.resources import BY_KIND, RESOURCES
from app.simulator.store import Event, Object

# Upstream's pod garbage collector looks each 20 s, and gives a vanished node 40 s to come back.
LOST_NODE_SECONDS = 40.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_STORED = tuple(one.plural for one in RESOURCES if not one.virtual)
_HOLDERS = ("foregroundDeletion", "orphan")


class GarbageCollector:
    """Deletes what nothing wants any more."""

    def __init__(self, registry: Registry, schedule: Schedule) -> None:
        self._registry = registry
        self._queue = WorkQueue(schedule, self._look_at)
        for plural in _STORED:
            registry.collection(plural).listeners.append(self._on_change)
        registry.collection("pods").listeners.append(self._on_pod)
        registry.collection("nodes").listeners.append(self._on_node)

    def _on_change(self, event: Event) -> None:
        obj = event.record.object
        metadata = obj["metadata"]
        if event.type == "DELETED":
            self._queue.add(f"owner {metadata['uid']}")
            for owner in metadata.get("ownerReferences") or ():
                resource = BY_KIND.get(owner["kind"])
                if resource is not None:
                    namespace = metadata.get("namespace", "") if resource.namespaced else ""
                    self._queue.add(f"held {resource.plural}/{namespace}/{owner['name']}")
            if metadata.get("namespace"):
                self._queue.add(f"namespace {metadata['namespace']}")
        elif metadata.get("deletionTimestamp"):
            if any(one in _HOLDERS for one in metadata.get("finalizers") or ()):
                where = "/".join((event.kind, *event.record.key))
                self._queue.add(f"held {where}")
            if event.kind == "namespaces":
                self._queue.add(f"namespace {metadata['name']}")

    def _on_pod(self, event: Event) -> None:
        node = event.record.object["spec"].get("nodeName")
        if not node or event.type == "DELETED":
            return
        if self._registry.get("nodes", ("", node)) is None:
            self._queue.add(f"node {node}", delay_seconds=LOST_NODE_SECONDS)
        elif is_terminating(event.record.object):
            self._queue.add(f"node {node}")

    def _on_node(self, event: Event) -> None:
        if event.type == "DELETED":
            self._queue.add(f"node {event.record.key[1]}", delay_seconds=LOST_NODE_SECONDS)
        elif any(one["key"] == OUT_OF_SERVICE for one in _taints(event.record.object)):
            self._queue.add(f"node {event.record.key[1]}")

    def _look_at(self, text: str) -> None:
        what, _, which = text.partition(" ")
        match what:
            case "owner":
                self._delete_orphaned(which)
            case "held":
                plural, namespace, name = which.split("/")
                self._work_off(plural, (namespace, name))
            case "namespace":
                self._clear_namespace(which)
            case _:
                self._clear_node(which)

    def _dependents(self, uid: str) -> list[tuple[str, Object]]:
        return [(plural, obj) for plural in _STORED for obj in self._registry.owned(plural, uid)]

    def _delete_orphaned(self, uid: str) -> None:
        """Background deletion: what had only owners that are gone goes too."""
        for plural, obj in self._dependents(uid):
            owners = obj["metadata"]["ownerReferences"]
            if obj["metadata"].get("deletionTimestamp"):
                continue
            if any(self._exists(one, obj) for one in owners if one["uid"] != uid):
                kept = [one for one in owners if one["uid"] != uid]
                self._registry.modify(
                    plural,
                    key_of(obj),
                    partial(_own, owners=kept),
                )
            else:
                options = DeleteOptions(uid=obj["metadata"]["uid"], propagation="Background")
                self._registry.delete(plural, key_of(obj), options)

    def _exists(self, owner: Object, dependent: Object) -> bool:
        for resource in RESOURCES:
            if resource.kind == owner["kind"] and resource.api_version == owner["apiVersion"]:
                namespace = dependent["metadata"].get("namespace") if resource.namespaced else ""
                record = self._registry.get(resource.plural, (namespace or "", owner["name"]))
                return record is not None and record.object["metadata"]["uid"] == owner["uid"]
        return False

    def _work_off(self, plural: str, key: tuple[str, str]) -> None:
        """Do what an owner's finalizer asks for its dependents, then take the finalizer away."""
        record = self._registry.get(plural, key)
        if record is None or not record.object["metadata"].get("deletionTimestamp"):
            return
        metadata = record.object["metadata"]
        finalizers = metadata.get("finalizers") or []
        dependents = self._dependents(metadata["uid"])
        if "orphan" in finalizers:
            for other, obj in dependents:
                kept = [
                    one
                    for one in obj["metadata"]["ownerReferences"]
                    if one["uid"] != metadata["uid"]
                ]
                self._registry.modify(other, key_of(obj), partial(_own, owners=kept))
            self._take_finalizer(plural, key, "orphan")
        elif "foregroundDeletion" in finalizers:
            blocking = [
                (other, obj)
                for other, obj in dependents
                if any(
                    one["uid"] == metadata["uid"] and one.get("blockOwnerDeletion")
                    for one in obj["metadata"]["ownerReferences"]
                )
            ]
            if not blocking:
                self._take_finalizer(plural, key, "foregroundDeletion")
            for other, obj in dependents:
                if not obj["metadata"].get("deletionTimestamp"):
                    options = DeleteOptions(uid=obj["metadata"]["uid"])
                    self._registry.delete(other, key_of(obj), options)

    def _take_finalizer(self, plural: str, key: tuple[str, str], name: str) -> None:
        def change(obj: Object) -> None:
            kept = [one for one in obj["metadata"].get("finalizers") or () if one != name]
            obj["metadata"]["finalizers"] = kept

        self._registry.modify(plural, key, change)

    def _clear_namespace(self, name: str) -> None:
        record = self._registry.get("namespaces", ("", name))
        if record is None or not record.object["metadata"].get("deletionTimestamp"):
            return
        left = 0
        for plural in _STORED:
            for obj in self._registry.objects(plural, name) if plural != "namespaces" else ():
                if obj["metadata"].get("namespace") != name:
                    continue
                left += 1
                if not obj["metadata"].get("deletionTimestamp"):
                    gone = self._registry.delete(plural, key_of(obj)).gone
                    left -= 1 if gone else 0
        if not left:
            self._registry.modify(
                "namespaces", ("", name), lambda obj: obj["spec"].__setitem__("finalizers", [])
            )

    def _clear_node(self, name: str) -> None:
        """Pods of a node that was deleted or is declared out of service."""
        record = self._registry.get("nodes", ("", name))
        if record is None:
            for pod in self._registry.pods_on(name):
                self._force(pod, "PodGC: node no longer exists")
            return
        node = record.object
        if condition_is(node.get("status"), "Ready") or not any(
            one["key"] == OUT_OF_SERVICE for one in _taints(node)
        ):
            return
        for pod in self._registry.pods_on(name):
            if is_terminating(pod):
                self._force(pod, "PodGC: node is out of service")

    def _force(self, pod: Object, why: str) -> None:
        now = self._registry.clock.now()
        key = key_of(pod)
        if not is_terminal(pod):

            def fail(obj: Object) -> None:
                obj["status"]["phase"] = "Failed"
                put_condition(
                    obj["status"],
                    "DisruptionTarget",
                    "True",
                    now=now,
                    reason="DeletionByPodGC",
                    message=why,
                )

            self._registry.modify("pods", key, fail)
        if self._registry.get("pods", key) is not None:
            options = DeleteOptions(grace_seconds=0, uid=pod["metadata"]["uid"])
            self._registry.delete("pods", key, options)


def _own(obj: Object, owners: list[Object]) -> None:
    obj["metadata"]["ownerReferences"] = owners
    if not owners:
        del obj["metadata"]["ownerReferences"]


def _taints(node: Object) -> list[Object]:
    return node["spec"].get("taints") or []
