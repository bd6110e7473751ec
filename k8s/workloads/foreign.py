"""Owners that no kind of ours reads: what can be told from a reference alone."""

from __future__ import annotations

from k8s.objects import OwnerReference
from k8s.workloads.kind import Workload

# Controllers that make a new pod for one that was evicted, whatever it ran.
# StatefulSet: the same name returns once the old object is gone.
REPLACING = frozenset(
    {
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("", "ReplicationController"),
    }
)


def foreign_workload(owner: OwnerReference, namespace: str) -> Workload:
    """The Workload of an owner that is not watched: evicting replaces its pods, or it is refused."""
    replacing = (owner.group, owner.kind) in REPLACING
    return Workload(
        uid=owner.uid,
        namespace=namespace,
        name=owner.name,
        kind=owner.kind,
        api_version=owner.api_version,
        restart_path="evict" if replacing else "none",
        refusal=None
        if replacing
        else f"{owner.kind} of {owner.api_version} is no kind that Pitwall restarts; its pods can be "
        "drained, bringing them back is left to its controller",
    )
