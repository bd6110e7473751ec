"""From facts to alerts: opened, changed, unknown, ended; one open alert an episode. Pure.

What no fact speaks of is unknown and never ended. What ended is held for KEEP_FIRING_SECONDS, since nobody
downstream damps what flaps.
"""

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.alerts.identity import episode_of
from app.alerts.model import (
    MOMENTS,
    RISEN_FROM,
    SEVERITY,
    Alert,
    AlertFact,
    fingerprint,
    rank,
)

KEEP_FIRING_SECONDS = 60.0
"""Longer than group_wait, so that what was short is told; our judgement."""

MOMENT_SECONDS = 900.0
"""So long what happened counts as open: its groups are due within it. Our judgement."""

TOLD_LATE_SECONDS = 3600.0
"""What ended longer ago than this, while no worker ran, is no news. Our judgement."""

CLEAR_SINCE = "clear_since"
OPENED_AT = "opened_at"
NAMESPACE = uuid.UUID("5d0f2d0c-8f3c-5b1e-9a55-6e1f1f0e7f11")


@dataclass(frozen=True)
class Life:
    """The open alerts as they should be, those that ended now, and of each open one all its nodes."""

    open: tuple[Alert, ...]
    ended: tuple[Alert, ...]
    nodes: dict[str, tuple[str, ...]]


def live(
    facts: Iterable[AlertFact],
    opened: Sequence[Alert],
    *,
    had: Collection[tuple[str, str]] = (),
    now: datetime,
) -> Life:
    """What becomes of the open alerts, and which open. had: episodes that were alerts before and are over."""
    known = {episode_of(one.labels): one for one in opened}
    alive: list[Alert] = []
    ended: list[Alert] = []
    nodes: dict[str, tuple[str, ...]] = {}
    for fact in facts:
        episode = episode_of(fact.labels)
        alert = known.pop(episode, None)
        if alert is None:
            if fact.state == "resolved" or not _is_news(fact, episode in had, now):
                continue
            alert = _open(fact, now)
        else:
            alert = _change(alert, fact, now)
        (alive if alert.is_open else ended).append(alert)
        nodes[alert.id] = fact.nodes
    for alert in known.values():
        over = alert.name in MOMENTS and _is_past(alert, now)
        (ended if over else alive).append(_end(alert, now) if over else _unknown(alert, now))
    return Life(tuple(alive), tuple(ended), nodes)


def _is_news(fact: AlertFact, had: bool, now: datetime) -> bool:
    if fact.labels["alertname"] not in (*MOMENTS, "OperationFailed"):
        return True
    age = now - fact.started_at
    # That nobody was active is found when somebody is again, however long that was.
    is_late = fact.operation_id is not None and age >= timedelta(seconds=TOLD_LATE_SECONDS)
    return not (had or is_late)


def _open(fact: AlertFact, now: datetime) -> Alert:
    name = fingerprint(fact.labels)
    return Alert(
        id=uuid.uuid5(NAMESPACE, f"{name}/{now.isoformat()}").hex[:16],
        fingerprint=name,
        labels=dict(fact.labels),
        annotations={**fact.annotations, OPENED_AT: now.isoformat()},
        severity=fact.severity,
        state=fact.state,
        started_at=fact.started_at,
        updated_at=now,
        incident_id=fact.incident_id,
        operation_id=fact.operation_id,
        acknowledged_at=fact.acknowledged_at,
        acknowledged_by=fact.acknowledged_by,
    )


def _change(alert: Alert, fact: AlertFact, now: datetime) -> Alert:
    if alert.name in MOMENTS:
        return _end(alert, now) if _is_past(alert, now) else alert
    if fact.state == "resolved":
        clear = alert.annotations.get(CLEAR_SINCE)
        if clear is None:
            return replace(
                alert,
                annotations={**alert.annotations, CLEAR_SINCE: now.isoformat()},
                updated_at=now,
            )
        past = now - datetime.fromisoformat(clear) >= timedelta(seconds=KEEP_FIRING_SECONDS)
        return _end(alert, now) if past else alert
    severity = max(alert.severity, fact.severity, key=rank)
    kept = {OPENED_AT: alert.annotations.get(OPENED_AT, now.isoformat())}
    before = [one for one in alert.annotations.get(RISEN_FROM, "").split(",") if one]
    if severity != alert.severity:
        before.append(alert.severity)
    if before:
        kept[RISEN_FROM] = ",".join(before)
    changed = replace(
        alert,
        labels={**alert.labels, SEVERITY: severity},
        annotations={**fact.annotations, **kept},
        severity=severity,
        state=fact.state,
    )
    if fact.incident_id is not None:
        changed = replace(
            changed, acknowledged_at=fact.acknowledged_at, acknowledged_by=fact.acknowledged_by
        )
    return changed if changed == alert else replace(changed, updated_at=now)


def _unknown(alert: Alert, now: datetime) -> Alert:
    if alert.state == "unknown" or alert.name in MOMENTS:
        return alert
    return replace(alert, state="unknown", updated_at=now)


def _end(alert: Alert, now: datetime) -> Alert:
    return replace(alert, state="resolved", ended_at=now, updated_at=now)


def _is_past(alert: Alert, now: datetime) -> bool:
    begun = alert.annotations.get(OPENED_AT) or alert.started_at.isoformat()
    return now - datetime.fromisoformat(begun) >= timedelta(seconds=MOMENT_SECONDS)
