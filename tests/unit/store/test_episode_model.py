"""Any interleaving of faults, restarts, reboots, silence, late and repeated reports, against a simple model.

Two nodes' desks are the agents' own; their reports go over the wire's encoding into a real store. The model
beside them knows only sets: which faults an agent has open, what each report told, which report of a node
was observed last. After every step the store must say the same.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, text

from app.store.engine import open_store
from app.store.writes.aging import age_nodes
from app.store.writes.incidents import refresh_incidents
from app.store.writes.reports import store_reports
from collectors.desk import Desk, Identity
from collectors.folding import Occurrence
from collectors.memory import Memory
from collectors.readings import Poll
from collectors.report import AgentCounters, NvmlState, decode_report, encode_report
from tests.reports import NOW, gpu

CLUSTER = "c"
NODES = ("n1", "n2")
SILENCE = timedelta(seconds=45)
LEVEL = ("gpu-lost", "remap-failure", "remap-pending")
"""Rules without a hold time: two that are grave, and one that only degrades."""

XID = "xid-79"
"""Ends only with a new boot, whatever the GPU answers meanwhile."""
GRAVE = {"gpu-lost", "remap-failure", XID}
STEPS = 40

Key = tuple[str, int]
"""(rule, index of the GPU)."""


@dataclass
class Told:
    """A report on its way: the bytes, and what the model says of it."""

    body: bytes
    observed_at: datetime
    spool: str
    sequence: int
    open: frozenset[tuple[Key, int]]


@dataclass
class Node:
    """A node as it is, its agent, and what the model knows of both."""

    name: str
    boot: int = 0
    faults: set[Key] = field(default_factory=set)
    xids: set[int] = field(default_factory=set)
    desk: Any = None
    spool: int = 0
    sequence: int = 0
    open: dict[Key, int] = field(default_factory=dict)
    boots: dict[Key, int] = field(default_factory=dict)
    queue: list[Told] = field(default_factory=list)
    straggling: list[Told] = field(default_factory=list)
    sent: list[Told] = field(default_factory=list)
    newest: Told | None = None
    heard_at: datetime | None = None
    told: set[tuple[Key, int]] = field(default_factory=set)


class Episodes(RuleBasedStateMachine):
    """See the module."""

    engine: ClassVar[Engine]
    runs: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        type(self).runs["examples"] += 1
        self.connection: Connection = self.engine.connect()
        self.transaction = self.connection.begin()
        self.now = NOW
        self.numbers = itertools.count(1)
        self.closed: dict[str, Any] = {}
        self.nodes = {name: Node(name) for name in NODES}
        for node in self.nodes.values():
            self._start(node, Memory())
            self._poll(node)
            self._deliver(node)

    def teardown(self) -> None:
        if hasattr(self, "transaction"):
            self.transaction.rollback()
            self.connection.close()

    # --- what happens

    @rule(name=st.sampled_from(NODES), fault=st.sampled_from(LEVEL), index=st.integers(0, 1))
    def a_fault_begins(self, name: str, fault: str, index: int) -> None:
        self.nodes[name].faults.add((fault, index))

    @rule(name=st.sampled_from(NODES), fault=st.sampled_from(LEVEL), index=st.integers(0, 1))
    def a_fault_ends(self, name: str, fault: str, index: int) -> None:
        self.nodes[name].faults.discard((fault, index))

    @rule(name=st.sampled_from(NODES), index=st.integers(0, 1))
    def the_kernel_logs_an_xid(self, name: str, index: int) -> None:
        node = self.nodes[name]
        node.xids.add(index)
        self._pass(0.5)
        self._hear(node, index)
        self._report(node)

    @rule(name=st.sampled_from(NODES))
    def it_polls_and_reports(self, name: str) -> None:
        self._poll(self.nodes[name])

    @rule(name=st.sampled_from(NODES))
    def it_polls_and_is_heard(self, name: str) -> None:
        self._poll(self.nodes[name])
        self._deliver(self.nodes[name])

    @rule(name=st.sampled_from(NODES))
    def what_it_spooled_is_delivered(self, name: str) -> None:
        self._deliver(self.nodes[name])

    @precondition(lambda self: any(node.queue for node in self.nodes.values()))
    @rule(data=st.data())
    def one_report_is_delivered(self, data: st.DataObject) -> None:
        names = [name for name, node in self.nodes.items() if node.queue]
        node = self.nodes[data.draw(st.sampled_from(names))]
        self._store(node, [node.queue.pop(0)])

    @precondition(lambda self: any(node.sent for node in self.nodes.values()))
    @rule(data=st.data())
    def an_old_report_comes_again(self, data: st.DataObject) -> None:
        names = [name for name, node in self.nodes.items() if node.sent]
        node = self.nodes[data.draw(st.sampled_from(names))]
        self._store(node, [data.draw(st.sampled_from(node.sent))])

    @precondition(lambda self: any(node.straggling for node in self.nodes.values()))
    @rule(data=st.data(), among=st.sampled_from(["alone", "before the newer", "after the newer"]))
    def a_report_of_a_lost_spool_comes_late(self, data: st.DataObject, among: str) -> None:
        names = [name for name, node in self.nodes.items() if node.straggling]
        node = self.nodes[data.draw(st.sampled_from(names))]
        late, node.straggling = node.straggling, []
        if among == "alone":
            self._store(node, late)
            return
        newer, node.queue = node.queue, []
        self._store(node, [*late, *newer] if among == "before the newer" else [*newer, *late])

    @rule(name=st.sampled_from(NODES))
    def the_agent_restarts(self, name: str) -> None:
        node = self.nodes[name]
        self._start(node, node.desk.memory)

    @rule(name=st.sampled_from(NODES))
    def the_agent_restarts_on_a_wiped_disk(self, name: str) -> None:
        node = self.nodes[name]
        # What was on its way may yet arrive; the rest of the spool is lost.
        self._poll(node)
        node.straggling += node.queue[:1]
        node.queue.clear()
        node.spool, node.sequence = node.spool + 1, 0
        node.open.clear()
        self._start(node, Memory())
        self._pass(1)
        for index in sorted(node.xids):  # the kernel's ring is read from its start
            self._hear(node, index)

    @rule(name=st.sampled_from(NODES))
    def the_node_boots_anew(self, name: str) -> None:
        node = self.nodes[name]
        node.boot += 1
        node.faults.clear()
        node.xids.clear()
        self._start(node, node.desk.memory)
        self._pass(20)

    @rule(seconds=st.sampled_from([3, 20, 50, 120, 700]))
    def nothing_is_heard_for_a_while(self, seconds: int) -> None:
        self._pass(seconds)

    @rule()
    def the_worker_looks(self) -> None:
        self._pass(1)
        age_nodes(self.connection, CLUSTER, self.now)
        refresh_incidents(self.connection, CLUSTER, self.now)
        self._check_incidents()

    @rule()
    def all_is_heard_and_looked_at(self) -> None:
        for node in self.nodes.values():
            self._poll(node)
            self._deliver(node)
            assert {key for key, _ in self._open_of(node)} == node.faults | {
                (XID, index) for index in node.xids
            }
        self.the_worker_looks()

    # --- what must be so

    @invariant()
    def each_fault_is_one_episode(self) -> None:
        if not hasattr(self, "nodes"):
            return
        rows = self.connection.execute(
            text("SELECT node, rule, gpu_uuid, episode, closed_at FROM finding WHERE cluster = 'c'")
        ).all()
        found: dict[str, Counter[Key]] = defaultdict(Counter)
        opened: dict[str, Counter[Key]] = defaultdict(Counter)
        for name, rule_name, uuid, episode, closed_at in rows:
            key = (rule_name, int(uuid.rpartition("-")[2]))
            found[name][key] += 1
            opened[name][key] += closed_at is None
            if episode in self.closed:
                assert closed_at == self.closed[episode], "an episode that was over is open again"
            if closed_at is not None:
                self.closed[episode] = closed_at
        for name, node in self.nodes.items():
            assert +found[name] == Counter(key for key, _ in node.told)
            assert +opened[name] == Counter(key for key, _ in self._open_of(node))

    @invariant()
    def each_node_is_as_its_newest_report_says(self) -> None:
        if not hasattr(self, "nodes"):
            return
        rows = self.connection.execute(
            text("SELECT name, health, reported_reason FROM node WHERE cluster = 'c'")
        ).all()
        for name, health, reason in rows:
            if str(reason).startswith("no report since"):
                assert health == "Unknown"
                continue
            rules = {key[0] for key, _ in self._open_of(self.nodes[name])}
            worst = "Failing" if rules & GRAVE else "Degraded" if rules else "Healthy"
            assert health == worst

    def _check_incidents(self) -> None:
        rows = self.connection.execute(
            text(
                "SELECT scope, subject, ended_at, flapping FROM incident WHERE resolved_at IS NULL"
            )
        ).all()
        opened = {subject: (ended_at, flapping) for _, subject, ended_at, flapping in rows}
        assert len(opened) == len(rows), "two open incidents of one node"
        assert {scope for scope, *_ in rows} <= {"node"}
        for name, node in self.nodes.items():
            grave = any(key[0] in GRAVE for key, _ in self._open_of(node))
            if grave or self._is_silent(node):
                assert name in opened
                assert opened[name][0] is None
            elif name in opened:
                assert opened[name][1], "only one that flaps waits before it is over"

    # --- how

    def _is_silent(self, node: Node) -> bool:
        assert node.newest is not None
        assert node.heard_at is not None
        return min(node.newest.observed_at, node.heard_at) < self.now - SILENCE

    def _open_of(self, node: Node) -> frozenset[tuple[Key, int]]:
        return node.newest.open if node.newest is not None else frozenset()

    def _pass(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def _start(self, node: Node, memory: Memory) -> None:
        node.desk = Desk(
            Identity(CLUSTER, node.name, f"boot-{node.name}-{node.boot}", "1"),
            memory,
            push_interval_seconds=15,
            xid_window_seconds=5,
            find_pod=lambda pid: None,
            new_id=lambda: f"id-{next(self.numbers)}",
        )

    def _poll(self, node: Node) -> None:
        self._pass(5)
        readings = []
        for index in range(2):
            known = {fault for fault, place in node.faults if place == index}
            values: dict[str, Any] = {
                "remap_failure": "remap-failure" in known,
                "remap_pending": "remap-pending" in known,
            }
            if "gpu-lost" in known:
                values["error_code"] = 15
            readings.append(gpu(node.name, index, **values))
        poll = Poll(at=self.now, driver_version="580", gpu_count=2, gpus=tuple(readings))
        node.desk.take_poll(poll, nvml=NvmlState(answering=True), now=self.now)
        self._open_level(node, self._seen(node))
        self._report(node)

    def _seen(self, node: Node) -> set[Key]:
        return {(fault, index) for fault, index in node.faults}

    def _open_level(self, node: Node, seen: set[Key]) -> None:
        """The model's own ledger: a level fault is open while it is seen, an XID until the next boot."""
        self._end_old_xids(node)
        for key in list(node.open):
            if key[0] != XID and key not in seen:
                del node.open[key]
        for key in seen:
            if key not in node.open:
                node.open[key] = next(self.numbers)

    def _hear(self, node: Node, index: int) -> None:
        told = Occurrence(
            at=self.now,
            code=79,
            kind="xid",
            source="kernel",
            gpu_uuid=f"GPU-{node.name}-{index}",
            pci_bus_id=f"00000000:{index:02x}:00.0",
            text="GPU has fallen off the bus.",
        )
        node.desk.take_xid(told, now=self.now)
        self._end_old_xids(node)
        node.open.setdefault((XID, index), next(self.numbers))
        node.boots[XID, index] = node.boot

    def _end_old_xids(self, node: Node) -> None:
        """A new boot ends what an XID of the last one opened."""
        for key in [key for key in node.open if key[0] == XID and node.boots[key] != node.boot]:
            del node.open[key]

    def _report(self, node: Node) -> None:
        node.sequence += 1
        report = node.desk.compose(
            "interval",
            spool_id=f"{node.name}-{node.spool}",
            sequence=node.sequence,
            counters=AgentCounters(),
            now=self.now,
            at=self.now.timestamp(),
        )
        node.queue.append(
            Told(
                encode_report(report),
                self.now,
                report.spool_id,
                node.sequence,
                frozenset(node.open.items()),
            )
        )

    def _deliver(self, node: Node) -> None:
        batch, node.queue = node.queue, []
        self._store(node, batch)

    def _store(self, node: Node, batch: list[Told]) -> None:
        if not batch:
            return
        self._pass(0.1)
        reports = [decode_report(one.body) for one in batch]
        store_reports(self.connection, CLUSTER, reports, self.now)
        had = {(one.spool, one.sequence) for one in node.sent}
        last = {spool: max(n for s, n in had if s == spool) for spool, _ in had}
        for one in batch:
            if one.sequence <= last.get(one.spool, 0):
                continue  # told before
            node.sent.append(one)
            node.told |= one.open
            if node.newest is None or one.observed_at > node.newest.observed_at:
                node.newest, node.heard_at = one, self.now


@pytest.fixture
def one_engine(tmp_path: Path, sqlite_template: Path) -> Iterator[Engine]:
    path = tmp_path / "model.db"
    shutil.copy(sqlite_template, path)
    engine = open_store(f"sqlite:///{path}")
    yield engine
    engine.dispose()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "examples",
    [
        pytest.param(200, id="200"),
        pytest.param(5000, id="5000", marks=pytest.mark.acceptance),
    ],
)
def test_any_interleaving_leaves_one_episode_a_fault_and_the_right_state(
    one_engine: Engine, examples: int
) -> None:
    Episodes.engine = one_engine
    Episodes.runs = Counter()
    run_state_machine_as_test(
        Episodes,
        settings=settings(
            max_examples=int(os.environ.get("PITWALL_EPISODE_EXAMPLES", examples)),
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{Episodes.runs['examples']} interleavings of up to {STEPS} steps")
