"""What the rows of the drain table ask of a cluster again and again."""

from __future__ import annotations

from kubelet import Grounds

from k8s.budgets import budget_obstacles
from k8s.objects import Pod
from k8s.resources import BUDGETS, PODS
from k8s.view import view_of

APP = {"app": "a"}


def current(field: Grounds, pod: Pod) -> Pod:
    return field.cluster.pod(field.namespace, pod.metadata.name)


def gone(field: Grounds, pod: Pod) -> bool:
    found = field.cluster.find(PODS.path(pod.metadata.name, namespace=field.namespace))
    return found is None or found["metadata"]["uid"] != pod.metadata.uid


def obstacles(field: Grounds, *pods: Pod) -> list[str]:
    """What the pre-flight arithmetic says of the same world."""
    budgets = field.cluster._items(
        field.cluster.connection.get(BUDGETS.path(namespace=field.namespace)), BUDGETS.struct
    )
    fresh = [current(field, pod) for pod in pods]
    return [found.kind for found in budget_obstacles(fresh, view_of(pods=fresh, budgets=budgets))]


def post_eviction(field: Grounds, pod: Pod, *, uid: str | None = None) -> None:
    name = pod.metadata.name
    field.cluster.post(
        PODS.path(name, namespace=field.namespace, subresource="eviction"),
        {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": field.namespace},
            "deleteOptions": {"preconditions": {"uid": uid or pod.metadata.uid}},
        },
    )
