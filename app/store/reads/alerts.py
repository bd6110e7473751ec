"""Reads of alerts, silences, deliveries and receivers. What is silenced or inhibited is told and counted."""

from datetime import datetime

import msgspec
from sqlalchemy import Engine, func, select

from app.store.alert_records import AlertRecord, DeliveryRecord, ReceiverRecord, SilenceRecord
from app.store.engine import read
from app.store.reads.rows import columns_of, limited, table_of
from app.store.tables import Alert, AlertDelivery, AlertReceiver, Silence

_alert, _silence = table_of(Alert), table_of(Silence)
_delivery, _receiver = table_of(AlertDelivery), table_of(AlertReceiver)


def alerts(
    engine: Engine, cluster: str, *, open_only: bool = True, limit: int = 200
) -> list[AlertRecord]:
    """Alerts, the newest first; the Watchdog, which always fires, is not among them."""
    statement = select(*columns_of(Alert, AlertRecord)).where(_alert.c.cluster == cluster)
    if open_only:
        statement = statement.where(_alert.c.ended_at.is_(None))
    statement = statement.order_by(_alert.c.started_at.desc(), _alert.c.id)
    with read(engine) as connection:
        rows = connection.execute(limited(statement, limit + 1)).all()
    found = [AlertRecord(*row) for row in rows]
    return [one for one in found if one.labels.get("alertname") != "Watchdog"][:limit]


def silences(
    engine: Engine, cluster: str, *, now: datetime, over: bool = False, limit: int = 200
) -> list[SilenceRecord]:
    """Silences and maintenance windows that hold or are to come, each with how many open alerts it hides; also past ones."""
    statement = select(*columns_of(Silence, SilenceRecord)).where(_silence.c.cluster == cluster)
    if not over:
        statement = statement.where(_silence.c.ends_at > now)
    statement = statement.order_by(_silence.c.ends_at.desc(), _silence.c.id)
    with read(engine) as connection:
        rows = connection.execute(limited(statement, limit)).all()
        hidden: dict[str, int] = {}
        for (ids,) in connection.execute(
            select(_alert.c.silenced_by).where(
                _alert.c.cluster == cluster, _alert.c.ended_at.is_(None)
            )
        ):
            for one in ids or ():
                hidden[one] = hidden.get(one, 0) + 1
    return [
        msgspec.structs.replace(SilenceRecord(*row), hides=hidden.get(row.id, 0)) for row in rows
    ]


def deliveries(
    engine: Engine, cluster: str, *, state: str | None = None, limit: int = 100
) -> list[DeliveryRecord]:
    """Messages of the outbox, the newest first."""
    statement = select(*columns_of(AlertDelivery, DeliveryRecord)).where(
        _delivery.c.cluster == cluster
    )
    if state is not None:
        statement = statement.where(_delivery.c.state == state)
    statement = statement.order_by(_delivery.c.created_at.desc(), _delivery.c.id)
    with read(engine) as connection:
        return [DeliveryRecord(*row) for row in connection.execute(limited(statement, limit))]


def delivery_lag_seconds(engine: Engine, cluster: str, *, now: datetime) -> float:
    """Age of the oldest message that is not delivered, 0 where all are."""
    with read(engine) as connection:
        oldest = connection.execute(
            select(func.min(_delivery.c.created_at, type_=_delivery.c.created_at.type)).where(
                _delivery.c.cluster == cluster, _delivery.c.state == "pending"
            )
        ).scalar_one()
    return (now - oldest).total_seconds() if oldest is not None else 0.0


def receivers(engine: Engine, cluster: str) -> list[ReceiverRecord]:
    """Those of the page that are enabled, and every name that messages were written for; the file is the worker's."""
    with read(engine) as connection:
        made = connection.execute(
            select(_receiver.c.name, _receiver.c.secret, _receiver.c.send_resolved).where(
                _receiver.c.cluster == cluster, _receiver.c.disabled_at.is_(None)
            )
        ).all()
        told = connection.execute(
            select(
                _delivery.c.receiver,
                func.max(_delivery.c.sent_at, type_=_delivery.c.sent_at.type),
                func.count().filter(_delivery.c.state == "pending"),
                func.count().filter(_delivery.c.state == "dead"),
            )
            .where(_delivery.c.cluster == cluster)
            .group_by(_delivery.c.receiver)
        ).all()
        errors = {
            row.receiver: row.last_error
            for row in connection.execute(
                select(_delivery.c.receiver, _delivery.c.last_error)
                .where(_delivery.c.cluster == cluster, _delivery.c.last_error != "")
                .order_by(_delivery.c.created_at)
            )
        }
    known = {
        row.name: ReceiverRecord(row.name, "page", row.secret, None, row.send_resolved)
        for row in made
    }
    for row in told:
        one = known.get(row[0]) or ReceiverRecord(row[0], "file", "", None, True)
        known[row[0]] = msgspec.structs.replace(
            one, last_sent_at=row[1], last_error=errors.get(row[0], ""), pending=row[2], dead=row[3]
        )
    return [known[name] for name in sorted(known)]
