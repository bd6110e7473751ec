"""A simulated cluster, a store, and workers that are driven step by step in the test's own thread."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec

from app.operations.lease import LeaseKeeper, holder_name
from app.operations.model import Operation, Step
from app.operations.reconciler import Boundary, Reconciler
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.simulator.server import ServerThread, serve_in_thread
from app.store.engine import migrate, open_store, read, write
from app.store.reads.operations import operation, operations
from app.store.records import OperationRecord, RequestRecord
from app.store.requests import request, submit
from app.store.tables import Node
from k8s.client import Connection, connect
from k8s.objects import is_ready
from k8s.view import ClusterView, ClusterWatcher

CLUSTER = "test"
PATIENCE_SECONDS = 30.0
# Alembic keeps its context in globals: one migration at a time in a process.
_MIGRATING = threading.Lock()
ENDED = ("Succeeded", "Failed", "Cancelled")
# Limits as they are shipped; a world has wide ones unless it is given these.
SHIPPED_LIMITS = {
    name: Settings.model_fields[name].default
    for name in (
        "max_unavailable_nodes_ratio",
        "max_drains_per_hour",
        "max_drains_per_hour_ratio",
        "min_usable_nodes_ratio",
        "max_unavailable_block_nodes_ratio",
    )
}


class Killed(BaseException):
    """The worker's process ends here."""


class RecordingConnection(Connection):
    """A connection that keeps what was tried (method, path), and what was taken, with its body."""

    def __init__(self, connection: Connection) -> None:
        self.__dict__.update(connection.__dict__)
        self.tried: list[tuple[str, str]] = []
        self.writes: list[tuple[str, str, Any]] = []
        self._lock = threading.Lock()

    def request(self, method: str, path: str, **options: Any) -> Any:
        if method != "GET":
            with self._lock:
                self.tried.append((method, path))
        response = super().request(method, path, **options)
        if method != "GET":
            with self._lock:
                self.writes.append((method, path, options.get("body")))
        return response

    def evictions(self) -> Counter[str]:
        """How often each pod, by UID, was evicted and the API server took it."""
        return Counter(
            body["deleteOptions"]["preconditions"]["uid"]
            for method, path, body in self.writes
            if method == "POST" and path.endswith("/eviction")
        )

    def suspensions(self, value: bool) -> Counter[str]:
        """How often each Job, by path, was suspended (True) or resumed (False)."""
        return Counter(
            path
            for method, path, body in self.writes
            if method == "PATCH" and (body.get("spec") or {}).get("suspend") is value
        )


class Driver:
    """One worker, its turns taken by the test."""

    def __init__(
        self, world: "World", at_boundary: Boundary | None = None, *, calls_at_once: int = 1
    ) -> None:
        self.world = world
        self.lease = LeaseKeeper(world.engine, CLUSTER, holder=holder_name(), clock=world.clock)
        self.desk = RequestDesk(
            world.engine,
            settings=world.settings,
            view=world.seen,
            lease=self.lease,
            clock=world.clock,
        )
        self.reconciler = Reconciler(
            world.engine,
            CLUSTER,
            connection=world.connection,
            view=world.seen,
            lease=self.lease,
            clock=world.clock,
            calls_at_once=calls_at_once,
            at_boundary=at_boundary,
        )

    def turn(self) -> None:
        """One turn of everything."""
        self.lease.renew()
        self.desk.tick()
        self.reconciler.tick()

    def run_until(self, met: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
        """Takes turns until something is met; wakes with each change of the cluster."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            version = self.world.watcher.version
            self.turn()
            found = met()
            if found:
                return found
            self.world.watcher.wait_changed(version, 0.1)
        raise AssertionError(f"not met within {seconds} s: {self.world.describe()}")


class World:
    """The cluster and the store."""

    def __init__(self, server: ServerThread, directory: Path, **settings: Any) -> None:
        url = f"sqlite:///{directory / 'store.db'}"
        with _MIGRATING:
            migrate(url)
        self.engine = open_store(url)
        values = {
            "cluster": CLUSTER,
            "store_url": url,
            "max_unavailable_nodes_ratio": 0.5,
            "max_drains_per_hour": 100,
            "max_drains_per_hour_ratio": 1.0,
            "min_usable_nodes_ratio": 0.0,
            "max_unavailable_block_nodes_ratio": 1.0,
        }
        self.settings = Settings(_env_file=None, **{**values, **settings})
        self.server = server
        plain = connect(server.kubeconfig, connect_timeout_seconds=3, read_timeout_seconds=6)
        self.connection = RecordingConnection(plain)
        self.people = connect(server.kubeconfig)
        self.watcher = ClusterWatcher(connect(server.kubeconfig))
        self.offset_seconds = 0.0
        self.watcher.start()
        assert self.watcher.wait_synced(20)

    def clock(self) -> datetime:
        """The worker's clock, which a test can put forward."""
        return datetime.fromtimestamp(time.time() + self.offset_seconds, UTC)

    def seen(self) -> ClusterView:
        """The view as the worker sees it: heard from lately by the worker's own clock."""
        view = self.watcher.view()
        if view.observed_at is None:
            return view
        return replace(view, observed_at=view.observed_at + timedelta(seconds=self.offset_seconds))

    def kill_node(self, node: str) -> None:
        """Lets a node die, and has the cluster say so without the 40 s that its controller waits."""
        fault = {"node": node, "kind": "node-dead"}
        httpx.post(f"{self.server.control_url}/simulator/faults", json=fault).raise_for_status()
        unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
        self.people.request(
            "PATCH",
            f"/api/v1/nodes/{node}/status",
            body={"status": {"conditions": [unknown]}},
            content_type="application/strategic-merge-patch+json",
        )
        self.wait(lambda view: not is_ready(view.nodes[node]))

    def disturb(self, **fault: Any) -> None:
        """Has the API server answer otherwise than it would."""
        url = f"{self.server.control_url}/simulator/kubernetes-faults"
        httpx.post(url, json=fault).raise_for_status()

    def close(self) -> None:
        self.watcher.stop()
        self.engine.dispose()

    def view(self) -> ClusterView:
        return self.watcher.view()

    def health(self, node: str, health: str, reason: str = "xid-79") -> None:
        """What the agent of a node would have had stored."""
        with write(self.engine) as connection:
            connection.execute(
                Node.__table__.insert().values(
                    cluster=CLUSTER,
                    name=node,
                    health=health,
                    health_reason=reason,
                    service="In service",
                    service_reason="",
                    score=0,
                )
            )

    def ask(
        self,
        kind: str,
        *,
        author: str = "ada",
        key: str = "",
        reason: str = "a test",
        **parameters: Any,
    ) -> str:
        """Writes a request as the page does; gives its id."""
        made = submit(
            self.engine,
            CLUSTER,
            kind=kind,
            parameters=parameters,
            author=author,
            reason=reason,
            idempotency_key=key,
            now=self.clock(),
        )
        return made.id

    def answer(self, driver: Driver, kind: str, **parameters: Any) -> RequestRecord:
        """Asks, and has it answered."""
        asked = self.ask(kind, **parameters)
        driver.lease.renew()
        driver.desk.tick()
        found = request(self.engine, CLUSTER, asked)
        assert found is not None
        assert found.state != "pending"
        return found

    def drain(self, driver: Driver, *nodes: str, **parameters: Any) -> str:
        """An accepted drain's id."""
        record = self.answer(driver, "drain", nodes=list(nodes), **parameters)
        assert record.state == "accepted", record.refusal
        assert record.operation_id is not None
        return record.operation_id

    def operation(self, operation_id: str) -> OperationRecord:
        found = operation(self.engine, CLUSTER, operation_id)
        assert found is not None
        return found

    def operations(self) -> list[OperationRecord]:
        return operations(self.engine, CLUSTER)

    def state(self, operation_id: str) -> str:
        return self.operation(operation_id).state

    def describe(self) -> str:
        lines = []
        for found in operations(self.engine, CLUSTER):
            whole = self.operation(found.id)
            steps = [f"{s.name} {s.target} {s.state}: {s.message}" for s in whole.steps]
            lines.append(
                f"{whole.state}: {whole.message} {whole.nodes_state} {whole.workloads_state}"
            )
            lines += steps
        lines += [
            f"{p.metadata.name} {p.spec.node_name} {p.status.phase} {p.metadata.deletion_timestamp}"
            for p in self.view().pods.values()
        ]
        return "\n".join(lines)

    def audited(self) -> list[Any]:
        from app.store.tables import AuditEntry

        with read(self.engine) as connection:
            table = AuditEntry.__table__
            return list(connection.execute(table.select().order_by(table.c.id)))

    # --- the cluster ---

    def create(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        return msgspec.json.decode(self.people.request("POST", path, body=document).body)

    def create_job(self, name: str, *, ranks: int = 1, gang: bool = True, **template: Any) -> str:
        """A Job of ranks with 8 GPUs each; gives its UID."""
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "train",
                    "image": "train",
                    "resources": {
                        "limits": {"nvidia.com/gpu": "8"},
                        "requests": {"nvidia.com/gpu": "8"},
                    },
                }
            ],
            **template.pop("spec", {}),
        }
        ignore = {"type": "DisruptionTarget", "status": "True"}
        made = self.create(
            "/apis/batch/v1/namespaces/default/jobs",
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "namespace": "default", **template.pop("metadata", {})},
                "spec": {
                    "parallelism": ranks,
                    "completions": ranks,
                    "completionMode": "Indexed" if gang else "NonIndexed",
                    "backoffLimit": 6,
                    "podReplacementPolicy": "Failed",
                    "podFailurePolicy": {
                        "rules": [{"action": "Ignore", "onPodConditions": [ignore]}]
                    },
                    "template": {
                        "metadata": {"labels": {"app": name, **template.pop("labels", {})}},
                        "spec": spec,
                    },
                },
            },
        )
        return str(made["metadata"]["uid"])

    def wait(self, met: Callable[[ClusterView], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
        """Waits until the view shows something."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            version = self.watcher.version
            found = met(self.view())
            if found:
                return found
            self.watcher.wait_changed(version, 0.5)
        raise AssertionError(f"not seen within {seconds} s: {self.describe()}")

    def running(self, job_uid: str, ranks: int) -> Callable[[ClusterView], Any]:
        """Met once so many pods of the Job are Running and Ready."""

        def met(view: ClusterView) -> Any:
            pods = [
                pod
                for pod in view.pods_of(job_uid)
                if pod.status.phase == "Running"
                and pod.metadata.deletion_timestamp is None
                and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)
            ]
            return pods if len(pods) == ranks else None

        return met


class Crossings:
    """Counts the boundaries that a worker crosses, and kills it at one of them."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.names: list[str] = []
        self._kill_at = kill_at

    def cross(self, where: str, operation: Operation, step: Step) -> None:
        """To be given to a Driver as at_boundary."""
        self.names.append(f"{where} {step.name}")
        if len(self.names) - 1 == self._kill_at:
            raise Killed(self.names[-1])


@contextmanager
def world_of(directory: Path, *, nodes: int = 4, **settings: Any) -> Iterator[World]:
    """A world for as long as the block lasts."""
    with serve_in_thread(nodes=nodes, with_jobs=False) as server:
        world = World(server, directory, **settings)
        try:
            world.wait(lambda view: len(view.nodes) == nodes)
            yield world
        finally:
            world.close()
