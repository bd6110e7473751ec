"""Does it fit elsewhere: GPUs, whole pods, one topology domain. Pure.

Free GPUs of a node are what is allocatable less the requests of every pod on it that has not ended,
terminating ones included. GPUs decide; CPU and memory are not counted, since a node of 8 H100s is sold
by its GPUs. Whatever else would decide where a pod goes (claims, pod affinity, hard spread constraints,
another scheduler) makes the answer unknown rather than a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from k8s.objects import (
    Node,
    Pod,
    PodSpec,
    Toleration,
    gpus_allocatable,
    gpus_of_spec,
    is_ready,
    is_terminal,
)
from k8s.selectors import node_affinity_holds, untolerated
from k8s.view import ClusterView

DEFAULT_SCHEDULER = "default-scheduler"
# Kueue's topology-aware scheduling: the level that a pod set must fit into.
REQUIRED_TOPOLOGY_ANNOTATION = "kueue.x-k8s.io/podset-required-topology"
EXCLUSIVE_TOPOLOGY_ANNOTATIONS = (
    "alpha.jobset.sigs.k8s.io/exclusive-topology",
    "leaderworkerset.sigs.k8s.io/exclusive-topology",
)

Verdict = Literal["fits", "outside_domain", "does_not_fit", "unknown"]


@dataclass(frozen=True)
class PodDemand:
    """What one pod asks of a node.

    required_topology: node label whose value must be the same for all pods of the demand. unknown: why
    it can not be told where this pod may go, None where it can. affinity: raw pod affinity, of which
    only the required node affinity is used.
    """

    gpus: int
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    required_topology: str | None = None
    priority: int = 0
    affinity: Mapping[str, Any] | None = None
    unknown: str | None = None


@dataclass(frozen=True)
class Fit:
    """The answer; nodes: one a pod in the order of the demand, where it fits (also outside the domain)."""

    verdict: Verdict
    nodes: tuple[str, ...] = ()
    reason: str = ""


def demand_of(pod: Pod) -> PodDemand:
    """What the successor of this pod will ask for."""
    return demand_of_spec(pod.spec, pod.metadata.annotations)


def demand_of_spec(spec: PodSpec, annotations: Mapping[str, str]) -> PodDemand:
    """What a pod with this spec and these annotations asks for."""
    return PodDemand(
        gpus=gpus_of_spec(spec),
        node_selector=spec.node_selector,
        tolerations=spec.tolerations,
        required_topology=annotations.get(REQUIRED_TOPOLOGY_ANNOTATION),
        priority=spec.priority or 0,
        affinity=spec.affinity,
        unknown=_unknown(spec, annotations),
    )


def _unknown(spec: PodSpec, annotations: Mapping[str, str]) -> str | None:
    if spec.resource_claims:
        return "it has resource claims (DRA)"
    affinity = spec.affinity or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        if (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution"):
            return f"it has a required {kind}"
    for constraint in spec.topology_spread_constraints:
        # DoNotSchedule is what an absent whenUnsatisfiable could not be: the field is required.
        if not isinstance(constraint, dict) or (
            constraint.get("whenUnsatisfiable") != "ScheduleAnyway"
        ):
            return "it has a hard topology spread constraint"
    if spec.scheduler_name not in ("", DEFAULT_SCHEDULER):
        return f"it is placed by another scheduler ({spec.scheduler_name})"
    for key in EXCLUSIVE_TOPOLOGY_ANNOTATIONS:
        if key in annotations:
            return f"it wants a topology domain for itself ({key})"
    return None


def free_gpus(view: ClusterView, *, released: Collection[str] = frozenset()) -> dict[str, int]:
    """Unrequested GPUs of every node that has any; released: UIDs of pods that count as gone.

    May be negative on a node whose device plugin withdrew GPUs that are in use.
    """
    free = {name: gpus for name, node in view.nodes.items() if (gpus := gpus_allocatable(node)) > 0}
    for name in free:
        for pod in view.pods_on(name):
            if not is_terminal(pod) and pod.metadata.uid not in released:
                free[name] -= gpus_of_spec(pod.spec)
    return free


def admits(node: Node, demand: PodDemand) -> bool:
    """True when the node is Ready, schedulable and takes such a pod, GPUs aside."""
    return (
        is_ready(node)
        and not node.spec.unschedulable
        and all(
            node.metadata.labels.get(key) == value for key, value in demand.node_selector.items()
        )
        and untolerated(node, demand.tolerations) is None
        and node_affinity_holds(demand.affinity, node)
    )


def fit(
    demand: Sequence[PodDemand],
    *,
    view: ClusterView,
    excluded_nodes: Collection[str] = frozenset(),
    reserved: Mapping[str, int] | None = None,
    released: Collection[str] = frozenset(),
    topology_label: str | None = None,
    competing: bool = True,
) -> Fit:
    """Whether pods asking for this find room at once, off the excluded nodes.

    reserved: GPUs by node that other operations count on. released: UIDs of pods that will have gone
    (a gang's own). topology_label: all must land on nodes with one value of this label; a
    required_topology in the demand does the same. competing: pending pods of the same or a higher
    priority are placed first, since they are ahead in the scheduler's queue.
    """
    if not view.synced:
        return Fit("unknown", reason="the cluster has not been seen whole yet")
    if not demand:
        return Fit("fits", reason="no pod needs a place")
    for entry in demand:
        if entry.unknown is not None:
            return Fit("unknown", reason=f"can not tell where the pod may go: {entry.unknown}")
    labels = {entry.required_topology for entry in demand if entry.required_topology}
    if topology_label:
        labels.add(topology_label)
    if len(labels) > 1:
        return Fit("unknown", reason=f"several topology levels are required: {sorted(labels)}")
    free = free_gpus(view, released=released)
    for node, gpus in (reserved or {}).items():
        if node in free:
            free[node] -= gpus
    for node in excluded_nodes:
        free.pop(node, None)
    waiting = _place_competitors(demand, view, free, released) if competing else 0
    ahead = f" after {waiting} GPUs for pending pods ahead of it" if waiting else ""
    anywhere = _place(demand, view, free)
    wanted = sum(entry.gpus for entry in demand)
    if anywhere is None:
        kinds = {_alike(entry): entry for entry in demand}.values()
        room = sum(
            max(0, gpus)
            for name, gpus in free.items()
            if any(admits(view.nodes[name], entry) for entry in kinds)
        )
        return Fit(
            "does_not_fit",
            reason=f"needs {wanted} GPUs in {len(demand)} pods; {room} are free on nodes it may use{ahead}",
        )
    if not labels:
        return Fit("fits", anywhere, f"{wanted} GPUs are free elsewhere{ahead}")
    label = labels.pop()
    for domain, names in _domains(view, free, label):
        placed = _place(demand, view, {name: free[name] for name in names})
        if placed is not None:
            return Fit("fits", placed, f"{wanted} GPUs are free in {label}={domain}{ahead}")
    return Fit(
        "outside_domain",
        anywhere,
        f"{wanted} GPUs are free{ahead}, but not within one {label}",
    )


def _domains(view: ClusterView, free: Mapping[str, int], label: str) -> list[tuple[str, list[str]]]:
    """Nodes by the label's value, the fullest domain that might do first, so that large ones stay whole."""
    domains: dict[str, list[str]] = {}
    for name in free:
        value = view.nodes[name].metadata.labels.get(label)
        if value:
            domains.setdefault(value, []).append(name)
    return sorted(
        domains.items(), key=lambda entry: (sum(max(0, free[n]) for n in entry[1]), entry[0])
    )


def _alike(demand: PodDemand) -> tuple[object, ...]:
    """Equal for pods that may go to the same nodes and ask for as much, as the ranks of a gang are."""
    return (
        demand.gpus,
        tuple(sorted(demand.node_selector.items())),
        demand.tolerations,
        repr(demand.affinity),
    )


def _fill(demand: PodDemand, count: int, view: ClusterView, left: dict[str, int]) -> list[str]:
    """Places as many as fit of count equal pods, each on the fullest node that takes it; one entry a pod."""
    candidates = sorted(
        (gpus, name)
        for name, gpus in left.items()
        if gpus >= demand.gpus and admits(view.nodes[name], demand)
    )
    placed: list[str] = []
    for gpus, name in candidates:
        if len(placed) == count:
            break
        room = gpus // demand.gpus if demand.gpus else count
        taken = min(room, count - len(placed))
        left[name] -= taken * demand.gpus
        placed.extend([name] * taken)
    return placed


def _place(
    demand: Sequence[PodDemand], view: ClusterView, free: Mapping[str, int]
) -> tuple[str, ...] | None:
    """A node for each pod, the largest first, each on the fullest node that takes it; None if one has none.

    Best fit is exact when all pods ask for the same, as ranks do.
    """
    left = dict(free)
    places: list[str] = [""] * len(demand)
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, entry in enumerate(demand):
        groups.setdefault(_alike(entry), []).append(index)
    # Among equals in size, those with a selector go first: they have fewer nodes to go to.
    order = sorted(
        groups.values(),
        key=lambda group: (-demand[group[0]].gpus, -len(demand[group[0]].node_selector)),
    )
    for group in order:
        placed = _fill(demand[group[0]], len(group), view, left)
        if len(placed) < len(group):
            return None
        for index, name in zip(group, placed, strict=True):
            places[index] = name
    return tuple(places)


def _place_competitors(
    demand: Sequence[PodDemand],
    view: ClusterView,
    free: dict[str, int],
    released: Collection[str],
) -> int:
    """Takes off what pending pods ahead in the queue will take; returns their GPUs."""
    priority = min(entry.priority for entry in demand)
    groups: dict[tuple[object, ...], tuple[PodDemand, int]] = {}
    for pod in view.pods.values():
        if (
            pod.spec.node_name
            or pod.status.phase != "Pending"
            or pod.metadata.deletion_timestamp is not None
            or pod.spec.scheduling_gates
            or pod.metadata.uid in released
            or (pod.spec.priority or 0) < priority
        ):
            continue
        asked = demand_of(pod)
        if asked.gpus:
            key = (-asked.priority, *_alike(asked))
            groups[key] = (asked, groups.get(key, (asked, 0))[1] + 1)
    taken = 0
    for asked, count in sorted(groups.values(), key=lambda group: -group[0].priority):
        taken += asked.gpus * len(_fill(asked, count, view, free))
    return taken
