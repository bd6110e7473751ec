"""A store, what Kubernetes says, and a worker that is restarted at will: for tests of nodes' states."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
from cluster_builders import NOW, at, node, view
from sqlalchemy import Engine, select, update

from app.operations.admission import open_operation
from app.operations.lease import LeaseKeeper
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.fleet import node as read_node
from app.store.records import NodeRecord, RequestRecord
from app.store.requests import request, submit
from app.store.tables import Node, OperationNode
from app.store.tables import Operation as OperationTable
from app.worker_sync import ClusterSync
from k8s.objects import Node as KubernetesNode
from k8s.view import ClusterView

CLUSTER = "test"
HOUR = 3600.0
HOLD = '{{"operation": "{}", "was_unschedulable": false}}'


class Site:
    """A store, what Kubernetes says, and a worker that is restarted at will."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = NOW
        self.settings = Settings(_env_file=None, cluster=CLUSTER)
        self.shown = view()
        self._version = 0
        self.restart()

    def view(self) -> ClusterView:
        """As a watcher's."""
        return replace(self.shown, version=self._version, observed_at=self.now)

    def clock(self) -> datetime:
        return self.now

    def restart(self) -> None:
        watcher: Any = self
        self.sync = ClusterSync(
            self.engine, settings=self.settings, watcher=watcher, clock=self.clock
        )
        lease = LeaseKeeper(self.engine, CLUSTER, holder="w1", clock=self.clock)
        lease.renew()
        self.desk = RequestDesk(
            self.engine, settings=self.settings, view=self.view, lease=lease, clock=self.clock
        )
        self.lease = lease

    def show(self, *objects: object) -> None:
        """Kubernetes says this now; the worker looks."""
        self.shown = view(*objects)
        self._version += 1
        self.sync.tick()

    def wait(self, seconds: float, *, heard: bool = True, health: str = "Healthy") -> None:
        """Time goes by, agents go on reporting, and the worker looks."""
        self.now = at((self.now - NOW).total_seconds() + seconds)
        if heard:
            self.report(health)
        self.sync.tick()

    def report(self, health: str = "Healthy") -> None:
        """As ingest stores it."""
        table = Node.__table__
        with write(self.engine) as connection:
            for row in connection.execute(select(table.c.name, table.c.health)).all():
                values: dict[str, Any] = {"observed_at": self.now}
                if row.health != health:
                    values |= {"health": health, "health_reason": "", "health_since": self.now}
                connection.execute(update(table).where(table.c.name == row.name).values(values))

    def drained(self, name: str = "a") -> KubernetesNode:
        """The node as an ended drain has left it."""
        asked = RequestRecord("r1", "drain", {}, "ada", "", "pending", NOW, None, {}, "", "", None)
        with write(self.engine) as connection:
            made = open_operation(
                connection,
                CLUSTER,
                kind="drain",
                subject=name,
                nodes=[name],
                request=asked,
                now=self.now,
            )
            table = OperationTable.__table__
            connection.execute(
                update(table)
                .where(table.c.id == made)
                .values(nodes_state={name: "Drained"}, state="Succeeded", ended_at=self.now)
            )
            connection.execute(update(OperationNode.__table__).values(open=False))
        left = node(name, cordoned=True, hold=HOLD.format(made))
        self.show(left)
        self.report()
        return left

    def node(self, name: str = "a") -> NodeRecord:
        found = read_node(self.engine, CLUSTER, name)
        assert found is not None
        return found

    def row(self, name: str = "a") -> Any:
        with read(self.engine) as connection:
            return connection.execute(
                select(Node.__table__).where(Node.__table__.c.name == name)
            ).one()

    def ask(self, kind: str, **parameters: Any) -> RequestRecord:
        made = submit(
            self.engine,
            CLUSTER,
            kind=kind,
            parameters=parameters,
            author="ada",
            reason="",
            idempotency_key="",
            now=self.now,
        )
        self.lease.renew()
        self.desk.tick()
        found = request(self.engine, CLUSTER, made.id)
        assert found is not None
        return found


def changed(base: KubernetesNode, **metadata: Any) -> KubernetesNode:
    return msgspec.structs.replace(
        base, metadata=msgspec.structs.replace(base.metadata, **metadata)
    )
