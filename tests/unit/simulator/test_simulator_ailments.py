"""Every rule of health is provoked by a fault of its name and found by an agent's own code."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pynvml
import pytest

from app.simulator.ailments import GPU_AILMENTS, NODE_AILMENTS
from app.simulator.api.request import Request
from app.simulator.control import ControlFace
from app.simulator.faults import KINDS
from app.simulator.fleet_feed import NodesChanged, NodeState, XidsTold
from app.simulator.fleet_node import FleetNode
from app.simulator.nvml import SimulatedNvml, install
from collectors.errors import TokenError
from collectors.health import BUILT_IN, RULES, node_health
from collectors.report import Finding, NvmlState, Report, decode_report

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NODE = "h100-b01-r1-n1"

# What the agent alone cannot see, or what has a fault of another name.
OTHERWISE = {
    "gpu-lost": "gpu-lost",
    "ecc-uncorrected": "ecc-uncorrectable",
    "nvml-silent": "nvml-hang",
}
T = TypeVar("T")


class NoToken:
    def read(self, *, at: float) -> str:
        raise TokenError("nothing is pushed here")


class Agent:
    """One simulated agent with a clock of its own, on a world that the control API describes."""

    def __init__(self, cluster: Any, directory: Path) -> None:
        self.cluster = cluster
        self.control = ControlFace(cluster.simulation)
        self.library = SimulatedNvml()
        install(self.library)
        self.at = 10_000.0
        self.node = FleetNode(
            NODE,
            self.state(),
            cluster="test",
            agent_version="0",
            directory=directory,
            library=self.library,
            token=NoToken(),  # type: ignore[arg-type]
            slow_interval_seconds=15.0,
        )

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.at - 10_000)

    def state(self) -> NodeState:
        return self.ask("/simulator/gpus", NodesChanged).nodes[NODE]

    def ask(self, path: str, kind: type[T]) -> T:
        answer = asyncio.run(self.control.answer(Request("GET", path, {}, {}, b"")))
        return msgspec.json.decode(answer.body, type=kind)

    def watch(self, seconds: float) -> list[Finding]:
        """Poll each 5 s for so long; returns the findings that are open then."""
        self.node.apply(self.state())
        for _ in range(int(seconds / 5)):
            self.at += 5
            self.node.poll(at=self.at, now=self.now)
        return self.findings

    @property
    def findings(self) -> list[Finding]:
        return self.report().findings

    def report(self) -> Report:
        """The report that the agent would push now, by way of its spool."""
        while (sequence := self.node.spool.oldest()) is not None:
            self.node.spool.remove(sequence[0])
        self.at += 20
        assert self.node.report(at=self.at, now=self.now)
        oldest = self.node.spool.oldest()
        assert oldest is not None
        return decode_report(oldest[1])

    def hear(self) -> None:
        for told in self.ask("/simulator/xids", XidsTold).events:
            self.node.take_xid(msgspec.structs.replace(told, at=self.now), now=self.now)


@pytest.fixture
def agent(cluster: Any, tmp_path: Path) -> Iterator[Agent]:
    pynvml._nvmlGetFunctionPointer_cache.clear()
    cluster.create_job("train", parallelism=2, completions=2)
    cluster.advance(30)
    yield Agent(cluster, tmp_path)
    # pynvml is global to the process: another library must not be asked through this one.
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


def test_every_rule_that_an_agent_judges_has_a_fault_that_provokes_it() -> None:
    names = {rule.name for rule in (*BUILT_IN.gpu, *BUILT_IN.node, *BUILT_IN.port)}
    assert names == {*GPU_AILMENTS, *NODE_AILMENTS, *OTHERWISE}
    assert {*GPU_AILMENTS, *NODE_AILMENTS, *OTHERWISE.values()} <= set(KINDS)


def test_a_healthy_node_stays_without_a_finding_for_an_hour(agent: Agent) -> None:
    assert agent.watch(3600) == []
    report = agent.report()
    assert any(gpu.gpu_utilization_ratio for gpu in report.gpus), "there was work on it"
    assert len(report.ports) == 8


@pytest.mark.parametrize("kind", [*GPU_AILMENTS, *NODE_AILMENTS, *OTHERWISE.values()])
def test_a_fault_opens_the_rule_of_its_name_and_its_repair_closes_it(
    agent: Agent, kind: str
) -> None:
    wanted = next((rule for rule, fault in OTHERWISE.items() if fault == kind), kind)
    rule = next(rule for rule in RULES if rule.name == wanted)
    assert agent.watch(60) == []
    gpu = 3 if kind in GPU_AILMENTS or kind in ("gpu-lost", "ecc-uncorrectable") else None
    agent.cluster.simulation.faults.inject(NODE, kind, gpu)
    found = {finding.rule: finding for finding in agent.watch(rule.hold_seconds + 600)}
    # An uncorrectable error wants its row remapped as well.
    assert set(found) - {wanted} == ({"remap-pending"} if kind == "ecc-uncorrectable" else set())
    finding = found[wanted]
    assert finding.severity == rule.severity
    if gpu is not None:
        assert finding.gpu_uuid == agent.state().gpus[3].uuid
    health, _ = node_health(agent.findings, NvmlState(answering=True))
    if not rule.changes_health or rule.severity == "advice":
        assert health == "Healthy"
    else:
        assert health == ("Degraded" if rule.severity == "warning" else "Failing")
    agent.cluster.simulation.faults.repair(NODE)
    agent.cluster.advance(30)
    left = {finding.rule for finding in agent.watch(900)}
    assert left == ({wanted} if rule.sticky else set())


def test_a_switchs_error_is_heard_as_one(agent: Agent) -> None:
    agent.cluster.simulation.faults.inject(NODE, "sxid-20034")
    agent.hear()
    (finding,) = agent.findings
    assert (finding.rule, finding.severity, finding.gpu_uuid) == ("sxid-20034", "critical", None)
