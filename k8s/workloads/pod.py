"""Plain pods: nothing makes one anew, so a drain blocks on it unless a person takes it (--force)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from k8s.objects import ObjectMeta, OwnerReference, Pod, controller_of


class KnownOwners(Protocol):
    """What is looked into; a ClusterView is one."""

    @property
    def metas(self) -> Mapping[str, ObjectMeta]:
        """Metadata by UID of what owns pods and is watched."""
        ...

    @property
    def watched(self) -> Collection[tuple[str, str]]:
        """Group and kind of what owns pods and is watched whole."""
        ...


def has_vanished(owner: OwnerReference, view: KnownOwners) -> bool:
    """True when the owner would be known if it existed; of a kind that is not watched it is believed to."""
    return (owner.group, owner.kind) in view.watched and owner.uid not in view.metas


def left_alone(pod: Pod, view: KnownOwners) -> str | None:
    """Why nothing makes the pod anew; None where its controller does. DaemonSets are not looked at."""
    owner = controller_of(pod.metadata)
    if owner is None:
        return "has no controller: nothing makes it again"
    if owner.kind != "DaemonSet" and has_vanished(owner, view):
        return f"is left over from {owner.kind} {owner.name}, which exists no more"
    return None
