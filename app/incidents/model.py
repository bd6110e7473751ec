"""What incidents are made of: faults, and what they stand on; and what an incident should say. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Scope = Literal["pipeline", "leaf", "rack", "power", "block", "node", "job"]
Key = tuple[str, str]
"""(scope, subject): what an open incident is known by."""

PIPELINE = "pipeline"
DOMAIN_SCOPES: tuple[str, ...] = ("leaf", "rack", "power", "block")
"""Kinds of shared domain, the narrower first."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An open finding, or the silence of a node, which is a fault with the episode of its beginning.

    `pod_uids`: of the pods hit, empty where nobody knows.
    """

    episode: str
    rule: str
    severity: str
    node: str
    message: str
    action: str
    opened_at: datetime
    source: str = "agent"
    gpu_uuid: str | None = None
    gpu_index: int | None = None
    xid: int | None = None
    job_uid: str | None = None
    rank: int | None = None
    pod_uids: tuple[str, ...] = ()
    changes_health: bool = True


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A node with a fault: where it stands, and whether its absence is meant.

    `places`: the names of its leaf, rack, power domain and block, those that are known. `planned`: why its
    absence is no fault, None where nothing is planned. `off_since`: since when it is drained or under
    repair. `reported`: whether it was ever heard.
    """

    name: str
    places: Mapping[str, str] = field(default_factory=dict)
    boot_id: str | None = None
    reported: bool = True
    planned: str | None = None
    off_since: datetime | None = None
    kubernetes_ready: bool | None = None


@dataclass(frozen=True, slots=True)
class JobFact:
    """A training job. `gpus`: all of it."""

    uid: str
    namespace: str
    name: str
    gang: bool = False
    gpus: int = 0
    state: str = "Running"
    wanted_pods: int = 0
    running_pods: int = 0
    finished_at: datetime | None = None

    @property
    def said(self) -> str:
        """Its name for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def is_ended(self) -> bool:
        """Whether it will do no more work."""
        return self.state in ("Complete", "Failed", "Removed")

    @property
    def is_whole(self) -> bool:
        """Whether all its pods run."""
        return self.state == "Running" and self.running_pods >= self.wanted_pods > 0


@dataclass(frozen=True, slots=True)
class PodFact:
    """A pod on a node with a fault, or one that was there: `until` is when it left, None while it is there."""

    uid: str
    name: str
    node: str
    job_uid: str | None = None
    rank: int | None = None
    gpus: int = 0
    since: datetime | None = None
    until: datetime | None = None
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class HurtJob:
    """A job that does no work for an incident. `gpus`: all of a gang's, else those on the nodes hurt.

    `until`: None while it is hurt. `seconds_before`: how long it was hurt before `since`, where it was
    well again between.
    """

    uid: str
    namespace: str
    name: str
    gpus: int
    since: datetime
    until: datetime | None = None
    ranks: tuple[int, ...] = ()
    seconds_before: float = 0.0

    @property
    def said(self) -> str:
        """Its name for people."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Standing:
    """An incident that is open in the store, as far as what becomes of it depends on that.

    `first`: its first failure as it was told. `certainty`, `certainty_ratio`, `arithmetic`: of a domain.
    """

    id: str
    scope: str
    subject: str
    cause: str
    opened_at: datetime
    findings: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    first: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[HurtJob, ...] = ()
    ended_at: datetime | None = None
    certainty: str | None = None
    certainty_ratio: float | None = None
    arithmetic: tuple["Evidence", ...] = ()
    held_open: bool = False

    @property
    def key(self) -> Key:
        """What it is known by."""
        return (self.scope, self.subject)


@dataclass(frozen=True)
class World:
    """All that is known at one moment, as far as open faults and incidents reach.

    `sizes`: known nodes of (kind, domain), of those domains that may be named (`places_to_count`).
    `nodes_known`: of the cluster; `nodes_heard`: that ever reported. `told`: episodes of which an incident
    that is over has told. `blind`: sentences on sources that are not heard.
    """

    faults: Sequence[Fault] = ()
    nodes: Mapping[str, NodeFact] = field(default_factory=dict)
    jobs: Mapping[str, JobFact] = field(default_factory=dict)
    pods: Sequence[PodFact] = ()
    standing: Sequence[Standing] = ()
    sizes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    nodes_known: int = 0
    nodes_heard: int = 0
    told: frozenset[str] = frozenset()
    blind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why it is thought to be so. `key` tells whether it was said before."""

    at: datetime
    source: str
    text: str
    key: str


@dataclass(frozen=True)
class Trouble:
    """An incident that should be open. (scope, subject) is what it is known by.

    `roots`: the faults that make it and keep it open, the first failure first. `followed`: what came of
    them. `nodes`: those with a fault now. `is_over`: nothing keeps it open but a few that are late.
    """

    scope: str
    subject: str
    severity: str
    title: str
    cause: str
    action: str
    opened_at: datetime
    roots: tuple[Fault, ...]
    followed: tuple[Fault, ...] = ()
    nodes: tuple[str, ...] = ()
    jobs: tuple[HurtJob, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    certainty: str | None = None
    certainty_ratio: float | None = None
    is_over: bool = False

    @property
    def key(self) -> Key:
        """What it is known by."""
        return (self.scope, self.subject)

    @property
    def first(self) -> Fault:
        """The first failure."""
        return self.roots[0]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All of it."""
        return (*self.roots, *self.followed)

    @property
    def episodes(self) -> frozenset[str]:
        """Of all its faults."""
        return frozenset(fault.episode for fault in self.faults)
