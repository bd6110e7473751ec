"""Automatic mode on the simulated cluster: from a finding to its job back, in dry-run, at its limits, killed anywhere."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from operation_world import CLUSTER, ENDED, SHIPPED_LIMITS, Driver, World, world_of
from sqlalchemy import select

from app.operations.automatic_rules import AutomaticRule
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.requests import request
from app.store.sources import note_source
from app.store.tables import AutomaticAction, Request
from app.store.writes.reports import store_reports
from app.worker_automatic import Automatic
from app.worker_sync import ClusterSync
from tests.reports import finding, report

DRAIN = AutomaticRule("fatal", acts="act", action="drain", severity="fatal", hold_seconds=0)
AUTHOR = "system:serviceaccount:pitwall:pitwall-automatic"


class Mode:
    """A worker with automatic mode, its turns taken by the test; agents are played."""

    def __init__(self, world: World, *rules: AutomaticRule) -> None:
        self.world = world
        self.driver = Driver(world)
        self.sync = ClusterSync(
            world.engine, settings=world.settings, watcher=world.watcher, clock=world.clock
        )
        self.automatic = Automatic(
            world.engine,
            rules or (DRAIN,),
            settings=world.settings,
            lease=self.driver.lease,
            clock=world.clock,
        )
        self.sequence: dict[str, int] = {}
        self.faults: dict[str, tuple[str, ...]] = dict.fromkeys(world.view().nodes, ())

    def tell(self, *nodes: str) -> None:
        """What the agents of these nodes say now; of all nodes where none is named."""
        now = self.world.clock()
        said = []
        for node in nodes or self.faults:
            number = self.sequence[node] = self.sequence.get(node, 0) + 1
            found = [finding(one, severity="fatal", since=now) for one in self.faults[node]]
            said.append(
                msgspec.structs.replace(
                    report(node, number, findings=found), cluster=CLUSTER, observed_at=now
                )
            )
        with write(self.world.engine) as connection:
            store_reports(connection, CLUSTER, said, now)
            for source in ("agents", "kubernetes"):
                note_source(connection, CLUSTER, source, state="ok", now=now)

    def fail(self, *nodes: str, episode: str = "fault") -> None:
        for node in nodes:
            self.faults[node] = (f"{episode}-{node}",)
        self.tell()

    def turn(self) -> None:
        self.driver.lease.renew()
        self.sync.tick()
        self.automatic.tick()
        self.driver.turn()

    def run_until(self, met: Callable[[], Any], *, seconds: float = 30.0) -> Any:
        def turned() -> Any:
            self.sync.tick()
            self.automatic.tick()
            return met()

        self.sync.tick()
        try:
            return self.driver.run_until(turned, seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{self.rows()}") from error

    def run_to_the_end(self) -> None:
        """Until the last operation has ended; the minute that it waits for GPU activity is put forward."""

        def last() -> Any:
            return max(self.world.operations(), key=lambda one: one.created_at, default=None)

        def waits() -> bool:
            return last() is not None and (
                last().state in ENDED or "GPU activity" in last().message
            )

        self.run_until(waits)
        if last().state not in ENDED:
            self.world.offset_seconds += 61
            self.tell()
            self.run_until(lambda: last().state in ENDED)
        assert last().state == "Succeeded", self.world.describe()

    def rows(self) -> dict[str, Any]:
        """What it did, by node."""
        table = table_of(AutomaticAction)
        with read(self.world.engine) as connection:
            return {row.node: row for row in connection.execute(select(table))}

    def requests(self) -> list[Any]:
        table = table_of(Request)
        with read(self.world.engine) as connection:
            return list(connection.execute(select(table).order_by(table.c.created_at)))


def test_a_fatal_finding_brings_its_job_back_by_itself_and_once(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        uid = world.create_job("llm", ranks=2)
        node = world.wait(world.running(uid, 2))[0].spec.node_name
        mode = Mode(world)
        mode.tell()
        mode.turn()
        assert mode.requests() == []
        mode.fail(node)
        mode.run_to_the_end()
        (operation,) = world.operations()
        assert operation.author == AUTHOR
        assert operation.reason == "Automatic rule fatal: gpu-lost"
        assert mode.rows()[node].operation_id == operation.id
        assert world.view().nodes[node].spec.unschedulable
        assert node not in {p.spec.node_name for p in world.wait(world.running(uid, 2))}
        for _ in range(5):
            mode.tell()
            mode.turn()
        assert len(world.operations()) == 1


def test_a_dry_run_writes_nothing_to_the_cluster_and_its_plan_is_what_then_happens(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        uid = world.create_job("llm", ranks=2)
        node = world.wait(world.running(uid, 2))[0].spec.node_name
        rehearsal = Mode(world, msgspec.structs.replace(DRAIN, acts="dry-run"))
        rehearsal.fail(node)
        rehearsal.run_until(
            lambda: rehearsal.rows() and rehearsal.rows()[node].state == "would_act"
        )
        assert world.connection.tried == []
        assert world.operations() == []
        rehearsed = request(world.engine, CLUSTER, rehearsal.rows()[node].request_id)
        assert rehearsed is not None
        assert rehearsed.kind == "preview"
        rehearsal.turn()
        assert len(rehearsal.requests()) == 1, "an episode is rehearsed once"
        rehearsal.driver.lease.give_back()

        mode = Mode(world, msgspec.structs.replace(DRAIN, name="for real"))
        mode.sequence, mode.faults = rehearsal.sequence, rehearsal.faults
        mode.tell()
        mode.run_to_the_end()
        done = world.operation(world.operations()[0].id)
        assert done.plan["hash"] == rehearsed.answer["hash"]
        planned = {pod["uid"]: pod["action"] for pod in rehearsed.answer["pods"]}
        assert set(planned.values()) == {"restart_with_gang", "skip"}
        assert sum(world.connection.suspensions(True).values()) == 1
        assert not world.connection.evictions()


def test_a_limit_that_refuses_it_keeps_all_automation_still_until_a_person_resets_it(
    tmp_path: Path,
) -> None:
    limits = {**SHIPPED_LIMITS, "max_drains_per_hour": 1, "max_unavailable_nodes_ratio": 1.0, "max_unavailable_block_nodes_ratio": 1.0, "max_drains_per_hour_ratio": 1.0}  # fmt: skip
    with world_of(tmp_path, nodes=8, **limits) as world:
        first, second, third = sorted(world.view().nodes)[:3]
        mode = Mode(world)
        mode.fail(first)
        mode.run_to_the_end()
        mode.fail(second)
        mode.run_until(lambda: mode.rows().get(second) and mode.rows()[second].state == "waiting")
        assert "last hour" in mode.rows()[second].reason
        mode.fail(third)
        mode.run_until(lambda: mode.rows().get(third) and mode.rows()[third].state == "left")
        assert "must reset it" in mode.rows()[third].reason
        asked = len(mode.requests())
        mode.faults[third] = ()  # the two together would be over the limit again
        world.offset_seconds += 20
        mode.tell()
        mode.turn()
        assert len(mode.requests()) == asked
        assert mode.rows()[third].state == "ended"
        reset = world.answer(mode.driver, "reset_limit", limit="rate", text="looked at it")
        assert reset.state == "accepted", reset.refusal
        world.offset_seconds += 20
        mode.tell()
        mode.run_until(lambda: len(world.operations()) == 2)


def test_it_stands_still_while_paused_and_while_it_does_not_hear(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        node, other = sorted(world.view().nodes)[:2]
        mode = Mode(world)
        mode.tell()
        mode.turn()
        assert world.answer(mode.driver, "pause", text="a change of cables").state == "accepted"
        mode.fail(node)
        mode.turn()
        assert "a change of cables" in mode.rows()[node].reason
        assert world.answer(mode.driver, "unpause", text="done").state == "accepted"
        world.offset_seconds += 60
        mode.turn()  # nobody has spoken for a minute
        assert "The source agents is not heard" in mode.rows()[node].reason
        mode.tell(other)  # the others are heard again, this one is not
        mode.turn()
        assert f"{node} is not heard" in mode.rows()[node].reason
        assert world.operations() == []
        mode.tell()
        mode.run_until(lambda: world.operations())


def test_a_new_fault_is_acted_on_for_itself_and_an_old_one_never_again(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        mode = Mode(world)
        mode.fail(node, episode="old")
        mode.run_to_the_end()
        mode.faults[node] = ()
        mode.tell()
        opened = world.answer(mode.driver, "uncordon", nodes=[node])
        assert opened.state == "accepted", opened.refusal
        mode.run_until(lambda: not world.view().nodes[node].spec.unschedulable)
        mode.run_until(lambda: world.state(opened.operation_id) in ENDED)
        world.offset_seconds += 5
        mode.tell()
        mode.turn()
        drains = [o for o in world.operations() if o.kind == "drain"]
        assert len(drains) == 1
        mode.fail(node, episode="new")
        mode.run_until(
            lambda: (
                sum(o.kind == "drain" and o.state == "Succeeded" for o in world.operations()) == 2
            )
        )


def test_a_node_that_a_person_uncordons_is_not_taken_again_for_the_same_fault(
    tmp_path: Path,
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        mode = Mode(world)
        mode.fail(node)
        mode.run_to_the_end()
        world.answer(mode.driver, "uncordon", nodes=[node], confirmation=node)
        mode.run_until(lambda: not world.view().nodes[node].spec.unschedulable)
        for _ in range(4):
            world.offset_seconds += 16
            mode.tell()
            mode.turn()
        assert not world.view().nodes[node].spec.unschedulable
        assert sum(o.kind == "drain" for o in world.operations()) == 1


def test_one_node_that_can_not_go_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with world_of(tmp_path, nodes=6, max_unavailable_nodes_ratio=1.0) as world:
        names = sorted(world.view().nodes)
        guarded = names[1]
        label = {"metadata": {"labels": {"pitwall.dev/protected": "true"}}}
        world.people.request("PATCH", f"/api/v1/nodes/{guarded}", body=label)
        world.wait(lambda view: "pitwall.dev/protected" in view.nodes[guarded].metadata.labels)
        mode = Mode(world)
        mode.fail(*names[:4])
        cordoned = set(names[:4]) - {guarded}

        def done() -> bool:
            return all(world.view().nodes[name].spec.unschedulable for name in cordoned)

        mode.run_until(done)
        mode.run_until(
            lambda: mode.rows()[guarded].state == "waiting" and mode.rows()[guarded].together == 1
        )
        assert not world.view().nodes[guarded].spec.unschedulable
        assert "protected" in mode.rows()[guarded].reason


def test_a_worker_that_is_killed_at_each_turn_asks_and_restarts_once(tmp_path: Path) -> None:
    with world_of(tmp_path) as world:
        uid = world.create_job("llm", ranks=2)
        node = world.wait(world.running(uid, 2))[0].spec.node_name
        mode = Mode(world)
        mode.fail(node)
        for number in range(200):
            mode.turn()
            if any(o.state == "Succeeded" for o in world.operations()):
                break
            if any("GPU activity" in o.message for o in world.operations()):
                world.offset_seconds += 61
                mode.tell()
            # Nothing but the store and the cluster is left of this worker.
            mode.driver.lease.give_back()
            fresh = Mode(world)
            fresh.sequence, fresh.faults = mode.sequence, mode.faults
            mode = fresh
            if number % 5 == 0:
                mode.tell()
            world.watcher.wait_changed(world.watcher.version, 0.1)
        assert [o.state for o in world.operations()] == ["Succeeded"], world.describe()
        assert len(mode.requests()) == 1
        assert sum(world.connection.suspensions(True).values()) == 1
        assert sum(world.connection.suspensions(False).values()) == 1


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_worker_that_dies_about_the_writing_of_a_request_loses_and_doubles_none(
    tmp_path: Path, where: str
) -> None:
    with world_of(tmp_path) as world:
        node = sorted(world.view().nodes)[0]
        mode = Mode(world)
        mode.fail(node)
        mode.driver.lease.renew()
        mode.sync.tick()
        if where == "after":
            mode.automatic.tick()
        mode.driver.lease.give_back()  # the worker is gone, its request is in or is not
        heir = Mode(world)
        heir.sequence, heir.faults = mode.sequence, mode.faults
        heir.tell()
        heir.run_to_the_end()
        assert len(heir.requests()) == 1
        assert (world.clock() - timedelta(minutes=5)) < heir.requests()[0].created_at
