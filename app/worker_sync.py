"""From the view of the cluster to the store: only what changed, in one transaction a tick."""

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from threading import Lock

from sqlalchemy import Connection, Engine, select

from app.operations.service import Holding
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import Operation, OperationNode
from app.store.writes.kubernetes import (
    gpus_of_pods,
    open_placements,
    store_kubernetes,
    touch_kubernetes,
)
from app.store.writes.picture import Picture, changes_between, picture_of
from app.worker_states import NodeState, NodeStates
from collectors.kubernetes import (
    Holder,
    PlacementKey,
    TopologyLabels,
    apply_changes,
    job_facts,
    node_facts,
    placement_changes,
    placements,
    pod_facts,
)
from k8s.nodes import read_hold
from k8s.view import ClusterView, ClusterWatcher

GPUS_SECONDS = 5.0
"""How often the agents' word on which pod holds which GPU is read: they poll each 5 s."""

TOUCH_SECONDS = 5.0
"""How often, at least, the store is told that Kubernetes is still heard."""

_operation = table_of(Operation)
_held = table_of(OperationNode)


class ClusterSync:
    """Keeps the picture that the store has; compares the view with it and writes the difference."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        watcher: ClusterWatcher,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._cluster = settings.cluster
        self._watcher = watcher
        self._clock = clock
        self._ended: dict[str, Holding] = {}
        self._states = NodeStates(settings)
        self._turn = Lock()
        self._begin_anew()

    def forget(self) -> None:
        """Forgets what the store has: another worker may have written it since. The next tick starts whole."""
        with self._turn:  # after a tick that is under way, which would bring its picture back
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._states.forget()
        self._picture: Picture | None = None
        self._placements: dict[PlacementKey, Holder] = {}
        self._version = -1
        self._open: dict[str, Holding] = {}
        self._gpus: dict[str, list[str]] = {}
        self._gpus_read_at = self._touched_at = float("-inf")

    def tick(self) -> None:
        """Writes what has changed since the last tick; nothing before Kubernetes was listed whole.

        Raises StoreError.
        """
        view = self._watcher.view()
        if view.synced:
            with self._turn:
                self._write_changes(view)

    def _write_changes(self, view: ClusterView) -> None:
        now = self._clock()
        moved = self._read(view, now)
        if self._picture is not None and not moved and view.version == self._version:
            self._touch(view)
            return
        states = self._states.look(view, now, open_holdings=self._open, ended_holdings=self._ended)
        picture = self._take_picture(view, states)
        held = placements(view, self._gpus)
        changes = placement_changes(self._placements, held, now=now)
        difference = changes_between(self._picture, picture, changes)
        standings = self._states.changed(states)
        if difference or standings:
            with write(self._engine) as connection:
                if difference:
                    store_kubernetes(connection, self._cluster, difference, now)
                self._states.store(connection, standings)
        self._states.remember(states)
        self._picture, self._version = picture, view.version
        self._placements = apply_changes(self._placements, changes)
        self._touch(view)

    def _take_picture(self, view: ClusterView, states: Mapping[str, NodeState]) -> Picture:
        pods = pod_facts(view)
        return picture_of(
            node_facts(view, topology_labels(self._settings)),
            pods,
            job_facts(view, pods),
            services={name: state.service for name, state in states.items()},
        )

    def _read(self, view: ClusterView, now: datetime) -> bool:
        """Reads what the store says about operations, GPUs and states; True when that has changed."""
        moved = False
        with read(self._engine) as connection:
            if self._picture is None:
                self._placements = open_placements(connection, self._cluster)
            if self._states.read(connection, view, now):
                moved = True
            opened = open_holdings(connection, self._cluster)
            ids = _ended_ids(view, opened) - {key.partition("/")[0] for key in self._ended}
            if ids:
                self._ended.update(ended_holdings(connection, self._cluster, ids))
            if opened != self._open:
                self._open, moved = opened, True
            if time.monotonic() - self._gpus_read_at >= GPUS_SECONDS:
                gpus = gpus_of_pods(connection, self._cluster)
                self._gpus_read_at = time.monotonic()
                if gpus != self._gpus:
                    self._gpus, moved = gpus, True
        return moved

    def _touch(self, view: ClusterView) -> None:
        if view.observed_at is None or time.monotonic() - self._touched_at < TOUCH_SECONDS:
            return
        with write(self._engine) as connection:
            touch_kubernetes(connection, self._cluster, view.observed_at)
        self._touched_at = time.monotonic()


def topology_labels(settings: Settings) -> TopologyLabels:
    """The labels by which this site says where a node stands."""
    return TopologyLabels(
        block=settings.topology_block_label,
        rack=settings.topology_rack_label,
        leaf=settings.topology_leaf_label,
        power=settings.topology_power_label or "",
    )


def open_holdings(connection: Connection, cluster: str) -> dict[str, Holding]:
    """What open operations say of their nodes, by node."""
    rows = connection.execute(
        select(_held.c.node, _operation.c.id, _operation.c.kind, _operation.c.nodes_state)
        .select_from(_held.join(_operation, _operation.c.id == _held.c.operation_id))
        .where(_held.c.cluster == cluster, _held.c.open)
    )
    return {
        row.node: Holding(row.id, row.kind, row.nodes_state.get(row.node, ""), True) for row in rows
    }


def ended_holdings(connection: Connection, cluster: str, ids: set[str]) -> dict[str, Holding]:
    """What ended operations said of their nodes at their end, by operation and node."""
    rows = connection.execute(
        select(_operation.c.id, _operation.c.kind, _operation.c.nodes_state).where(
            _operation.c.cluster == cluster,
            _operation.c.id.in_(ids),
            _operation.c.ended_at.is_not(None),
        )
    )
    return {
        f"{row.id}/{node}": Holding(row.id, row.kind, state, False)
        for row in rows
        for node, state in row.nodes_state.items()
    }


def _ended_ids(view: ClusterView, opened: Mapping[str, Holding]) -> set[str]:
    """Operations that nodes' annotations name and that are not open."""
    running = {holding.operation_id for holding in opened.values()}
    found = set()
    for node in view.nodes.values():
        hold = read_hold(node.metadata) if node.spec.unschedulable else None
        if hold is not None and hold.operation not in running:
            found.add(hold.operation)
    return found
