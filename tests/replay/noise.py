"""Benign noise: what happens to nodes that are well, and must accuse none of them."""

from __future__ import annotations

from collections.abc import Callable

from collectors.planned import UPGRADE_STATE_LABEL
from tests.replay.ground import Ground, Noise
from tests.replay.mix import Planned


class NoiseMaking(Ground):
    """How each kind of noise plays."""

    def _make_noise(self, planned: Planned) -> None:
        noise = Noise(planned.kind, self.site.now)
        self.noises.append(noise)
        table: dict[str, Callable[[Noise], None]] = {
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
        table[planned.kind](noise)

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
