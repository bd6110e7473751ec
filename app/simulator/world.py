"""The cluster as it stands at the start: nodes, system pods, jobs that have run for a while."""

from datetime import datetime, timedelta

from app.simulator.clock import as_rfc3339
from app.simulator.controllers.conditions import put_condition
from app.simulator.controllers.heartbeats import Heartbeats
from app.simulator.controllers.job_pods import build_pod, is_indexed
from app.simulator.controllers.kubelet import write_running
from app.simulator.controllers.replicas import daemon_pod_of, pod_of, replica_set_of
from app.simulator.hosts import Host, Hosts
from app.simulator.registry import Registry
from app.simulator.store import Object, clone
from app.simulator.workload import (
    SERVING,
    TEAMS,
    Placed,
    daemon_set,
    plan_floor,
    service_objects,
)

DAEMONS = (
    ("nvidia-device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.18.0"),
    ("dcgm-exporter", "nvcr.io/nvidia/k8s/dcgm-exporter:4.4.1-4.6.0-ubuntu22.04"),
)
DAEMON_NAMESPACE = "gpu-operator"
_NODE_AGE, _DAEMON_AGE = timedelta(days=120), timedelta(days=20)


def build_nodes(hosts: Hosts, heartbeats: Heartbeats, *, count: int, now: datetime) -> None:
    """Build the machines and register their nodes."""
    for number in range(count):
        heartbeats.register(hosts.add(number), since=now - _NODE_AGE)


def start_daemons(registry: Registry, hosts: Hosts, *, now: datetime) -> None:
    """The system's DaemonSets with a running pod on each node."""
    registry.create("namespaces", {"metadata": {"name": DAEMON_NAMESPACE}})
    since = now - _DAEMON_AGE
    for name, image in DAEMONS:
        template = daemon_set(name, image, namespace=DAEMON_NAMESPACE)
        owner = registry.create("daemonsets", template, created_at=since).object
        for host in hosts.by_name.values():
            _run(registry, daemon_pod_of(owner, host.name), host, since=since)


def start_workload(registry: Registry, hosts: Hosts, *, now: datetime) -> None:
    """The jobs and the service that already run."""
    for name in (*TEAMS, SERVING):
        registry.create("namespaces", {"metadata": {"name": name}})
    floor = plan_floor(list(hosts.by_name.values()), registry.identity)
    for placed in (*floor.gangs, *floor.batches):
        _start_job(registry, placed, now=now)
    if floor.service:
        deployment, budget = service_objects(len(floor.service))
        since = now - _DAEMON_AGE
        owner = registry.create("deployments", deployment, created_at=since).object
        registry.create("poddisruptionbudgets", budget, created_at=since)
        replica_set = registry.create(
            "replicasets", replica_set_of(owner, registry.identity), created_at=since
        ).object
        for host in floor.service:
            pod = pod_of(replica_set)
            pod["spec"]["nodeName"] = host.name
            _run(registry, pod, host, since=since)


def _start_job(registry: Registry, placed: Placed, *, now: datetime) -> None:
    since = now - timedelta(seconds=placed.started_seconds_ago)
    asked = clone(placed.job)
    asked["status"] = {"startTime": as_rfc3339(since), "uncountedTerminatedPods": {}}
    job = registry.create("jobs", asked, created_at=since).object
    for rank, host in enumerate(placed.hosts):
        pod = build_pod(job, rank if is_indexed(job) else None, identity=registry.identity)
        pod["spec"]["nodeName"] = host.name
        _run(registry, pod, host, since=since)


def _run(registry: Registry, pod: Object, host: Host, *, since: datetime) -> None:
    record = registry.create("pods", pod, created_at=since)
    running = clone(record.object)
    put_condition(running["status"], "PodScheduled", "True", now=since)
    write_running(running, host, now=since)
    registry.put("pods", record, running)
