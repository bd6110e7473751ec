"""What faults and noise stand on: records of them, the schedule, and nodes that go down and come back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.simulator.node_ailments import NODE_OBJECT_AILMENTS
from tests.replay.floor import JobRun
from tests.replay.mix import Variant
from tests.replay.site import Site

MINUTE = 60.0
STICKY = ("infiniband-port-flaps",)
TRENDING = ("pcie-replay", "nvlink-crc", "slowdown-thermal", "slowdown-hardware", *STICKY)
"""Faults of which each poll adds something: their nodes are never asleep while they last."""
KUBELET_GRACE_SECONDS = (40.0, 50.0)
"""After which the control plane calls a silent kubelet's node Unknown."""


@dataclass
class Fault:
    """A fault as it was injected. `over_at`: from when nothing more may be found of it."""

    number: int
    kind: str
    variant: Variant
    at: datetime
    nodes: list[str] = field(default_factory=list)
    scope: str = "node"
    subject: str = ""
    job_uid: str | None = None
    gpu: int | None = None
    hurt_jobs: list[str] = field(default_factory=list)
    over_at: datetime | None = None

    @property
    def label(self) -> str:
        """For people."""
        where = self.subject or ", ".join(self.nodes[:3])
        return f"{self.kind} / {self.variant.fault} on {where} at {self.at:%a %H:%M:%S}"


@dataclass
class Noise:
    """A benign event: the nodes it touched, and until when it may be blamed for what is found on them."""

    kind: str
    at: datetime
    nodes: list[str] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    until: datetime | None = None


class Ground:
    """The site, and what both kinds of happenings do on it."""

    def __init__(self, site: Site, *, seed: int, long_repairs: bool = True) -> None:
        self.site = site
        self.floor = site.floor
        self.rng = random.Random(seed)
        self.faults: list[Fault] = []
        self.noises: list[Noise] = []
        self._slowly = 1.0 if long_repairs else 0.3

    def _go_down(self, name: str) -> None:
        host = self.floor.hosts.by_name[name]
        host.dead = True
        self.floor.hosts.touch(name)
        self._later(self.rng.uniform(*KUBELET_GRACE_SECONDS), lambda: self._if_absent(name, None))

    def _if_absent(self, name: str, fault: Fault | None) -> None:
        host = self.floor.hosts.by_name[name]
        if host.dead or host.kubelet_dead:
            self.floor.lose_kubelet(name)

    def _come_up(self, fault: Fault | None, names: list[str]) -> None:
        self.site.hot(20)
        for name in names:
            host = self.floor.hosts.by_name[name]
            job = self.floor.job_of.get(name)
            if job is not None and not job.down:
                self.floor.restart(job, avoid=[name])
            self.floor.hosts.reboot(host)
            self.floor.set_boot(name)
            self._later(self.rng.uniform(2, 20), lambda name=name: self._be_ready(name))  # type: ignore[misc]
            self._later(
                self.rng.uniform(5, 30),
                lambda name=name: self.site.agent(name).wake(60),  # type: ignore[misc]
            )
        if fault is not None:
            self._settle(fault, names)

    def _be_ready(self, name: str) -> None:
        for kind in {one.condition: one for one in NODE_OBJECT_AILMENTS.values() if one.condition}:
            if any(one.type == kind for one in self.floor.nodes[name].status.conditions):
                ailment = next(
                    one for one in NODE_OBJECT_AILMENTS.values() if one.condition == kind
                )
                self.floor.set_condition(name, kind, ailment.good, reason=ailment.good_reason)
        self.floor.set_ready(name)
        if self.floor.nodes[name].spec.unschedulable:
            self.floor.set_cordon(name, False)

    def _settle(self, fault: Fault, names: Sequence[str], seconds: float = 300.0) -> None:
        """The fault is over; what it leaves is given some minutes to end."""

        def end() -> None:
            fault.over_at = self.site.now
            for name in names:
                if fault.variant.fault not in STICKY:
                    self.floor.troubled.discard(name)
                agent = self.site.agent(name)
                if agent.awake_until is not None:
                    agent.awake_until = self.site.now

        for name in names:
            self.site.agent(name).wake(60)
        self._later(seconds, end)

    def _any_node(self, *, spare: bool = False) -> str:
        names = (
            self.floor.spares()
            if spare
            else [
                name
                for name in self.floor.nodes
                if name not in self.floor.troubled
                and not ((job := self.floor.job_of.get(name)) and not self.floor.is_settled(job))
            ]
        )
        return self.rng.choice(names)

    def _any_gang(self) -> JobRun:
        jobs = [
            job
            for job in self.floor.jobs.values()
            if job.is_gang
            and self.floor.is_settled(job)
            and not self.floor.troubled & set(job.nodes)
        ]
        return self.rng.choice(jobs)

    def _inject(self, name: str, kind: str, gpu: int) -> None:
        self.floor.faults.inject(name, kind, gpu)

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self.site.after(seconds, lambda: (call(), None)[1])

    def _minutes(self, least: float, most: float) -> float:
        return self.rng.uniform(least, most) * MINUTE * (self._slowly if most > 10 else 1.0)


def over(fault: Fault, end: datetime) -> datetime:
    """From when on nothing may be found of it any more."""
    return fault.over_at or end + timedelta(days=1)
