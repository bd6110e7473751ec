"""What of the store alerts are made of, a record each. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class IncidentSeen:
    """An incident. `places`: leaf, rack, power, block of its first node; `sources`: of its evidence."""

    id: str
    scope: str
    subject: str
    severity: str
    title: str
    cause: str
    action: str
    opened_at: datetime
    resolved_at: datetime | None = None
    resolved_by: str | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    gpus_hurt: int = 0
    jobs: Sequence[Mapping[str, Any]] = ()
    nodes: tuple[str, ...] = ()
    first: Mapping[str, Any] = field(default_factory=dict)
    sources: frozenset[str] = frozenset()
    places: Mapping[str, str] = field(default_factory=dict)
    team: str | None = None


@dataclass(frozen=True)
class OperationSeen:
    """A drain, reschedule or uncordon."""

    id: str
    kind: str
    subject: str
    state: str
    message: str
    author: str
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    nodes: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()  # names of workloads that wait for capacity


@dataclass(frozen=True)
class SourceSeen:
    """A source; `is_blind` where it is, or its own writer has said nothing for 45 s. `is_young`: for too short a
    time to be told of, as at a start."""

    name: str
    is_blind: bool
    message: str
    last_ok_at: datetime | None
    updated_at: datetime
    is_young: bool = False


@dataclass(frozen=True)
class Seen:
    """All of one moment. dead: receivers with messages given up, how many and since when.

    away_since: when the worker before was last heard, where nobody was active since until now.
    """

    cluster: str
    incidents: Sequence[IncidentSeen] = ()
    operations: Sequence[OperationSeen] = ()
    sources: Sequence[SourceSeen] = ()
    limits: Sequence[tuple[str, datetime | None, str]] = ()
    approvals: Sequence[tuple[str, str, str, datetime, bool]] = ()
    dead: Sequence[tuple[str, int, datetime]] = ()
    receivers: Sequence[str] = ()
    away_since: datetime | None = None
