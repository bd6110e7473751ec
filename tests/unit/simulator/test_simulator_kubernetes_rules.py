"""Every rule over what Kubernetes says is provoked by a fault, found by the worker's own code, and ended
by the node's repair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pynvml
import pytest
from sqlalchemy import Engine, text

from app.settings import Settings
from app.simulator.errors import FaultRefused
from app.simulator.faults import KINDS
from app.simulator.node_ailments import NODE_OBJECT_AILMENTS
from app.store.engine import read, write
from app.store.reads import fleet
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from app.worker_kubernetes_findings import KubernetesFindings
from collectors.health import KUBERNETES_RULES
from collectors.kubernetes import TopologyLabels, node_facts
from k8s.objects import Job, Node, Pod
from k8s.view import ClusterView, view_of
from tests.store_fixtures import sqlite_engine, sqlite_template
from tests.unit.simulator.test_simulator_ailments import NODE, Agent

__all__ = ["sqlite_engine", "sqlite_template"]

# What has a fault of another name.
OTHERWISE = {
    "node-not-ready": "kubelet-dead",
    "ready-with-fatal-gpu": "gpu-lost",
    "job-interrupted": "rank-crash",
}

T = TypeVar("T")


class Site:
    """A simulated cluster with the store and the worker's judge of Kubernetes, on one clock."""

    def __init__(self, cluster: Any, engine: Engine, directory: Path) -> None:
        self.cluster = cluster
        self.engine = engine
        self.agent = Agent(cluster, directory)
        self.version = 0
        facts = node_facts(self.view(), TopologyLabels(block="block", rack="rack"))
        with write(engine) as connection:
            changes = changes_between(None, picture_of(facts, [], []))
            store_kubernetes(connection, "c", changes, self.now)
        self.findings = KubernetesFindings(
            engine, settings=Settings(cluster="c"), watcher=self, clock=lambda: self.now
        )

    @property
    def now(self) -> datetime:
        moment: datetime = self.cluster.simulation.clock.now()
        return moment

    def view(self) -> ClusterView:
        self.version += 1
        made = view_of(
            nodes=self.read("nodes", Node),
            pods=self.read("pods", Pod),
            jobs=self.read("jobs", Job),
            observed_at=self.now,
        )
        return replace(made, version=self.version)

    def read(self, plural: str, kind: type[T]) -> list[T]:
        collection = self.cluster.simulation.registry.collection(plural)
        return [
            msgspec.json.decode(msgspec.json.encode(record.object), type=kind)
            for record in collection.in_order()
        ]

    def pass_time(self, seconds: int) -> None:
        """The cluster moves on, the agent polls and reports, the worker looks; each 4 s."""
        for _ in range(0, seconds, 4):
            self.cluster.advance(4)
            if not self.cluster.simulation.hosts.get(NODE).dead:
                self.agent.watch(5)
                report = msgspec.structs.replace(
                    self.agent.report(), cluster="c", observed_at=self.now
                )
                with write(self.engine) as connection:
                    store_reports(connection, "c", [report], self.now)
            self.findings.tick()

    @property
    def open(self) -> dict[str, Any]:
        with read(self.engine) as connection:
            rows = connection.execute(
                text("SELECT * FROM finding WHERE source = 'kubernetes' AND closed_at IS NULL")
            )
            return {row.rule: row for row in rows}

    @property
    def health(self) -> str:
        found = fleet.node(self.engine, "c", NODE)
        assert found is not None
        return found.health


@pytest.fixture
def site(cluster: Any, sqlite_engine: Engine, tmp_path: Path) -> Iterator[Site]:
    pynvml._nvmlGetFunctionPointer_cache.clear()
    cluster.create_job("train", parallelism=2, completions=2, backoffLimit=100)
    cluster.advance(30)
    yield Site(cluster, sqlite_engine, tmp_path)
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


def test_every_rule_over_what_kubernetes_says_has_a_fault_that_provokes_it() -> None:
    assert {rule.name for rule in KUBERNETES_RULES} == {*NODE_OBJECT_AILMENTS, *OTHERWISE}
    assert {*NODE_OBJECT_AILMENTS, *OTHERWISE.values()} <= set(KINDS)


@pytest.mark.parametrize("rule", KUBERNETES_RULES, ids=lambda rule: rule.name)
def test_a_fault_opens_the_rule_and_its_repair_closes_it(site: Site, rule: Any) -> None:
    site.pass_time(20)
    assert (site.open, site.health) == ({}, "Healthy")
    kind = OTHERWISE.get(rule.name, rule.name)
    site.cluster.simulation.faults.inject(NODE, kind, 3 if kind == "gpu-lost" else None)
    # A kubelet is silent for 40 s before its node is called not ready.
    site.pass_time(int(rule.hold_seconds) + (60 if kind == "kubelet-dead" else 24))
    found = site.open
    # A lost GPU is one that Kubernetes does not give out either.
    beside = {"allocatable-below-capacity"} if kind == "gpu-lost" else set()
    assert set(found) - beside == {rule.name}
    assert (found[rule.name].severity, found[rule.name].node) == (rule.severity, NODE)
    if kind != "gpu-lost":
        assert site.health == health_of(rule)
    site.cluster.simulation.faults.repair(NODE)
    site.pass_time(60)
    # The repair boots the machine anew, which ends the rank that still ran on it.
    assert (set(site.open) <= {"job-interrupted"}, site.health) == (True, "Healthy")
    site.pass_time(600)
    assert site.open == {}


def health_of(rule: Any) -> str:
    if not rule.changes_health:
        return "Healthy"
    return "Degraded" if rule.severity == "warning" else "Failing"


def test_a_rank_that_crashes_takes_its_gang_down_and_is_named_as_the_first(site: Site) -> None:
    site.pass_time(20)
    site.cluster.simulation.faults.inject(NODE, "rank-crash")
    site.pass_time(24)
    one = site.open["job-interrupted"]
    assert one.message.startswith("2 of 2 ranks of default/train ended; the first was rank 0 on")
    assert one.message.endswith("with exit code 1 (Error).")


def test_a_gang_whose_kubelet_is_dead_trains_on(site: Site) -> None:
    site.cluster.simulation.faults.inject(NODE, "kubelet-dead")
    site.cluster.advance(120)
    (run,) = site.cluster.simulation.training.summary()
    assert (run["state"], run["interruptions"]) == ("training", 0)


def test_a_node_without_a_kubelet_or_without_work_refuses_what_would_not_show(site: Site) -> None:
    faults = site.cluster.simulation.faults
    with pytest.raises(FaultRefused, match="No pod with GPUs"):
        faults.inject("h100-b01-r2-n4", "rank-crash")
    faults.inject(NODE, "kubelet-dead")
    for kind in ("node-pressure", "rank-crash"):
        with pytest.raises(FaultRefused, match="no kubelet"):
            faults.inject(NODE, kind)
