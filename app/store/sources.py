"""How well each source is heard, told by whoever listens to it."""

from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from app.store.writes.bulk import Upsert, clock, parse_time, upsert

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


LATE_SECONDS = 30.0
"""Two pushes of a node's own interval of 15 s without any report: late."""

BLIND_SECONDS = 45.0


def note_agents(connection: Connection, cluster: str, now: datetime) -> None:
    """Write how the agents are heard: by the last report that any ingest process took."""
    last = connection.execute(
        text(
            "SELECT MAX(received_at) FROM node WHERE cluster = :cluster AND reported_by = 'agent'"
        ),
        {"cluster": cluster},
    ).scalar_one()
    received_at = parse_time(last)
    if received_at is None:
        note_source(
            connection,
            cluster,
            "agents",
            state="blind",
            now=now,
            message="no agent has reported yet",
        )
        return
    silent_seconds = (now - received_at).total_seconds()
    state: SourceState = "ok"
    if silent_seconds > LATE_SECONDS:
        state = "blind" if silent_seconds > BLIND_SECONDS else "late"
    message = "" if state == "ok" else f"the last report came {silent_seconds:.0f} s ago"
    note_source(
        connection, cluster, "agents", state=state, now=now, message=message, last_ok_at=received_at
    )
