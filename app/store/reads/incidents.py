"""Reads of incidents and their timelines."""

from datetime import datetime

import msgspec
from sqlalchemy import Engine, and_, case, or_, select

from app.store.engine import read
from app.store.reads.rows import columns_of, known_cursor, limited, table_of
from app.store.records import IncidentRecord
from app.store.tables import Incident, IncidentEvent

_INCIDENT = table_of(Incident)
_EVENT = table_of(IncidentEvent)


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
) -> list[IncidentRecord]:
    """Incidents: the open ones first, the gravest and then the newest first. `after` is the last id had."""
    weight = case(
        (_INCIDENT.c.resolved_at.is_not(None), 9),
        (_INCIDENT.c.severity == "fatal", 0),
        (_INCIDENT.c.severity == "critical", 1),
        else_=2,
    )
    statement = select(*columns_of(Incident, IncidentRecord)).where(_INCIDENT.c.cluster == cluster)
    if open_only:
        statement = statement.where(_INCIDENT.c.resolved_at.is_(None))
    statement = statement.order_by(weight, _INCIDENT.c.opened_at.desc(), _INCIDENT.c.id)
    with read(engine) as connection:
        if after is not None:
            named = connection.execute(
                select(weight, _INCIDENT.c.opened_at).where(
                    _INCIDENT.c.cluster == cluster, _INCIDENT.c.id == after
                )
            ).first()
            last = known_cursor(named, after)
            grave, opened_at = last
            statement = statement.where(
                or_(
                    weight > grave,
                    and_(weight == grave, _INCIDENT.c.opened_at < opened_at),
                    and_(
                        weight == grave,
                        _INCIDENT.c.opened_at == opened_at,
                        _INCIDENT.c.id > after,
                    ),
                )
            )
        return [IncidentRecord(*row) for row in connection.execute(limited(statement, limit))]


def incident(engine: Engine, cluster: str, incident_id: str) -> IncidentRecord | None:
    """One incident, None when it is not known."""
    statement = select(*columns_of(Incident, IncidentRecord)).where(
        _INCIDENT.c.cluster == cluster, _INCIDENT.c.id == incident_id
    )
    with read(engine) as connection:
        row = connection.execute(statement).first()
    return None if row is None else IncidentRecord(*row)


def incidents_of_node(engine: Engine, cluster: str, name: str) -> list[IncidentRecord]:
    """The open incidents of a node."""
    statement = select(*columns_of(Incident, IncidentRecord)).where(
        _INCIDENT.c.cluster == cluster,
        _INCIDENT.c.scope == "node",
        _INCIDENT.c.subject == name,
        _INCIDENT.c.resolved_at.is_(None),
    )
    with read(engine) as connection:
        return [IncidentRecord(*row) for row in connection.execute(statement)]


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
