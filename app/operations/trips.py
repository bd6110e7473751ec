"""Limits that tripped, and their reset. Inside the caller's transaction.

A limit that refuses an automatic operation trips: no automatic one is accepted any more until a person
resets it with a reason. People are not held by a trip; their requests are judged each time. A reset of
the rate also begins its count anew.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from app.errors import RequestRefused
from app.store.reads.rows import table_of
from app.store.requests import MAX_REASON_LENGTH
from app.store.tables import LimitMark

NAMES = ("stock", "floor", "rate", "block", "topology")

_mark = table_of(LimitMark)


class Mark(msgspec.Struct, frozen=True):
    """What is remembered of a limit."""

    name: str
    tripped_at: datetime | None = None
    message: str = ""
    reset_at: datetime | None = None
    reset_by: str | None = None
    reset_reason: str | None = None


def read_marks(connection: Connection, cluster: str) -> dict[str, Mark]:
    """The limits of which anything is remembered, by name."""
    rows = connection.execute(
        select(
            _mark.c.name,
            _mark.c.tripped_at,
            _mark.c.message,
            _mark.c.reset_at,
            _mark.c.reset_by,
            _mark.c.reset_reason,
        )
        .where(_mark.c.cluster == cluster)
        .order_by(_mark.c.name)
    )
    return {row.name: Mark(*row) for row in rows}


def refuse_if_tripped(connection: Connection, cluster: str) -> None:
    """Raises RequestRefused while a limit is tripped; for automatic operations only."""
    for mark in read_marks(connection, cluster).values():
        if mark.tripped_at is not None:
            raise RequestRefused(
                f"The limit {mark.name} tripped at {mark.tripped_at:%Y-%m-%d %H:%M:%S} UTC, so nothing is done "
                f"automatically until a person resets it (`pitwall reset-limit {mark.name}`): {mark.message}",
                code="limit",
            )


def trip(connection: Connection, cluster: str, name: str, *, message: str, now: datetime) -> bool:
    """Remembers that a limit tripped; False when it was tripped already, and keeps its time."""
    known = read_marks(connection, cluster).get(name)
    if known is not None and known.tripped_at is not None:
        return False
    _write(connection, cluster, name, known, tripped_at=now, message=message)
    return True


def reset(
    connection: Connection, cluster: str, name: str, *, by: str, reason: str, now: datetime
) -> str:
    """Ends a trip; of the rate, the count begins anew. Gives what was done, in words.

    Raises RequestRefused for an unknown limit, without a reason, and where there is nothing to reset.
    """
    reason = reason.strip()
    if name not in NAMES:
        raise RequestRefused(f"There is no limit {name or '(none named)'}: {', '.join(NAMES)}.")
    if not reason:
        raise RequestRefused("Say why the limit is reset (text): it is kept in the audit.")
    if len(reason) > MAX_REASON_LENGTH or "\x00" in reason:
        raise RequestRefused(f"A reason has at most {MAX_REASON_LENGTH} characters and no NUL.")
    known = read_marks(connection, cluster).get(name)
    if name != "rate" and (known is None or known.tripped_at is None):
        raise RequestRefused(
            f"The limit {name} is not tripped: what it counts falls when nodes are back in service.",
            code="conflict",
        )
    values: dict[str, Any] = {"tripped_at": None, "message": ""}
    _write(
        connection,
        cluster,
        name,
        known,
        **values,
        reset_at=now,
        reset_by=by,
        reset_reason=reason,
    )
    return "The rate is counted anew." if name == "rate" else f"The limit {name} is reset."


def counted_from(connection: Connection, cluster: str, since: datetime) -> datetime:
    """From when the rate is counted: since, or its last reset where that was later."""
    mark = read_marks(connection, cluster).get("rate")
    return max(since, mark.reset_at) if mark is not None and mark.reset_at is not None else since


def _write(
    connection: Connection, cluster: str, name: str, known: Mark | None, **values: Any
) -> None:
    if known is None:
        empty = {"tripped_at": None, "message": "", "reset_at": None}
        connection.execute(insert(_mark).values(cluster=cluster, name=name, **{**empty, **values}))
    else:
        connection.execute(
            update(_mark).where(_mark.c.cluster == cluster, _mark.c.name == name).values(**values)
        )
