"""What alerts are made of: matchers, facts, and the keys by which an episode is known. Pure.

Identity is the label set as it was when the alert opened, without `severity`: severity may rise within an
episode, and the episode keeps its fingerprint and its deduplication key. Alertmanager knows an alert by all
its labels, so the label sets that a rise left behind are resolved there (`outgrown`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

Op = Literal["=", "!=", "=~", "!~"]
State = Literal["firing", "unknown", "resolved"]
Event = Literal["trigger", "acknowledge", "resolve", "test"]

SEVERITIES = ("info", "warning", "critical", "fatal")
SEVERITY = "severity"
RISEN_FROM = "risen_from"
"""Annotation: the severities that an alert had before it rose, joined by commas."""

WATCHDOG = "Watchdog"
"""Always fires; goes only where a route names it."""

MOMENTS = frozenset({"OperationDone", "NoActiveWorker"})
"""Alerts of what happened: told once, and their end is no news."""

KEY_LENGTH = 255
"""Most characters of a deduplication key (PagerDuty)."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; a label that is not there is "". Regexes match the whole value."""

    label: str
    op: Op
    value: str

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels meet it."""
        found = labels.get(self.label, "")
        if self.op in ("=", "!="):
            return (found == self.value) == (self.op == "=")
        return (_regex(self.value).fullmatch(found) is not None) == (self.op == "=~")

    def __str__(self) -> str:
        return f"{self.label}{self.op}{json.dumps(self.value, ensure_ascii=False)}"


_MATCHER = re.compile(
    r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^\s"]*)\s*'
)


def parse_matcher(text: str) -> Matcher:
    """The matcher of a text like severity=~"critical|fatal". Raises ValueError in one sentence."""
    found = _MATCHER.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is no matcher: write label="value", with = != =~ or !~')
    label, op, value = found.groups()
    if value.startswith('"'):
        value = re.sub(r"\\(.)", lambda sign: sign[1] if sign[1] in '"\\' else sign[0], value[1:-1])
    return make_matcher(label, op, value)


def make_matcher(label: str, op: str, value: str) -> Matcher:
    """A matcher from its parts. Raises ValueError where the operator or the regular expression is none."""
    if op not in ("=", "!=", "=~", "!~"):
        raise ValueError(f"{op!r} is no operator of a matcher: there are = != =~ !~")
    if op in ("=~", "!~"):
        try:
            _regex(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return Matcher(label, op, value)  # type: ignore[arg-type]


def match_all(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether the labels meet every one; of none that is so."""
    return all(matcher.matches(labels) for matcher in matchers)


@lru_cache(maxsize=4096)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


@dataclass(frozen=True)
class AlertFact:
    """What is so now and a person must hear of. `labels` hold identity and topology, no values, times or counts.

    `nodes`: all it concerns, also where no one of them is a label. `sources`: those it rests on.
    """

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    severity: str
    started_at: datetime
    incident_id: str | None = None
    operation_id: str | None = None
    state: State = "firing"
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alert:
    """An alert as its row has it. `id` is of the episode; `labels` hold the severity of now."""

    id: str
    fingerprint: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    severity: str
    state: State
    started_at: datetime
    updated_at: datetime
    incident_id: str | None = None
    operation_id: str | None = None
    ended_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    escalated_at: datetime | None = None
    inhibited_by: str | None = None
    silenced_by: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it is firing or unknown."""
        return self.ended_at is None

    @property
    def name(self) -> str:
        """Its alertname."""
        return self.labels["alertname"]


@dataclass(frozen=True)
class Group:
    """What a receiver was told of a group. `told`: {alert id: {"event", "at", "first_at", "severity"}}."""

    receiver: str
    key: str
    labels: Mapping[str, str]
    opened_at: datetime
    told: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    due_at: datetime | None = None
    notified_at: datetime | None = None


def fingerprint(labels: Mapping[str, str]) -> str:
    """What an episode is known by: 32 hex digits of its label set without severity."""
    kept = sorted((name, value) for name, value in labels.items() if name != SEVERITY)
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:32]


def outgrown(
    labels: Mapping[str, str], annotations: Mapping[str, str]
) -> tuple[dict[str, str], ...]:
    """The label sets that this alert had before its severity rose; Alertmanager is told that they ended."""
    before = [one for one in annotations.get(RISEN_FROM, "").split(",") if one]
    return tuple({**labels, SEVERITY: one} for one in before if one != labels.get(SEVERITY))


def deduplication_key(cluster: str, receiver: str, key: str) -> str:
    """One key over trigger, acknowledge and resolve of a group (or an alert) at a receiver; <= 255 characters."""
    digest = hashlib.sha256(json.dumps([cluster, receiver, key]).encode()).hexdigest()[:40]
    return f"pitwall/{cluster[:80]}/{receiver[:80]}/{digest}"[:KEY_LENGTH]


def gravest(severities: Sequence[str]) -> str:
    """The worst of these; info of none."""
    return max(severities, key=rank, default="info")


def rank(severity: str) -> int:
    """Its place, the worse the higher; what is not known counts as a warning."""
    return SEVERITIES.index(severity) if severity in SEVERITIES else 1
