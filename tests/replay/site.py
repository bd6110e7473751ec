"""The whole site in virtual time: machines, agents, store, and the worker's parts at their own cadence.

Time jumps from event to event. A node to which nothing happens is asleep: its agent would report each 15 s
what it reported before, so only the times of its row in the store are moved on, by one UPDATE a step.
While something has just happened the worker's parts run each 2 s, as they do; else each 25 s, or not at
all when no agent is awake.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import Engine, text

from app.settings import Settings
from app.simulator.clock import ManualClock, Schedule
from app.simulator.nvml import SimulatedNvml
from app.store.engine import read, write
from app.store.writes.bulk import clock as stored_clock
from app.store.writes.central import fold_central
from app.worker_chores import Chores
from app.worker_kubernetes_findings import KubernetesFindings
from app.worker_sync import ClusterSync
from collectors.central import CentralFinding
from tests.replay.agents import Intake, VirtualAgent
from tests.replay.floor import LEAF, POWER, RACK, Floor

START = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
CLUSTER = "replay"
HOT_SECONDS = 2.0
COLD_SECONDS = 25.0
TOUCH_AFTER = timedelta(seconds=6)
SPREAD_SECONDS = 1.5
SYNC_SECONDS = 10.0
"""How often the sync looks though Kubernetes has said nothing new: it reads the whole table of nodes."""

SKEWED_RATIO = 0.05
"""Share of the nodes whose clock is off, by up to 5 s either way, all the week."""


class IncidentSeen(msgspec.Struct):
    """An incident as it came into the store at `seen_at`, and as it stood at last."""

    id: str
    scope: str
    subject: str
    severity: str
    cause: str
    title: str
    seen_at: datetime
    opened_at: datetime
    resolved_at: datetime | None
    nodes: list[str]
    jobs: list[str]
    merged_into: str | None
    flaps: int
    first_cause: str


class Site:
    """Everything that runs. `run_to` moves the time on."""

    def __init__(self, directory: Path, engine: Engine, *, nodes: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock(START)
        self.schedule = Schedule(self.clock)
        self.engine = engine
        self.directory = directory
        self.floor = Floor(nodes=nodes, seed=seed, clock=self.clock, rng=random.Random(seed + 1))
        self.library = SimulatedNvml(seed=seed)
        self.intake = Intake(engine, CLUSTER, self.schedule)
        self.training: dict[tuple[str, str, str, str], CentralFinding] = {}
        self.settings = Settings(
            cluster=CLUSTER,
            topology_rack_label=RACK,
            topology_leaf_label=LEAF,
            topology_power_label=POWER,
        )
        self.agents: dict[str, VirtualAgent] = {}
        self.rounds = 0
        self.seen: dict[str, datetime] = {}
        self._causes: dict[str, str] = {}
        self._hot_until = START
        self._touched_at = START
        self._synced = (-1, START)
        self._told: dict[tuple[str, str, str, str], CentralFinding] = {}
        self._hosts_version = 0
        self._xid = 0
        self._last_event = 0
        self._make_worker()

    # --- what a script calls

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Do something later; what it changes is seen by the agents at once."""

        def run() -> None:
            call()
            self.spread()

        self.schedule.call_after(seconds, run)

    def hot(self, seconds: float) -> None:
        """Keep the worker's true cadence from now on for so long."""
        self._hot_until = max(self._hot_until, self.now + timedelta(seconds=seconds))

    def agent(self, name: str) -> VirtualAgent:
        """The node's agent; made when the node is new."""
        known = self.agents.get(name)
        if known is None:
            known = self.agents[name] = VirtualAgent(
                host=self.floor.hosts.by_name[name],
                library=self.library,
                directory=self.directory / name,
                schedule=self.schedule,
                intake=self.intake,
                rng=self.rng,
                cluster=CLUSTER,
            )
        return known

    def spread(self) -> None:
        """Let agents see what changed in their machines, and hear what the kernel logged."""
        faults = self.floor.faults
        for event in faults.xids if faults.last_sequence > self._xid else ():
            if event.sequence > self._xid:
                self.agent(event.node).hear(event)
        self._xid = faults.last_sequence
        hosts = self.floor.hosts
        for host in hosts.changed_since(self._hosts_version):
            agent = self.agents.get(host.name)
            if agent is not None and agent.apply() and not agent.is_awake:
                agent.wake(6.0)
        self._hosts_version = hosts.version

    def restart_worker(self) -> None:
        """Another worker takes over: it knows what the store holds."""
        self._make_worker()

    def _make_worker(self) -> None:
        common = {"settings": self.settings, "watcher": self.floor.watcher, "clock": self.clock.now}
        self.sync = ClusterSync(self.engine, **common)  # type: ignore[arg-type]
        self.kubernetes = KubernetesFindings(self.engine, **common)  # type: ignore[arg-type]
        self.chores = Chores(self.engine, settings=self.settings, clock=self.clock.now)

    # --- time

    def begin(self) -> None:
        """Every node reports once, by its agent; Kubernetes is read whole."""
        for name in self.floor.nodes:
            agent = self.agent(name)
            if self.rng.random() < SKEWED_RATIO:
                agent.skew_seconds = self.rng.uniform(-5, 5)
            agent.wake(6.0)
        self._hosts_version = self.floor.hosts.version
        self.hot(12)
        self.run_to(START + timedelta(seconds=60))

    def run_to(self, end: datetime) -> None:
        """Move on to `end`, with everything that is due by then."""
        while self.now < end:
            due = self.schedule.next_due()
            tick = self._next_tick(due, end)
            moment = min(one for one in (due, tick, end) if one is not None)
            self.clock.move_to(moment)
            if moment == tick:
                self.tick()
            self.schedule.run_due()

    def _next_tick(self, due: datetime | None, end: datetime) -> datetime:
        if self.now <= self._hot_until:
            step = HOT_SECONDS
        elif any(agent.is_awake for agent in self.intake.awake):
            step = COLD_SECONDS
        else:
            return min(due, end) if due is not None else end
        past = (self.now - START).total_seconds() % step
        return self.now + timedelta(seconds=step - past)

    def tick(self) -> None:
        """One turn of the worker's parts, after the sleepers' times were moved on."""
        self.rounds += 1
        now = self.now
        is_cold = now > self._hot_until
        if not self.intake.away and (is_cold or now - self._touched_at >= TOUCH_AFTER):
            self.move_sleepers()
        version = self.floor.watcher.version
        if version != self._synced[0] or now - self._synced[1] >= timedelta(seconds=SYNC_SECONDS):
            self.sync.tick()
            self._synced = (version, now)
        self.kubernetes.tick()
        if self.training != self._told:
            with write(self.engine) as connection:
                fold_central(connection, CLUSTER, "training", self.training.values(), now)
            self._told = dict(self.training)
        self.chores.tick()
        self._note_incidents(now)

    def move_sleepers(self) -> None:
        """Move the times of the nodes that are asleep on to now: their agents say what they said before."""
        now = self.now
        names = [
            name
            for name, agent in self.agents.items()
            if agent.awake_until is not None or agent.off or agent.host.dead
        ]
        with write(self.engine) as connection:
            stored = stored_clock(connection)
            # Agents report at their own times; while it matters the sleepers are not all of one moment.
            spread = SPREAD_SECONDS if now <= self._hot_until else 0.0
            times = {
                f"t{place}": stored(now - timedelta(seconds=spread * place)) for place in range(5)
            }
            connection.execute(
                text(
                    "UPDATE node SET observed_at = CASE rowid % 5 WHEN 0 THEN :t0 WHEN 1 THEN :t1 "
                    "WHEN 2 THEN :t2 WHEN 3 THEN :t3 ELSE :t4 END, received_at = :t0 "
                    "WHERE cluster = :cluster AND observed_at IS NOT NULL "
                    "AND name NOT IN (SELECT value FROM json_each(:names))"
                ),
                {
                    **times,
                    "cluster": CLUSTER,
                    "names": msgspec.json.encode(names).decode(),
                },
            )
        self._touched_at = now

    def _note_incidents(self, now: datetime) -> None:
        with read(self.engine) as connection:
            rows = connection.execute(
                text(
                    "SELECT event.id, incident_id, event.kind, cause FROM incident_event AS event "
                    "JOIN incident ON incident.id = incident_id WHERE event.id > :last "
                    "ORDER BY event.id"
                ),
                {"last": self._last_event},
            ).all()
        for number, incident_id, kind, cause in rows:
            self._last_event = number
            if kind == "opened":
                self.seen.setdefault(incident_id, now)
                self._causes.setdefault(incident_id, cause)

    def incidents(self) -> list[IncidentSeen]:
        """All incidents as they stand, by when they were first seen in the store."""
        with read(self.engine) as connection:
            rows = connection.execute(text("SELECT * FROM incident")).mappings().all()
        found = [
            IncidentSeen(
                id=row["id"],
                scope=row["scope"],
                subject=row["subject"],
                severity=row["severity"],
                cause=row["cause"],
                title=row["title"],
                seen_at=self.seen[row["id"]],
                opened_at=_time(row["opened_at"]),
                resolved_at=_time(row["resolved_at"]) if row["resolved_at"] else None,
                nodes=msgspec.json.decode(row["nodes"] or "[]"),
                jobs=[job["uid"] for job in msgspec.json.decode(row["jobs"] or "[]")],
                merged_into=row["merged_into"],
                flaps=row["flaps"] or 0,
                first_cause=self._causes[row["id"]],
            )
            for row in rows
        ]
        return sorted(found, key=lambda one: one.seen_at)


def _time(value: str) -> datetime:
    at = datetime.fromisoformat(value)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


__all__ = ["CLUSTER", "START", "IncidentSeen", "Site"]
