"""The scheduler: pods to nodes, one at a time, packing GPUs and keeping a job's ranks close.

As upstream's default scheduler it knows no gangs: it binds what fits and leaves the rest Pending.
"""

from dataclasses import dataclass, field
from typing import Any

from app.simulator.clock import Schedule, WorkQueue
from app.simulator.controllers.conditions import condition_is, find_condition, put_condition
from app.simulator.controllers.events import EventRecorder
from app.simulator.controllers.pods import (
    GPU,
    is_terminal,
    is_terminating,
    parse_quantity,
    requests_of,
    selects_node,
    tolerates,
)
from app.simulator.registry import Registry, controller_of
from app.simulator.store import Event, Key, Object

NAME = "default-scheduler"
BLOCK_LABEL = "network.topology.nvidia.com/spine"
RACK_LABEL = "network.topology.nvidia.com/leaf"
# How long after a change the pods that did not fit are tried again.
RETRY_SECONDS = 1.0
# Pods bound in one turn, so that a gang of hundreds does not keep requests waiting.
BOUND_AT_ONCE = 25


class Ledger:
    """What is requested on each node by pods that are bound to it and have not ended."""

    def __init__(self, registry: Registry) -> None:
        self.used: dict[str, dict[str, float]] = {}
        self._counted: dict[Key, tuple[str, dict[str, float]]] = {}
        for record in registry.collection("pods").in_order():
            self._count(record.key, record.object)
        registry.collection("pods").listeners.append(self._on_pod)

    def _on_pod(self, event: Event) -> None:
        self._discount(event.record.key)
        if event.type != "DELETED":
            self._count(event.record.key, event.record.object)

    def _count(self, key: Key, pod: Object) -> None:
        node = pod["spec"].get("nodeName")
        if not node or is_terminal(pod):
            return
        asked = {**requests_of(pod), "pods": 1.0}
        used = self.used.setdefault(node, {})
        for name, quantity in asked.items():
            used[name] = used.get(name, 0.0) + quantity
        self._counted[key] = (node, asked)

    def _discount(self, key: Key) -> None:
        node, asked = self._counted.pop(key, (None, {}))
        if node is not None:
            used = self.used[node]
            for name, quantity in asked.items():
                used[name] -= quantity


@dataclass
class _Turn:
    """What has been found out in one turn: nodes by a pod's shape, places by a pod's owner."""

    candidates: dict[tuple[Any, ...], list[str]] = field(default_factory=dict)
    neighbours: dict[str, dict[str, int]] = field(default_factory=dict)


class Scheduler:
    """Binds pods that name no node."""

    def __init__(self, registry: Registry, schedule: Schedule, recorder: EventRecorder) -> None:
        self._registry = registry
        self._recorder = recorder
        self.ledger = Ledger(registry)
        self._capacity: dict[str, dict[str, float]] = {}
        self._places: dict[str, tuple[str, str]] = {}
        self._waiting: dict[Key, None] = {}
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("pods").listeners.append(self._on_pod)
        registry.collection("nodes").listeners.append(self._on_node)
        for record in registry.collection("nodes").in_order():
            self._capacity[record.key[1]] = _allocatable(record.object)
            self._places[record.key[1]] = _places_of(record.object)

    def _on_pod(self, event: Event) -> None:
        pod, key = event.record.object, event.record.key
        if event.type == "DELETED" or is_terminal(pod):
            self._waiting.pop(key, None)
            self._retry()
        elif _wants_node(pod):
            if key not in self._waiting:
                self._waiting[key] = None
                self._queue.add("all")
        else:
            self._waiting.pop(key, None)

    def _on_node(self, event: Event) -> None:
        name = event.record.key[1]
        if event.type == "DELETED":
            self._capacity.pop(name, None)
            self._places.pop(name, None)
            return
        self._capacity[name] = _allocatable(event.record.object)
        self._places[name] = _places_of(event.record.object)
        before = event.previous.object if event.previous else None
        if before is None or _placement_view(before) != _placement_view(event.record.object):
            self._retry()

    def _retry(self) -> None:
        if self._waiting:
            self._queue.add("all", delay_seconds=RETRY_SECONDS)

    def _look_at(self, _: str) -> None:
        failed: set[tuple[Any, ...]] = set()
        turn, bound = _Turn(), 0
        for key in list(self._waiting):
            if bound >= BOUND_AT_ONCE:
                self._queue.add("all")
                return
            record = self._registry.get("pods", key)
            if record is None or not _wants_node(record.object):
                self._waiting.pop(key, None)
                continue
            shape = _shape(record.object)
            if shape in failed:  # its twin has just not fitted: nor does it
                self._refuse(key, record.object)
                continue
            node = self.choose(record.object, turn)
            if node is None:
                failed.add(shape)
                self._refuse(key, record.object)
            else:
                self._bind(key, record.object, node)
                self._count_place(self._neighbours(record.object, turn), node)
                bound += 1

    def choose(self, pod: Object, turn: _Turn) -> str | None:
        """The node for a pod: near its job's other pods, then where the fewest GPUs stay free."""
        shape, asked = _shape(pod), requests_of(pod)
        if shape not in turn.candidates:
            turn.candidates[shape] = [
                record.key[1]
                for record in self._registry.collection("nodes").in_order()
                if self._has_room(record.key[1], asked) and _accepts(pod, record.object)
            ]
        # Room only shrinks within a turn, so who has none now needs no second look.
        names = [name for name in turn.candidates[shape] if self._has_room(name, asked)]
        turn.candidates[shape] = names
        near = self._neighbours(pod, turn)

        def rank(name: str) -> tuple[float, float, float]:
            rack, block = self._places[name]
            return (-near.get(rack, 0), -near.get(block, 0), self._free(name, GPU))

        return min(names, key=rank, default=None)

    def _free(self, name: str, resource: str) -> float:
        capacity = self._capacity.get(name, {}).get(resource, 0.0)
        return capacity - self.ledger.used.get(name, {}).get(resource, 0.0)

    def _has_room(self, name: str, asked: dict[str, float]) -> bool:
        capacity = self._capacity.get(name)
        if not capacity or self._free(name, GPU) < asked.get(GPU, 0.0):
            return False
        used = self.ledger.used.get(name, {})
        if used.get("pods", 0.0) + 1 > capacity.get("pods", 110.0):
            return False
        return all(
            quantity <= capacity.get(resource, 0.0) - used.get(resource, 0.0)
            for resource, quantity in asked.items()
            if quantity
        )

    def _neighbours(self, pod: Object, turn: _Turn) -> dict[str, int]:
        """How many pods of the same owner run in each rack and block."""
        owner = controller_of(pod)
        if owner is None:
            return {}
        if owner["uid"] not in turn.neighbours:
            found: dict[str, int] = {}
            for other in self._registry.owned("pods", owner["uid"]):
                if not is_terminal(other) and not is_terminating(other):
                    self._count_place(found, other["spec"].get("nodeName") or "")
            turn.neighbours[owner["uid"]] = found
        return turn.neighbours[owner["uid"]]

    def _count_place(self, found: dict[str, int], node: str) -> None:
        for place in self._places.get(node, ()):
            found[place] = found.get(place, 0) + 1

    def _bind(self, key: Key, pod: Object, node: str) -> None:
        now = self._registry.clock.now()

        def assign(obj: Object) -> None:
            obj["spec"]["nodeName"] = node
            put_condition(obj["status"], "PodScheduled", "True", now=now)

        self._registry.modify("pods", key, assign)
        message = f"Successfully assigned {key[0]}/{key[1]} to {node}"
        self._recorder.record(pod, "Scheduled", message, component=NAME)

    def _refuse(self, key: Key, pod: Object) -> None:
        message = self._why_none(pod)
        known = find_condition(pod.get("status"), "PodScheduled")
        if known is not None and known.get("message") == message:
            return
        now = self._registry.clock.now()
        self._registry.modify(
            "pods",
            key,
            lambda obj: put_condition(
                obj["status"],
                "PodScheduled",
                "False",
                now=now,
                reason="Unschedulable",
                message=message,
            ),
        )
        self._recorder.record(pod, "FailedScheduling", message, component=NAME, warning=True)

    def _why_none(self, pod: Object) -> str:
        asked = requests_of(pod)
        reasons: dict[str, int] = {}
        nodes = self._registry.collection("nodes").in_order()
        for record in nodes:
            why = _rejection(pod, record.object)
            if why is None:
                why = "Insufficient resources"
                if not self._has_room(record.key[1], {GPU: asked.get(GPU, 0.0)}):
                    why = f"Insufficient {GPU}"
            reasons[why] = reasons.get(why, 0) + 1
        listed = ", ".join(f"{count} {why}" for why, count in sorted(reasons.items()))
        return f"0/{len(nodes)} nodes are available: {listed or 'there are none'}."


def _wants_node(pod: Object) -> bool:
    return (
        not pod["spec"].get("nodeName")
        and pod["spec"].get("schedulerName", NAME) == NAME
        and not pod["spec"].get("schedulingGates")
        and not is_terminating(pod)
        and not is_terminal(pod)
    )


def _allocatable(node: Object) -> dict[str, float]:
    found = {}
    for name, text in (node.get("status", {}).get("allocatable") or {}).items():
        try:
            found[name] = parse_quantity(text)
        except ValueError:  # a quantity that nobody can read is none
            found[name] = 0.0
    return found


def _places_of(node: Object) -> tuple[str, str]:
    labels = node["metadata"].get("labels") or {}
    return f"rack {labels.get(RACK_LABEL)}", f"block {labels.get(BLOCK_LABEL)}"


def _placement_view(node: Object) -> tuple[Any, ...]:
    status = node.get("status", {})
    return (
        node["spec"].get("unschedulable"),
        node["spec"].get("taints"),
        node["metadata"].get("labels"),
        status.get("allocatable"),
        condition_is(status, "Ready"),
    )


def _shape(pod: Object) -> tuple[Any, ...]:
    spec = pod["spec"]
    return (
        tuple(sorted(requests_of(pod).items())),
        str(spec.get("nodeSelector")),
        str(spec.get("affinity")),
        str(spec.get("tolerations")),
    )


def _rejection(pod: Object, node: Object) -> str | None:
    """Why a node takes no such pod whatever its room, None when it does."""
    if node["spec"].get("unschedulable"):
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if not tolerates(pod, taint)[0]:
            return "node(s) were unschedulable"
    for taint in node["spec"].get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(pod, taint)[0]:
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selects_node(pod, node):
        return "node(s) didn't match Pod's node affinity/selector"
    if not condition_is(node.get("status"), "Ready"):
        return "node(s) were not ready"
    return None


def _accepts(pod: Object, node: Object) -> bool:
    return _rejection(pod, node) is None
