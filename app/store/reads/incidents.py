"""Reads of incidents and their timelines."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Engine, and_, case, or_, select

from app.incidents.hours import gpu_hours_lost
from app.store.engine import read
from app.store.reads.rows import columns_of, known_cursor, limited, table_of
from app.store.records import IncidentRecord
from app.store.tables import Incident, IncidentEvent

_INCIDENT = table_of(Incident)
_EVENT = table_of(IncidentEvent)

_OVER = case((_INCIDENT.c.resolved_at.is_not(None), 1), else_=0)
_WEIGHT = case(
    (_INCIDENT.c.severity == "fatal", 0), (_INCIDENT.c.severity == "critical", 1), else_=2
)


class TimelineRecord(msgspec.Struct, frozen=True):
    """One entry of an incident's timeline."""

    at: datetime
    kind: str
    author: str
    message: str


def incidents(
    engine: Engine,
    cluster: str,
    *,
    open_only: bool = True,
    limit: int = 100,
    after: str | None = None,
    now: datetime | None = None,
) -> list[IncidentRecord]:
    """Incidents: the open ones first, by GPUs hurt now, then the gravest, then the newest.

    `after` is the last id had; GPU-hours are as of `now`, this moment where it is not given.
    """
    statement = select(*columns_of(Incident, IncidentRecord)).where(_INCIDENT.c.cluster == cluster)
    if open_only:
        statement = statement.where(_INCIDENT.c.resolved_at.is_(None))
    statement = statement.order_by(
        _OVER, _INCIDENT.c.gpus_hurt.desc(), _WEIGHT, _INCIDENT.c.opened_at.desc(), _INCIDENT.c.id
    )
    with read(engine) as connection:
        if after is not None:
            named = connection.execute(
                select(_OVER, _INCIDENT.c.gpus_hurt, _WEIGHT, _INCIDENT.c.opened_at).where(
                    _INCIDENT.c.cluster == cluster, _INCIDENT.c.id == after
                )
            ).first()
            over, hurt, grave, opened_at = known_cursor(named, after)
            statement = statement.where(
                _later(
                    (_OVER, over, False),
                    (_INCIDENT.c.gpus_hurt, hurt, True),
                    (_WEIGHT, grave, False),
                    (_INCIDENT.c.opened_at, opened_at, True),
                    (_INCIDENT.c.id, after, False),
                )
            )
        rows = connection.execute(limited(statement, limit)).all()
    return [_record(row, now) for row in rows]


def incident(
    engine: Engine, cluster: str, incident_id: str, *, now: datetime | None = None
) -> IncidentRecord | None:
    """One incident with its GPU-hours as of `now`, None when it is not known."""
    statement = select(*columns_of(Incident, IncidentRecord)).where(
        _INCIDENT.c.cluster == cluster, _INCIDENT.c.id == incident_id
    )
    with read(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else _record(row, now)


def incidents_of_node(
    engine: Engine, cluster: str, name: str, *, now: datetime | None = None
) -> list[IncidentRecord]:
    """The open incidents that a node is in: its own, its domain's, the pipeline's, a job's."""
    open_here = (_INCIDENT.c.cluster == cluster, _INCIDENT.c.resolved_at.is_(None))
    with read(engine) as connection:
        # Open incidents are few; SQLite and PostgreSQL search JSON in different words.
        names = connection.execute(select(_INCIDENT.c.id, _INCIDENT.c.nodes).where(*open_here))
        ids = [incident_id for incident_id, nodes in names if name in nodes]
        if not ids:
            return []
        statement = select(*columns_of(Incident, IncidentRecord)).where(
            *open_here, _INCIDENT.c.id.in_(ids)
        )
        rows = connection.execute(statement.order_by(_WEIGHT, _INCIDENT.c.opened_at)).all()
    return [_record(row, now) for row in rows]


def timeline(
    engine: Engine, cluster: str, incident_id: str, *, limit: int = 200
) -> list[TimelineRecord]:
    """An incident's timeline, oldest first."""
    statement = (
        select(*columns_of(IncidentEvent, TimelineRecord))
        .where(_EVENT.c.cluster == cluster, _EVENT.c.incident_id == incident_id)
        .order_by(_EVENT.c.at, _EVENT.c.id)
    )
    with read(engine) as connection:
        return [TimelineRecord(*row) for row in connection.execute(limited(statement, limit))]


def _later(*order: tuple[ColumnElement[Any], Any, bool]) -> ColumnElement[bool]:
    """What comes after these values in this order; each column with its value and whether it falls."""
    column, value, falls = order[-1]
    found = column < value if falls else column > value
    for column, value, falls in reversed(order[:-1]):
        beyond = column < value if falls else column > value
        found = or_(beyond, and_(column == value, found))
    return found


def _record(row: Any, now: datetime | None) -> IncidentRecord:
    record = IncidentRecord(*row)
    lost = gpu_hours_lost(record.jobs, now or datetime.now(UTC))
    return msgspec.structs.replace(record, gpu_hours_lost=lost)
