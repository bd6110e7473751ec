"""The nodes that only dcgm-exporter speaks of: what is kept of them from one poll to the next.

Rules over readings are judged as columns of all GPUs at once, what concerns a whole node (XIDs, the
number of its GPUs) as on the node itself. No input or output, no threads. What is open outlives a
restart by `adopt`. XIDs raised while nobody polled are not seen: the gauge tells them by change alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from collectors.column_judgement import Change, Column, ColumnJudge
from collectors.column_trends import ColumnTrends
from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_labels import read_identity
from collectors.dcgm_readings import make_readings
from collectors.dcgm_series import BY_FIELD, SILENT_AT_ZERO
from collectors.dcgm_words import Adopted, HostVerdict, NodeWord
from collectors.dcgm_xids import XidGauges
from collectors.desk import new_identifier
from collectors.health import BUILT_IN, NodeFacts, Rule, RuleSet, describe
from collectors.judgement import GPU_COUNT, judge
from collectors.ledger import Ledger, Moment, OpenFinding, Past, close_episodes
from collectors.report import Finding, XidEvent
from collectors.rule import SEVERITY_RANK
from collectors.trends import REASON_MINUTES, RISES
from collectors.xid import find_entry

COUNT_HOLD_SECONDS = 30.0
"""A GPU must be missing from two scrapes: an exporter that starts may tell of some first (judgement)."""

NEEDS: Mapping[str, str] = {
    **{rise.adds: rise.counter for rise in RISES},
    **dict.fromkeys(REASON_MINUTES, "clocks_event_reasons"),
}
"""What each field that trends add is made from."""


class DcgmDesk:
    """Takes polls, gives verdicts. Not for two threads."""

    def __init__(
        self, *, rules: RuleSet = BUILT_IN, new_id: Callable[[], str] = new_identifier
    ) -> None:
        known = {*BY_FIELD, "memory_total_bytes", *NEEDS}
        self._gpu_rules = len(rules.gpu)
        self._rules = tuple(rule for rule in rules.gpu if rule.fields <= known)
        self._by_name = {rule.name: rule for rule in self._rules}
        self._node_rules = RuleSet(
            gpu=(),
            node=tuple(
                dataclasses.replace(rule, hold_seconds=max(rule.hold_seconds, COUNT_HOLD_SECONDS))
                for rule in rules.node
                if rule.name == GPU_COUNT
            ),
            port=(),
        )
        self._new_id = new_id
        self._judge = ColumnJudge(self._rules)
        self._trends = ColumnTrends()
        self._known: dict[str, tuple[str, ...]] = {}
        self._keys: tuple[str, ...] = ()
        self._place_of: dict[str, int] = {}
        self._host_of: dict[str, str] = {}
        self._levels: dict[str, dict[tuple[str, str], Finding]] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._boots: dict[str, str] = {}
        self._gauges = XidGauges(new_id)
        self._adopted: list[tuple[str, str, datetime]] = []
        self._last_seconds = 0.0
        self._offset_seconds = 0.0

    def adopt(
        self,
        findings: Iterable[Adopted],
        *,
        known: Mapping[str, Sequence[str]],
        past: Mapping[str, Mapping[str, Past]] | None = None,
    ) -> None:
        """Go on from what is open in the store, before the first poll.

        `known` are the GPUs by host, so that a missing one has a name; `past` the XIDs that ended
        by their action, by host and key. A rule that is not judged here any more is left out, and
        its finding closes with the node's next report.
        """
        self._known = {host: tuple(keys) for host, keys in known.items()}
        for host, ended in (past or {}).items():
            self._ledgers[host] = Ledger(past=dict(ended))
        for one in findings:
            finding, uuid = one.finding, one.finding.gpu_uuid
            if finding.rule in self._by_name and uuid is not None:
                self._levels.setdefault(one.host, {})[finding.rule, uuid] = finding
                self._adopted.append((finding.rule, uuid, finding.since))
                if uuid not in self._known.get(one.host, ()):
                    self._known[one.host] = (*self._known.get(one.host, ()), uuid)
            elif finding.xid is not None or finding.rule == GPU_COUNT:
                self._boots.setdefault(one.host, one.boot_id)
                ledger = self._ledgers.get(one.host, Ledger())
                entry = _reopen(finding, boot_id=one.boot_id)
                self._ledgers[one.host] = msgspec.structs.replace(
                    ledger, open=(*ledger.open, entry)
                )

    def close(self, episodes: Iterable[str]) -> None:
        """Take as closed what a person closed. A fault still there opens anew."""
        gone = frozenset(episodes)
        if not gone:
            return
        for levels in self._levels.values():
            closed = [pair for pair, finding in levels.items() if finding.episode in gone]
            self._judge.close(closed)
            for pair in closed:
                del levels[pair]
        for host, ledger in self._ledgers.items():
            if ledger.episodes & gone:
                self._ledgers[host] = close_episodes(ledger, gone)

    def take(
        self,
        table: DcgmTable,
        *,
        words: Mapping[str, NodeWord],
        now: datetime,
        silence_seconds: float,
    ) -> dict[str, HostVerdict]:
        """Judge a poll and return the verdict of each host in `words` that was heard lately.

        A host that was not, or whose samples' time nobody knows, has none: its node falls silent,
        and what is open on it stays open. One that is no longer in `words` is forgotten.
        """
        at = self._pass_time(now)
        ages = {
            host: age
            for host in words
            if host in table.places
            and (age := table.age_of(host)) is not None
            and age <= silence_seconds
        }
        self._keep_known(table, ages, words)
        columns, places = self._gather(table, ages)
        added = self._trends.observe(self._keys, columns, at_seconds=at)
        for rise in RISES:
            if rise.counter in SILENT_AT_ZERO and rise.adds in added:
                added[rise.adds][columns[rise.counter] == 0] = np.nan
        values = columns | added
        self._judge.keep(self._keys)
        if self._adopted:
            self._judge.adopt(
                [(rule, key, since.timestamp()) for rule, key, since in self._adopted],
                at_seconds=at,
            )
            self._adopted = []
        changes = self._judge.step(self._keys, values, at_seconds=at)
        self._apply(changes, values, table, places, at=at, now=now)
        events = self._gauges.take(table, ages, now=now)
        unjudged = self._count_unjudged(values, table, ages)
        return {
            host: self._conclude(
                host,
                table,
                word=words[host],
                age=age,
                xids=tuple(events.get(host, ())),
                unjudged=unjudged[host],
                now=now,
            )
            for host, age in ages.items()
        }

    @property
    def open_count(self) -> int:
        """How many findings are open."""
        return sum(map(len, self._levels.values())) + sum(
            len(ledger.open) for ledger in self._ledgers.values()
        )

    def _pass_time(self, now: datetime) -> float:
        """Seconds that never go back, whatever is done to the clock."""
        seconds = now.timestamp()
        self._offset_seconds = max(self._offset_seconds, self._last_seconds - seconds)
        self._last_seconds = seconds + self._offset_seconds
        return self._last_seconds

    def _keep_known(
        self, table: DcgmTable, ages: Mapping[str, float], words: Mapping[str, NodeWord]
    ) -> None:
        known = {host: keys for host, keys in self._known.items() if host in words}
        for host in ages:
            places = table.places[host]
            present = tuple(table.keys[place] for place in places)
            before = known.get(host, ())
            if present == before:
                continue
            count = sum(bool(table.is_there[place]) for place in places)
            if count < _expect(words[host], count):
                # Those not there are missed, and keep what is known of them.
                present += tuple(key for key in before if key not in present)
            known[host] = present
        for kept in (self._levels, self._ledgers, self._boots):
            for host in [host for host in kept if host not in words]:
                kept.pop(host)
        if known == self._known and self._keys:
            return
        self._known = known
        self._host_of = {key: host for host, keys in known.items() for key in keys}
        self._keys = tuple(self._host_of)
        self._place_of = {key: place for place, key in enumerate(self._keys)}
        self._gauges.forget(self._place_of)
        for host, levels in self._levels.items():
            for pair in [pair for pair in levels if self._host_of.get(pair[1]) != host]:
                del levels[pair]

    def _gather(
        self, table: DcgmTable, ages: Mapping[str, float]
    ) -> tuple[dict[str, Column], dict[str, int]]:
        """The table's columns in the order of our keys, and the table's places by key."""
        rows = [place for host in ages for place in table.places[host]]
        source = np.array(rows, dtype=np.intp)
        target = np.array([self._place_of[table.keys[row]] for row in rows], dtype=np.intp)
        gathered = {}
        for field, column in table.columns.items():
            gathered[field] = np.full(len(self._keys), np.nan)
            gathered[field][target] = column[source]
        return gathered, {table.keys[row]: row for row in rows}

    def _apply(
        self,
        changes: Iterable[Change],
        values: Mapping[str, Column],
        table: DcgmTable,
        rows: Mapping[str, int],
        *,
        at: float,
        now: datetime,
    ) -> None:
        for change in changes:
            host, pair = self._host_of[change.key], (change.rule.name, change.key)
            levels = self._levels.setdefault(host, {})
            if not change.opened:
                levels.pop(pair, None)
            elif pair not in levels:
                since = datetime.fromtimestamp(change.since_seconds - self._offset_seconds, UTC)
                row = rows[change.key]
                levels[pair] = Finding(
                    episode=self._new_id(),
                    rule=change.rule.name,
                    severity=change.rule.severity,
                    message="",
                    action=change.rule.action,
                    since=min(since, now),
                    gpu_uuid=table.labels[row]["UUID"],
                    changes_health=change.rule.changes_health,
                    pod_uids=table.pod_uids[row],
                )
        for levels in self._levels.values():
            for (name, key), finding in levels.items():
                told = key in rows and self._describe(self._by_name[name], key, values, table, rows)
                if told:
                    levels[name, key] = msgspec.structs.replace(finding, message=told)

    def _describe(
        self,
        rule: Rule,
        key: str,
        values: Mapping[str, Column],
        table: DcgmTable,
        rows: Mapping[str, int],
    ) -> str | None:
        place = self._place_of[key]
        if any(name not in values or np.isnan(values[name][place]) for name in rule.fields):
            return None
        identity = read_identity(table.labels[rows[key]])

        def read(name: str) -> Any:
            if name in identity:
                return identity[name]
            column = values.get(name)
            return None if column is None or np.isnan(column[place]) else float(column[place])

        return describe(rule, read)

    def _count_unjudged(
        self, values: Mapping[str, Column], table: DcgmTable, ages: Mapping[str, float]
    ) -> dict[str, int]:
        """By host, how many of the site's GPU rules lack a field on all of its GPUs."""
        hosts = list(self._known)
        number = {host: index for index, host in enumerate(hosts)}
        of_key = np.repeat(np.arange(len(hosts)), [len(self._known[host]) for host in hosts])
        judged = np.zeros(len(hosts), dtype=np.int64)
        known: dict[str, Any] = {}
        for rule in self._rules:
            if any(name not in values for name in rule.fields):
                continue
            whole = np.ones(len(hosts), dtype=bool)
            for name in rule.fields:
                if name not in known:
                    told = np.bincount(of_key, ~np.isnan(values[name]), minlength=len(hosts))
                    known[name] = told > 0
                whole &= known[name]
            judged += whole
        return {host: self._gpu_rules - int(judged[number[host]]) for host in ages}

    def _conclude(
        self,
        host: str,
        table: DcgmTable,
        *,
        word: NodeWord,
        age: float,
        xids: tuple[XidEvent, ...],
        unjudged: int,
        now: datetime,
    ) -> HostVerdict:
        places = table.places[host]
        count = sum(bool(table.is_there[place]) for place in places)
        expected = _expect(word, count)
        boot_id = self._boot(host, word)
        ledger = self._ledgers.get(host)
        if xids or count < expected or (ledger is not None and (ledger.open or ledger.waiting)):
            missing = tuple(
                key
                for key in self._known[host]
                if not any(table.keys[place] == key and table.is_there[place] for place in places)
            )
            ledger = self._ledgers[host] = judge(
                ledger or Ledger(),
                moment=Moment(now, boot_id, self._new_id),
                facts=NodeFacts(gpu_count=count, expected_gpus=expected, missing_gpus=missing),
                gpus=make_readings(table, places),
                xids=xids,
                rules=self._node_rules,
            )
        found = [*self._levels.get(host, {}).values(), *(ledger.findings if ledger else ())]
        if len(found) > 1:
            found.sort(key=lambda one: (-SEVERITY_RANK[one.severity], one.since, one.rule))
        return HostVerdict(
            word=word,
            boot_id=boot_id,
            age_seconds=age,
            findings=tuple(found),
            xids=xids,
            gpu_count=count,
            expected_gpus=expected,
            unjudged_rules=unjudged,
            gpu_rules=self._gpu_rules,
        )

    def _boot(self, host: str, word: NodeWord) -> str:
        """The host's boot; one that becomes known is no new one."""
        before = self._boots.get(host, "")
        boot_id = word.boot_id or before
        if boot_id and not before and host in self._ledgers:
            ledger = self._ledgers[host]
            entries = tuple(msgspec.structs.replace(one, boot_id=boot_id) for one in ledger.open)
            self._ledgers[host] = msgspec.structs.replace(ledger, open=entries)
        self._boots[host] = boot_id
        return boot_id


def _expect(word: NodeWord, count: int) -> int:
    return max(word.expected_gpus, count)


def _reopen(finding: Finding, *, boot_id: str) -> OpenFinding:
    if finding.xid is None:
        key, cleared_by = finding.rule, None
    else:
        key = f"{finding.rule}/{finding.gpu_uuid or 'node'}"
        cleared_by = find_entry(finding.xid).cleared_by
    return OpenFinding(
        key=key,
        finding=finding,
        boot_id=boot_id,
        last_true_at=finding.since,
        cleared_by=cleared_by,
        gpu_uuid=finding.gpu_uuid,
    )
