"""Silences, maintenance windows and the page's receivers. Inside the caller's transaction."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update

from app.errors import RequestRefused
from app.store.reads.rows import table_of
from app.store.tables import AlertDelivery, AlertReceiver, Silence

LONGEST = timedelta(days=30)
MAX_AHEAD = timedelta(days=90)

_silence, _receiver, _delivery = table_of(Silence), table_of(AlertReceiver), table_of(AlertDelivery)


def add_silence(
    connection: Connection,
    cluster: str,
    *,
    kind: str,
    matchers: Sequence[dict[str, str]],
    author: str,
    reason: str,
    starts_at: datetime,
    ends_at: datetime,
    now: datetime,
) -> str:
    """Writes one; gives its id. Raises RequestRefused for times that are none."""
    starts_at = max(starts_at, now)
    if ends_at <= starts_at:
        raise RequestRefused("It ends before it begins: give a later end.")
    if ends_at - starts_at > LONGEST:
        raise RequestRefused(
            "It lasts longer than 30 days: what is silent for longer is forgotten."
        )
    if starts_at - now > MAX_AHEAD:
        raise RequestRefused("It begins more than 90 days ahead: make it when it is nearer.")
    silence_id = uuid.uuid4().hex[:12]
    connection.execute(
        insert(_silence).values(
            cluster=cluster,
            id=silence_id,
            kind=kind,
            matchers=list(matchers),
            author=author,
            reason=reason,
            created_at=now,
            starts_at=starts_at,
            ends_at=ends_at,
            origin="pitwall",
        )
    )
    return silence_id


def end_silence(
    connection: Connection, cluster: str, silence_id: str, *, by: str, now: datetime
) -> None:
    """Ends one early. Raises RequestRefused where it is not known, is over, or was made at Alertmanager."""
    row = connection.execute(
        select(_silence.c.origin, _silence.c.ends_at, _silence.c.ended_by).where(
            _silence.c.cluster == cluster, _silence.c.id == silence_id
        )
    ).first()
    if row is None:
        raise RequestRefused(
            f"There is no silence {silence_id}: see `pitwall silences`.", code="not_found"
        )
    if row.origin != "pitwall":
        raise RequestRefused(
            f"{silence_id} was made at Alertmanager: end it there.", code="conflict"
        )
    if row.ended_by is not None or row.ends_at <= now:
        raise RequestRefused(f"Silence {silence_id} is over already.", code="conflict")
    connection.execute(
        update(_silence)
        .where(_silence.c.cluster == cluster, _silence.c.id == silence_id)
        .values(ended_by=by, ends_at=now)
    )


def add_receiver(
    connection: Connection,
    cluster: str,
    *,
    name: str,
    secret: str,
    matchers: Sequence[dict[str, str]],
    send_resolved: bool,
    by: str,
    now: datetime,
) -> None:
    """Adds a receiver, or enables it again as it is now. `secret` is a name, never an address."""
    values: dict[str, Any] = {
        "secret": secret,
        "matchers": list(matchers),
        "send_resolved": send_resolved,
        "created_by": by,
        "created_at": now,
        "disabled_at": None,
    }
    mine = (_receiver.c.cluster == cluster, _receiver.c.name == name)
    if connection.execute(update(_receiver).where(*mine).values(**values)).rowcount == 0:
        connection.execute(insert(_receiver).values(cluster=cluster, name=name, **values))


def disable_receiver(connection: Connection, cluster: str, name: str, *, now: datetime) -> None:
    """Takes a receiver of the page out. Raises RequestRefused where there is none."""
    done = connection.execute(
        update(_receiver)
        .where(
            _receiver.c.cluster == cluster,
            _receiver.c.name == name,
            _receiver.c.disabled_at.is_(None),
        )
        .values(disabled_at=now)
    )
    if done.rowcount == 0:
        raise RequestRefused(
            f"The page has no receiver {name}; one of the file PITWALL_ALERTS is changed there.",
            code="not_found",
        )


def write_test_message(
    connection: Connection, cluster: str, receiver: str, *, by: str, page_url: str, now: datetime
) -> str:
    """Puts a test message into the outbox; gives its id."""
    delivery_id = f"test-{uuid.uuid4().hex[:12]}"
    message = {
        "title": f"Pitwall test message to {receiver}",
        "body": f"{by} asked for this at {now:%Y-%m-%d %H:%M:%S} UTC. Nothing is wrong; nothing is to be done.",
        "severity": "info",
        "link": page_url,
        "group": {},
        "alerts": [],
    }
    connection.execute(
        insert(_delivery).values(
            cluster=cluster,
            id=delivery_id,
            number=0,
            receiver=receiver,
            group_key="test",
            alert_ids=[],
            event="test",
            deduplication_key=f"pitwall/{cluster}/{delivery_id}"[:255],
            message=message,
            state="pending",
            attempts=0,
            created_at=now,
            next_attempt_at=now,
            last_error="",
        )
    )
    return delivery_id
