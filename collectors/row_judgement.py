"""Rules over rows that a central source reads: hold and keep times by rule, node and subject. Pure.

The rows of one moment are all there is to say: what no row speaks of is refuted, and closes. A row
whose value is not known leaves its rule as it is. The rules are the same entries that an agent judges
a node's own readings by.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from collectors.central import CentralFinding
from collectors.rule import Rule, describe

FindingKey = tuple[str, str, str, str]
"""As CentralFinding.key: (rule, node, GPU UUID or "", subject)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing to judge: its fields, where it is, and what its finding says beside the words.

    since: when it began by its source's own word, where that says.
    """

    node: str
    subject: str
    values: Mapping[str, Any]
    since: datetime | None = None
    job_uid: str | None = None
    rank: int | None = None
    pod_uids: tuple[str, ...] = ()


class Judged(NamedTuple):
    """A rule on a row: known to hold, or not known."""

    rule: Rule
    row: Row
    held: bool

    @property
    def key(self) -> FindingKey:
        """What its finding would be known by."""
        return (self.rule.name, self.row.node, "", self.row.subject)


@dataclass(frozen=True)
class Standing:
    """What is kept between two judgements: since when a rule waits, when an open one last held."""

    waiting: Mapping[FindingKey, datetime] = field(default_factory=dict)
    open: Mapping[FindingKey, datetime] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """findings: all that hold now. kept: open ones that stay though they are not said.

    due_at: when the same rows would be judged otherwise, None when never.
    """

    findings: tuple[CentralFinding, ...]
    kept: frozenset[FindingKey]
    standing: Standing
    due_at: datetime | None


def try_rules(rules: Iterable[Rule], row: Row) -> list[Judged]:
    """Judge a row by rules, leaving out those that it refutes."""
    judged = []
    for rule in rules:
        held = rule.test(row.values.get)
        if held is not False:
            judged.append(Judged(rule, row, held is True))
    return judged


def judge_rows(
    standing: Standing, judged: Iterable[Judged], rules: Mapping[str, Rule], *, now: datetime
) -> Judgement:
    """Return what holds now and what is to be kept of it.

    `rules` by name: what is open of a rule that is not among them closes.
    """
    waiting: dict[FindingKey, datetime] = {}
    opened: dict[FindingKey, datetime] = {}
    findings: list[CentralFinding] = []
    kept: set[FindingKey] = set()
    due: list[datetime] = []
    spoken: set[FindingKey] = set()
    for one in judged:
        key = one.key
        if key in spoken:
            continue
        spoken.add(key)
        last_held_at = standing.open.get(key)
        if not one.held:
            if last_held_at is not None:
                opened[key] = last_held_at
                kept.add(key)
            elif key in standing.waiting:
                waiting[key] = standing.waiting[key]
            continue
        began = min(standing.waiting.get(key, now), now)
        ripe = began + timedelta(seconds=one.rule.hold_seconds)
        if last_held_at is None and now < ripe:
            waiting[key] = began
            due.append(ripe)
            continue
        opened[key] = now
        findings.append(_finding(one, began))
    for key, last_held_at in standing.open.items():
        rule = rules.get(key[0])
        if key in spoken or rule is None:
            continue
        ends = min(last_held_at, now) + timedelta(seconds=rule.keep_firing_seconds)
        if rule.sticky or now < ends:
            opened[key] = min(last_held_at, now)
            kept.add(key)
            if not rule.sticky:
                due.append(ends)
    return Judgement(
        tuple(findings),
        frozenset(kept),
        Standing(waiting, opened),
        min(due, default=None),
    )


def adopt(keys: Iterable[FindingKey], *, now: datetime) -> Standing:
    """The standing of one that starts with these findings open."""
    return Standing(open=dict.fromkeys(keys, now))


def _finding(one: Judged, began: datetime) -> CentralFinding:
    rule, row = one.rule, one.row
    return CentralFinding(
        rule=rule.name,
        node=row.node,
        severity=rule.severity,
        message=describe(rule, row.values.get),
        action=rule.action,
        since=min(row.since, began) if row.since is not None else began,
        subject=row.subject,
        job_uid=row.job_uid,
        rank=row.rank,
        pod_uids=row.pod_uids,
        changes_health=rule.changes_health,
    )
