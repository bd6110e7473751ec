"""What it costs to judge Kubernetes's word on 43,750 nodes, each with eight conditions and a rank of a gang."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

import msgspec
from sqlalchemy import Engine, text

from app.settings import Settings
from app.store.engine import write
from app.worker_kubernetes_findings import KubernetesFindings
from k8s.objects import Condition, Node, Pod
from k8s.view import ClusterView, view_of
from tests.benchmarks.figures import Figures
from tests.store_fixtures import sqlite_engine, sqlite_template
from tests.unit.operations.cluster_builders import NOW, job, node, pod

__all__ = ["sqlite_engine", "sqlite_template"]

NODES, RANKS = 43_750, 512
MOST_SECONDS = 0.5
TYPES = ("MemoryPressure", "DiskPressure", "PIDPressure", "KernelDeadlock", "ReadonlyFilesystem",
         "FrequentKubeletRestart", "FrequentContainerdRestart")  # fmt: skip


class Cluster:
    """Serves views of nodes and pods as a watcher does."""

    def __init__(self) -> None:
        self.now = NOW
        one = node("x")
        conditions = (*one.status.conditions, *(Condition(kind, "False") for kind in TYPES))
        status = msgspec.structs.replace(one.status, conditions=conditions)
        self.nodes = [
            msgspec.structs.replace(
                one,
                metadata=msgspec.structs.replace(one.metadata, name=f"n{number}", uid=f"u{number}"),
                status=status,
            )
            for number in range(NODES)
        ]
        self.pods: list[Pod] = [
            pod(f"p{number}", f"n{number}", rank=number % RANKS, owner=f"j{number // RANKS}")
            for number in range(NODES)
        ]
        self.jobs = [job(f"j{number}", ranks=RANKS) for number in range(NODES // RANKS + 1)]
        self.version = 0
        self.seen = self.show()

    def show(self) -> ClusterView:
        made = view_of(nodes=self.nodes, pods=self.pods, jobs=self.jobs, observed_at=self.now)
        self.version += 1
        self.seen = replace(made, version=self.version)
        return self.seen

    def view(self) -> ClusterView:
        return self.seen


def changed(one: Node) -> Node:
    return msgspec.structs.replace(
        one, metadata=msgspec.structs.replace(one.metadata, resource_version="2")
    )


def test_a_look_at_43_750_nodes_costs_under_half_a_second(sqlite_engine: Engine) -> None:
    cluster = Cluster()
    with write(sqlite_engine) as connection:
        connection.execute(
            text(
                "INSERT INTO node (cluster, name, health, health_reason, service, service_reason, "
                "score, reported_health, gpu_count) VALUES ('c', :name, 'Healthy', '', 'In service', "
                "'', 0, 'Healthy', 8)"
            ),
            [{"name": one.metadata.name} for one in cluster.nodes],
        )
    findings = KubernetesFindings(
        sqlite_engine, settings=Settings(cluster="c"), watcher=cluster, clock=lambda: cluster.now
    )

    figures = Figures("Kubernetes's word on 43,750 nodes")

    def look(what: str, *, at_most: float | None = None) -> None:
        began = time.process_time()
        findings.tick()
        figures.add(what, time.process_time() - began, "s", at_most=at_most)

    look("all nodes for the first time")
    cluster.nodes[:437] = map(changed, cluster.nodes[:437])
    cluster.now += timedelta(seconds=6)
    cluster.show()
    look("1 % of the nodes changed, the store was read again", at_most=MOST_SECONDS)
    failed = msgspec.structs.replace(cluster.pods[0].status, phase="Failed")
    cluster.pods[:RANKS] = [
        msgspec.structs.replace(one, status=failed) for one in cluster.pods[:RANKS]
    ]
    cluster.now += timedelta(seconds=2)
    cluster.show()
    look("a gang of 512 ended", at_most=MOST_SECONDS)
    figures.check()
