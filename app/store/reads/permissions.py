"""Reads of what people may do, as the worker last heard it from the API server."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, select

from app.store.engine import read
from app.store.reads.rows import columns_of, table_of
from app.store.records import PermissionRecord
from app.store.tables import Permission

FRESH_SECONDS = 90.0
"""An older fact is none: the worker renews them each 20 s, and takes back none while it stands still."""

_PERMISSION = table_of(Permission)


def permissions(
    engine: Engine, cluster: str, username: str, *, now: datetime
) -> list[PermissionRecord]:
    """The fresh facts about a user, by resource and verb; empty for one who has asked for nothing lately."""
    statement = (
        select(*columns_of(Permission, PermissionRecord))
        .where(
            _PERMISSION.c.cluster == cluster,
            _PERMISSION.c.username == username,
            _PERMISSION.c.checked_at > now - timedelta(seconds=FRESH_SECONDS),
        )
        .order_by(_PERMISSION.c.resource, _PERMISSION.c.verb)
    )
    with read(engine) as connection:
        return [PermissionRecord(*row) for row in connection.execute(statement)]


def allowed(found: list[PermissionRecord], verb: str, resource: str) -> bool | None:
    """Whether the facts allow it; None where they say nothing."""
    return next(
        (one.allowed for one in found if (one.verb, one.resource) == (verb, resource)), None
    )
