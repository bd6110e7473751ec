"""What a person works on: the open faults of one cause, whom they hurt, and what to do. Pure.

One incident a node that has a critical or fatal finding, or has fallen silent. When many nodes fall silent
together the pipeline is at fault and not they: that is one incident, and none of the nodes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor

SILENT = "silent"
MASS_SILENCE = "mass-silence"
PIPELINE_SUBJECT = "agents"

MASS_RATIO = 0.05
MASS_SECONDS = 60.0
"""More than 5 % of the nodes within 60 s are one incident of the pipeline (facts/gpu-health.md)."""

LEAST_MASS = 3
"""Fewer nodes are never a mass: in a cluster of 16 a single node is more than 5 %. Our judgement."""

_WEIGHT = {"fatal": 2, "critical": 1}

SILENT_ACTION = "see whether the node is up; drain it if it does not come back"
PIPELINE_ACTION = "see whether ingest runs and the nodes reach it; their jobs may be well"


@dataclass(frozen=True)
class Fault:
    """An open finding."""

    episode: str
    rule: str
    severity: str
    message: str
    action: str
    opened_at: datetime


@dataclass(frozen=True)
class HurtJob:
    """A job with pods on a node. `gpus`: how many GPUs do no work while it is hurt, all of a gang's."""

    uid: str
    namespace: str
    name: str
    gpus: int


@dataclass(frozen=True)
class NodeTrouble:
    """What is wrong with a node. `silent_since`: when it was last heard, None while it is heard."""

    node: str
    faults: Sequence[Fault] = ()
    silent_since: datetime | None = None
    jobs: Sequence[HurtJob] = ()


@dataclass(frozen=True)
class Trouble:
    """An incident that should be open. (scope, subject) is what it is known by."""

    scope: str
    subject: str
    severity: str
    title: str
    cause: str
    action: str
    opened_at: datetime
    faults: tuple[str, ...] = ()
    jobs: tuple[HurtJob, ...] = ()


def group_troubles(
    troubles: Iterable[NodeTrouble], *, nodes_total: int, now: datetime
) -> list[Trouble]:
    """The incidents that should be open now, the pipeline's first, then by node.

    `nodes_total`: nodes that have ever reported.
    """
    known = sorted(troubles, key=lambda trouble: trouble.node)
    silent_since = {
        trouble.node: trouble.silent_since for trouble in known if trouble.silent_since is not None
    }
    mass = find_mass_silence(silent_since, nodes_total=nodes_total)
    found = [_pipeline(mass, silent_since, nodes_total)] if mass else []
    for trouble in known:
        grave = [fault for fault in trouble.faults if fault.severity in _WEIGHT]
        if grave:
            found.append(_of_faults(trouble, grave))
        elif trouble.silent_since is not None and trouble.node not in mass:
            found.append(_of_silence(trouble, trouble.silent_since))
    return found


def find_mass_silence(silent_since: Mapping[str, datetime], *, nodes_total: int) -> frozenset[str]:
    """The nodes that fell silent together: all in any 60 s that hold more than 5 % of the nodes."""
    least = max(LEAST_MASS, floor(nodes_total * MASS_RATIO) + 1)
    ordered = sorted(silent_since.items(), key=lambda item: (item[1], item[0]))
    window = timedelta(seconds=MASS_SECONDS)
    found: set[str] = set()
    start = 0
    for end, (_, at) in enumerate(ordered):
        while at - ordered[start][1] > window:
            start += 1
        if end - start + 1 >= least:
            found.update(node for node, _ in ordered[start : end + 1])
    return frozenset(found)


def _of_faults(trouble: NodeTrouble, grave: Sequence[Fault]) -> Trouble:
    first = min(grave, key=lambda fault: (fault.opened_at, -_WEIGHT[fault.severity], fault.episode))
    worst = max(grave, key=lambda fault: _WEIGHT[fault.severity])
    return Trouble(
        scope="node",
        subject=trouble.node,
        severity=worst.severity,
        title=f"{trouble.node}: {first.message}",
        cause=first.rule,
        action=first.action,
        opened_at=first.opened_at,
        faults=tuple(sorted(fault.episode for fault in grave)),
        jobs=tuple(trouble.jobs),
    )


def _of_silence(trouble: NodeTrouble, since: datetime) -> Trouble:
    return Trouble(
        scope="node",
        subject=trouble.node,
        severity="critical",
        title=f"{trouble.node} is silent: no report since {since:%H:%M:%S} UTC",
        cause=SILENT,
        action=SILENT_ACTION,
        opened_at=since,
        jobs=tuple(trouble.jobs),
    )


def _pipeline(
    mass: frozenset[str], silent_since: Mapping[str, datetime], nodes_total: int
) -> Trouble:
    since = min(silent_since[node] for node in mass)
    return Trouble(
        scope="pipeline",
        subject=PIPELINE_SUBJECT,
        severity="critical",
        title=f"{len(mass)} of {nodes_total} nodes fell silent together at {since:%H:%M:%S} UTC",
        cause=MASS_SILENCE,
        action=PIPELINE_ACTION,
        opened_at=since,
    )
