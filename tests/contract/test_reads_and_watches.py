"""Lists in pages, selectors, watches, bookmarks, and history that is gone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cluster import Cluster
from kubelet import Grounds

from k8s.discovery import is_served, read_api_groups
from k8s.errors import ApiError
from k8s.listing import get_object, list_objects
from k8s.reflector import Change, Reflector
from k8s.resources import BUDGETS, EVENTS, JOBS, NODES, PODS
from k8s.view import ClusterWatcher

pytestmark = pytest.mark.contract
UNBOUND = {"schedulerName": "nobody"}


def make_pods(grounds: Grounds, count: int) -> None:
    for i in range(count):
        grounds.cluster.create_pod(
            grounds.namespace, f"p{i}", labels={"half": str(i % 2)}, **UNBOUND
        )


def page(cluster: Cluster, namespace: str, **params: Any) -> dict[str, Any]:
    return cluster.get(PODS.path(namespace=namespace), **params)


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["metadata"]["name"] for item in items]


@contextmanager
def following(cluster: Cluster, resource: Any, **options: Any) -> Iterator[tuple[Reflector, list]]:
    changes: list[Change] = []
    stop = threading.Event()
    reflector = Reflector(cluster.connection, resource, changes.append, **options)
    thread = threading.Thread(target=reflector.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield reflector, changes
    finally:
        stop.set()
        reflector.interrupt()
        thread.join(10)


def test_the_built_in_kinds_are_discovered(cluster):
    assert {"", "batch", "policy"} <= read_api_groups(cluster.connection)
    assert all(is_served(cluster.connection, kind) for kind in (NODES, PODS, JOBS, BUDGETS))


def test_pages_show_every_object_once_at_one_version(grounds):
    make_pods(grounds, 5)
    seen, versions, token = [], set(), None
    sizes = []
    while True:
        part = page(grounds.cluster, grounds.namespace, limit=2, **{"continue": token})
        seen += names(part["items"])
        sizes.append(len(part["items"]))
        versions.add(part["metadata"]["resourceVersion"])
        token = part["metadata"].get("continue")
        if not token:
            break
    assert sorted(seen) == [f"p{i}" for i in range(5)]
    assert sizes == [2, 2, 1]
    assert len(versions) == 1


def test_a_list_in_progress_does_not_see_what_is_created_meanwhile(grounds):
    make_pods(grounds, 3)
    first = page(grounds.cluster, grounds.namespace, limit=2)
    grounds.cluster.create_pod(grounds.namespace, "p9", **UNBOUND)
    second = page(
        grounds.cluster, grounds.namespace, limit=2, **{"continue": first["metadata"]["continue"]}
    )
    assert names(second["items"]) == ["p2"]


def test_a_narrow_paged_list_is_the_whole_list(grounds):
    make_pods(grounds, 5)
    listing = list_objects(
        grounds.cluster.connection, PODS, namespace=grounds.namespace, page_objects=2
    )
    assert sorted(pod.metadata.name for pod in listing.items) == [f"p{i}" for i in range(5)]
    assert listing.resource_version


def test_a_continue_token_that_makes_no_sense_is_refused(grounds):
    with pytest.raises(ApiError) as raised:
        page(grounds.cluster, grounds.namespace, limit=2, **{"continue": "nonsense"})
    assert (raised.value.status, raised.value.reason) == (400, "BadRequest")


def test_a_list_survives_a_history_that_is_forgotten_between_pages(grounds):
    make_pods(grounds, 5)
    connection = grounds.cluster.connection
    original, asked = connection.request, []

    def request(method: str, path: str, **options: Any) -> Any:
        if (options.get("params") or {}).get("continue"):
            asked.append(1)
            if len(asked) == 1:
                grounds.cluster.create_pod(grounds.namespace, "later", **UNBOUND)
                grounds.cluster.forget_history()
        return original(method, path, **options)

    connection.request = request
    try:
        listing = list_objects(connection, PODS, namespace=grounds.namespace, page_objects=2)
    finally:
        del connection.request
    assert {f"p{i}" for i in range(5)} <= {pod.metadata.name for pod in listing.items}


def test_selectors_choose_by_label_and_by_field(grounds):
    make_pods(grounds, 4)
    grounds.add_nodes(1)
    grounds.cluster.create_pod(grounds.namespace, "bound", node=grounds.nodes[0])

    def chosen(**params: str) -> list[str]:
        return sorted(names(page(grounds.cluster, grounds.namespace, **params)["items"]))

    assert chosen(labelSelector="half=1") == ["p1", "p3"]
    assert chosen(labelSelector="half in (0),half!=1") == ["p0", "p2"]
    assert chosen(labelSelector="!half") == ["bound"]
    assert chosen(fieldSelector=f"spec.nodeName={grounds.nodes[0]}") == ["bound"]
    assert chosen(fieldSelector="metadata.name=p2") == ["p2"]


def test_an_object_that_is_not_there_is_none(grounds):
    connection = grounds.cluster.connection
    assert get_object(connection, PODS, "nobody", namespace=grounds.namespace) is None


# --- watches --------------------------------------------------------------------------------


def watch(cluster: Cluster, namespace: str, version: str, seconds: int = 4, **params: Any) -> list:
    stream = cluster.connection.stream(
        PODS.path(namespace=namespace),
        {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": seconds,
            "allowWatchBookmarks": "true",
            **params,
        },
        read_timeout_seconds=seconds + 10,
    )
    return [json.loads(line) for line in stream]


def test_a_watch_tells_what_has_happened_since_its_version_in_order(grounds):
    cluster, namespace = grounds.cluster, grounds.namespace
    version = page(cluster, namespace)["metadata"]["resourceVersion"]
    cluster.create_pod(namespace, "a", **UNBOUND)
    cluster.patch(PODS.path("a", namespace=namespace), {"metadata": {"labels": {"x": "y"}}})
    cluster.delete(PODS.path("a", namespace=namespace), gracePeriodSeconds=0)
    events = [
        event for event in watch(cluster, namespace, version, 2) if event["type"] != "BOOKMARK"
    ]
    kinds = [event["type"] for event in events]
    # A real API server also tells of the deletionTimestamp of a pod that goes at once.
    assert (kinds[:2], kinds[-1]) == (["ADDED", "MODIFIED"], "DELETED")
    assert kinds.count("ADDED") == kinds.count("DELETED") == 1
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(version)


def test_a_watch_ends_in_its_time_with_a_bookmark_on_the_way(grounds):
    cluster, namespace = grounds.cluster, grounds.namespace
    cluster.create_pod(namespace, "a", **UNBOUND)
    version = page(cluster, namespace)["metadata"]["resourceVersion"]
    began = time.monotonic()
    events = watch(cluster, namespace, version, 6)  # a bookmark comes 2 s before the end
    assert 5 < time.monotonic() - began < 9
    bookmarks = [event for event in events if event["type"] == "BOOKMARK"]
    assert bookmarks
    assert set(events[-1]["object"]["metadata"]) >= {"resourceVersion"}
    assert int(bookmarks[-1]["object"]["metadata"]["resourceVersion"]) >= int(version)


def test_a_watch_by_selector_sees_objects_come_into_it_and_leave_it(grounds):
    cluster, namespace = grounds.cluster, grounds.namespace
    version = page(cluster, namespace)["metadata"]["resourceVersion"]
    cluster.create_pod(namespace, "a", **UNBOUND)
    path = PODS.path("a", namespace=namespace)
    cluster.patch(path, {"metadata": {"labels": {"in": "yes"}}})
    cluster.patch(path, {"metadata": {"labels": {"in": None}}})
    events = watch(cluster, namespace, version, 2, labelSelector="in=yes")
    kinds = [event["type"] for event in events if event["type"] != "BOOKMARK"]
    assert kinds == ["ADDED", "DELETED"]


def make_event(grounds: Grounds, name: str) -> None:
    involved = {"kind": "Namespace", "name": grounds.namespace, "namespace": grounds.namespace}
    grounds.cluster.post(
        EVENTS.path(namespace=grounds.namespace),
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name},
            "involvedObject": involved,
            "reason": "Testing",
            "type": "Normal",
        },
    )


# A real API server answers pods from its watch cache, however much etcd has forgotten; events it does not.
def test_a_watch_from_a_version_that_is_forgotten_is_told_410(grounds):
    cluster = grounds.cluster
    make_event(grounds, "e0")
    version = cluster.get(EVENTS.path(namespace=grounds.namespace))["metadata"]["resourceVersion"]
    make_event(grounds, "e1")
    make_event(grounds, "e2")
    cluster.forget_history()
    stream = cluster.connection.stream(
        EVENTS.path(namespace=grounds.namespace),
        {"watch": "true", "resourceVersion": version, "timeoutSeconds": 3},
        read_timeout_seconds=10,
    )
    (event,) = [json.loads(line) for line in stream]
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")


def test_a_continue_token_that_has_expired_is_told_410(grounds):
    cluster, path = grounds.cluster, EVENTS.path(namespace=grounds.namespace)
    for i in range(3):
        make_event(grounds, f"e{i}")
    first = cluster.get(path, limit=2)
    make_event(grounds, "e3")
    cluster.forget_history()
    with pytest.raises(ApiError) as raised:
        cluster.get(path, limit=2, **{"continue": first["metadata"]["continue"]})
    assert (raised.value.status, raised.value.reason) == (410, "Expired")


def test_a_reflector_lists_again_after_410_and_tells_what_vanished(grounds):
    cluster, connection = grounds.cluster, grounds.cluster.connection
    make_event(grounds, "stays")
    make_event(grounds, "goes")
    original, opened = connection.stream, []

    def stream(*args: Any, **options: Any) -> Any:
        opened.append(1)
        if len(opened) == 1:  # between the list and the watch, history moves on and is forgotten
            cluster.delete(EVENTS.path("goes", namespace=grounds.namespace))
            make_event(grounds, "comes")
            cluster.create_pod(grounds.namespace, "other", **UNBOUND)
            cluster.forget_history()
        return original(*args, **options)

    connection.stream = stream
    try:
        with following(cluster, EVENTS, watch_seconds=2) as (reflector, changes):
            told = lambda: [  # noqa: E731
                (change.kind, change.object.metadata.name)
                for change in list(changes)
                if change.object.metadata.namespace == grounds.namespace
            ]
            cluster.until(lambda: ("added", "comes") in told(), "what is new is told")
            assert reflector.lists_total == 2
            assert set(told()[:2]) == {("added", "goes"), ("added", "stays")}
            assert told()[2:] == [("deleted", "goes"), ("added", "comes")]
            assert reflector.failing_since is None
    finally:
        del connection.stream


def test_a_reflector_follows_pods_and_survives_forgotten_history(grounds):
    cluster, namespace = grounds.cluster, grounds.namespace
    make_pods(grounds, 3)
    with following(cluster, PODS, watch_seconds=3, page_objects=2) as (reflector, changes):
        assert reflector.synced.wait(20)

        def present() -> set[str]:
            held: dict[str, str] = {}
            for change in list(changes):
                if change.object.metadata.namespace == namespace:
                    held[change.uid] = (
                        "" if change.kind == "deleted" else change.object.metadata.name
                    )
            return {name for name in held.values() if name}

        assert present() == {"p0", "p1", "p2"}
        cluster.forget_history()
        cluster.delete(PODS.path("p0", namespace=namespace), gracePeriodSeconds=0)
        cluster.create_pod(namespace, "p3", **UNBOUND)
        cluster.until(lambda: present() == {"p1", "p2", "p3"}, "the reflector has caught up")
        assert reflector.malformed_total == 0


def test_a_view_of_the_cluster_knows_nodes_pods_jobs_budgets_and_owners(scheduled):
    cluster, namespace = scheduled.cluster, scheduled.namespace
    scheduled.add_nodes(2)
    watcher = ClusterWatcher(cluster.connection)
    watcher.start()
    try:
        assert watcher.wait_synced(30)
        pods = scheduled.job(parallelism=2)
        cluster.create_budget(namespace, "b", match={"app": "train"}, minAvailable=1)
        job = cluster.job(namespace, "train")

        def complete() -> Any:
            view = watcher.view()
            known = {pod.metadata.uid for pod in view.pods_of(job.metadata.uid)}
            budget = [b for b in view.budgets.values() if b.metadata.namespace == namespace]
            return known == {pod.metadata.uid for pod in pods} and budget and view

        view = cluster.until(complete, "the view has it all")
        assert view.synced
        assert view.observed_at is not None
        assert view.workloads[job.metadata.uid].gang
        assert {len(view.pods_on(name)) for name in scheduled.nodes} == {1}
        assert set(scheduled.nodes) <= set(view.nodes)
    finally:
        watcher.stop()


def test_a_reflector_survives_the_api_servers_restart(grounds):
    cluster, namespace = grounds.cluster, grounds.namespace
    if cluster.stop_api_server is None or cluster.start_api_server is None:
        pytest.skip(
            "the simulator's API and its state are one process: unit tests restart a server"
        )
    make_pods(grounds, 1)
    with following(cluster, PODS, watch_seconds=30) as (reflector, changes):
        assert reflector.synced.wait(20)
        cluster.stop_api_server()
        cluster.until(lambda: reflector.failing_since, "the reflector notices")
        cluster.start_api_server()
        cluster.create_pod(namespace, "after", **UNBOUND)
        cluster.until(
            lambda: [c for c in changes if c.object.metadata.name == "after"],
            "the reflector sees what was made after the restart",
        )
        assert reflector.failing_since is None
