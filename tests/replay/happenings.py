"""What happens on the site: faults that are found or are not, and noise that must accuse nobody.

Each takes its own way on the schedule: it breaks something, the job on it suffers, after a while it is
repaired, and the node comes back. Two things never happen to one node at the same time, and none where a
sticky finding was left: what is found must have one cause.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.simulator.node_ailments import NODE_OBJECT_AILMENTS
from collectors.central import CentralFinding
from collectors.planned import UPGRADE_STATE_LABEL
from tests.replay.floor import NODES_A_LEAF, NODES_A_POWER_DOMAIN, JobRun
from tests.replay.mix import Planned, Variant
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


class Happenings:
    """Plays what was planned. `faults` and `noises` tell what came of it."""

    def __init__(self, site: Site, *, seed: int, long_repairs: bool = True) -> None:
        self.site = site
        self.floor = site.floor
        self.rng = random.Random(seed)
        self.faults: list[Fault] = []
        self.noises: list[Noise] = []
        self._slowly = 1.0 if long_repairs else 0.3
        self._noise: dict[str, Callable[[Noise], None]] = {
            "application XIDs": self._application_xids,
            "planned reboot": self._planned_reboot,
            "driver upgrade": self._driver_upgrade,
            "node added": self._node_added,
            "PCIe replays creep": self._creep,
            "correctable ECC": self._correctable,
            "short thermal slowdown": self._warm,
            "late, repeated reports": self._bad_way,
            "agent restarted": self._agent_restart,
            "kubelet late": self._kubelet_late,
            "clock steps": self._clock_steps,
            "ingest restarted": lambda noise: self._ingest_away(noise, 20.0),
            "ingest away": lambda noise: self._ingest_away(noise, 90.0),
            "worker restarted": self._worker_restart,
        }

    def plan(self, planned: Sequence[Planned]) -> None:
        """Put everything on the schedule."""
        for one in planned:
            if one.variant is None:
                self.site.after(one.at, lambda one=one: self._make_noise(one))  # type: ignore[misc]
            else:
                self.site.after(one.at, lambda one=one: self._break(one))  # type: ignore[misc]

    # --- faults

    def _break(self, planned: Planned) -> None:
        variant = planned.variant
        assert variant is not None
        fault = Fault(len(self.faults), planned.kind, variant, self.site.now)
        self.faults.append(fault)
        self.site.hot(45)
        if variant.needs_seconds > 30:  # nothing can be said before: all may take their time
            self._later(variant.needs_seconds - 15, lambda: self._hurry(fault))
        if variant.mechanism == "none":
            fault.over_at = self.site.now
        elif variant.mechanism == "crash":
            self._crash(fault)
        elif variant.mechanism == "hang":
            self._hang(fault)
        elif variant.mechanism in ("leaf", "power"):
            self._break_domain(fault)
        else:
            self._break_node(fault)

    def _hurry(self, fault: Fault) -> None:
        self.site.hot(75)
        for name in fault.nodes if fault.scope != "job" else ():
            self.site.agent(name).wake(100, fast_seconds=100)

    def _break_node(self, fault: Fault) -> None:
        name = self._any_node()
        fault.nodes, fault.subject = [name], name
        self.floor.troubled.add(name)
        self.site.agent(name).wake(4 * 3600, fast_seconds=45)
        kind = fault.variant.fault
        if kind == "unexpected reboot":
            self._go_down(name)
            self._later(self._minutes(4, 9), lambda: self._come_up(fault, [name]))
            self._hurt(fault, name, seconds=5.0)
            return
        if fault.variant.mechanism == "gpu":
            fault.gpu = self.rng.randrange(8)
        if kind == "node-dead":
            self._go_down(name)
        else:
            self.floor.faults.inject(name, kind, fault.gpu)
            if kind == "kubelet-dead":
                self._later(
                    self.rng.uniform(*KUBELET_GRACE_SECONDS),
                    lambda: self._if_absent(name, fault),
                )
            elif kind in NODE_OBJECT_AILMENTS:
                one = NODE_OBJECT_AILMENTS[kind]
                self.floor.set_condition(
                    name, one.condition, one.bad, reason=one.reason, message=one.message
                )
        if fault.variant.kills_job:
            self._hurt(fault, name, seconds=self.rng.choice([8.0, 25.0, 60.0, 600.0]))
        self._doze(fault)
        self._later(
            fault.variant.needs_seconds + self._minutes(12, 40), lambda: self._repair(fault, [name])
        )

    def _doze(self, fault: Fault) -> None:
        """Once it must be found, a node whose readings stay as they are sleeps until its repair."""

        def sleep() -> None:
            for name in fault.nodes:
                self.site.agent(name).awake_until = self.site.now

        if fault.variant.fault not in TRENDING:
            self._later(fault.variant.needs_seconds + 100, sleep)

    def _break_domain(self, fault: Fault) -> None:
        leaf = fault.variant.mechanism == "leaf"
        size = NODES_A_LEAF if leaf else NODES_A_POWER_DOMAIN
        for _ in range(200):
            name = self._any_node()
            names = self.floor.neighbours(name, size)
            if len(names) == size and not self.floor.troubled & set(names):
                break
        fault.nodes, fault.scope = names, "leaf" if leaf else "power"
        labels = self.floor.nodes[name].metadata.labels
        fault.subject = next(
            value for value in labels.values() if value.startswith("leaf-" if leaf else "pdu-")
        )
        for each in names:
            self.floor.troubled.add(each)
            self.site.agent(each).wake(4 * 3600, fast_seconds=45)
            if leaf:
                self.floor.faults.inject(each, "infiniband-port-down")
            else:
                self._go_down(each)
        for job in {
            job.uid: job for each in names if (job := self.floor.job_of.get(each))
        }.values():
            first = next(each for each in names if each in job.nodes)
            self._hurt(fault, first, seconds=20.0)
        self._doze(fault)
        self._later(
            fault.variant.needs_seconds + self._minutes(15, 40), lambda: self._mend_domain(fault)
        )

    def _mend_domain(self, fault: Fault) -> None:
        if fault.variant.mechanism == "leaf":  # the switch is exchanged: nodes stay up
            for name in fault.nodes:
                host = self.floor.hosts.by_name[name]
                host.faults.clear()
                host.ailments.clear()
                self.floor.hosts.touch(name)
            self._settle(fault, fault.nodes)
        else:
            self._come_up(fault, fault.nodes)

    def _crash(self, fault: Fault) -> None:
        job = self._any_gang()
        node = self.rng.choice(job.nodes)
        fault.scope, fault.subject, fault.job_uid = "job", job.uid, job.uid
        fault.nodes = list(job.nodes)
        job.down = True
        variant = fault.variant.fault
        if "XID" in variant:
            self.site.agent(node).wake(900)
            gpu = self.rng.randrange(8)
            storm = "storm" in variant
            for place in range(16 if storm else 1):
                self._later(
                    0.4 * place,
                    lambda: self._inject(node, "xid-13" if storm else "xid-31", gpu),
                )
            if storm:
                self._later(7.0, lambda: self._inject(node, "xid-43", gpu))
        self._later(
            8.0 if "XID" in variant else 0.0,
            lambda: self._end_ranks(fault, job, node, code=self.rng.choice([1, 134, 137, 139])),
        )

    def _hang(self, fault: Fault) -> None:
        job = self._any_gang()
        rank = self.rng.randrange(len(job.nodes))
        node = job.nodes[rank]
        fault.scope, fault.subject, fault.job_uid = "job", job.uid, job.uid
        fault.nodes = list(job.nodes)
        job.down = True
        finding = CentralFinding(
            rule="collective-hang",
            node=node,
            severity="critical",
            message=f"{job.name} hangs: rank {rank} does nothing, its peers wait for it.",
            action="Look at the suspect's rank.",
            since=self.site.now,
            gpu_uuid=self.floor.hosts.by_name[node].gpus[0].uuid,
            subject=job.uid,
            job_uid=job.uid,
            rank=rank,
            changes_health=False,
        )

        def tell() -> None:
            self.site.training[finding.key] = finding

        def end() -> None:
            self.site.hot(60)
            self.site.training.pop(finding.key, None)
            self._end_ranks(fault, job, node, code=134)

        self._later(60.0, tell)
        self._later(600.0, end)

    def _hurt(self, fault: Fault, name: str, *, seconds: float) -> None:
        """The job on a node that broke crashes after a while and goes on without the node."""
        job = self.floor.job_of.get(name)
        if job is None or job.down:
            return
        job.down = True
        fault.hurt_jobs.append(job.uid)

        def crash() -> None:
            self.site.hot(30)
            if name in job.nodes and job.is_gang:
                first = name if not self.floor.hosts.by_name[name].dead else job.nodes[0]
                if first == name and len(job.nodes) > 1 and self.rng.random() < 0.5:
                    first = next(node for node in job.nodes if node != name)
                if not self.floor.hosts.by_name[first].dead:
                    self.floor.crash(job, first, code=134)
                self._later(self.rng.uniform(2, 9), lambda: self.floor.crash_others(job))
            self._later(
                self.rng.uniform(20, 60), lambda: self.floor.restart(job, avoid=self.floor.troubled)
            )

        self._later(seconds, crash)

    def _end_ranks(self, fault: Fault, job: JobRun, node: str, *, code: int) -> None:
        self.floor.crash(job, node, code=code)
        self._later(self.rng.uniform(2, 9), lambda: self.floor.crash_others(job))
        self._later(self.rng.uniform(20, 60), lambda: self._restart(fault, job))

    def _restart(self, fault: Fault, job: JobRun) -> None:
        self.floor.restart(job)
        self._settle(fault, [], seconds=900)

    def _repair(self, fault: Fault, names: list[str]) -> None:
        """A person takes the node out, restarts it and puts it back."""
        for name in names:
            if not self.floor.hosts.by_name[name].dead:
                self.floor.set_cordon(name, True)
                self._move_away(name)
                self._later(60.0, lambda name=name: self._go_down(name))  # type: ignore[misc]
        self._later(60.0 + self._minutes(4, 8), lambda: self._come_up(fault, names))

    def _move_away(self, name: str) -> None:
        job = self.floor.job_of.get(name)
        if job is not None and not job.down:
            self.floor.leave(job, [name])
            self._later(
                20.0,
                lambda: self.floor.restart(job, avoid=self.floor.troubled) and None,
            )

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

    # --- noise

    def _make_noise(self, planned: Planned) -> None:
        noise = Noise(planned.kind, self.site.now)
        self.noises.append(noise)
        self._noise[planned.kind](noise)

    def _quiet_node(
        self,
        noise: Noise,
        *,
        seconds: float,
        awake_seconds: float | None = None,
        spare: bool = False,
    ) -> str:
        """A node for a benign event: nothing else happens to it for so long."""
        name = self._any_node(spare=spare)
        noise.nodes = [name]
        self.floor.troubled.add(name)
        self.site.agent(name).wake(seconds if awake_seconds is None else awake_seconds)
        self._end_noise(noise, seconds)
        return name

    def _end_noise(self, noise: Noise, seconds: float) -> None:
        def end() -> None:
            noise.until = self.site.now
            self.floor.troubled.difference_update(noise.nodes)

        self._later(seconds, end)

    def _application_xids(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=900, awake_seconds=60)
        # What an application caused ends ten minutes after its last XID.
        self._later(590.0, lambda: self.site.agent(name).wake(60))
        job = self.floor.job_of.get(name)
        noise.jobs = [job.uid] if job else []
        self.site.hot(20)
        gpu = self.rng.randrange(8)
        for place in range(self.rng.choice([1, 1, 1, 2, 6])):
            code = self.rng.choice([13, 31, 43, 45])
            self._later(
                self.rng.uniform(0, 10) * min(place, 1),
                lambda code=code: self._inject(name, f"xid-{code}", gpu),  # type: ignore[misc]
            )

    def _planned_reboot(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=1500, awake_seconds=100, spare=True)
        self.site.hot(20)
        self.floor.set_cordon(name, True)

        def go() -> None:
            self.site.hot(15)
            self._later(35.0, lambda: self.site.hot(30))
            if self.rng.random() < 0.5:
                self.floor.set_condition(
                    name,
                    "Ready",
                    "False",
                    reason="KubeletNotReady",
                    message="node is shutting down",
                )
            self._go_down(name)
            self._later(self._minutes(4, 9), lambda: self._come_up(None, [name]))

        self._later(60.0, go)

    def _driver_upgrade(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=1500, awake_seconds=100, spare=True)
        self.site.hot(20)
        self.floor.set_cordon(name, True)
        self.floor.set_label(name, UPGRADE_STATE_LABEL, "cordon-required")
        agent = self.site.agent(name)

        def stop() -> None:
            self.site.hot(15)
            self._later(40.0, lambda: self.site.hot(20))
            self.floor.set_label(name, UPGRADE_STATE_LABEL, "pod-restart-required")
            agent.stop()

        def start() -> None:
            self.site.hot(30)
            agent.start(awake_seconds=90)

        def done() -> None:
            self.floor.set_label(name, UPGRADE_STATE_LABEL, "upgrade-done")
            self.floor.set_cordon(name, False)

        self._later(30.0, stop)
        away = self._minutes(3, 8)
        self._later(30.0 + away, start)
        self._later(60.0 + away, done)

    def _node_added(self, noise: Noise) -> None:
        host = self.floor.add_node(self.floor.next_number, ready=False)
        name = host.name
        noise.nodes = [name]
        self.floor.troubled.add(name)
        self.site.hot(15)
        self._later(self.rng.uniform(30, 80), lambda: self.floor.set_ready(name))

        def report() -> None:
            self.site.hot(20)
            self.site.agent(name).wake(60)

        self._later(self._minutes(3, 9), report)
        self._end_noise(noise, 900)

    def _creep(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=300)
        self.site.agent(name).wake(300, fast_seconds=240)
        self._ail(name, {"pcie_replays_per_second": 0.4}, seconds=200)

    def _correctable(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=150)

        def count() -> None:
            # The feed of the simulated world has no such counter; the agent's own GPU has.
            for gpu in self.site.agent(name).node._node.gpus[:2]:
                gpu.ecc_correctable_total += self.rng.randrange(1, 40)

        for place in range(4):
            self._later(20.0 * place, count)

    def _warm(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=240, awake_seconds=120)
        self.site.hot(60)
        self._ail(name, {"reasons": 0x20}, seconds=self.rng.uniform(20, 48))

    def _ail(self, name: str, ailments: dict[str, float], *, seconds: float) -> None:
        host = self.floor.hosts.by_name[name]
        gpu = host.gpus[self.rng.randrange(8)]
        gpu.ailments = dict(ailments)
        self.floor.hosts.touch(name)

        def well() -> None:
            gpu.ailments = {}
            self.floor.hosts.touch(name)

        self._later(seconds, well)

    def _bad_way(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=240, awake_seconds=120)
        self.site.hot(60)
        agent = self.site.agent(name)
        agent.wake(150, fast_seconds=120)
        agent.delay_seconds = self.rng.uniform(2, 7)
        agent.repeats = self.rng.choice([0, 1, 2])

        def well() -> None:
            agent.delay_seconds, agent.repeats = 0.0, 0

        self._later(120.0, well)

    def _agent_restart(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=240, awake_seconds=120)
        self.site.hot(45)
        agent = self.site.agent(name)
        forgets = self.rng.random() < 0.3
        self._later(10.0, agent.stop)
        self._later(
            10.0 + self.rng.uniform(2, 25),
            lambda: agent.start(forgets=forgets, awake_seconds=120),
        )

    def _kubelet_late(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=240, awake_seconds=120)
        self.site.hot(40)
        self._later(10.0, lambda: self.floor.lose_kubelet(name))
        self._later(10.0 + self.rng.uniform(2, 8), lambda: self.floor.set_ready(name))

    def _clock_steps(self, noise: Noise) -> None:
        name = self._quiet_node(noise, seconds=240, awake_seconds=120)
        self.site.hot(60)
        agent = self.site.agent(name)
        agent.wake(150, fast_seconds=120)
        before = agent.skew_seconds

        def step() -> None:
            agent.skew_seconds = before + self.rng.uniform(-20, 20)

        def back() -> None:
            agent.skew_seconds = before

        self._later(20.0, step)
        self._later(90.0, back)

    def _ingest_away(self, noise: Noise, seconds: float) -> None:
        intake = self.site.intake
        noise.nodes = list(self.floor.nodes)
        self.site.hot(seconds + 110)

        def back() -> None:
            intake.away = False
            if seconds <= 40:
                self.site.move_sleepers()
            for agent in list(self.site.agents.values()):
                if agent.off or agent.host.dead:
                    continue
                if seconds > 40 and not agent.is_awake:
                    agent.wake(6.0)  # it has spooled meanwhile; its last report is enough here
                agent.push()

        def end() -> None:
            noise.until = self.site.now

        def go() -> None:
            self.site.move_sleepers()  # all are heard to the last
            intake.away = True

        self._later(20.0, go)
        self._later(20.0 + seconds, back)
        self._later(20.0 + seconds + 240, end)

    def _worker_restart(self, noise: Noise) -> None:
        noise.nodes = list(self.floor.nodes)
        self.site.hot(60)
        self._later(5.0, self.site.restart_worker)

        def end() -> None:
            noise.until = self.site.now

        self._later(120.0, end)

    # --- choosing

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
