"""What only a job's GPUs side by side show: provoked in the world, read through NVML by agents, found by the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pynvml
import pytest
from sqlalchemy import Engine, text

from app.settings import Settings
from app.simulator.api.request import Request
from app.simulator.control import ControlFace
from app.simulator.faults import KINDS
from app.simulator.fleet_feed import NodesChanged
from app.simulator.fleet_node import FleetNode
from app.simulator.nvml import SimulatedNvml, install
from app.simulator.prometheus import PrometheusFace
from app.store.engine import read, write
from app.store.writes.central import OpenCentral, open_central
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import Picture, changes_between, picture_of
from app.store.writes.reports import store_reports
from app.worker_training import TrainingWatch
from collectors.health import TRAINING_RULES
from collectors.kubernetes import TopologyLabels, job_facts, node_facts, pod_facts
from collectors.report import decode_report
from k8s.objects import Job, Node, Pod
from k8s.view import ClusterView, view_of
from tests.store_fixtures import sqlite_engine, sqlite_template
from tests.unit.simulator.test_simulator_ailments import NoToken

__all__ = ["sqlite_engine", "sqlite_template"]

ROUND_SECONDS = 15
MERGE = "application/merge-patch+json"
T = TypeVar("T")


class Site:
    """A gang of 3 ranks with 8 GPUs each on a simulated floor, its agents, the store, the worker's look."""

    def __init__(self, cluster: Any, engine: Engine, directory: Path) -> None:
        self.cluster, self.engine = cluster, engine
        self.control = ControlFace(cluster.simulation)
        self.library = SimulatedNvml()
        install(self.library)
        self.at = 10_000.0
        self.picture: Picture | None = None
        cluster.create_job("train", parallelism=3, completions=3, backoffLimit=100)
        cluster.advance(30)
        self.agents = {
            name: FleetNode(
                name,
                state,
                cluster="c",
                agent_version="0",
                directory=directory / name,
                library=self.library,
                token=NoToken(),  # type: ignore[arg-type]
                slow_interval_seconds=15.0,
            )
            for name, state in self.states().items()
        }
        settings = Settings(cluster="c", _env_file=None)  # type: ignore[call-arg]
        self.watch = TrainingWatch(engine, settings=settings, clock=lambda: self.now)

    @property
    def now(self) -> datetime:
        moment: datetime = self.cluster.simulation.clock.now()
        return moment

    def states(self) -> dict[str, Any]:
        answer = asyncio.run(self.control.answer(Request("GET", "/simulator/gpus", {}, {}, b"")))
        return msgspec.json.decode(answer.body, type=NodesChanged).nodes

    def view(self) -> ClusterView:
        return view_of(
            nodes=self.objects("nodes", Node),
            pods=self.objects("pods", Pod),
            jobs=self.objects("jobs", Job),
            observed_at=self.now,
        )

    def objects(self, plural: str, kind: type[T]) -> list[T]:
        collection = self.cluster.simulation.registry.collection(plural)
        return [
            msgspec.json.decode(msgspec.json.encode(record.object), type=kind)
            for record in collection.in_order()
        ]

    def pass_time(self, seconds: int) -> None:
        """The world moves on, agents poll and report, the worker looks; each 15 s."""
        for _ in range(0, seconds, ROUND_SECONDS):
            self.cluster.advance(ROUND_SECONDS)
            self.at += ROUND_SECONDS
            states = self.states()
            reports = []
            for name, agent in self.agents.items():
                agent.apply(states[name])
                agent.poll(at=self.at, now=self.now)
                if agent.report(at=self.at, now=self.now):
                    sequence, body = agent.spool.oldest()
                    agent.spool.remove(sequence)
                    reports.append(decode_report(body))
            view = self.view()
            pods = pod_facts(view)
            facts = node_facts(view, TopologyLabels(block="block", rack="rack"))
            picture = picture_of(facts, pods, job_facts(view, pods))
            with write(self.engine) as connection:
                changes = changes_between(self.picture, picture)
                store_kubernetes(connection, "c", changes, self.now)
                store_reports(connection, "c", reports, self.now)
            self.picture = picture
            self.watch.tick()

    def inject(self, kind: str, *, rank: int, gpu: int | None) -> str:
        node: str = self.cluster.pods_of("train")[rank]["spec"]["nodeName"]
        self.cluster.simulation.faults.inject(node, kind, gpu)
        return node

    def suspend(self, value: bool) -> None:
        path = "/apis/batch/v1/namespaces/default/jobs/train"
        body = {"spec": {"suspend": value}}
        assert self.cluster.call("PATCH", path, body, content_type=MERGE)[0] == 200

    @property
    def open(self) -> list[OpenCentral]:
        with read(self.engine) as connection:
            return open_central(connection, "c", "training")

    def rules_of_agents(self) -> set[str]:
        with read(self.engine) as connection:
            rows = connection.execute(
                text("SELECT rule FROM finding WHERE source = 'agent' AND closed_at IS NULL")
            )
            return set(rows.scalars())

    def readings(self, node: str) -> list[tuple[float, float]]:
        """(utilisation, watts) of a node's GPUs, by index."""
        with read(self.engine) as connection:
            rows = connection.execute(
                text(
                    "SELECT gpu_utilization_ratio, power_watts FROM gpu WHERE node = :node "
                    'ORDER BY "index"'
                ),
                {"node": node},
            )
            return [(row[0], row[1]) for row in rows]


@pytest.fixture
def site(cluster: Any, sqlite_engine: Engine, tmp_path: Path) -> Iterator[Site]:
    pynvml._nvmlGetFunctionPointer_cache.clear()
    yield Site(cluster, sqlite_engine, tmp_path)
    # pynvml is global to the process: another library must not be asked through this one.
    pynvml.nvmlLib = None
    pynvml._nvmlGetFunctionPointer_cache.clear()


def test_every_rule_of_training_has_a_fault_of_its_name() -> None:
    assert {rule.name for rule in TRAINING_RULES} <= set(KINDS)


def test_a_process_that_hangs_is_named_until_its_job_is_suspended(site: Site) -> None:
    site.pass_time(240)
    assert site.open == []
    node = site.inject("collective-hang", rank=1, gpu=3)
    site.pass_time(30)
    readings = site.readings(node)
    assert readings[3][0] == 0.0
    assert all(use == 1.0 and watts < 315 for use, watts in readings[:3] + readings[4:])
    assert site.open == []
    site.pass_time(90)
    (found,) = site.open
    uuid = site.cluster.simulation.hosts.get(node).gpus[3].uuid
    uid = site.cluster.get("jobs", "train")["metadata"]["uid"]
    assert found.key == ("collective-hang", node, uuid, uid)
    assert "23 of its 24 GPUs are busy" in found.message
    assert f"rank 1 on {node}, GPU 3, does nothing" in found.message
    assert site.rules_of_agents() == set()
    site.suspend(True)
    site.pass_time(45)
    assert site.open == []
    site.suspend(False)
    site.pass_time(420)
    assert site.open == []


def test_a_hang_that_an_xid_explains_is_no_finding_of_its_own(site: Site) -> None:
    site.pass_time(240)
    site.inject("xid-79", rank=0, gpu=2)
    site.pass_time(420)
    peer = site.cluster.pods_of("train")[1]["spec"]["nodeName"]
    assert all(use == 1.0 and watts < 315 for use, watts in site.readings(peer))
    assert "gpu-lost" in site.rules_of_agents()
    assert site.open == []


def test_a_rank_whose_node_fell_silent_is_likely_the_one_that_is_waited_for(site: Site) -> None:
    site.pass_time(240)
    node = site.inject("node-dead", rank=2, gpu=None)
    site.pass_time(180)
    (found,) = site.open
    assert found.key[:2] == ("collective-hang", node)
    assert "likely" in found.message


def test_a_straggler_is_told_by_its_peers_where_its_agent_says_nothing(site: Site) -> None:
    site.pass_time(240)
    node = site.inject("straggler", rank=2, gpu=6)
    site.pass_time(150)
    assert site.open == []
    site.pass_time(420)
    (found,) = site.open
    uuid = site.cluster.simulation.hosts.get(node).gpus[6].uuid
    assert found.key[:3] == ("straggler", node, uuid)
    assert "SM clock 1,485 MHz, its 23 peers 1,980 MHz" in found.message
    assert site.rules_of_agents() == set()


def test_a_clock_locked_low_is_a_straggler_beside_its_own_rule(site: Site) -> None:
    site.pass_time(240)
    site.inject("clock-locked-low", rank=0, gpu=1)
    site.pass_time(420)
    assert [one.key[0] for one in site.open] == ["straggler"]
    assert site.rules_of_agents() == {"clock-locked-low"}


def test_a_gang_that_works_is_accused_of_nothing(site: Site) -> None:
    site.pass_time(1500)
    assert site.open == []
    node = site.cluster.pods_of("train")[0]["spec"]["nodeName"]
    assert all(use > 0.8 and watts > 400 for use, watts in site.readings(node))


def test_dcgm_shows_a_spin_as_use_without_power_and_tensors(cluster: Any) -> None:
    cluster.create_job("train", parallelism=2, completions=2)
    cluster.advance(60)
    hung, peer = (pod["spec"]["nodeName"] for pod in cluster.pods_of("train"))
    cluster.simulation.faults.inject(hung, "collective-hang", 0)
    cluster.advance(10)
    face = PrometheusFace(cluster.simulation)

    def query(metric: str, node: str) -> list[float]:
        asked = f'{metric}{{Hostname="{node}"}}'
        answer = face.answer(Request("GET", "/api/v1/query"), {"match[]": [], "query": asked})
        found = msgspec.json.decode(answer.body)["data"]["result"]
        return [float(one["value"][1]) for one in found]

    assert query("DCGM_FI_DEV_GPU_UTIL", peer) == [100.0] * 8
    assert max(query("DCGM_FI_DEV_POWER_USAGE", peer)) < 315
    assert query("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", peer) == [0.0] * 8
    assert query("DCGM_FI_DEV_GPU_UTIL", hung) == [0.0, *[100.0] * 7]
