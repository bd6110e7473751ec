"""The pure step from one poll of a node to the next: its ledger of open findings.

A level finding (a rule over readings) closes when its rule no longer holds; an XID's closes
when its named action is seen. What cannot be judged stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from collectors.health import (
    BUILT_IN,
    NodeFacts,
    Rule,
    RuleSet,
    describe,
    read_gpu,
    read_node,
)
from collectors.ledger import Ledger, Moment, OpenFinding, Past
from collectors.readings import GpuReading
from collectors.recurrence import count_end, drop_old
from collectors.report import Finding, XidEvent
from collectors.xid_findings import apply_xid, carry_recovery, follow, has_ended

GPU_COUNT = "gpu-count"

CLOCK_SLACK = timedelta(minutes=1)
"""An XID this far in the future was told before the clock was put back."""


def judge(
    ledger: Ledger,
    *,
    moment: Moment,
    facts: NodeFacts,
    gpus: Sequence[GpuReading] | None = None,
    xids: Iterable[XidEvent] = (),
    known: Mapping[str, GpuReading] | None = None,
    trends: Mapping[str, Mapping[str, Any]] | None = None,
    ports: Mapping[str, Mapping[str, Any]] | None = None,
    rules: RuleSet = BUILT_IN,
) -> Ledger:
    """Return the ledger after one poll (`gpus`), or without one (None), and these XID events.

    Without a poll nothing about a GPU is judged: what is open stays open. `known` are the
    last readings by UUID, by default those of this poll; `trends` what they add over time, by
    UUID; `ports` the rows of the node's InfiniBand ports by name, where they were read. XID events are taken in order; one seen before (same event id, greater count) counts
    its repeats only.
    """
    opened = {entry.key: entry for entry in ledger.open}
    waiting = dict(ledger.waiting)
    past = drop_old(ledger.past, now=moment.now) if ledger.past else {}
    by_uuid = {reading.uuid: reading for reading in gpus} if gpus is not None else None
    if opened:
        _close_ended(opened, by_uuid, past, facts=facts, moment=moment, rules=rules)
    for reading in gpus or ():
        read = read_gpu(reading, trends.get(reading.uuid) if trends else None)
        for rule in rules.gpu:
            _apply_level(
                rule,
                f"{rule.name}/{reading.uuid}",
                read,
                opened=opened,
                waiting=waiting,
                moment=moment,
                gpu_uuid=reading.uuid,
                pod_uids=reading.pod_uids,
            )
    read = read_node(facts)
    lone = facts.missing_gpus[0] if len(facts.missing_gpus) == 1 else None
    for rule in rules.node:
        _apply_level(
            rule,
            rule.name,
            read,
            opened=opened,
            waiting=waiting,
            moment=moment,
            gpu_uuid=lone if rule.name == GPU_COUNT else None,
        )
    for name, row in (ports or {}).items():
        for rule in rules.port:
            _apply_level(
                rule,
                f"{rule.name}/{name}",
                row.get,
                opened=opened,
                waiting=waiting,
                moment=moment,
                gpu_uuid=None,
            )
    for event in xids:
        apply_xid(event, opened, known=known or by_uuid or {}, past=past, moment=moment)
    if opened:
        carry_recovery(opened, by_uuid if by_uuid is not None else known or {})
    return Ledger(open=tuple(opened.values()), waiting=waiting, past=past)


def _close_ended(
    opened: dict[str, OpenFinding],
    by_uuid: Mapping[str, GpuReading] | None,
    past: dict[str, Past],
    *,
    facts: NodeFacts,
    moment: Moment,
    rules: RuleSet,
) -> None:
    complete = facts.gpu_count is not None and facts.gpu_count >= (facts.expected_gpus or 0)
    for key, entry in list(opened.items()):
        reading = by_uuid.get(entry.gpu_uuid) if by_uuid and entry.gpu_uuid else None
        # All expected GPUs are there and this one is not among them: the board was changed.
        replaced = by_uuid is not None and entry.gpu_uuid is not None and reading is None
        if replaced and complete and key != GPU_COUNT:
            del opened[key]
        elif entry.cleared_by == "time" and entry.last_true_at > moment.now + CLOCK_SLACK:
            opened[key] = msgspec.structs.replace(entry, last_true_at=moment.now)
        elif entry.cleared_by is None:
            # A rule that the site has turned off, or that this release no longer has.
            if entry.finding.rule not in rules.names:
                del opened[key]
        else:
            if has_ended(entry, reading, moment=moment):
                del opened[key]
                count_end(past, entry, now=moment.now)
            elif reading is not None:
                opened[key] = follow(entry, reading)


def _apply_level(
    rule: Rule,
    key: str,
    read: Callable[[str], Any],
    *,
    opened: dict[str, OpenFinding],
    waiting: dict[str, Any],
    moment: Moment,
    gpu_uuid: str | None,
    pod_uids: tuple[str, ...] = (),
) -> None:
    held = rule.test(read)
    if held is None:
        return
    entry = opened.get(key)
    now = moment.now
    if entry is not None and entry.last_true_at > now:
        # The clock was put back: what is counted from then on is counted from now.
        entry = opened[key] = msgspec.structs.replace(entry, last_true_at=now)
    if not held:
        if waiting:
            waiting.pop(key, None)
        if (
            entry is not None
            and not rule.sticky
            and now - entry.last_true_at >= timedelta(seconds=rule.keep_firing_seconds)
        ):
            del opened[key]
        return
    message = describe(rule, read)
    if entry is not None:
        finding = msgspec.structs.replace(entry.finding, message=message)
        opened[key] = msgspec.structs.replace(entry, finding=finding, last_true_at=now)
        return
    since = min(waiting.get(key, now), now)
    if now - since < timedelta(seconds=rule.hold_seconds):
        waiting[key] = since
        return
    waiting.pop(key, None)
    opened[key] = OpenFinding(
        key=key,
        boot_id=moment.boot_id,
        last_true_at=now,
        gpu_uuid=gpu_uuid,
        finding=Finding(
            episode=moment.new_episode(),
            rule=rule.name,
            severity=rule.severity,
            message=message,
            action=rule.action,
            since=since,
            gpu_uuid=gpu_uuid,
            changes_health=rule.changes_health,
            pod_uids=pod_uids,
        ),
    )
