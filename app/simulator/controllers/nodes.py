"""The node controller: silent kubelets become NotReady, conditions and cordons become taints,
NoExecute taints evict pods when their toleration ends.
"""

from datetime import datetime, timedelta

from app.simulator.clock import Schedule, WorkQueue, as_rfc3339, parse_rfc3339
from app.simulator.controllers.conditions import find_condition, put_condition
from app.simulator.controllers.events import EventRecorder
from app.simulator.controllers.pods import is_ready, is_terminal, is_terminating, tolerates
from app.simulator.registry import DeleteOptions, Registry, key_of
from app.simulator.store import Event, Object

COMPONENT = "node-controller"
# node-monitor-grace-period of the contract, and upstream's node-monitor-period.
GRACE_SECONDS, MONITOR_SECONDS = 40.0, 5.0
LEASES = "kube-node-lease"
UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_SILENT = "Kubelet stopped posting node status."


class NodeController:
    """Watches over heartbeats, taints and what they evict."""

    def __init__(self, registry: Registry, schedule: Schedule, recorder: EventRecorder) -> None:
        self._registry = registry
        self._schedule = schedule
        self._recorder = recorder
        # When a sign of life of each node was last seen, by this controller's own clock.
        self._alive: dict[str, tuple[str, datetime]] = {}
        # Node and pod uid to the time at which a taint evicts the pod.
        self._evictions: dict[tuple[str, str], datetime] = {}
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("nodes").listeners.append(self._on_node)
        registry.collection("pods").listeners.append(self._on_pod)

    def start(self) -> None:
        self._schedule.call_after(MONITOR_SECONDS, self._monitor)

    def _on_node(self, event: Event) -> None:
        name = event.record.key[1]
        if event.type == "DELETED":
            self._alive.pop(name, None)
        else:
            self._queue.add(name)

    def _on_pod(self, event: Event) -> None:
        node = event.record.object["spec"].get("nodeName")
        bound = event.previous is None or not event.previous.object["spec"].get("nodeName")
        if node and bound and event.type != "DELETED":
            record = self._registry.get("nodes", ("", node))
            if record is not None and _no_execute(record.object):
                self._queue.add(node)

    def _monitor(self) -> None:
        self._schedule.call_after(MONITOR_SECONDS, self._monitor)
        now = self._registry.clock.now()
        for record in self._registry.collection("nodes").in_order():
            name, node = record.key[1], record.object
            ready = find_condition(node.get("status"), "Ready")
            lease = self._registry.get("leases", (LEASES, name))
            if ready is None and lease is None:
                continue  # nobody has ever spoken for it
            renewed = lease.object["spec"].get("renewTime", "") if lease else ""
            sign = f"{renewed} {(ready or {}).get('lastHeartbeatTime', '')}"
            known = self._alive.get(name)
            if known is None or known[0] != sign:
                self._alive[name] = (sign, now)
            elif now - known[1] > timedelta(seconds=GRACE_SECONDS) and (
                ready is None or ready["status"] != "Unknown"
            ):
                self._declare_silent(name, node)

    def _declare_silent(self, name: str, node: Object) -> None:
        now = self._registry.clock.now()

        def silence(obj: Object) -> None:
            for type_ in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
                put_condition(
                    obj["status"],
                    type_,
                    "Unknown",
                    now=now,
                    reason="NodeStatusUnknown",
                    message=_SILENT,
                )

        self._registry.modify("nodes", ("", name), silence)
        message = f"Node {name} status is now: NodeNotReady"
        self._recorder.record(node, "NodeNotReady", message, component=COMPONENT)
        for pod in self._registry.pods_on(name):
            if is_ready(pod) and not is_terminal(pod):
                self._registry.modify(
                    "pods",
                    key_of(pod),
                    lambda obj: put_condition(obj["status"], "Ready", "False", now=now),
                )

    def _look_at(self, name: str) -> None:
        record = self._registry.get("nodes", ("", name))
        if record is None:
            return
        node = record.object
        before = node["spec"].get("taints") or []
        wanted = wanted_taints(node, before, now=self._registry.clock.now())
        if wanted != before:

            def taint(obj: Object) -> None:
                obj["spec"].pop("taints", None)
                if wanted:
                    obj["spec"]["taints"] = wanted

            self._registry.modify("nodes", ("", name), taint)
            return  # its own change brings the controller back
        self._evict_intolerant(name, _no_execute(node))

    def _evict_intolerant(self, name: str, taints: list[Object]) -> None:
        now = self._registry.clock.now()
        pods = self._registry.pods_on(name)
        for key in [one for one in self._evictions if one[0] == name]:
            if not taints:
                del self._evictions[key]
        if not taints:
            return
        for pod in pods:
            if is_terminal(pod) or is_terminating(pod):
                continue
            seconds = _seconds_left(pod, taints)
            key = (name, pod["metadata"]["uid"])
            if seconds is None:
                self._evictions.pop(key, None)
                continue
            since = min(_added(taint, now) for taint in taints)
            due = since + timedelta(seconds=seconds)
            if due <= now:
                self._evictions.pop(key, None)
                self._evict(pod)
            elif self._evictions.get(key) != due:
                self._evictions[key] = due
                self._queue.add(name, delay_seconds=(due - now).total_seconds())
        waiting = [due for one, due in self._evictions.items() if one[0] == name]
        if waiting:
            left = (min(waiting) - now).total_seconds()
            self._queue.add(name, delay_seconds=max(0.1, left))

    def _evict(self, pod: Object) -> None:
        now = self._registry.clock.now()
        key = key_of(pod)
        self._registry.modify(
            "pods",
            key,
            lambda obj: put_condition(
                obj["status"],
                "DisruptionTarget",
                "True",
                now=now,
                reason="DeletionByTaintManager",
                message="Taint manager: deleting due to NoExecute taint",
            ),
        )
        message = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self._recorder.record(
            pod, "TaintManagerEviction", message, component="taint-eviction-controller"
        )
        self._registry.delete("pods", key, DeleteOptions(uid=pod["metadata"]["uid"]))


def wanted_taints(node: Object, taints: list[Object], *, now: datetime) -> list[Object]:
    """The taints that follow from a node's cordon and its Ready condition, and whatever else it has."""
    ready = (find_condition(node.get("status"), "Ready") or {}).get("status")
    wanted = set()
    if node["spec"].get("unschedulable"):
        wanted.add((UNSCHEDULABLE, "NoSchedule"))
    if ready in ("False", "Unknown"):
        key = UNREACHABLE if ready == "Unknown" else NOT_READY
        wanted |= {(key, "NoSchedule"), (key, "NoExecute")}
    ours = {(UNSCHEDULABLE, "NoSchedule")} | {
        (key, effect) for key in (UNREACHABLE, NOT_READY) for effect in ("NoSchedule", "NoExecute")
    }
    kept = [
        one
        for one in taints
        if (one["key"], one["effect"]) not in ours or (one["key"], one["effect"]) in wanted
    ]
    known = {(one["key"], one["effect"]) for one in kept}
    for key, effect in sorted(wanted - known, reverse=True):
        kept.append({"key": key, "effect": effect, "timeAdded": as_rfc3339(now)})
    return kept


def _no_execute(node: Object) -> list[Object]:
    return [one for one in node["spec"].get("taints") or () if one["effect"] == "NoExecute"]


def _added(taint: Object, now: datetime) -> datetime:
    return parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else now


def _seconds_left(pod: Object, taints: list[Object]) -> float | None:
    """How long a pod may stay under these taints: 0 at once, None for ever."""
    shortest: float | None = None
    for taint in taints:
        found, seconds = tolerates(pod, taint)
        if not found:
            return 0.0
        if seconds is not None:
            shortest = seconds if shortest is None else min(shortest, seconds)
    return shortest
