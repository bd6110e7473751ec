"""Reads of the audit: every write to the cluster and every request, the newest first."""

from datetime import datetime

from sqlalchemy import Engine, or_, select

from app.store.engine import read
from app.store.page_records import AuditRecord
from app.store.reads.rows import columns_of, contains, limited, table_of
from app.store.tables import AuditEntry

_AUDIT = table_of(AuditEntry)


def audit_entries(
    engine: Engine,
    cluster: str,
    *,
    search: str | None = None,
    outcome: str | None = None,
    operation_id: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
    after: int | None = None,
) -> list[AuditRecord]:
    """Audit rows, the newest first. `search`: in who, what, target or message. `after`: id of the last row had."""
    statement = select(*columns_of(AuditEntry, AuditRecord)).where(_AUDIT.c.cluster == cluster)
    if search:
        pattern = contains(search)
        statement = statement.where(
            or_(
                *(
                    column.ilike(pattern, escape="\\")
                    for column in (
                        _AUDIT.c.author,
                        _AUDIT.c.action,
                        _AUDIT.c.target,
                        _AUDIT.c.message,
                    )
                )
            )
        )
    if outcome is not None:
        statement = statement.where(_AUDIT.c.outcome == outcome)
    if operation_id is not None:
        statement = statement.where(_AUDIT.c.operation_id == operation_id)
    if since is not None:
        statement = statement.where(_AUDIT.c.at >= since)
    if after is not None:
        statement = statement.where(_AUDIT.c.id < after)
    # Rows are only ever added, so their numbers are in the order of time.
    with read(engine) as connection:
        rows = connection.execute(limited(statement.order_by(_AUDIT.c.id.desc()), limit))
        return [AuditRecord(*row) for row in rows]
