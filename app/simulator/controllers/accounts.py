"""The ServiceAccount controller: every namespace that lives has its default account."""

from app.simulator.clock import Schedule, WorkQueue
from app.simulator.registry import Registry
from app.simulator.store import Event

DEFAULT = "default"


class AccountController:
    """Creates the account with the namespace, and again when somebody deletes it."""

    def __init__(self, registry: Registry, schedule: Schedule) -> None:
        self._registry = registry
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("namespaces").listeners.append(self._on_namespace)
        registry.collection("serviceaccounts").listeners.append(self._on_account)

    def _on_namespace(self, event: Event) -> None:
        if event.type == "ADDED":
            self._queue.add(event.record.key[1])

    def _on_account(self, event: Event) -> None:
        if event.type == "DELETED" and event.record.key[1] == DEFAULT:
            self._queue.add(event.record.key[0])

    def _look_at(self, namespace: str) -> None:
        record = self._registry.get("namespaces", ("", namespace))
        if record is None or record.object["metadata"].get("deletionTimestamp"):
            return
        if self._registry.get("serviceaccounts", (namespace, DEFAULT)) is None:
            account = {"metadata": {"name": DEFAULT, "namespace": namespace}}
            self._registry.create("serviceaccounts", account)
