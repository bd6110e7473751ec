"""The same seed gives the same history; what stands at the start is what was asked for."""

import hashlib

import msgspec
import pytest

from app.simulator.hosts import GPUS_PER_NODE
from app.simulator.store import Event


def digest(cluster) -> str:
    """Every object of the store, and every machine."""
    found = hashlib.sha256()
    for plural, collection in sorted(cluster.simulation.store.collections.items()):
        for record in collection.in_order():
            found.update(f"{plural}/{record.key}".encode() + record.encoded)
    for host in cluster.simulation.hosts.by_name.values():
        found.update(repr(host).encode())
    return found.hexdigest()


def live_through(cluster) -> None:
    """A history with a fault, an eviction, a suspension and a repair."""
    cluster.advance(30)
    pods = [
        pod
        for pod in cluster.simulation.registry.objects("pods", "pretraining")
        if pod["status"]["phase"] == "Running"
    ]
    node = pods[0]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "xid-79", 2)
    cluster.advance(10)
    cluster.evict(pods[-1])
    cluster.advance(120)
    cluster.simulation.faults.repair(node)
    cluster.advance(400)


def test_the_same_seed_gives_the_same_history(make_cluster) -> None:
    digests = set()
    for _ in range(2):
        cluster = make_cluster(nodes=16, seed=7)
        live_through(cluster)
        digests.add(digest(cluster))
    assert len(digests) == 1


def test_another_seed_gives_another(make_cluster) -> None:
    assert digest(make_cluster(nodes=4, seed=1)) != digest(make_cluster(nodes=4, seed=2))


def test_a_client_that_creates_something_changes_nobody_elses_identity(make_cluster) -> None:
    uids = []
    for disturbed in (False, True):
        cluster = make_cluster(nodes=8, with_jobs=False)
        if disturbed:
            cluster.create_job("other", parallelism=1, completions=1)
        cluster.create_job("train", parallelism=1, completions=1)
        cluster.advance(5)
        uids.append(cluster.pods_of("train")[0]["metadata"]["uid"])
    assert uids[0] == uids[1]


@pytest.mark.parametrize("nodes", [1, 2, 3, 8, 16, 64, 200])
def test_jobs_leave_spare_nodes_and_are_all_running(make_cluster, nodes: int) -> None:
    cluster = make_cluster(nodes=nodes)
    cluster.advance(5)
    registry = cluster.simulation.registry
    pods = registry.objects("pods")
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    hosts = cluster.simulation.hosts.by_name.values()
    used = [sum(1 for gpu in host.gpus if gpu.pod) for host in hosts]
    assert max(used) <= GPUS_PER_NODE
    busy = sum(1 for one in used if one)
    assert busy < nodes or nodes == 1
    if nodes >= 64:
        assert 0.82 <= busy / nodes <= 0.88
        jobs = registry.objects("jobs")
        sizes = {job["spec"]["parallelism"] for job in jobs}
        assert {16, 8, 4, 2} <= sizes
        assert any(job["spec"].get("podFailurePolicy") for job in jobs)
        assert any(not job["spec"].get("podFailurePolicy") for job in jobs)
    for job in registry.objects("jobs"):
        status = job["status"]
        assert status["ready"] == status["active"] == job["spec"]["parallelism"]
        assert job["metadata"]["labels"]["pitwall.dev/team"]


def test_every_spare_node_shares_a_rack_with_a_busy_one(make_cluster) -> None:
    cluster = make_cluster(nodes=64)
    hosts = cluster.simulation.hosts.by_name.values()
    busy_racks = {host.rack for host in hosts if any(gpu.pod for gpu in host.gpus)}
    spare = [host for host in hosts if not any(gpu.pod for gpu in host.gpus)]
    assert spare
    assert {host.rack for host in spare} <= busy_racks


def test_machines_are_unmistakable(make_cluster) -> None:
    hosts = make_cluster(nodes=64).simulation.hosts.by_name.values()
    gpus = [gpu for host in hosts for gpu in host.gpus]
    assert len({gpu.uuid for gpu in gpus}) == len({gpu.serial for gpu in gpus}) == 512
    assert len({host.address for host in hosts}) == len({host.boot_id for host in hosts}) == 64


def test_objects_are_never_changed_once_stored(make_cluster) -> None:
    cluster = make_cluster(nodes=8, seed=3)
    kept: list[tuple[object, bytes]] = []

    def keep(event: Event) -> None:
        kept.append((event.record.object, msgspec.json.encode(event.record.object)))

    for collection in cluster.simulation.store.collections.values():
        collection.listeners.append(keep)
        kept += [(one.object, msgspec.json.encode(one.object)) for one in collection.in_order()]
    live_through(cluster)
    assert len(kept) > 100
    assert all(msgspec.json.encode(obj) == encoded for obj, encoded in kept)
