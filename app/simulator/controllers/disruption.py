"""The disruption controller: what each budget allows now.

A budget with maxUnavailable or a percentage counts what the pods' controllers are scaled to. A
batch Job serves no scale, so such a budget over its pods cannot be computed and allows nothing.
"""

import math
from datetime import datetime, timedelta

from app.simulator.api.selectors import labels_match, parse_label_selector
from app.simulator.clock import Schedule, WorkQueue, parse_rfc3339
from app.simulator.controllers.conditions import put_condition
from app.simulator.controllers.pods import is_ready, is_terminating
from app.simulator.registry import Registry, controller_of
from app.simulator.resources import BY_KIND, SCALE
from app.simulator.store import Event, Key, Object

# An eviction that has not led to a deletion after so long is forgotten, upstream's DeletionTimeout.
DISRUPTED_LIFE = timedelta(minutes=2)


class CannotCompute(Exception):
    """The pods' controllers do not say how many there should be."""


class DisruptionController:
    """Keeps the status of budgets."""

    def __init__(self, registry: Registry, schedule: Schedule) -> None:
        self._registry = registry
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("poddisruptionbudgets").listeners.append(self._on_budget)
        registry.collection("pods").listeners.append(self._on_pod)

    def _on_budget(self, event: Event) -> None:
        if event.type != "DELETED":
            self._queue.add("/".join(event.record.key))

    def _on_pod(self, event: Event) -> None:
        budgets = self._registry.collection("poddisruptionbudgets")
        for record in budgets.by_index("namespace", event.record.key[0]):
            if _selects(record.object, event.record.object):
                self._queue.add("/".join(record.key))

    def _look_at(self, text: str) -> None:
        namespace, _, name = text.partition("/")
        key: Key = (namespace, name)
        record = self._registry.get("poddisruptionbudgets", key)
        if record is None:
            return
        budget = record.object
        pods = [pod for pod in self._registry.objects("pods", namespace) if _selects(budget, pod)]
        now = self._registry.clock.now()
        disrupted = self._still_disrupted(key, budget, pods)
        healthy = sum(
            1
            for pod in pods
            if not is_terminating(pod)
            and pod["metadata"]["name"] not in disrupted
            and is_ready(pod)
        )
        try:
            expected, desired = self._expected(budget, pods)
        except CannotCompute as error:
            why = str(error)
            self._registry.modify(
                "poddisruptionbudgets",
                key,
                lambda obj: _write_failed(obj, why, now),
            )
            return
        allowed = max(0, healthy - desired) if expected > 0 else 0

        def write(obj: Object) -> None:
            obj["status"] |= {
                "disruptionsAllowed": allowed,
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "expectedPods": expected,
                "observedGeneration": obj["metadata"].get("generation", 1),
            }
            obj["status"].pop("disruptedPods", None)
            if disrupted:
                obj["status"]["disruptedPods"] = disrupted
            put_condition(
                obj["status"],
                "DisruptionAllowed",
                "True" if allowed else "False",
                now=now,
                reason="SufficientPods" if allowed else "InsufficientPods",
                message="",
            )
            _observe(obj)

        self._registry.modify("poddisruptionbudgets", key, write)

    def _still_disrupted(self, key: Key, budget: Object, pods: list[Object]) -> dict[str, str]:
        present = {pod["metadata"]["name"]: pod for pod in pods}
        now = self._registry.clock.now()
        kept = {}
        for name, since in (budget["status"].get("disruptedPods") or {}).items():
            pod = present.get(name)
            if pod is None or is_terminating(pod):
                continue
            left = parse_rfc3339(since) + DISRUPTED_LIFE - now
            if left > timedelta(0):
                kept[name] = since
                self._queue.add("/".join(key), delay_seconds=left.total_seconds())
        return kept

    def _expected(self, budget: Object, pods: list[Object]) -> tuple[int, int]:
        """How many pods there should be, and how many must be healthy."""
        spec = budget["spec"]
        if (most := spec.get("maxUnavailable")) is not None:
            expected = self._scaled_to(pods)
            return expected, max(0, expected - _scaled_value(most, expected))
        least = spec.get("minAvailable", 1)
        if isinstance(least, int):
            return len(pods), least
        expected = self._scaled_to(pods)
        return expected, _scaled_value(least, expected)

    def _scaled_to(self, pods: list[Object]) -> int:
        controllers: dict[str, int] = {}
        for pod in pods:
            owner = controller_of(pod)
            if owner is None or owner["uid"] in controllers:
                continue
            resource = BY_KIND.get(owner["kind"])
            if resource is None or SCALE not in resource.subresources:
                kind = f"{resource.plural}.{resource.group}" if resource else owner["kind"]
                raise CannotCompute(f"{kind} does not implement the scale subresource")
            key = (pod["metadata"]["namespace"], owner["name"])
            record = self._registry.get(resource.plural, key)
            if record is not None:
                controllers[owner["uid"]] = record.object["spec"].get("replicas", 1)
        return sum(controllers.values())


def _selects(budget: Object, pod: Object) -> bool:
    if budget["metadata"].get("namespace") != pod["metadata"].get("namespace"):
        return False
    selector = parse_label_selector(budget["spec"].get("selector"))
    return selector is not None and labels_match(selector, pod["metadata"].get("labels"))


def _scaled_value(value: int | str, total: int) -> int:
    if isinstance(value, int):
        return value
    return math.ceil(int(value.rstrip("%")) * total / 100)


def _observe(budget: Object) -> None:
    for condition in budget["status"]["conditions"]:
        condition["observedGeneration"] = budget["status"].get("observedGeneration", 0)


def _write_failed(budget: Object, why: str, now: datetime) -> None:
    # The fail-safe: nothing is allowed until the numbers are known again. observedGeneration stays
    # as it was, upstream too: evictions under such a new budget are told to come back later.
    budget["status"]["disruptionsAllowed"] = 0
    put_condition(
        budget["status"],
        "DisruptionAllowed",
        "False",
        now=now,
        reason="SyncFailed",
        message=why,
    )
    _observe(budget)
