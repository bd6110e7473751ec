"""Many nodes are to be taken out at once: how long each takes from the stored word to the cordon."""

import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fleet_processes import CLUSTER, Fleet

from app.store.requests import request, submit
from k8s.objects import Node
from k8s.reflector import Change, Reflector
from k8s.resources import NODES


def percentile(values: Iterable[float], ratio: float) -> float:
    """The value that so large a share does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(ratio * len(ordered)) - 1)]


@dataclass
class CordonRace:
    """Watches nodes from outside, and asks for drains that evict nothing: quarantine, limits on."""

    fleet: Fleet
    cordoned_at: dict[str, float] = field(default_factory=dict)
    asked_at: dict[str, float] = field(default_factory=dict)
    requests: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> "CordonRace":
        self._stop = threading.Event()
        self._reflector = Reflector(self.fleet.connection, NODES, self._see)
        self._thread = threading.Thread(target=self._reflector.run, args=(self._stop,), daemon=True)
        self._thread.start()
        assert self._reflector.synced.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._reflector.interrupt()
        self._thread.join(10)

    def _see(self, change: Change) -> None:
        node: Node = change.object
        if change.kind != "deleted" and node.spec.unschedulable:
            self.cordoned_at.setdefault(node.metadata.name, time.monotonic())

    def ask(self, *nodes: str) -> None:
        """One word for these nodes; it is stored when this returns."""
        made = submit(
            self.fleet.engine,
            CLUSTER,
            kind="drain",
            parameters={"nodes": list(nodes), "mode": "complete", "automatic": True},
            author="pitwall:demo",
            reason="a fault",
            idempotency_key=f"fault-{nodes[0]}",
            now=datetime.now(UTC),
        )
        for node in nodes:
            self.asked_at[node] = time.monotonic()
            self.requests[node] = made.id

    def wait(self, seconds: float) -> list[float]:
        """Waits until all are cordoned; gives the seconds that each took."""
        end = time.monotonic() + seconds
        while self.asked_at.keys() - self.cordoned_at.keys():
            assert time.monotonic() < end, self._missing()
            time.sleep(0.05)
        return [self.cordoned_at[node] - at for node, at in self.asked_at.items()]

    def _missing(self) -> str:
        missing = sorted(self.asked_at.keys() - self.cordoned_at.keys())
        said = [request(self.fleet.engine, CLUSTER, self.requests[name]) for name in missing[:3]]
        return f"{len(missing)} of {len(self.asked_at)} are not cordoned: {said}"
