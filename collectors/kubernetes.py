"""Facts of the cluster's view: nodes, pods, jobs, and where each rank runs, as interval changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from k8s.nodes import read_hold
from k8s.objects import (
    Node,
    controller_of,
    gpu_request,
    gpus_allocatable,
    is_pod_ready,
    is_ready,
    is_terminal,
)
from k8s.view import ClusterView
from k8s.workloads import Workload, owner_of, rank_of

GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"
GPU_COUNT_LABEL = "nvidia.com/gpu.count"

JobState = Literal["Running", "Pending", "Suspended", "Complete", "Failed"]


@dataclass(frozen=True)
class NodeFact:
    """What Kubernetes says of a GPU node.

    block, rack, leaf, power_domain: values of the site's topology labels.
    """

    name: str
    uid: str
    block: str | None
    rack: str | None
    kind: str | None
    ready: bool
    ready_reason: str
    unschedulable: bool
    gpu_count_expected: int | None
    gpu_allocatable: int
    gpu_requested: int
    operation_id: str | None
    boot_id: str
    leaf: str | None = None
    power_domain: str | None = None


@dataclass(frozen=True)
class TopologyLabels:
    """The labels that say where a node stands; "" where the site has no such label."""

    block: str
    rack: str
    leaf: str = ""
    power: str = ""


@dataclass(frozen=True)
class PodFact:
    """A pod that asks for GPUs; times are aware UTC."""

    uid: str
    namespace: str
    name: str
    node: str | None
    phase: str
    ready: bool
    gpus: int
    rank: int | None
    job_uid: str | None
    owner: str
    created_at: datetime | None
    started_at: datetime | None
    deleted_at: datetime | None


@dataclass(frozen=True)
class JobFact:
    """A workload that runs, or wants to run, pods with GPUs; the topmost owner of its pods."""

    uid: str
    namespace: str
    name: str
    kind: str
    api_version: str
    team: str | None
    queue: str | None
    state: JobState
    reason: str
    gang: bool
    wanted_pods: int
    running_pods: int
    gpus: int
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    generation: int


@dataclass(frozen=True, order=True)
class PlacementKey:
    """This pod holds this GPU of this node; gpu_uuid is "" while nobody has said which GPU."""

    pod_uid: str
    node: str
    gpu_uuid: str


@dataclass(frozen=True)
class PlacementChange:
    """An interval that opens or closes at a moment (aware UTC)."""

    kind: Literal["opened", "closed"]
    pod_uid: str
    node: str
    gpu_uuid: str
    job_uid: str | None
    rank: int | None
    at: datetime


@dataclass(frozen=True)
class Holder:
    """Whose rank a placement is."""

    job_uid: str | None
    rank: int | None


Placements = Mapping[PlacementKey, Holder]


def is_gpu_node(node: Node) -> bool:
    """True for a node that has GPUs, or is labelled as having them."""
    return GPU_COUNT_LABEL in node.metadata.labels or gpus_allocatable(node) > 0


def node_facts(view: ClusterView, labels: TopologyLabels) -> list[NodeFact]:
    """One fact a GPU node, by name."""
    return [
        _node_fact(node, view, labels)
        for _, node in sorted(view.nodes.items())
        if is_gpu_node(node)
    ]


def _node_fact(node: Node, view: ClusterView, places: TopologyLabels) -> NodeFact:
    labels = node.metadata.labels
    said = next((entry for entry in node.status.conditions if entry.type == "Ready"), None)
    ready = is_ready(node)
    hold = read_hold(node.metadata)
    count = labels.get(GPU_COUNT_LABEL, "")
    return NodeFact(
        name=node.metadata.name,
        uid=node.metadata.uid,
        block=labels.get(places.block),
        rack=labels.get(places.rack),
        leaf=labels.get(places.leaf) if places.leaf else None,
        power_domain=labels.get(places.power) if places.power else None,
        kind=labels.get(GPU_PRODUCT_LABEL),
        ready=ready,
        ready_reason="" if ready else (f"{said.reason}: {said.message}" if said else "no status"),
        unschedulable=node.spec.unschedulable,
        gpu_count_expected=int(count) if count.isdecimal() else None,
        gpu_allocatable=gpus_allocatable(node),
        gpu_requested=sum(
            gpu_request(pod) for pod in view.pods_on(node.metadata.name) if not is_terminal(pod)
        ),
        operation_id=hold.operation if hold else None,
        boot_id=node.status.node_info.boot_id,
    )


def pod_facts(view: ClusterView) -> list[PodFact]:
    """One fact a pod that asks for GPUs, bound or not, of any phase."""
    facts = []
    for pod in view.pods.values():
        gpus = gpu_request(pod)
        if not gpus:
            continue
        owner, controller = owner_of(pod, view), controller_of(pod.metadata)
        facts.append(
            PodFact(
                uid=pod.metadata.uid,
                namespace=pod.metadata.namespace,
                name=pod.metadata.name,
                node=pod.spec.node_name or None,
                phase=pod.status.phase,
                ready=is_pod_ready(pod),
                gpus=gpus,
                rank=rank_of(pod, view),
                job_uid=owner.uid if owner else None,
                owner=f"{controller.kind}/{controller.name}" if controller else "",
                created_at=pod.metadata.creation_timestamp,
                started_at=pod.status.start_time,
                deleted_at=pod.metadata.deletion_timestamp,
            )
        )
    return facts


def job_facts(view: ClusterView, pods: Iterable[PodFact]) -> list[JobFact]:
    """One fact a topmost workload with GPUs: watched ones and those known only as owners of pods.

    A suspended or waiting workload has no pods, so its GPUs are read from its template.
    """
    by_job: dict[str, list[PodFact]] = {}
    for pod in pods:
        if pod.job_uid is not None:
            by_job.setdefault(pod.job_uid, []).append(pod)
    facts = []
    for workload in view.workloads.values():
        if workload.uid in view.controllers:
            continue  # its owner is the workload that people know
        own = by_job.pop(workload.uid, [])
        fact = _job_fact(workload, view, own)
        if fact.gpus:
            facts.append(fact)
    for uid, own in by_job.items():
        first = view.pods[own[0].uid]
        owner = owner_of(first, view)
        if owner is not None and owner.uid == uid:
            facts.append(_job_fact(owner, view, own))
    return facts


def _job_fact(workload: Workload, view: ClusterView, pods: list[PodFact]) -> JobFact:
    live = [pod for pod in pods if pod.phase not in ("Succeeded", "Failed")]
    # Pods on their way out and their successors exist side by side: the template says what is wanted.
    gpus = workload.gpus or sum(pod.gpus for pod in live)
    running = sum(1 for pod in live if pod.phase == "Running" and pod.deleted_at is None)
    state, reason = _state(workload, running)
    meta = view.metas.get(workload.uid)
    return JobFact(
        uid=workload.uid,
        namespace=workload.namespace,
        name=workload.name,
        kind=workload.kind,
        api_version=workload.api_version,
        team=workload.team,
        queue=workload.queue,
        state=state,
        reason=reason,
        gang=workload.gang,
        wanted_pods=workload.wanted_pods or (0 if workload.finished else len(live)),
        running_pods=running,
        gpus=gpus,
        created_at=meta.creation_timestamp if meta else None,
        started_at=workload.started_at,
        finished_at=workload.finished_at,
        generation=workload.generation,
    )


def _state(workload: Workload, running: int) -> tuple[JobState, str]:
    if workload.finished is not None:
        return workload.finished, workload.failure
    if workload.suspended:
        whose = f" by operation {workload.suspended_by}" if workload.suspended_by else ""
        return "Suspended", f"suspended{whose}"
    wanted = workload.wanted_pods
    if running and (running >= wanted or not workload.gang):
        return "Running", "" if running >= wanted else f"{running} of {wanted} pods run"
    if workload.terminating:
        return "Pending", f"{workload.terminating} pods still end"
    return "Pending", f"{running} of {wanted} pods run"


def placements(
    view: ClusterView, gpus_of_pod: Mapping[str, Iterable[str]]
) -> dict[PlacementKey, Holder]:
    """Where GPUs are held now: bound pods with GPUs that have not ended, terminating ones included.

    gpus_of_pod: GPU UUIDs by pod UID, as the agents report them; a pod nobody has reported yet holds
    its node with gpu_uuid "".
    """
    held: dict[PlacementKey, Holder] = {}
    for pod in view.pods.values():
        if not pod.spec.node_name or is_terminal(pod) or not gpu_request(pod):
            continue
        owner = owner_of(pod, view)
        holder = Holder(owner.uid if owner else None, rank_of(pod, view))
        for gpu_uuid in tuple(gpus_of_pod.get(pod.metadata.uid, ())) or ("",):
            held[PlacementKey(pod.metadata.uid, pod.spec.node_name, gpu_uuid)] = holder
    return held


def placement_changes(
    before: Placements, after: Placements, *, now: datetime
) -> list[PlacementChange]:
    """The intervals that close and open between two pictures, closings first.

    A pod that its agent stops naming while it still runs keeps the GPUs it was last seen with: silence of
    an agent is no move. (Its unnamed placement, gpu_uuid "", then does not open.)
    """
    live = {key.pod_uid for key in after}
    named_before = {key.pod_uid for key in before if key.gpu_uuid}
    named_after = {key.pod_uid for key in after if key.gpu_uuid}
    silent = (named_before - named_after) & live
    changes = [
        _change("closed", key, before[key], now)
        for key in sorted(before)
        if key not in after and key.pod_uid not in silent
    ]
    changes += [
        _change("opened", key, after[key], now)
        for key in sorted(after)
        if key not in before and not (key.pod_uid in silent and not key.gpu_uuid)
    ]
    return changes


def apply_changes(
    before: Placements, changes: Iterable[PlacementChange]
) -> dict[PlacementKey, Holder]:
    """The picture after the changes: what the next comparison starts from."""
    held = dict(before)
    for change in changes:
        key = PlacementKey(change.pod_uid, change.node, change.gpu_uuid)
        if change.kind == "opened":
            held[key] = Holder(change.job_uid, change.rank)
        else:
            held.pop(key, None)
    return held


def _change(
    kind: Literal["opened", "closed"], key: PlacementKey, holder: Holder, now: datetime
) -> PlacementChange:
    return PlacementChange(
        kind, key.pod_uid, key.node, key.gpu_uuid, holder.job_uid, holder.rank, now
    )
