"""The outbox's sending end: rows are claimed, sent outside, and noted. Inside the caller's transaction.

Of one deduplication key at a receiver they go in the order of `number`: a resolve never overtakes its trigger.
A row whose sender died is due again when its claim is over, under the same id: at least once.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, and_, exists, or_, select, update

from app.errors import RequestRefused
from app.store.reads.rows import table_of
from app.store.tables import AlertDelivery

NEVER_ARRIVED = "what it ends never arrived"
"""Why a later row of a key was dropped: comes back with the row that never arrived, when that is sent again."""

CLAIM = timedelta(seconds=60)
"""Longer than any sending takes (app.notifications.sending)."""

_row = table_of(AlertDelivery)
_before = _row.alias("before")


class Delivery(msgspec.Struct, frozen=True):
    """A message that is to be sent now. attempts: with this one."""

    id: str
    receiver: str
    event: str
    deduplication_key: str
    message: dict[str, Any]
    attempts: int
    created_at: datetime


def claim_due(
    connection: Connection,
    cluster: str,
    *,
    now: datetime,
    limit: int = 50,
    failing: Collection[str] = (),
) -> list[Delivery]:
    """Claims what is due, oldest first, at most one of each deduplication key.

    Of each receiver that is `failing` one row alone, to see whether it is back: the others wait for no more of it.
    """
    same = and_(
        _before.c.cluster == _row.c.cluster,
        _before.c.receiver == _row.c.receiver,
        _before.c.deduplication_key == _row.c.deduplication_key,
        _before.c.number < _row.c.number,
    )
    due = (
        select(_row)
        .where(
            _row.c.cluster == cluster,
            _row.c.state == "pending",
            _row.c.next_attempt_at <= now,
            or_(_row.c.claimed_until.is_(None), _row.c.claimed_until < now),
            ~exists(select(_before.c.id).where(same, _before.c.state == "pending")),
        )
        .order_by(_row.c.next_attempt_at, _row.c.created_at, _row.c.id)
    )
    rows = list(connection.execute(due.where(_row.c.receiver.not_in(failing)).limit(limit)))
    for receiver in failing:
        rows += connection.execute(due.where(_row.c.receiver == receiver).limit(1))
    claimed: list[Delivery] = []
    for row in rows:
        if row.event in ("resolve", "acknowledge") and _never_arrived(connection, row):
            _set(
                connection,
                cluster,
                row.id,
                state="dropped",
                last_error=NEVER_ARRIVED,
            )
            continue
        _set(connection, cluster, row.id, attempts=row.attempts + 1, claimed_until=now + CLAIM)
        claimed.append(
            Delivery(
                row.id,
                row.receiver,
                row.event,
                row.deduplication_key,
                row.message,
                row.attempts + 1,
                row.created_at,
            )
        )
    return claimed


def note_sent(connection: Connection, cluster: str, delivery_id: str, *, now: datetime) -> None:
    """It was taken."""
    _set(
        connection,
        cluster,
        delivery_id,
        state="sent",
        sent_at=now,
        claimed_until=None,
        last_error="",
    )


def note_failed(
    connection: Connection, cluster: str, delivery_id: str, *, error: str, again_at: datetime | None
) -> None:
    """It was not: tried again at that time, or given up where there is none."""
    values: dict[str, Any] = {"last_error": error[:500], "claimed_until": None}
    values |= {"state": "dead"} if again_at is None else {"next_attempt_at": again_at}
    _set(connection, cluster, delivery_id, **values)


def send_again(connection: Connection, cluster: str, delivery_id: str, *, now: datetime) -> None:
    """A person wants what was given up to be tried anew, with what was dropped as it never arrived.

    Raises RequestRefused.
    """
    _require(connection, cluster, delivery_id, "dead")
    again = connection.execute(
        select(_row.c.receiver, _row.c.deduplication_key, _row.c.number).where(
            _row.c.cluster == cluster, _row.c.id == delivery_id
        )
    ).one()
    for later in (
        connection.execute(
            select(_row.c.id).where(
                _row.c.cluster == cluster,
                _row.c.receiver == again.receiver,
                _row.c.deduplication_key == again.deduplication_key,
                _row.c.number > again.number,
                _row.c.state == "dropped",
                _row.c.last_error == NEVER_ARRIVED,
            )
        )
        .scalars()
        .all()
    ):
        _set(connection, cluster, later, state="pending", created_at=now, next_attempt_at=now)
    _set(
        connection,
        cluster,
        delivery_id,
        state="pending",
        attempts=0,
        created_at=now,
        next_attempt_at=now,
    )


def drop(connection: Connection, cluster: str, delivery_id: str) -> None:
    """A person wants what was given up to be forgotten. Raises RequestRefused."""
    _require(connection, cluster, delivery_id, "dead")
    _set(connection, cluster, delivery_id, state="dropped")


def _never_arrived(connection: Connection, row: Any) -> bool:
    """Whether what came before it under its key was given up, and nothing of it was taken."""
    states = set(
        connection.execute(
            select(_row.c.state).where(
                _row.c.cluster == row.cluster,
                _row.c.receiver == row.receiver,
                _row.c.deduplication_key == row.deduplication_key,
                _row.c.number < row.number,
            )
        ).scalars()
    )
    return bool(states & {"dead", "dropped"}) and "sent" not in states


def _require(connection: Connection, cluster: str, delivery_id: str, state: str) -> None:
    found = connection.execute(
        select(_row.c.state).where(_row.c.cluster == cluster, _row.c.id == delivery_id)
    ).scalar_one_or_none()
    if found is None:
        raise RequestRefused(
            f"There is no delivery {delivery_id}: see `pitwall deliveries`.", code="not_found"
        )
    if found != state:
        raise RequestRefused(f"Delivery {delivery_id} is {found}, not {state}.", code="conflict")


def _set(connection: Connection, cluster: str, delivery_id: str, **values: Any) -> None:
    connection.execute(
        update(_row).where(_row.c.cluster == cluster, _row.c.id == delivery_id).values(**values)
    )
