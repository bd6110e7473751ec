"""How well each source is heard, told by whoever listens to it."""

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from app.store.writes.bulk import Upsert, clock, upsert

SourceState = Literal["ok", "late", "blind"]

_SOURCE = Upsert(
    table="source_status",
    columns=("cluster", "source", "state", "message", "last_ok_at", "updated_at"),
    key=("cluster", "source"),
    updates={
        "state": None,
        "message": None,
        "last_ok_at": "COALESCE(new.last_ok_at, old.last_ok_at)",
        "updated_at": None,
    },
    guard="new.updated_at >= old.updated_at",
)


def note_source(
    connection: Connection,
    cluster: str,
    source: str,
    *,
    state: SourceState,
    now: datetime,
    message: str = "",
    last_ok_at: datetime | None = None,
) -> None:
    """Write how a source is now. An "ok" without a time means that it is heard at `now`.

    Must be written again before 45 s are over (app.store.reads.status), even where nothing changed.
    """
    stored = clock(connection)
    if state == "ok" and last_ok_at is None:
        last_ok_at = now
    upsert(
        connection,
        _SOURCE,
        [
            (
                cluster,
                source,
                state,
                message,
                None if last_ok_at is None else stored(last_ok_at),
                stored(now),
            )
        ],
    )
