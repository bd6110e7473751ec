"""Writes what people may do; facts that are long past go."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, tuple_

from app.store.reads.rows import table_of
from app.store.records import PermissionRecord
from app.store.tables import Permission

KEPT = timedelta(days=1)

_permission = table_of(Permission)


def store_permissions(
    connection: Connection,
    cluster: str,
    facts: Sequence[tuple[str, PermissionRecord]],
    *,
    now: datetime,
) -> None:
    """Stores (username, fact) in place of what was known of these users, and drops what is older than KEPT."""
    table = _permission.c
    connection.execute(
        delete(_permission).where(table.cluster == cluster, table.checked_at < now - KEPT)
    )
    if not facts:
        return
    keys = [(username, fact.verb, fact.resource) for username, fact in facts]
    connection.execute(
        delete(_permission).where(
            table.cluster == cluster, tuple_(table.username, table.verb, table.resource).in_(keys)
        )
    )
    connection.execute(
        insert(_permission),
        [
            {
                "cluster": cluster,
                "username": username,
                "verb": fact.verb,
                "resource": fact.resource,
                "allowed": fact.allowed,
                "reason": fact.reason,
                "checked_at": fact.checked_at,
            }
            for username, fact in facts
        ],
    )
