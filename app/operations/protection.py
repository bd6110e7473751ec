"""What a label protects: nodes, pods, workloads and namespaces that nothing takes without a word apart. Pure.

The word is apart from force and from the one for a job that fits nowhere else: somebody has put the
label there to be asked.
"""

from collections.abc import Collection, Iterable

import msgspec

from k8s.objects import ObjectMeta, Pod, controller_of
from k8s.view import ClusterView
from k8s.workloads.kind import Workload

PROTECTED_LABEL = "pitwall.dev/protected"
_CHAIN_LENGTH = 8  # owners above a pod that are looked at; the longest known chain has four


class Guard(msgspec.Struct, frozen=True):
    """Something protected. name: as people write it, namespace/name where it has a namespace."""

    kind: str  # Node, Namespace, Pod, or the workload's
    name: str

    @property
    def said(self) -> str:
        """Name for people."""
        return f"{self.kind} {self.name}"

    def is_lifted(self, typed: Collection[str]) -> bool:
        """Whether a person has typed its name, with or without its namespace."""
        return self.name in typed or self.name.rpartition("/")[2] in typed


def is_protected(meta: ObjectMeta | None) -> bool:
    """Whether the label is on it, and not false."""
    return meta is not None and meta.labels.get(PROTECTED_LABEL, "false").lower() != "false"


def guard_of_node(name: str, view: ClusterView) -> Guard | None:
    """The guard over a node, None where it is not protected."""
    node = view.nodes.get(name)
    return Guard("Node", name) if node is not None and is_protected(node.metadata) else None


def guards_of_pod(pod: Pod, *, view: ClusterView) -> tuple[Guard, ...]:
    """The guards over one pod: itself, its namespace, and every owner above it."""
    meta = pod.metadata
    found = []
    if is_protected(view.namespaces.get(meta.namespace)):
        found.append(Guard("Namespace", meta.namespace))
    if is_protected(meta):
        found.append(Guard("Pod", f"{meta.namespace}/{meta.name}"))
    owner = controller_of(meta)
    for _ in range(_CHAIN_LENGTH):
        if owner is None:
            break
        if is_protected(view.metas.get(owner.uid)):
            found.append(Guard(owner.kind, f"{meta.namespace}/{owner.name}"))
        owner = view.controllers.get(owner.uid)
    return tuple(found)


def guards_of_gang(
    workload: Workload, members: Iterable[Pod], *, view: ClusterView
) -> tuple[Guard, ...]:
    """The guards over a workload that stops as one: those over any of its pods, wherever they are."""
    found: dict[Guard, None] = {}
    if is_protected(view.metas.get(workload.uid)):
        found[Guard(workload.kind, f"{workload.namespace}/{workload.name}")] = None
    for pod in members:
        found.update(dict.fromkeys(guards_of_pod(pod, view=view)))
    return tuple(found)


def standing(guards: Iterable[Guard], typed: Collection[str]) -> list[Guard]:
    """The guards that nobody has lifted."""
    return [guard for guard in guards if not guard.is_lifted(typed)]


def protected_reason(guard: Guard) -> str:
    """Why a thing is not taken, and what lifts it."""
    return (
        f"{guard.said} is protected (label {PROTECTED_LABEL}): to go on all the same, type its name apart, "
        f"{guard.name} (--confirm-protected)"
    )
