"""Every rule that is judged today is provoked by a fault of the simulator and open in the store, through the
faces that the fault has: the agent's reports here, Kubernetes's word in its own test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.simulator.ailments import GPU_AILMENTS, NODE_AILMENTS
from app.simulator.faults import KINDS
from app.simulator.node_ailments import NODE_OBJECT_AILMENTS
from app.store.engine import migrate, open_store, read, write
from app.store.writes.reports import store_reports
from collectors.health import KUBERNETES_RULES, RULES
from collectors.xid_catalogue import CATALOGUE
from tests.unit.simulator.test_simulator_ailments import NODE, OTHERWISE, Agent, agent

__all__ = ["agent"]

AGENT_FAULTS = {
    **{kind: kind for kind in (*GPU_AILMENTS, *NODE_AILMENTS)},
    **OTHERWISE,
}
"""The fault that provokes each rule of the agent's."""

KUBERNETES_FAULTS = {
    **{kind: kind for kind in NODE_OBJECT_AILMENTS},
    "node-not-ready": "kubelet-dead",
    "job-interrupted": "rank-crash",
    "ready-with-fatal-gpu": "gpu-lost",
}
"""The fault that provokes each rule over Kubernetes's word (tests/unit/operations)."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


def test_every_rule_has_a_fault_in_the_simulator() -> None:
    of_kubernetes = {rule.name for rule in KUBERNETES_RULES}
    assert set(KUBERNETES_FAULTS) == of_kubernetes
    of_training = {rule.name for rule in RULES if rule.name in ("collective-hang", "straggler")}
    assert {rule.name for rule in RULES} == {*AGENT_FAULTS, *KUBERNETES_FAULTS, *of_training}
    assert {*AGENT_FAULTS.values(), *KUBERNETES_FAULTS.values()} <= set(KINDS)


@pytest.mark.parametrize("wanted", sorted(AGENT_FAULTS))
def test_a_fault_of_each_rule_is_open_in_the_store(
    agent: Agent, template: Path, tmp_path: Path, wanted: str
) -> None:
    kind = AGENT_FAULTS[wanted]
    rule = next(rule for rule in RULES if rule.name == wanted)
    gpu = 3 if kind in GPU_AILMENTS or kind in ("gpu-lost", "ecc-uncorrectable") else None
    agent.watch(60)
    agent.cluster.simulation.faults.inject(NODE, kind, gpu)
    agent.watch(rule.hold_seconds + 600)
    rows, health = stored(agent, template, tmp_path)
    assert rows[wanted] == ("agent", rule.severity)
    if wanted == "nvml-silent":
        assert health == "Unknown"
    elif rule.changes_health and rule.severity != "advice":
        assert health == ("Degraded" if rule.severity == "warning" else "Failing")


@pytest.mark.parametrize("code", sorted(entry.code for entry in CATALOGUE))
def test_each_xid_of_the_table_is_open_in_the_store(
    agent: Agent, template: Path, tmp_path: Path, code: int
) -> None:
    agent.watch(20)
    agent.cluster.simulation.faults.inject(NODE, f"xid-{code}", 3)
    agent.hear()
    rows, _ = stored(agent, template, tmp_path)
    source, severity = rows[f"xid-{code}"]
    assert source == "agent"
    by_catalogue = next(one.severity for one in CATALOGUE if one.code == code)
    # 154 carries the driver's own word, here that it asks for a reset.
    assert severity == ("critical" if code == 154 else by_catalogue)


def stored(agent: Agent, template: Path, directory: Path) -> tuple[dict[str, tuple[str, str]], Any]:
    """Store the agent's report; returns (source, severity) of the open findings by rule, and the health."""
    path = directory / "pitwall.db"
    shutil.copy(template, path)
    engine = open_store(f"sqlite:///{path}")
    report = agent.report()
    with write(engine) as connection:
        store_reports(connection, "test", [report], agent.now)
    with read(engine) as connection:
        rows = connection.execute(
            text("SELECT rule, source, severity FROM finding WHERE closed_at IS NULL")
        ).all()
        health = connection.execute(text("SELECT health FROM node")).scalar_one()
    engine.dispose()
    return {rule: (source, severity) for rule, source, severity in rows}, health
