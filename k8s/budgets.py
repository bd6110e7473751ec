"""Disruption budgets: which would stand in the way of evicting these pods together. Pure.

A server-side dry-run does not persist the decrement, so eight pods would pass an allowance of one: the
arithmetic is done here. Semantics: pkg/registry/core/pod/storage/eviction.go of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from k8s.eviction import sync_failure
from k8s.objects import (
    Pod,
    PodDisruptionBudget,
    controller_of,
    is_pod_ready,
    is_terminal,
    is_terminating,
)
from k8s.selectors import selects
from k8s.view import ClusterView

# Built-in controllers that serve /scale, by which the budget's controller learns how many pods are wanted.
SCALABLE = frozenset(
    {
        ("apps", "ReplicaSet"),
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("", "ReplicationController"),
    }
)
# Built-in controllers that do not.
UNSCALABLE = frozenset({("batch", "Job"), ("apps", "DaemonSet")})


@dataclass(frozen=True)
class BudgetObstacle:
    """A budget that will answer 429 (or 500) to the evictions, with the pods it stops.

    kind: "exhausted" passes by itself when pods become healthy elsewhere; "multiple" (a pod in several
    budgets) and "unsupported_controller" never do. allowed, needed: disruptions, in pods.
    """

    name: str
    namespace: str
    kind: Literal["exhausted", "multiple", "unsupported_controller"]
    allowed: int
    needed: int
    pods: tuple[Pod, ...]
    message: str


def bypasses_budgets(pod: Pod) -> bool:
    """True when the API server evicts this pod without asking any budget."""
    return is_terminal(pod) or pod.status.phase == "Pending" or is_terminating(pod.metadata)


def budgets_of(pod: Pod, view: ClusterView) -> list[PodDisruptionBudget]:
    """The budgets that select the pod, by name."""
    matching = [
        budget
        for budget in view.budgets.values()
        if budget.metadata.namespace == pod.metadata.namespace
        and selects(budget.spec.selector, pod.metadata.labels)
    ]
    return sorted(matching, key=lambda budget: budget.metadata.name)


def spends(pod: Pod, budget: PodDisruptionBudget) -> bool:
    """True when evicting the pod takes one of the budget's allowed disruptions."""
    if bypasses_budgets(pod) or pod.metadata.name in budget.status.disrupted_pods:
        return False
    if is_pod_ready(pod):
        return True
    if budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
        return False
    status = budget.status
    return not (status.current_healthy >= status.desired_healthy > 0)


def needs_scale(budget: PodDisruptionBudget) -> bool:
    """True when the budget's controller must learn how many pods there should be."""
    return budget.spec.max_unavailable is not None or isinstance(budget.spec.min_available, str)


def budget_obstacles(pods: Iterable[Pod], view: ClusterView) -> list[BudgetObstacle]:
    """What stands in the way of evicting all these pods, by namespace and budget name."""
    taken: dict[str, list[Pod]] = {}
    by_uid: dict[str, PodDisruptionBudget] = {}
    crowded: dict[tuple[str, str], list[Pod]] = {}
    for pod in pods:
        if bypasses_budgets(pod):
            continue
        matching = budgets_of(pod, view)
        if len(matching) > 1:
            names = ", ".join(budget.metadata.name for budget in matching)
            crowded.setdefault((pod.metadata.namespace, names), []).append(pod)
        for budget in matching[:1] if len(matching) == 1 else ():
            by_uid[budget.metadata.uid] = budget
            taken.setdefault(budget.metadata.uid, []).append(pod)
    found = [
        BudgetObstacle(
            name=names,
            namespace=namespace,
            kind="multiple",
            allowed=0,
            needed=len(stopped),
            pods=tuple(stopped),
            message=f"budgets {names} select the same pods, which eviction does not support: "
            "narrow the selector of all but one",
        )
        for (namespace, names), stopped in crowded.items()
    ]
    for uid, stopped in taken.items():
        if (obstacle := _obstacle(by_uid[uid], stopped)) is not None:
            found.append(obstacle)
    return sorted(found, key=lambda obstacle: (obstacle.namespace, obstacle.name))


def _obstacle(budget: PodDisruptionBudget, pods: list[Pod]) -> BudgetObstacle | None:
    spending = tuple(pod for pod in pods if spends(pod, budget))
    if not spending:
        return None
    name, namespace = budget.metadata.name, budget.metadata.namespace
    if (why := _unsupported(budget, spending)) is not None:
        return BudgetObstacle(
            name=name,
            namespace=namespace,
            kind="unsupported_controller",
            allowed=0,
            needed=len(spending),
            pods=spending,
            message=why,
        )
    # A status that has not caught up with the spec allows nothing.
    current = budget.status.observed_generation >= budget.metadata.generation
    allowed = budget.status.disruptions_allowed if current else 0
    if len(spending) <= allowed:
        return None
    status = budget.status
    return BudgetObstacle(
        name=name,
        namespace=namespace,
        kind="exhausted",
        allowed=allowed,
        needed=len(spending),
        pods=spending,
        message=f"budget {namespace}/{name} allows {allowed} of {len(spending)} evictions: "
        f"{status.current_healthy} pods are healthy, {status.desired_healthy} must stay so"
        + ("" if current else " (its status is not up to date yet)"),
    )


def _unsupported(budget: PodDisruptionBudget, pods: tuple[Pod, ...]) -> str | None:
    if (why := sync_failure(budget)) is not None:
        return why
    name = f"{budget.metadata.namespace}/{budget.metadata.name}"
    if not needs_scale(budget):
        return None
    for pod in pods:
        owner = controller_of(pod.metadata)
        if owner is not None and (owner.group, owner.kind) in UNSCALABLE:
            return (
                f"budget {name} uses maxUnavailable or a percentage, which needs a controller that "
                f"serves /scale; {owner.kind} does not, so it refuses for ever: use an integer minAvailable"
            )
    return None
