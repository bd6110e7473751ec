"""What Kubernetes says, as a picture, and what changed between two of them. Pure."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from collectors.kubernetes import JobFact, NodeFact, PlacementChange, PodFact

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_ENDED = ("Succeeded", "Failed")


class ServiceState(Protocol):
    """A node's service state, why, and the operation that holds it (app.operations.service)."""

    @property
    def state(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def operation_id(self) -> str | None: ...


@dataclass(frozen=True)
class KubernetesNode:
    """A node's fact with its service state."""

    fact: NodeFact
    service: str = "In service"
    service_reason: str = ""
    operation_id: str | None = None


@dataclass(frozen=True)
class RankRow:
    """The pod that is a job's rank now."""

    pod_uid: str
    pod_name: str
    node: str | None
    phase: str
    ready: bool


@dataclass(frozen=True)
class Picture:
    """Nodes by name, pods and jobs by UID, ranks by (job UID, rank)."""

    nodes: Mapping[str, KubernetesNode] = field(default_factory=dict)
    pods: Mapping[str, PodFact] = field(default_factory=dict)
    jobs: Mapping[str, JobFact] = field(default_factory=dict)
    ranks: Mapping[tuple[str, int], RankRow] = field(default_factory=dict)


@dataclass(frozen=True)
class Delta(Generic[Key, Value]):
    """What is new or other, and what is gone."""

    changed: Mapping[Key, Value] = field(default_factory=dict)
    gone: frozenset[Key] = frozenset()


@dataclass(frozen=True)
class KubernetesChanges:
    """What the store must be told. `whole`: the changes are all there is, so whatever else is stored is gone."""

    nodes: Delta[str, KubernetesNode] = field(default_factory=Delta)
    pods: Delta[str, PodFact] = field(default_factory=Delta)
    jobs: Delta[str, JobFact] = field(default_factory=Delta)
    ranks: Delta[tuple[str, int], RankRow] = field(default_factory=Delta)
    placements: Sequence[PlacementChange] = ()
    whole: bool = False

    def __bool__(self) -> bool:
        deltas = (self.nodes, self.pods, self.jobs, self.ranks)
        changed = any(delta.changed or delta.gone for delta in deltas)
        return self.whole or changed or bool(self.placements)


def picture_of(
    nodes: Iterable[NodeFact],
    pods: Iterable[PodFact],
    jobs: Iterable[JobFact],
    *,
    services: Mapping[str, ServiceState] | None = None,
) -> Picture:
    """The picture of these facts; a node without a service state is as its cordon says."""
    known = services or {}
    pods_by_uid = {pod.uid: pod for pod in pods}
    return Picture(
        nodes={fact.name: _node(fact, known.get(fact.name)) for fact in nodes},
        pods=pods_by_uid,
        jobs={job.uid: job for job in jobs},
        ranks=_ranks(pods_by_uid.values()),
    )


def changes_between(
    before: Picture | None, after: Picture, placements: Sequence[PlacementChange] = ()
) -> KubernetesChanges:
    """What turns one picture into the next; without a picture before, the whole of the second."""
    known = before or Picture()
    return KubernetesChanges(
        nodes=_delta(known.nodes, after.nodes),
        pods=_delta(known.pods, after.pods),
        jobs=_delta(known.jobs, after.jobs),
        ranks=_delta(known.ranks, after.ranks),
        placements=placements,
        whole=before is None,
    )


def _node(fact: NodeFact, service: ServiceState | None) -> KubernetesNode:
    if service is None:
        return KubernetesNode(fact, "Cordoned" if fact.unschedulable else "In service")
    return KubernetesNode(fact, service.state, service.reason, service.operation_id)


def _ranks(pods: Iterable[PodFact]) -> dict[tuple[str, int], RankRow]:
    """A rank's pod: one that has not ended before one that has, one that stays before one on its way
    out, the youngest of those."""
    chosen: dict[tuple[str, int], PodFact] = {}
    for pod in pods:
        if pod.job_uid is None or pod.rank is None:
            continue
        rank = (pod.job_uid, pod.rank)
        if rank not in chosen or _standing(pod) > _standing(chosen[rank]):
            chosen[rank] = pod
    return {
        rank: RankRow(pod.uid, pod.name, pod.node, pod.phase, pod.ready)
        for rank, pod in chosen.items()
    }


def _standing(pod: PodFact) -> tuple[bool, bool, float, str]:
    created = pod.created_at.timestamp() if pod.created_at else 0.0
    return (pod.phase not in _ENDED, pod.deleted_at is None, created, pod.uid)


def _delta(before: Mapping[Key, Value], after: Mapping[Key, Value]) -> Delta[Key, Value]:
    return Delta(
        {key: value for key, value in after.items() if before.get(key) != value},
        frozenset(before.keys() - after.keys()),
    )
