"""The agents of the replay and their way to the store, in virtual time.

Each is a FleetNode: the agent's own poller, desk, supervision and spool. A report leaves its spool as encoded,
is decoded as ingest decodes it, and is stored by the batch of its tick.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from app.simulator.clock import Schedule
from app.simulator.control import _host_view, _xid_view
from app.simulator.faults import XidEvent
from app.simulator.fleet_feed import NodeState, XidTold
from app.simulator.fleet_node import FleetNode
from app.simulator.hosts import Host
from app.simulator.nvml import SimulatedNvml
from app.store.engine import write
from app.store.writes.reports import store_reports
from collectors.errors import TokenError
from collectors.push import Receipt
from collectors.report import Report, decode_report

POLL_SECONDS = 5.0
IDLE_POLL_SECONDS = 30.0
"""Between what happens to a node: often enough not to fall silent, and no load."""

TICK_SECONDS = 0.1
"""Ingest's: reports of one tick are stored in one transaction."""

PUSH_SECONDS = 0.05
START = 100_000.0


class NoToken:
    """Nothing is pushed over a network here."""

    def read(self, *, at: float) -> str:
        raise TokenError("nothing is pushed here")


class Intake:
    """Ingest without its HTTP: batches of a tick into the store, answers back to the agents."""

    def __init__(self, engine: Engine, cluster: str, schedule: Schedule) -> None:
        self._engine = engine
        self._cluster = cluster
        self._schedule = schedule
        self._batch: list[tuple[Report, VirtualAgent]] = []
        self.away = False
        self.awake: set[VirtualAgent] = set()
        self.counts = {"stored": 0, "older": 0, "duplicate": 0}

    def take(self, body: bytes, agent: VirtualAgent) -> None:
        """A request with one report; stored by the tick to come."""
        if not self._batch:
            self._schedule.call_after(TICK_SECONDS, self._tick)
        self._batch.append((decode_report(body), agent))

    def _tick(self) -> None:
        batch, self._batch = self._batch, []
        now = self._schedule.clock.now()
        with write(self._engine) as connection:
            stored = store_reports(connection, self._cluster, [one for one, _ in batch], now)
        for outcome in stored.outcomes:
            self.counts[outcome] += 1
        for report, agent in batch:
            agent.answered(stored.closed_episodes.get(report.node, ()))


@dataclass(eq=False)
class VirtualAgent:
    """One node's agent with its turns on the schedule. `skew_seconds`: by how much its clock is ahead."""

    host: Host
    library: SimulatedNvml
    directory: Path
    schedule: Schedule
    intake: Intake
    rng: random.Random
    cluster: str
    skew_seconds: float = 0.0
    off: bool = False
    """The process is not there: upgraded, restarted, or its machine is down."""

    delay_seconds: float = 0.0
    repeats: int = 0
    awake_until: datetime | None = None
    fast_until: datetime | None = None
    polls: int = 0
    _turn: int = 0
    _running: bool = False
    _pushing: bool = False
    node: FleetNode = field(init=False)

    def __post_init__(self) -> None:
        self.phase = self.rng.uniform(0, POLL_SECONDS)
        self.begin()

    @property
    def now(self) -> datetime:
        return self.schedule.clock.now()

    @property
    def at(self) -> float:
        """Monotonic seconds, of any origin."""
        return START + self.now.timestamp() % 10_000_000

    @property
    def is_awake(self) -> bool:
        return self.awake_until is not None and not self.off and not self.host.dead

    def begin(self, *, forgets: bool = False) -> None:
        """The process starts, with what its disk holds; `forgets`: the disk was wiped."""
        if forgets:
            shutil.rmtree(self.directory)
        self.node = FleetNode(
            self.host.name,
            self.state(),
            cluster=self.cluster,
            agent_version="0",
            directory=self.directory,
            library=self.library,
            token=NoToken(),
            slow_interval_seconds=15.0,
        )

    def state(self) -> NodeState:
        return msgspec.convert(_host_view(self.host), NodeState)

    def apply(self) -> bool:
        """Take the machine's new state; True when more than its load is another."""
        return self.node.apply(self.state())

    def wake(self, seconds: float, *, fast_seconds: float = 60.0) -> None:
        """Poll from the next turn on for at least so long, at first at the true cadence."""
        until = self.now + timedelta(seconds=seconds)
        self.awake_until = max(until, self.awake_until or until)
        self.intake.awake.add(self)
        fast_until = self.now + timedelta(seconds=fast_seconds)
        self.fast_until = max(fast_until, self.fast_until or fast_until)
        if not self._running and not self.off and not self.host.dead:
            self._running = True
            self._turn += 1
            wait = (self.phase - self.now.timestamp()) % POLL_SECONDS
            self._call(wait, self._turn)

    def stop(self) -> None:
        """The process ends, or its machine does."""
        self.off = True
        self._running = False
        self._turn += 1

    def start(self, *, forgets: bool = False, awake_seconds: float = 60.0) -> None:
        """The process is there again."""
        self.off = False
        self.begin(forgets=forgets)
        self.wake(awake_seconds)

    def hear(self, event: XidEvent) -> None:
        """A line of the kernel's log; it is told at once."""
        if self.off or self.host.dead:
            return
        self.node.take_xid(msgspec.convert(_xid_view(event), XidTold), now=self._own_now())
        self._report()

    def answered(self, closed_episodes: object) -> None:
        """What ingest said to a report."""
        if closed_episodes:
            self.node.receipts.append(Receipt(closed_episodes=tuple(closed_episodes)))  # type: ignore[arg-type]

    def push(self) -> None:
        """Send what the spool holds, oldest first; each at its own time while the way is slow."""
        if self._pushing or self.intake.away or not len(self.node.spool):
            return
        self._pushing = True
        self.schedule.call_after(PUSH_SECONDS + self.delay_seconds, self._send)

    def _send(self) -> None:
        self._pushing = False
        oldest = self.node.spool.oldest()
        if oldest is None or self.intake.away:
            return
        for _ in range(1 + self.repeats):
            self.intake.take(oldest[1], self)
        self.node.spool.remove(oldest[0])
        self.push()

    def _call(self, wait: float, turn: int) -> None:
        self.schedule.call_after(wait, lambda: self._step(turn))

    def _step(self, turn: int) -> None:
        if turn != self._turn or self.host.dead or self.off:
            self._running = self._running and turn != self._turn
            return
        if self.awake_until is None or self.now > self.awake_until:
            self.awake_until, self._running = None, False
            self.intake.awake.discard(self)
            return
        self.polls += 1
        self.node.poll(at=self.at, now=self._own_now())
        self._report()
        is_fast = self.fast_until is not None and self.now <= self.fast_until
        self._call(POLL_SECONDS if is_fast else IDLE_POLL_SECONDS, turn)

    def _report(self) -> None:
        if self.node.report(at=self.at, now=self._own_now()):
            self.push()
            return
        wait = self.node.next_report_at(at=self.at) - self.at
        if 0 < wait < 1.0:  # a change within half a second of the report before waits for it
            self.schedule.call_after(wait, self._late_report)

    def _late_report(self) -> None:
        if (
            not self.off
            and not self.host.dead
            and self.node.report(at=self.at, now=self._own_now())
        ):
            self.push()

    def _own_now(self) -> datetime:
        return self.now + timedelta(seconds=self.skew_seconds)
