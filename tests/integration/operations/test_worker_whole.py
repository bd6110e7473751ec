"""The worker as it runs: its threads, its jobs, and what it leaves in the store."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from operation_world import CLUSTER, ENDED, PATIENCE_SECONDS, World, world_of

from app.store.engine import read
from app.store.reads.fleet import node, nodes
from app.store.reads.jobs import job, jobs, ranks
from app.store.requests import request
from app.store.tables import Lease, Placement, SourceStatus
from app.worker import Worker
from k8s.client import connect


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    # Who is at the page, which has no sign-in, stands for the simulated cluster's local user.
    with world_of(tmp_path, local_user="pitwall:demo") as made:
        yield made


def start(world: World) -> Worker:
    worker = Worker(
        world.settings,
        engine=world.engine,
        watching=connect(world.server.kubeconfig),
        acting=world.connection,
    )
    worker.start()
    return worker


def until(met: Callable[[], Any], world: World, *, seconds: float = PATIENCE_SECONDS) -> Any:
    """Polls the store as the page does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = met()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not met within {seconds} s: {world.describe()}")


def test_a_drain_runs_through_and_the_store_follows(world: World) -> None:
    worker = start(world)
    try:
        uid = world.create_job("llm", ranks=2, metadata={"labels": {"pitwall.dev/team": "nlp"}})
        until(
            lambda: (found := job(world.engine, CLUSTER, uid)) and found.state == "Running", world
        )
        where = {each.rank: each.node for each in ranks(world.engine, CLUSTER, uid)}
        assert set(where) == {0, 1}
        target = where[0]
        begun = time.monotonic()
        asked = world.ask("drain", nodes=[target])
        accepted = until(
            lambda: (found := request(world.engine, CLUSTER, asked)).state != "pending" and found,
            world,
        )
        answered_seconds = time.monotonic() - begun
        assert accepted.state == "accepted", accepted.refusal
        until(lambda: node(world.engine, CLUSTER, target).service == "Draining", world)
        until(lambda: world.state(accepted.operation_id) in ENDED, world)
        assert world.state(accepted.operation_id) == "Succeeded", world.describe()
        until(lambda: node(world.engine, CLUSTER, target).service == "Drained", world)
        until(
            lambda: target not in {each.node for each in ranks(world.engine, CLUSTER, uid)}, world
        )
        with read(world.engine) as connection:
            placed = connection.execute(Placement.__table__.select()).all()
            sources = {
                row.source: row.state for row in connection.execute(SourceStatus.__table__.select())
            }
        assert sum(row.to_at is None for row in placed) == 2
        assert sum(row.to_at is not None for row in placed) == 2
        assert sources == {"kubernetes": "ok", "worker": "ok"}
        assert answered_seconds < 2
        back = world.ask("uncordon", nodes=[target])
        until(lambda: request(world.engine, CLUSTER, back).state == "accepted", world)
        until(lambda: node(world.engine, CLUSTER, target).service == "Probation", world)
        ended = world.ask("return", nodes=[target])
        until(lambda: request(world.engine, CLUSTER, ended).state == "accepted", world)
        until(lambda: node(world.engine, CLUSTER, target).service == "In service", world)
        assert {each.service for each in nodes(world.engine, CLUSTER)} == {"In service"}
        assert [each.team for each in jobs(world.engine, CLUSTER)] == ["nlp"]
    finally:
        worker.stop()
    with read(world.engine) as connection:
        lease = connection.execute(Lease.__table__.select()).one()
    assert lease.expires_at <= world.clock()


def test_a_foreign_cordon_shows_as_cordoned(world: World) -> None:
    worker = start(world)
    try:
        name = until(lambda: nodes(world.engine, CLUSTER), world)[0].name
        world.people.request(
            "PATCH", f"/api/v1/nodes/{name}", body={"spec": {"unschedulable": True}}
        )
        until(lambda: node(world.engine, CLUSTER, name).service == "Cordoned", world)
        assert "outside Pitwall" in node(world.engine, CLUSTER, name).service_reason
    finally:
        worker.stop()


def test_a_stand_by_takes_over_when_the_active_worker_ends(world: World) -> None:
    first, second = start(world), start(world)
    try:
        until(lambda: first.lease.held() is not None, world)
        assert second.lease.held() is None
        first.stop()
        name = next(iter(world.view().nodes))
        asked = world.ask("drain", nodes=[name])
        done = until(
            lambda: (found := request(world.engine, CLUSTER, asked)).state != "pending" and found,
            world,
        )
        until(lambda: world.state(done.operation_id) in ENDED, world)
        assert second.lease.held() is not None
    finally:
        second.stop()


def test_an_api_server_that_answers_nothing_is_told_as_blind(world: World, tmp_path: Path) -> None:
    broken = tmp_path / "nowhere.kubeconfig"
    text = world.server.kubeconfig.read_text()
    broken.write_text(text.replace(world.server.kubernetes_url, "https://127.0.0.1:9"))
    worker = Worker(
        world.settings, engine=world.engine, watching=connect(broken), acting=connect(broken)
    )
    worker.start()
    try:

        def blind() -> bool:
            with read(world.engine) as connection:
                rows = connection.execute(SourceStatus.__table__.select()).all()
            return any(
                row.source == "kubernetes" and row.state == "blind" and row.message for row in rows
            )

        until(blind, world)
    finally:
        worker.stop()
