"""What holds for all operations: the pause, requests that wait for a second person, limits that tripped."""

from datetime import datetime

from sqlalchemy import Connection, select

from app.store.reads.rows import columns_of, table_of
from app.store.records import ApprovalRecord, LimitMarkRecord, PauseRecord
from app.store.tables import LimitMark, Pause, Request

_PAUSE = table_of(Pause)
_REQUEST = table_of(Request)
_MARK = table_of(LimitMark)


def pause(connection: Connection, cluster: str) -> PauseRecord | None:
    """The pause that holds, None when there is none."""
    row = connection.execute(
        select(*columns_of(Pause, PauseRecord)).where(_PAUSE.c.cluster == cluster)
    ).first()
    return None if row is None else PauseRecord(*row)


def approvals(connection: Connection, cluster: str) -> list[ApprovalRecord]:
    """The requests that wait for a second person, oldest first."""
    rows = connection.execute(
        select(
            _REQUEST.c.id,
            _REQUEST.c.kind,
            _REQUEST.c.author,
            _REQUEST.c.reason,
            _REQUEST.c.created_at,
            _REQUEST.c.answer,
        )
        .where(_REQUEST.c.cluster == cluster, _REQUEST.c.state == "awaiting_approval")
        .order_by(_REQUEST.c.created_at, _REQUEST.c.id)
    )
    found = []
    for row in rows:
        approval, plan = row.answer["approval"], row.answer["plan"]
        nodes = ", ".join(node["name"] for node in plan["nodes"])
        jobs = ", ".join(f"{job['namespace']}/{job['name']}" for job in plan["jobs"])
        found.append(
            ApprovalRecord(
                request_id=row.id,
                kind=row.kind,
                subject=(nodes if row.kind == "drain" else jobs) or nodes,
                plan_hash=approval["plan_hash"],
                gpus=approval["gpus"],
                asked_by=row.author,
                reason=row.reason,
                created_at=row.created_at,
                expires_at=datetime.fromisoformat(approval["expires_at"]),
            )
        )
    return found


def limit_marks(connection: Connection, cluster: str) -> list[LimitMarkRecord]:
    """The limits that tripped or were reset, by name."""
    rows = connection.execute(
        select(*columns_of(LimitMark, LimitMarkRecord))
        .where(_MARK.c.cluster == cluster)
        .order_by(_MARK.c.name)
    )
    return [LimitMarkRecord(*row) for row in rows]
