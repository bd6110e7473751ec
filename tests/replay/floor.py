"""The machines and what Kubernetes says of them and their jobs, for a replay in virtual time.

The machines and their faults are the simulator's own; the Kubernetes side is the objects that an API server
would hold, handed to the watcher's real picture. There is no API server: a week of heartbeats would
cost more than all that is tested.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.simulator.clock import ManualClock
from app.simulator.faults import Faults
from app.simulator.hosts import Host, Hosts, PodReference
from app.simulator.identity import Identity
from k8s.objects import (
    Condition,
    Container,
    ContainerState,
    Job,
    Node,
    NodeInfo,
    ObjectMeta,
    OwnerReference,
    Pod,
    PodSpec,
    PodStatus,
    Resources,
    RunState,
    Terminated,
)
from k8s.reflector import Change, ChangeKind
from k8s.resources import JOBS, NODES, PODS
from k8s.view import ClusterView, ClusterWatcher
from tests.cluster_objects import LEAF, SPINE, make_job, make_node

RACK = "example.com/rack"
POWER = "example.com/power-domain"
NODES_A_LEAF = 16
NODES_A_POWER_DOMAIN = 8
FILLED_RATIO = 0.9
SIZES = (512, 256, 128, 128, 64, 64, 32, 32, 16, 16, 16, 8, 8, 8, 4, 4, 4, 2, 2, 2)
"""Nodes of the jobs, the large ones as far as they fit; the rest are jobs of one node."""

SETTLED = timedelta(minutes=15)
"""Ranks that end within 10 minutes of each other are one interruption, whatever ended them."""

EIGHT = {"nvidia.com/gpu": "8"}
CONTAINER = Container(name="train", resources=Resources(requests=EIGHT, limits=EIGHT))
NAMESPACE = "training"


class VirtualWatcher(ClusterWatcher):
    """The real picture of the cluster, fed by hand; what is heard is heard now."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # never started: nothing is asked of it
        self._virtual = clock

    @property
    def synced(self) -> bool:
        return True

    @property
    def observed_at(self) -> datetime:
        return self._virtual.now()

    def tell(self, change: Change) -> None:
        """An object came, changed or went."""
        self._take(change)

    def whole(self) -> ClusterView:
        """The view as it stands."""
        return self.view()


@dataclass
class JobRun:
    """A job with a rank a node. `nodes` by rank; `pods` the UIDs of the ranks' pods."""

    uid: str
    name: str
    nodes: list[str]
    pods: list[str] = field(default_factory=list)
    attempt: int = 0
    down: bool = False
    well_since: datetime | None = None

    @property
    def is_gang(self) -> bool:
        return len(self.nodes) > 1


class Floor:
    """All of it. Times are the clock's."""

    def __init__(self, *, nodes: int, seed: int, clock: ManualClock, rng: random.Random) -> None:
        self.clock = clock
        self.rng = rng
        self.hosts = Hosts(Identity(seed))
        self.faults = Faults(self.hosts, clock)
        self.watcher = VirtualWatcher(clock)
        self.nodes: dict[str, Node] = {}
        self.pods: dict[str, Pod] = {}
        self.jobs: dict[str, JobRun] = {}
        self.job_of: dict[str, JobRun] = {}
        self.troubled: set[str] = set()
        """Nodes to which something happens, or has: nothing else happens to them."""

        self._numbers: dict[str, int] = {}
        self._pids = 1000
        for number in range(nodes):
            self.add_node(number)
        self._fill()

    # --- nodes

    def add_node(self, number: int, *, ready: bool = True) -> Host:
        """A machine and its node object."""
        host = self.hosts.add(number)
        self._numbers[host.name] = number
        node = make_node(
            host.name,
            labels={
                SPINE: host.block,
                RACK: host.rack,
                LEAF: f"leaf-{number // NODES_A_LEAF}",
                POWER: f"pdu-{number // NODES_A_POWER_DOMAIN}",
            },
        )
        status = msgspec.structs.replace(
            node.status, capacity=node.status.allocatable, node_info=NodeInfo(boot_id=host.boot_id)
        )
        meta = msgspec.structs.replace(node.metadata, creation_timestamp=self.clock.now())
        self.nodes[host.name] = msgspec.structs.replace(node, metadata=meta, status=status)
        self.set_condition(
            host.name,
            "Ready",
            "True" if ready else "False",
            reason="KubeletReady" if ready else "KubeletNotReady",
            message=""
            if ready
            else "container runtime network not ready: cni plugin not initialized",
        )
        return host

    @property
    def next_number(self) -> int:
        """Of the next machine to be added."""
        return len(self._numbers)

    def neighbours(self, name: str, size: int) -> list[str]:
        """The nodes of the same leaf (16) or power domain (8)."""
        first = self._numbers[name] // size * size
        return [other for other, number in self._numbers.items() if first <= number < first + size]

    def set_condition(
        self, name: str, kind: str, status: str, *, reason: str = "", message: str = ""
    ) -> None:
        """Write a condition of the node, as of now."""
        node = self.nodes[name]
        others = tuple(one for one in node.status.conditions if one.type != kind)
        mine = Condition(kind, status, reason, message, last_transition_time=self.second())
        self._put_node(node, conditions=(*others, mine))

    def is_ready(self, name: str) -> bool:
        return any(
            one.type == "Ready" and one.status == "True"
            for one in self.nodes[name].status.conditions
        )

    def set_ready(self, name: str) -> None:
        self.set_condition(name, "Ready", "True", reason="KubeletReady")

    def lose_kubelet(self, name: str) -> None:
        """The control plane has waited in vain for the kubelet."""
        self.set_condition(
            name,
            "Ready",
            "Unknown",
            reason="NodeStatusUnknown",
            message="Kubelet stopped posting node status.",
        )

    def set_boot(self, name: str) -> None:
        """The kubelet tells of the machine's new boot."""
        info = NodeInfo(boot_id=self.hosts.by_name[name].boot_id)
        self._put_node(self.nodes[name], node_info=info)

    def set_cordon(self, name: str, cordoned: bool) -> None:
        node = self.nodes[name]
        spec = msgspec.structs.replace(node.spec, unschedulable=cordoned)
        self._tell_node(msgspec.structs.replace(node, spec=spec))

    def set_label(self, name: str, key: str, value: str) -> None:
        node = self.nodes[name]
        labels = {**node.metadata.labels, key: value}
        meta = msgspec.structs.replace(node.metadata, labels=labels)
        self._tell_node(msgspec.structs.replace(node, metadata=meta))

    def second(self) -> datetime:
        """Now, as Kubernetes writes it: in whole seconds."""
        return self.clock.now().replace(microsecond=0)

    def _put_node(self, node: Node, **status: Any) -> None:
        self._tell_node(
            msgspec.structs.replace(node, status=msgspec.structs.replace(node.status, **status))
        )

    def _tell_node(self, node: Node) -> None:
        known = node.metadata.name in self.watcher.view().nodes if not self.nodes else True
        kind: ChangeKind = "modified" if known else "added"
        self.nodes[node.metadata.name] = node
        self.watcher.tell(Change(NODES, kind, node.metadata.uid, node))

    # --- jobs

    def is_settled(self, job: JobRun) -> bool:
        """Whether it has worked for so long that what happens now is another interruption."""
        since = job.well_since
        return not job.down and (since is None or self.clock.now() - since > SETTLED)

    def spares(self) -> list[str]:
        """Nodes without a pod, to which nothing happens."""
        return [
            name
            for name in self.nodes
            if name not in self.job_of and name not in self.troubled and self.is_ready(name)
        ]

    def crash(self, job: JobRun, first: str, *, code: int, reason: str = "Error") -> None:
        """The rank on `first` ends with an exit code; `crash_others` ends its peers."""
        self._end_pod(job.pods[job.nodes.index(first)], code, reason)

    def crash_others(self, job: JobRun) -> None:
        """The peers of a rank that ended break off on their connections."""
        for uid in job.pods:
            pod = self.pods[uid]
            node = pod.spec.node_name
            if pod.status.phase == "Running" and not self.hosts.by_name[node].dead:
                self._end_pod(uid, 134, "Error")

    def restart(self, job: JobRun, *, avoid: Collection[str] = ()) -> list[str]:
        """The Job's controller makes the pods anew, with spares for the nodes to be avoided.

        Returns the nodes whose GPUs changed hands.
        """
        touched = set(job.nodes)
        for uid in job.pods:
            self._drop_pod(uid)
        for name in job.nodes:
            self.job_of.pop(name, None)
        own = set(job.nodes)
        spares = [name for name in self.spares() if name not in own]
        nodes = []
        for name in job.nodes:
            if name in avoid or name in self.troubled:
                name = spares.pop(0) if spares else name
            nodes.append(name)
        job.nodes, job.attempt, job.down = nodes, job.attempt + 1, False
        job.well_since = self.clock.now()
        job.pods = [self._make_pod(job, rank, name) for rank, name in enumerate(nodes)]
        for name in nodes:
            self.job_of[name] = job
        return sorted(touched | set(nodes))

    def _fill(self) -> None:
        names = list(self.nodes)
        left = int(len(names) * FILLED_RATIO)
        self.rng.shuffle(names)
        sizes = [size for size in SIZES if size <= len(names) // 4]
        while left > 0:
            size = next((one for one in sizes if one <= left), 1)
            if size in sizes:
                sizes.remove(size)
            self._add_job([names.pop() for _ in range(size)])
            left -= size

    def _add_job(self, nodes: list[str]) -> None:
        name = f"train-{len(self.jobs):03d}"
        size = len(nodes)
        started = self.second().isoformat()
        job: Job = make_job(
            name,
            parallelism=size,
            completions=size,
            status={"startTime": started, "active": size, "ready": size},
        )
        meta = msgspec.structs.replace(job.metadata, namespace=NAMESPACE)
        job = msgspec.structs.replace(job, metadata=meta)
        run = JobRun(job.metadata.uid, name, nodes)
        self.watcher.tell(Change(JOBS, "added", run.uid, job))
        self.jobs[run.uid] = run
        run.pods = [self._make_pod(run, rank, node) for rank, node in enumerate(nodes)]
        for node in nodes:
            self.job_of[node] = run

    def _make_pod(self, job: JobRun, rank: int, node: str) -> str:
        uid = f"{job.uid}-{job.attempt}-{rank}"
        name = f"{job.name}-{rank}-{job.attempt}"
        now = self.second()
        pod = Pod(
            metadata=ObjectMeta(
                name=name,
                namespace=NAMESPACE,
                uid=uid,
                labels={"batch.kubernetes.io/job-completion-index": str(rank)},
                owner_references=(OwnerReference("batch/v1", "Job", job.name, job.uid, True),),
                creation_timestamp=now,
            ),
            spec=PodSpec(node_name=node, containers=(CONTAINER,)),
            status=PodStatus(
                phase="Running",
                conditions=(Condition("Ready", "True", last_transition_time=now),),
                start_time=now,
            ),
        )
        self._put_pod(pod, "added")
        host = self.hosts.by_name[node]
        self._pids += 8
        self.hosts.allocate(host, PodReference(uid, NAMESPACE, name), 8, pid=self._pids)
        self.hosts.set_activity(host, uid, 0.97)
        return uid

    def _end_pod(self, uid: str, code: int, reason: str) -> None:
        pod = self.pods[uid]
        now = self.second()
        ended = Terminated(exit_code=code, reason=reason, finished_at=now)
        status = PodStatus(
            phase="Failed",
            conditions=(Condition("Ready", "False", last_transition_time=now),),
            start_time=pod.status.start_time,
            container_statuses=(ContainerState("train", state=RunState(terminated=ended)),),
        )
        self._put_pod(msgspec.structs.replace(pod, status=status), "modified")
        self.hosts.release(self.hosts.by_name[pod.spec.node_name], uid)

    def leave(self, job: JobRun, names: Iterable[str]) -> None:
        """The pods of a job on these nodes are asked to go, as an eviction does."""
        for rank, node in enumerate(job.nodes):
            if node in names:
                pod = self.pods[job.pods[rank]]
                at = self.second() + timedelta(seconds=30)
                meta = msgspec.structs.replace(
                    pod.metadata, deletion_timestamp=at, deletion_grace_period_seconds=30
                )
                self._put_pod(msgspec.structs.replace(pod, metadata=meta), "modified")

    def _drop_pod(self, uid: str) -> None:
        pod = self.pods.pop(uid)
        self.watcher.tell(Change(PODS, "deleted", uid, pod))
        self.hosts.release(self.hosts.by_name[pod.spec.node_name], uid)

    def _put_pod(self, pod: Pod, kind: ChangeKind) -> None:
        self.pods[pod.metadata.uid] = pod
        self.watcher.tell(Change(PODS, kind, pod.metadata.uid, pod))
