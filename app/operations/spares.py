"""Which schedulable nodes are no room for what is moved: Failing ones, and those on Probation. Pure.

The scheduler knows neither, so it may use them all the same: that is told as a warning.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from k8s.view import ClusterView

SHOWN = 3


class Facts(Protocol):
    """What the store says of a node."""

    @property
    def health(self) -> str: ...

    @property
    def service(self) -> str: ...


class NoSpares(msgspec.Struct, frozen=True):
    """Nodes that are not asked for, that the scheduler would use, and that are no room; each once."""

    failing: tuple[str, ...] = ()
    probation: tuple[str, ...] = ()

    @property
    def excluded(self) -> frozenset[str]:
        """All of them."""
        return frozenset((*self.failing, *self.probation))


def no_spares(wished: Sequence[str], view: ClusterView, facts: Mapping[str, Facts]) -> NoSpares:
    """The schedulable nodes that are no room for what leaves the wished ones."""
    usable = {
        name
        for name in facts
        if name not in wished
        and (node := view.nodes.get(name)) is not None
        and not node.spec.unschedulable
    }
    failing = {name for name in usable if facts[name].health == "Failing"}
    probation = {name for name in usable - failing if facts[name].service == "Probation"}
    return NoSpares(tuple(sorted(failing)), tuple(sorted(probation)))


def spare_warnings(spares: NoSpares, jobs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a person should know of them before jobs are moved."""
    if not jobs:
        return []
    said = []
    if spares.failing:
        said.append(
            f"{_listed(spares.failing)} Failing and schedulable: not counted as room, but the scheduler "
            "may still place ranks there. Drain together, or cordon first."
        )
    if spares.probation:
        said.append(
            f"{_listed(spares.probation)} on probation: not counted as room, but the scheduler may still "
            "place ranks there. `pitwall return` ends a probation early."
        )
    return said


def probation_reason(spares: NoSpares) -> str:
    """Why something does not fit that would fit if nobody were on probation."""
    return f"it would fit with {_names(spares.probation)}, no spare while on probation"


def _listed(names: Sequence[str]) -> str:
    return f"{_names(names)} {'is' if len(names) == 1 else 'are'}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
