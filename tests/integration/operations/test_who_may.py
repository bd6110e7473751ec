"""In whose name operations write, on the simulated cluster: reviews, refusals, take-overs, Events, emergencies."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from operation_world import CLUSTER, ENDED, Driver, World, world_of

from app.operations.access import Access
from app.operations.authority import Authority
from app.operations.events import EventWriter
from app.operations.people import local_user
from app.operations.reconciler import Reconciler
from app.operations.requests import RequestDesk
from app.simulator.api import access as simulated_roles
from app.store.engine import read
from app.store.records import RequestRecord
from app.store.requests import request, submit
from app.store.tables import Permission
from app.worker_permissions import PermissionFacts
from k8s.client import connect

OPERATORS, VIEWERS = ["pitwall:operators"], ["pitwall:viewers"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_of(tmp_path, local_user="pitwall:demo") as made:
        yield made


class Reviewed(Driver):
    """A worker that reviews who asked, with no answer kept from one step to the next."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        # As in the worker: reviews and Events are no writes of an operation.
        plain = connect(world.server.kubeconfig)
        access = Access(plain, local=local_user(world.settings), kept_seconds=0)
        self.events = EventWriter(plain, instance="test")
        self.desk = RequestDesk(
            world.engine,
            settings=world.settings,
            view=world.seen,
            lease=self.lease,
            clock=world.clock,
            access=access,
        )
        self.reconciler = Reconciler(
            world.engine,
            CLUSTER,
            connection=world.connection,
            view=world.seen,
            lease=self.lease,
            clock=world.clock,
            calls_at_once=1,
            authority=Authority(
                world.connection,
                access=access,
                settings=world.settings,
                guard=self.lease.require,
                events=self.events,
            ),
        )


def ask(world: World, kind: str, author: str, groups: list[str], **parameters: Any) -> str:
    made = submit(
        world.engine,
        CLUSTER,
        kind=kind,
        parameters=parameters,
        author=author,
        author_groups=groups,
        reason="a test",
        idempotency_key="",
        now=world.clock(),
    )
    return made.id


def answered(world: World, driver: Driver, asked: str) -> RequestRecord:
    """The request once the desk has answered; no step is taken meanwhile."""
    driver.lease.renew()
    driver.desk.tick()
    found = request(world.engine, CLUSTER, asked)
    assert found is not None
    assert found.state != "pending"
    return found


def lose_the_role(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    """The cluster's administrator takes the group's binding away."""
    monkeypatch.setitem(simulated_roles.ROLES, group, ())  # type: ignore[arg-type]


def events_of(world: World) -> list[dict[str, Any]]:
    found = msgspec.json.decode(world.people.get("/api/v1/events"))
    return [one for one in found["items"] if one.get("reportingComponent") == "pitwall.dev/worker"]


def gang(world: World) -> tuple[str, str]:
    """A gang of two ranks, and the node of its first."""
    uid = world.create_job("llm", ranks=2)
    pods = world.wait(world.running(uid, 2))
    return uid, pods[0].spec.node_name


def test_who_may_only_look_is_refused_in_one_sentence_and_nothing_is_written(world: World) -> None:
    uid, node = gang(world)
    driver = Reviewed(world)
    looked = answered(
        world, driver, ask(world, "preview", "eve", VIEWERS, action="drain", nodes=[node])
    )
    assert looked.state == "answered"
    refused = answered(world, driver, ask(world, "drain", "eve", VIEWERS, nodes=[node]))
    assert (refused.state, refused.refusal_code) == ("refused", "forbidden")
    assert refused.refusal == "eve may not patch nodes in the cluster."
    assert not world.connection.writes
    assert uid in world.view().workloads


def test_each_write_is_told_on_the_node_or_the_workload_with_operation_and_person(
    world: World,
) -> None:
    uid, node = gang(world)
    driver = Reviewed(world)
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[node]))
    assert accepted.operation_id is not None, accepted.refusal
    operation_id = accepted.operation_id
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    driver.events.close()
    said = {one["reason"]: one for one in events_of(world)}
    assert said.keys() == {"PitwallCordoned", "PitwallSuspended", "PitwallResumed"}
    assert said["PitwallCordoned"]["involvedObject"]["name"] == node
    assert said["PitwallSuspended"]["involvedObject"]["uid"] == uid
    for one in said.values():
        assert f"drain {operation_id} for ada: a test" in one["message"]
    written = [row for row in world.audited() if row.actor == "worker" and row.operation_id]
    assert {row.author for row in written} == {"ada"}


def test_an_event_that_can_not_be_written_stops_nothing(world: World) -> None:
    _, node = gang(world)
    driver = Reviewed(world)
    world.disturb(
        method="POST", path_prefix="/api/v1/namespaces/default/events", status=500, count=100
    )
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[node]))
    driver.run_until(lambda: world.state(str(accepted.operation_id)) in ENDED)
    assert world.state(str(accepted.operation_id)) == "Succeeded", world.describe()
    driver.events.close()
    assert not events_of(world)


def test_a_right_that_is_taken_away_holds_the_operation_until_somebody_takes_it_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid, node = gang(world)
    driver = Reviewed(world)
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[node]))
    operation_id = str(accepted.operation_id)
    driver.run_until(lambda: world.connection.suspensions(True))
    lose_the_role(monkeypatch, OPERATORS[0])
    driver.run_until(lambda: world.state(operation_id) == "Blocked")
    blocked = world.operation(operation_id)
    assert blocked.message == "ada may not patch jobs.batch in namespace default in the cluster."
    # Nothing is undone: the job stands still, the node stays out.
    assert world.wait(lambda view: view.jobs[uid].spec.suspend)
    assert world.view().nodes[node].spec.unschedulable
    assert not world.connection.suspensions(False)
    assert [choice["name"] for choice in blocked.choices] == ["take_over"]
    monkeypatch.setitem(
        simulated_roles.ROLES,  # type: ignore[arg-type]
        "bob",
        simulated_roles.ROLES["pitwall:demo"],
    )
    over = ask(world, "choose", "bob", [], operation_id=operation_id, choice="take_over")
    assert answered(world, driver, over).state == "accepted"
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    taken = {row.action: row.author for row in world.audited() if row.actor == "worker"}
    assert (taken["suspend"], taken["resume"]) == ("ada", "bob")
    assert world.wait(lambda view: not view.jobs[uid].spec.suspend)


def test_a_right_that_comes_back_lets_the_operation_go_on_by_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, node = gang(world)
    driver = Reviewed(world)
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[node]))
    with monkeypatch.context() as gone:
        lose_the_role(gone, OPERATORS[0])
        driver.run_until(lambda: world.state(str(accepted.operation_id)) == "Blocked")
    driver.run_until(lambda: world.state(str(accepted.operation_id)) in ENDED)
    assert world.state(str(accepted.operation_id)) == "Succeeded", world.describe()


def test_a_review_that_can_not_be_asked_lets_the_operation_wait(world: World) -> None:
    _, node = gang(world)
    driver = Reviewed(world)
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[node]))
    writes = len(world.connection.writes)
    world.disturb(method="POST", path_prefix="/apis/authorization.k8s.io", status=503, count=1)
    operation_id = str(accepted.operation_id)
    driver.run_until(lambda: world.state(operation_id) == "Waiting")
    assert "can't be asked now" in world.operation(operation_id).message
    assert len(world.connection.writes) == writes
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()


def test_a_dead_node_is_given_up_in_the_name_of_who_confirmed_it_and_put_back_in_service(
    world: World,
) -> None:
    _, dying = gang(world)
    world.kill_node(dying)
    driver = Reviewed(world)
    accepted = answered(world, driver, ask(world, "drain", "ada", OPERATORS, nodes=[dying]))
    operation_id = str(accepted.operation_id)
    assert accepted.state == "accepted", accepted.refusal
    driver.run_until(lambda: world.state(operation_id) in ("Waiting", "Blocked"))
    world.offset_seconds = 120
    driver.run_until(lambda: world.state(operation_id) == "Blocked")
    confirm = {
        "operation_id": operation_id,
        "choice": "confirm_power_off",
        "confirmation": dying,
    }
    refused = answered(world, driver, ask(world, "choose", "ada", OPERATORS, **confirm))
    assert refused.refusal == "ada may not delete pods in the cluster."
    confirmed = answered(world, driver, ask(world, "choose", "pitwall:demo", [], **confirm))
    assert confirmed.state == "accepted", confirmed.refusal
    driver.run_until(lambda: world.state(operation_id) in ENDED)
    assert world.state(operation_id) == "Succeeded", world.describe()
    written = {row.action: row.author for row in world.audited() if row.actor == "worker"}
    assert written["out_of_service"] == written["in_service"] == "pitwall:demo"
    assert written["cordon"] == written["suspend"] == "ada"
    taints = world.wait(lambda view: view.nodes[dying]).spec.taints
    assert "node.kubernetes.io/out-of-service" not in {taint.key for taint in taints}
    driver.events.close()
    grave = {one["reason"] for one in events_of(world) if one["type"] == "Warning"}
    assert "PitwallOutOfService" in grave


def test_the_worker_writes_down_what_people_who_asked_lately_may_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(world, "preview", "eve", VIEWERS, action="drain", nodes=[])
    ask(world, "preview", "ada", OPERATORS, action="drain", nodes=[])
    ask(world, "preview", "pat (page)", [], action="drain", nodes=[])
    facts = PermissionFacts(
        world.engine,
        connect(world.server.kubeconfig),
        settings=world.settings,
        clock=world.clock,
    )

    def known() -> Callable[[str, str, str], bool]:
        facts.tick()
        with read(world.engine) as connection:
            rows = connection.execute(Permission.__table__.select()).all()
        found = {(row.username, row.verb, row.resource): row.allowed for row in rows}
        return lambda *key: found[key]

    may = known()
    assert may("eve", "list", "nodes")
    assert not may("eve", "patch", "nodes")
    assert may("ada", "patch", "nodes")
    assert may("ada", "create", "pods/eviction")
    assert not may("ada", "delete", "pods")
    assert may("pitwall:demo", "delete", "pods")
    lose_the_role(monkeypatch, OPERATORS[0])
    assert not known()("ada", "patch", "nodes")
