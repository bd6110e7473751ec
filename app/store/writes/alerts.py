"""Alerts, groups and messages as rows: read for one look, and what changed written back. Inside the caller's transaction."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from app.alerts.identity import episode_of
from app.alerts.model import MOMENTS, Alert, Event, Group, deduplication_key
from app.store.reads.rows import table_of
from app.store.tables import Alert as AlertTable
from app.store.tables import AlertDelivery, AlertGroup

REMEMBERED = timedelta(days=2)
"""So long an episode that is over is known as one that was told."""

_alert, _group, _delivery = table_of(AlertTable), table_of(AlertGroup), table_of(AlertDelivery)


def read_open(connection: Connection, cluster: str) -> list[Alert]:
    """The alerts that are open."""
    rows = connection.execute(
        select(_alert).where(_alert.c.cluster == cluster, _alert.c.ended_at.is_(None))
    )
    return [_read(row) for row in rows]


def read_had(connection: Connection, cluster: str, now: datetime) -> set[tuple[str, str]]:
    """Episodes of moments that were alerts lately and are over."""
    rows = connection.execute(
        select(_alert.c.labels).where(
            _alert.c.cluster == cluster,
            _alert.c.ended_at.is_not(None),
            _alert.c.ended_at > now - REMEMBERED,
        )
    )
    told = (*MOMENTS, "OperationFailed")
    return {episode_of(row.labels) for row in rows if row.labels.get("alertname") in told}


def read_ended(connection: Connection, cluster: str, ids: Iterable[str]) -> dict[str, Alert]:
    """Those of these alerts that are over."""
    wanted = sorted(set(ids))
    found: dict[str, Alert] = {}
    for start in range(0, len(wanted), 500):
        rows = connection.execute(
            select(_alert).where(
                _alert.c.cluster == cluster,
                _alert.c.id.in_(wanted[start : start + 500]),
                _alert.c.ended_at.is_not(None),
            )
        )
        found |= {row.id: _read(row) for row in rows}
    return found


def read_groups(connection: Connection, cluster: str) -> list[Group]:
    """What each receiver was told."""
    rows = connection.execute(select(_group).where(_group.c.cluster == cluster))
    return [
        Group(
            row.receiver, row.key, row.labels, row.opened_at, row.told, row.due_at, row.notified_at
        )
        for row in rows
    ]


def write_alerts(
    connection: Connection, cluster: str, alerts: Iterable[Alert], *, known: Mapping[str, Alert]
) -> None:
    """Writes those that are new or differ from what is known."""
    fresh = []
    for alert in alerts:
        before = known.get(alert.id)
        if before is None:
            fresh.append({"cluster": cluster, **_values(alert)})
        elif before != alert:
            connection.execute(
                update(_alert)
                .where(_alert.c.cluster == cluster, _alert.c.id == alert.id)
                .values(**_values(alert))
            )
    if fresh:
        connection.execute(insert(_alert), fresh)


def write_groups(
    connection: Connection,
    cluster: str,
    groups: Iterable[Group],
    *,
    gone: Iterable[Group],
    known: Iterable[Group],
) -> None:
    """Writes the notification log."""
    there = {(one.receiver, one.key) for one in known}
    for one in groups:
        values: dict[str, Any] = {
            "labels": dict(one.labels),
            "told": {name: dict(entry) for name, entry in one.told.items()},
            "opened_at": one.opened_at,
            "due_at": one.due_at,
            "notified_at": one.notified_at,
        }
        if (one.receiver, one.key) in there:
            connection.execute(update(_group).where(*_is(cluster, one)).values(**values))
        else:
            connection.execute(
                insert(_group).values(cluster=cluster, receiver=one.receiver, key=one.key, **values)
            )
    for one in gone:
        connection.execute(delete(_group).where(*_is(cluster, one)))


def write_message(
    connection: Connection,
    cluster: str,
    *,
    group: Group,
    event: Event,
    alert_ids: list[str],
    message: dict[str, Any],
    now: datetime,
) -> str:
    """Puts a message into the outbox, after those of its group; gives its id.

    Its key is of the group's life: a trouble that comes back after all was resolved is a new one.
    """
    key = deduplication_key(cluster, group.receiver, f"{group.key}@{group.opened_at.isoformat()}")
    mine = (
        _delivery.c.cluster == cluster,
        _delivery.c.receiver == group.receiver,
        _delivery.c.deduplication_key == key,
    )
    last = connection.execute(select(func.max(_delivery.c.number)).where(*mine)).scalar_one()
    number = (last or 0) + 1
    delivery_id = hashlib.sha256(f"{key}\n{number}".encode()).hexdigest()[:24]
    connection.execute(
        insert(_delivery).values(
            cluster=cluster,
            id=delivery_id,
            number=number,
            receiver=group.receiver,
            group_key=group.key,
            alert_ids=alert_ids,
            event=event,
            deduplication_key=key,
            message=message,
            state="pending",
            attempts=0,
            created_at=now,
            next_attempt_at=now,
            last_error="",
        )
    )
    return delivery_id


def _is(cluster: str, one: Group) -> tuple[Any, ...]:
    return (_group.c.cluster == cluster, _group.c.receiver == one.receiver, _group.c.key == one.key)


def _read(row: Any) -> Alert:
    return Alert(
        id=row.id,
        fingerprint=row.fingerprint,
        labels=row.labels,
        annotations=row.annotations,
        severity=row.severity,
        state=row.state,
        started_at=row.started_at,
        updated_at=row.updated_at,
        incident_id=row.incident_id,
        operation_id=row.operation_id,
        ended_at=row.ended_at,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by,
        escalated_at=row.escalated_at,
        inhibited_by=row.inhibited_by,
        silenced_by=tuple(row.silenced_by or ()),
    )


def _values(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "fingerprint": alert.fingerprint,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "severity": alert.severity,
        "state": alert.state,
        "incident_id": alert.incident_id,
        "operation_id": alert.operation_id,
        "started_at": alert.started_at,
        "updated_at": alert.updated_at,
        "ended_at": alert.ended_at,
        "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by,
        "escalated_at": alert.escalated_at,
        "inhibited_by": alert.inhibited_by,
        "silenced_by": list(alert.silenced_by),
    }
