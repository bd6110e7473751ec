"""Rows 1, 2, 3, 5, 6, 22, 24, 25 and 26: a whole drain, from the cordon to the empty node."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from draining import Diverted, bare, finish, node_writes, seen
from kubelet import Grounds

from k8s.client import Impersonation
from k8s.nodes import cordon, read_hold
from k8s.resources import NODES, PODS
from tests.integration.operations.operation_world import Driver

pytestmark = pytest.mark.contract


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    """Grounds with two nodes."""
    grounds.add_nodes(2)
    return grounds


def test_drain_row_01_every_node_is_cordoned_before_any_pod_goes_and_only_once(field, world):
    pods = [bare(field, f"p{i}", node=node) for i, node in enumerate(field.nodes)]
    seen(world, *pods)
    driver = Driver(world)
    ended = finish(world, driver, world.drain(driver, *field.nodes, force=True))
    assert ended.state == "Succeeded", world.describe()
    assert set(ended.nodes_state.values()) == {"Drained"}
    written = [(method, path) for method, path, _ in world.connection.writes]
    cordons = [at for at, (_, path) in enumerate(written) if path.startswith(NODES.path())]
    evictions = [at for at, (_, path) in enumerate(written) if path.endswith("/eviction")]
    assert (len(cordons), len(evictions)) == (2, 2)
    assert max(cordons) < min(evictions)


def test_drain_row_01_what_is_cordoned_already_is_not_written_again(field, world):
    cordon(field.cluster.connection, field.nodes[0])
    world.wait(lambda view: view.nodes[field.nodes[0]].spec.unschedulable)
    driver = Driver(world)
    ended = finish(world, driver, world.drain(driver, field.nodes[0]))
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    (body,) = node_writes(world)  # whose it is, and nothing of the spec
    assert "spec" not in body
    hold = read_hold(field.cluster.node(field.nodes[0]).metadata)
    assert hold is not None
    assert hold.was_unschedulable


def test_drain_row_02_a_cordon_that_is_refused_ends_the_drain_and_no_pod_is_touched(field, world):
    pods = [bare(field, f"p{i}", node=node) for i, node in enumerate(field.nodes)]
    seen(world, *pods)
    nobody = field.cluster.connection.impersonating(Impersonation("nobody", ("nobodies",)))

    def way(send: Any, method: str, path: str, options: dict[str, Any]) -> Any:
        if method == "PATCH" and path == NODES.path(field.nodes[0]):
            return nobody.request(method, path, **options)
        return send(method, path, **options)

    world.connection = Diverted(world.connection, way)
    driver = Driver(world)
    ended = finish(world, driver, world.drain(driver, *field.nodes, force=True))
    assert ended.state == "Failed"
    assert f"{field.nodes[0]} could not be cordoned" in ended.message
    assert not world.connection.evictions()
    assert all(not field.cluster.node(name).spec.unschedulable for name in field.nodes)


def test_drain_row_03_a_pod_that_lands_while_the_node_is_drained_goes_too(field, world):
    first = bare(field, "first")
    seen(world, first)
    landed = []

    def at_boundary(where: str, _: Any, step: Any) -> None:
        if (where, step.name) == ("called", "evict") and not landed:
            landed.append(bare(field, "late"))  # bound before the cordon was known

    driver = Driver(world, at_boundary)
    ended = finish(world, driver, world.drain(driver, field.nodes[0], force=True))
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert world.connection.evictions() == {pod.metadata.uid: 1 for pod in (first, *landed)}
    assert landed


def test_drain_row_05_a_pod_that_may_not_go_keeps_its_node_from_being_touched(field, world):
    pods = [bare(field, "alone"), bare(field, "beside")]
    seen(world, *pods)
    refused = world.answer(Driver(world), "drain", nodes=[field.nodes[0]])
    assert refused.refusal_code == "protected"
    assert "alone" in refused.refusal
    assert not world.connection.tried
    assert not field.cluster.node(field.nodes[0]).spec.unschedulable


def test_drain_row_05_a_drain_that_meets_such_a_pod_offers_to_uncordon(field, world):
    driver = Driver(world)
    operation_id = world.drain(driver, field.nodes[0])

    def cordoned() -> bool:
        return world.view().nodes[field.nodes[0]].spec.unschedulable

    driver.run_until(cordoned)
    late = bare(field, "late")
    seen(world, late)
    driver.run_until(lambda: world.state(operation_id) == "Blocked")
    choices = {choice["name"] for choice in world.operation(operation_id).choices}
    assert choices == {"retry", "give_back"}
    world.answer(driver, "choose", operation_id=operation_id, choice="give_back")
    ended = finish(world, driver, operation_id)
    assert ended.state == "Cancelled"
    assert not field.cluster.node(field.nodes[0]).spec.unschedulable
    assert not world.connection.evictions()


def test_drain_row_06_a_pod_that_is_terminating_is_awaited_and_not_evicted_again(field, world):
    pod = bare(field, "a", grace_seconds=60)
    field.kubelets.reluctant = True
    field.cluster.connection.request("DELETE", PODS.path("a", namespace=field.namespace))
    world.wait(
        lambda view: (p := view.pods.get(pod.metadata.uid)) and p.metadata.deletion_timestamp
    )
    driver = Driver(world)
    operation_id = world.drain(driver, field.nodes[0], force=True)
    driver.run_until(lambda: "to stop" in world.operation(operation_id).message)
    assert world.operation(operation_id).nodes_state == {field.nodes[0]: "Draining"}
    field.kubelets.reluctant = False
    ended = finish(world, driver, operation_id)
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert not world.connection.evictions()


def test_drain_row_22_a_replacement_elsewhere_is_not_chased(field, world):
    app = {"app": "a"}
    first = bare(field, "a", labels=app)
    field.cluster.settled_budget(field.namespace, "keep", match=app, healthy=1, minAvailable=1)
    seen(world, first)
    world.wait(
        lambda view: any(b.metadata.namespace == field.namespace for b in view.budgets.values())
    )
    driver = Driver(world)
    operation_id = world.drain(driver, field.nodes[0], force=True)
    driver.run_until(lambda: "keep" in world.operation(operation_id).message)
    field.cluster.delete(PODS.path("a", namespace=field.namespace), gracePeriodSeconds=0)
    field.cluster.until(
        lambda: field.cluster.find(PODS.path("a", namespace=field.namespace)) is None, "it is gone"
    )
    second = bare(field, "a", node=field.nodes[1], labels=app)
    world.offset_seconds = 6  # the pause after a budget's no
    ended = finish(world, driver, operation_id)
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert not world.connection.evictions()
    found = field.cluster.pod(field.namespace, "a").metadata
    assert (found.uid, found.deletion_timestamp) == (second.metadata.uid, None)


def test_drain_row_24_an_api_server_that_fails_in_passing_is_waited_out(field, world):
    pod = bare(field, "a")
    seen(world, pod)
    cluster, failed = field.cluster, []

    def at_boundary(where: str, _: Any, step: Any) -> None:
        if step.name != "confirm_empty":
            return
        if where == "claimed" and not failed:
            failed.append(step)
            if cluster.disturb is not None:
                cluster.disturb(method="GET", path_prefix=PODS.path(), status=503, count=4)
            else:
                cluster.stop_api_server()
        elif where == "called" and cluster.start_api_server is not None and len(failed) == 1:
            failed.append(step)
            cluster.start_api_server()

    driver = Driver(world, at_boundary)
    ended = finish(world, driver, world.drain(driver, field.nodes[0], force=True), seconds=120)
    assert failed
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    (confirmed,) = [step for step in ended.steps if step.name == "confirm_empty"]
    assert confirmed.state == "done"
    assert world.connection.evictions() == {pod.metadata.uid: 1}


def test_drain_row_25_sixteen_pods_at_most_are_evicted_at_once(field, world):
    pods = [bare(field, f"p{i:02}", gpus=0) for i in range(20)]
    seen(world, *pods)
    gate = threading.Barrier(16)

    def way(send: Any, method: str, path: str, options: dict[str, Any]) -> Any:
        if path.endswith("/eviction") and not gate.broken:
            with contextlib.suppress(threading.BrokenBarrierError):
                gate.wait(2)  # the first sixteen meet here
        return send(method, path, **options)

    world.connection = connection = Diverted(world.connection, way)
    driver = Driver(world, calls_at_once=40)
    ended = finish(world, driver, world.drain(driver, field.nodes[0], force=True))
    driver.reconciler.close()
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert connection.most_at_once == 16
    assert connection.evictions() == {pod.metadata.uid: 1 for pod in pods}


def test_drain_row_25_a_gang_leaves_as_one_and_comes_back_whole(scheduled, world):
    scheduled.add_nodes(3)
    ranks = scheduled.job()
    seen(world, *ranks)
    uid = ranks[0].metadata.owner_references[0].uid
    world.wait(lambda view: uid in view.workloads)
    driver = Driver(world)
    ended = finish(world, driver, world.drain(driver, ranks[0].spec.node_name), seconds=90)
    assert ended.state == "Succeeded", world.describe()
    assert ended.workloads_state[uid]["verdict"] == "Returned"
    assert not world.connection.evictions()
    assert list(world.connection.suspensions(True).values()) == [1]
    assert list(world.connection.suspensions(False).values()) == [1]
    live = scheduled.live("train")
    assert {pod.metadata.uid for pod in live}.isdisjoint(pod.metadata.uid for pod in ranks)
    assert ranks[0].spec.node_name not in {pod.spec.node_name for pod in live}


def test_drain_row_26_a_deadline_is_kept_by_the_store_through_a_restart(field, world):
    pod = bare(field, "a")
    seen(world, pod)
    first = Driver(world)
    asked = {"mode": "deadline", "deadline_seconds": 600, "force": True}
    operation_id = world.drain(first, field.nodes[0], **asked)
    first.run_until(lambda: "its deadline" in world.operation(operation_id).message)
    world.offset_seconds = 550
    second = Driver(world)  # knows nothing but the store
    second.run_until(lambda: second.lease.held() is not None)
    second.turn()
    assert not world.connection.evictions()
    world.offset_seconds = 601
    ended = finish(world, second, operation_id)
    assert ended.nodes_state == {field.nodes[0]: "Drained"}
    assert world.connection.evictions() == {pod.metadata.uid: 1}
