"""The groups of equal pods that a workload is made of, and how its pods are numbered through them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from k8s.objects import ObjectMeta, PodTemplate, gpus_of_spec


@dataclass(frozen=True)
class Role:
    """Equal pods of a workload: `replicas` times `pods` of them, each with `gpus` GPUs.

    first_rank: the rank of its first pod.
    """

    name: str
    pods: int
    gpus: int = 0
    replicas: int = 1
    first_rank: int = 0

    @property
    def size(self) -> int:
        """All of its pods."""
        return self.replicas * self.pods


@dataclass(frozen=True)
class RankLabels:
    """Labels of a pod that say which it is: its role, its replica of the role, its place in the replica.

    "" where a kind has no such label: one role, one replica.
    """

    place: str
    role: str = ""
    replica: str = ""


def number(roles: Iterable[Role]) -> tuple[Role, ...]:
    """The roles in their order, with first ranks: those with GPUs are counted first, helpers after them."""
    known = list(roles)
    first = 0
    numbered: dict[int, Role] = {}
    for index in sorted(range(len(known)), key=lambda index: not known[index].gpus):
        numbered[index] = replace(known[index], first_rank=first)
        first += known[index].size
    return tuple(numbered[index] for index in range(len(known)))


def rank_in(roles: tuple[Role, ...], labels: RankLabels, meta: ObjectMeta) -> int | None:
    """The rank of a pod through all roles of its workload; None when its labels do not say."""
    name = _text(meta, labels.role) if labels.role else None
    role = next(
        (role for role in roles if name is None or role.name.casefold() == name.casefold()),
        None,
    )
    if role is None:
        return None
    # A role of one pod needs no index, and an MPIJob's launcher has none.
    lone = 0 if name is not None and role.size == 1 else None
    place = _index(meta, labels.place, lone)
    replica = _index(meta, labels.replica, lone) if labels.replica else 0
    if place is None or replica is None:
        return None
    return role.first_rank + replica * role.pods + place


def pods_in(roles: Iterable[Role]) -> int:
    """Pods of all roles together."""
    return sum(role.size for role in roles)


def gpus_in(roles: Iterable[Role]) -> int:
    """GPUs of all pods of all roles."""
    return sum(role.size * role.gpus for role in roles)


def gpus_of_template(template: PodTemplate) -> int:
    """GPUs of one pod of the template."""
    return gpus_of_spec(template.spec)


def _text(meta: ObjectMeta, key: str) -> str | None:
    return meta.labels.get(key, meta.annotations.get(key))


def _index(meta: ObjectMeta, key: str, missing: int | None = None) -> int | None:
    text = _text(meta, key)
    return int(text) if text is not None and text.isdecimal() else missing
