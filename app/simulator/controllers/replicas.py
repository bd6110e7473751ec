"""DaemonSets and ReplicaSets: enough of their controllers for system pods and services."""

from app.simulator.clock import Schedule, WorkQueue
from app.simulator.controllers.pods import (
    is_ready,
    is_terminal,
    is_terminating,
    selects_node,
)
from app.simulator.identity import Identity
from app.simulator.registry import DeleteOptions, Registry, controller_of, key_of
from app.simulator.store import Event, Key, Object, clone

# What the DaemonSet controller lets its pods tolerate, for ever.
_DAEMON_TOLERATIONS = [
    {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
    {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/pid-pressure", "operator": "Exists", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
]

DAEMON_BATCH_SECONDS = 1.0


class ReplicaControllers:
    """Keeps the pods of DaemonSets and ReplicaSets, and the ReplicaSet of each Deployment."""

    def __init__(self, registry: Registry, schedule: Schedule) -> None:
        self._registry = registry
        self._queue = WorkQueue(schedule, self._look_at)
        for plural in ("daemonsets", "replicasets", "deployments"):
            registry.collection(plural).listeners.append(self._on_owner)
        registry.collection("pods").listeners.append(self._on_pod)
        registry.collection("nodes").listeners.append(self._on_node)

    def _on_owner(self, event: Event) -> None:
        if event.type != "DELETED":
            self._queue.add("/".join((event.kind, *event.record.key)))
        owner = controller_of(event.record.object)
        if owner is not None and owner["kind"] == "Deployment":
            self._queue.add("/".join(("deployments", event.record.key[0], owner["name"])))

    def _on_pod(self, event: Event) -> None:
        owner = controller_of(event.record.object)
        plural = {"DaemonSet": "daemonsets", "ReplicaSet": "replicasets"}.get(
            owner["kind"] if owner else ""
        )
        if owner is not None and plural is not None:
            # A whole floor of pods may change at once; the owner counts them once a second.
            delay = DAEMON_BATCH_SECONDS if plural == "daemonsets" else 0.0
            where = "/".join((plural, event.record.key[0], owner["name"]))
            self._queue.add(where, delay_seconds=delay)

    def _on_node(self, event: Event) -> None:
        if event.type in ("ADDED", "DELETED"):
            for record in self._registry.collection("daemonsets").in_order():
                where = "/".join(("daemonsets", *record.key))
                self._queue.add(where, delay_seconds=DAEMON_BATCH_SECONDS)

    def _look_at(self, text: str) -> None:
        plural, namespace, name = text.split("/")
        key: Key = (namespace, name)
        record = self._registry.get(plural, key)
        if record is None or record.object["metadata"].get("deletionTimestamp"):
            return
        match plural:
            case "daemonsets":
                self._sync_daemons(key, record.object)
            case "replicasets":
                self._sync_replicas(key, record.object)
            case _:
                self._sync_deployment(key, record.object)

    def _sync_daemons(self, key: Key, owner: Object) -> None:
        template = {"spec": owner["spec"]["template"]["spec"]}
        nodes = {
            record.key[1]
            for record in self._registry.collection("nodes").in_order()
            if selects_node(template, record.object)
        }
        placed: dict[str, Object] = {}
        for pod in self._registry.owned("pods", owner["metadata"]["uid"]):
            node = pod["spec"].get("nodeName", "")
            if (is_terminal(pod) and not is_terminating(pod)) or (
                node not in nodes and not is_terminating(pod)
            ):
                self._delete(pod)
            else:
                placed[node] = pod
        for node in sorted(nodes - placed.keys()):
            self._registry.create("pods", daemon_pod_of(owner, node))
        running = [pod for pod in placed.values() if not is_terminating(pod)]
        ready = sum(1 for pod in running if is_ready(pod))

        def write(obj: Object) -> None:
            obj["status"] = {
                "currentNumberScheduled": len(running),
                "desiredNumberScheduled": len(nodes),
                "numberMisscheduled": 0,
                "numberReady": ready,
                "numberAvailable": ready,
                "updatedNumberScheduled": len(running),
                "observedGeneration": obj["metadata"].get("generation", 1),
            }

        self._registry.modify("daemonsets", key, write)

    def _sync_replicas(self, key: Key, owner: Object) -> None:
        pods = self._registry.owned("pods", owner["metadata"]["uid"])
        active = [one for one in pods if not is_terminal(one) and not is_terminating(one)]
        wanted = owner["spec"]["replicas"]
        for _ in range(wanted - len(active)):
            self._registry.create("pods", pod_of(owner))
        for pod in sorted(active, key=is_ready)[: max(0, len(active) - wanted)]:
            self._delete(pod)
        ready = sum(1 for one in active if is_ready(one))
        _write_replicas(self._registry, "replicasets", key, replicas=len(active), ready=ready)

    def _sync_deployment(self, key: Key, owner: Object) -> None:
        """One ReplicaSet a Deployment, scaled with it; no rollouts."""
        metadata, spec = owner["metadata"], owner["spec"]
        sets = self._registry.owned("replicasets", metadata["uid"])
        if not sets:
            replica_set = replica_set_of(owner, self._registry.identity)
            self._registry.create("replicasets", replica_set)
            return
        replica_set = sets[0]
        if replica_set["spec"]["replicas"] != spec["replicas"]:

            def scale(obj: Object) -> None:
                obj["spec"]["replicas"] = spec["replicas"]
                obj["metadata"]["generation"] += 1

            self._registry.modify("replicasets", key_of(replica_set), scale)
            return
        status = replica_set.get("status") or {}
        _write_replicas(
            self._registry,
            "deployments",
            key,
            replicas=status.get("replicas", 0),
            ready=status.get("readyReplicas", 0),
        )

    def _delete(self, pod: Object) -> None:
        options = DeleteOptions(uid=pod["metadata"]["uid"])
        self._registry.delete("pods", key_of(pod), options)


def _write_replicas(
    registry: Registry, plural: str, key: Key, *, replicas: int, ready: int
) -> None:
    def write(obj: Object) -> None:
        obj["status"] = {
            "replicas": replicas,
            "observedGeneration": obj["metadata"].get("generation", 1),
        }
        if ready:
            obj["status"] |= {"readyReplicas": ready, "availableReplicas": ready}
        if plural == "deployments" and replicas:
            obj["status"]["updatedReplicas"] = replicas

    registry.modify(plural, key, write)


def _reference(owner: Object) -> Object:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def replica_set_of(deployment: Object, identity: Identity) -> Object:
    """The ReplicaSet of a Deployment's only revision."""
    metadata, spec = deployment["metadata"], deployment["spec"]
    suffix = identity.suffix("rs", metadata["uid"], length=9)
    return {
        "metadata": {
            "name": f"{metadata['name']}-{suffix}",
            "namespace": metadata["namespace"],
            "labels": dict((spec["template"].get("metadata") or {}).get("labels") or {}),
            "ownerReferences": [_reference(deployment)],
        },
        "spec": {
            "replicas": spec["replicas"],
            "selector": spec["selector"],
            "template": clone(spec["template"]),
        },
    }


def pod_of(owner: Object) -> Object:
    """The next pod of a ReplicaSet or DaemonSet, not bound yet."""
    template = clone(owner["spec"]["template"])
    metadata = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": dict(metadata.get("labels") or {}),
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [_reference(owner)],
        },
        "spec": template["spec"],
    }


def daemon_pod_of(owner: Object, node: str) -> Object:
    """A DaemonSet's pod for a node, which it names outright."""
    pod = pod_of(owner)
    tolerations = [*(pod["spec"].get("tolerations") or ()), *_DAEMON_TOLERATIONS]
    pod["spec"] |= {"nodeName": node, "tolerations": clone(tolerations)}
    return pod
