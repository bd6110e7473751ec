"""A diagnostic on a cordoned node: its Job made once, pinned there, followed to what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubelet import Grounds

from app.operations.diagnostics import load_template
from app.operations.lease import LeaseKeeper, holder_name
from app.operations.requests import RequestDesk
from app.store.reads.repairs import diagnostics
from app.store.records import DiagnosticRecord
from app.store.requests import request
from app.worker_diagnostics import Diagnostics
from k8s.client import Connection
from tests.integration.operations.operation_world import CLUSTER, Killed, World

pytestmark = pytest.mark.contract
EXAMPLE = Path(__file__).parents[2] / "k8s" / "manifests" / "diagnostics" / "job.yaml"


class Dying(Connection):
    """A connection whose process ends when a write was taken and its answer not yet read."""

    def __init__(self, connection: Connection) -> None:
        self.__dict__.update(connection.__dict__)

    def request(self, method: str, path: str, **options: Any) -> Any:
        response = super().request(method, path, **options)
        if method == "POST":
            raise Killed
        return response


class Bench:
    """A worker's part that diagnoses, its turns taken by the test."""

    def __init__(self, world: World, field: Grounds) -> None:
        self.world, self.field = world, field
        template = load_template(EXAMPLE)
        assert template is not None
        template["metadata"]["namespace"] = field.namespace
        template["spec"]["template"]["spec"].pop("runtimeClassName")
        self.template = template
        self.lease = LeaseKeeper(world.engine, CLUSTER, holder=holder_name(), clock=world.clock)
        self.desk = RequestDesk(
            world.engine,
            settings=world.settings,
            view=world.seen,
            lease=self.lease,
            clock=world.clock,
            diagnostic=template,
        )
        self.worker = self.new_worker()

    def new_worker(self, connection: Connection | None = None) -> Diagnostics:
        return Diagnostics(
            self.world.engine, connection or self.world.connection, self.template, settings=self.world.settings,
            view=self.world.seen, access=None, lease=self.lease, events=None, clock=self.world.clock,
        )  # fmt: skip

    def ask(self, node: str, **parameters: Any) -> Any:
        asked = self.world.ask("diagnose", nodes=[node], **parameters)
        self.lease.renew()
        self.desk.tick()
        return request(self.world.engine, CLUSTER, asked)

    def turn(self) -> DiagnosticRecord:
        self.lease.renew()
        self.worker.tick()
        return diagnostics(self.world.engine, CLUSTER)[0]

    def cordoned(self) -> str:
        self.field.add_nodes(1)
        node = self.field.nodes[0]
        self.world.people.request(
            "PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": True}}
        )
        self.world.wait(lambda view: node in view.nodes and view.nodes[node].spec.unschedulable)
        return node

    def jobs(self) -> list[dict[str, Any]]:
        path = f"/apis/batch/v1/namespaces/{self.field.namespace}/jobs"
        found: list[dict[str, Any]] = json.loads(self.world.people.get(path))["items"]
        return found


@pytest.fixture
def bench(world: World, grounds: Grounds) -> Bench:
    return Bench(world, grounds)


@pytest.mark.parametrize(
    ("phase", "code", "state"), [("Succeeded", 0, "passed"), ("Failed", 3, "failed")]
)
def test_a_diagnostic_runs_on_the_node_it_is_for_and_says_how_it_ended(
    bench: Bench, phase: str, code: int, state: str
) -> None:
    node = bench.cordoned()
    asked = bench.ask(node)
    assert asked.state == "accepted", asked.refusal
    assert bench.turn().state == "running"
    field, (job,) = bench.field, bench.jobs()
    assert job["spec"]["backoffLimit"] == 0
    pod = field.cluster.until(
        lambda: next(
            (p for p in field.cluster.pods(field.namespace) if p.status.phase == "Running"), None
        ),
        "the diagnostic's pod runs",
    )
    assert pod.spec.node_name == node
    bench.turn()
    field.kubelets.finish(pod, phase, exit_code=code)
    ended = field.cluster.until(
        lambda: (said := bench.turn()).ended_at is not None and said, "the diagnostic has ended"
    )
    assert ended.state == state, ended
    if code:
        assert f"exit {code}" in ended.message


def test_a_worker_that_dies_after_the_call_finds_its_job_and_makes_no_second(bench: Bench) -> None:
    node = bench.cordoned()
    bench.ask(node)
    bench.lease.renew()
    dying = bench.new_worker(Dying(bench.world.connection))
    with pytest.raises(Killed):
        dying.tick()
    assert len(bench.jobs()) == 1
    bench.worker = bench.new_worker()
    assert bench.turn().state == "running"
    assert len(bench.jobs()) == 1


def test_a_job_of_that_name_that_is_not_pitwalls_is_left_and_said(bench: Bench) -> None:
    node = bench.cordoned()
    bench.ask(node)
    (row,) = diagnostics(bench.world.engine, CLUSTER)
    bench.field.cluster.create_job(bench.field.namespace, row.job)
    assert bench.turn().state == "gone"
    assert "is not Pitwall's" in bench.turn().message
    assert len(bench.jobs()) == 1


def test_a_job_that_was_removed_before_its_end_is_gone(bench: Bench) -> None:
    node = bench.cordoned()
    bench.ask(node)
    assert bench.turn().state == "running"
    (job,) = bench.jobs()
    path = f"/apis/batch/v1/namespaces/{bench.field.namespace}/jobs/{job['metadata']['name']}"
    bench.world.people.request("DELETE", path, params={"propagationPolicy": "Background"})
    bench.field.cluster.until(lambda: not bench.jobs(), "the Job is removed")
    assert bench.turn().state == "gone"


def test_a_node_that_is_in_use_or_in_service_gets_no_diagnostic(bench: Bench) -> None:
    node = bench.cordoned()
    bench.world.people.request(
        "PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": False}}
    )
    bench.world.wait(lambda view: not view.nodes[node].spec.unschedulable)
    assert "is schedulable" in bench.ask(node).refusal
    bench.field.running("rank", gpus=8)
    bench.world.people.request(
        "PATCH", f"/api/v1/nodes/{node}", body={"spec": {"unschedulable": True}}
    )
    bench.world.wait(lambda view: view.nodes[node].spec.unschedulable and view.pods_on(node))
    assert "would take them" in bench.ask(node).refusal
    assert bench.jobs() == []


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(bench: Bench) -> None:
    node = bench.cordoned()
    said = bench.ask(node, dry_run=True)
    (job,) = said.answer["jobs"]
    assert job["spec"]["template"]["spec"]["nodeName"] == node
    bench.lease.renew()
    bench.worker.tick()
    assert bench.jobs() == []
    assert yaml.safe_dump(job)
