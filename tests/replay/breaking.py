"""Faults: each breaks something, the job on it suffers, after a while it is repaired and the node comes back."""

from __future__ import annotations

from app.simulator.node_ailments import NODE_OBJECT_AILMENTS
from collectors.central import CentralFinding
from tests.replay.floor import NODES_A_LEAF, NODES_A_POWER_DOMAIN, JobRun
from tests.replay.ground import KUBELET_GRACE_SECONDS, TRENDING, Fault, Ground
from tests.replay.mix import Planned


class Breaking(Ground):
    """How each mechanism of tests/replay/mix.py plays."""

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
