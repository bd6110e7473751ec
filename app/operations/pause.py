"""The pause: while there is one, nothing new begins and running operations take no further step.

What takes back goes on: cancel, uncordon, and an operation that stops by itself. Stored, so that it
holds for every worker and over a restart; read in the transaction that claims a step, so that no step
is claimed once a pause is in.
"""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, delete, insert, select

from app.errors import RequestRefused
from app.store.reads.rows import table_of
from app.store.requests import MAX_REASON_LENGTH
from app.store.tables import Pause as PauseTable

_pause = table_of(PauseTable)


class Pause(msgspec.Struct, frozen=True):
    """Who paused, when and why."""

    at: datetime
    by: str
    reason: str

    @property
    def said(self) -> str:
        """One sentence for people."""
        return f"Paused by {self.by} at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.reason.rstrip('.')}."


def read_pause(connection: Connection, cluster: str) -> Pause | None:
    """The pause that holds now."""
    row = connection.execute(
        select(_pause.c.paused_at, _pause.c.paused_by, _pause.c.reason).where(
            _pause.c.cluster == cluster
        )
    ).first()
    return None if row is None else Pause(*row)


def pause(connection: Connection, cluster: str, *, by: str, reason: str, now: datetime) -> None:
    """Begins a pause. Raises RequestRefused without a reason, and while there is one."""
    reason = _checked(reason, "paused")
    known = read_pause(connection, cluster)
    if known is not None:
        raise RequestRefused(f"It is paused already. {known.said}", code="conflict")
    connection.execute(
        insert(_pause).values(cluster=cluster, paused_at=now, paused_by=by, reason=reason)
    )


def unpause(connection: Connection, cluster: str, *, reason: str) -> None:
    """Ends the pause. Raises RequestRefused without a reason, and when there is none."""
    _checked(reason, "taken up again")
    if read_pause(connection, cluster) is None:
        raise RequestRefused("It is not paused.", code="conflict")
    connection.execute(delete(_pause).where(_pause.c.cluster == cluster))


def refuse_if_paused(connection: Connection, cluster: str) -> None:
    """Raises RequestRefused while there is a pause."""
    known = read_pause(connection, cluster)
    if known is not None:
        raise RequestRefused(
            f"{known.said} Nothing new begins until `pitwall unpause`.", code="paused"
        )


def _checked(reason: str, what: str) -> str:
    reason = reason.strip()
    if not reason:
        raise RequestRefused(f"Say why it is {what} (text): others will read it.")
    if len(reason) > MAX_REASON_LENGTH or "\x00" in reason:
        raise RequestRefused(f"A reason has at most {MAX_REASON_LENGTH} characters and no NUL.")
    return reason
