"""What room there is, in what pieces, who uses it and who waits for it; counted in SQL, of one moment."""

from typing import Any

from sqlalchemy import Connection, Engine, and_, case, func, select

from app.store.engine import read
from app.store.page_records import CapacityRecord, RoomRecord, ShareRecord, WaitingRecord
from app.store.reads.rows import columns_of, limited, table_of
from app.store.tables import Job, Node, Pod

WAITING = ("Pending", "Suspended", "Stalled")
"""States of a job that wants to run and does not, or not whole."""

UNPLACED = "no block known"
NOBODY = "no team named"
NO_QUEUE = "no queue"

_NODE = table_of(Node)
_JOB = table_of(Job)
_POD = table_of(Pod)

# As app/store/summaries.py counts usable nodes.
_USABLE = and_(
    _NODE.c.kubernetes_ready.is_(True),
    _NODE.c.unschedulable.is_not(True),
    _NODE.c.health.in_(("Healthy", "Degraded")),
)
_ALLOCATABLE = func.coalesce(_NODE.c.gpu_allocatable, 0)
_REQUESTED = func.coalesce(_NODE.c.gpu_requested, 0)
_FREE = case((_ALLOCATABLE > _REQUESTED, _ALLOCATABLE - _REQUESTED), else_=0)
_LIVE = _POD.c.phase.not_in(("Succeeded", "Failed"))


def capacity(engine: Engine, cluster: str, *, waiting_limit: int = 100) -> CapacityRecord:
    """Room by block, usable nodes by their free GPUs, GPUs by team and by queue, and jobs that wait."""
    with read(engine) as connection:
        return CapacityRecord(
            rooms=_rooms(connection, cluster),
            nodes_by_free_gpus=_pieces(connection, cluster),
            teams=_shares(connection, cluster, _JOB.c.team, NOBODY),
            queues=_shares(connection, cluster, _JOB.c.queue, NO_QUEUE),
            waiting=_waiting(connection, cluster, waiting_limit),
        )


def _rooms(connection: Connection, cluster: str) -> list[RoomRecord]:
    block = func.coalesce(_NODE.c.block, UNPLACED).label("block")
    whole = and_(_USABLE, _ALLOCATABLE > 0, _REQUESTED == 0)
    rows = connection.execute(
        select(
            block,
            func.count(),
            func.sum(case((_USABLE, 1), else_=0)),
            func.sum(_ALLOCATABLE),
            func.sum(case((_USABLE, _FREE), else_=0)),
            func.sum(case((whole, 1), else_=0)),
            func.sum(case((and_(whole, _NODE.c.service == "Probation"), 1), else_=0)),
        )
        .where(_NODE.c.cluster == cluster)
        .group_by(block)
        .order_by(block)
    )
    return [RoomRecord(str(row[0]), *(int(number or 0) for number in row[1:])) for row in rows]


def _pieces(connection: Connection, cluster: str) -> dict[int, int]:
    free = _FREE.label("free")
    rows = connection.execute(
        select(free, func.count())
        .where(_NODE.c.cluster == cluster, _USABLE, _ALLOCATABLE > 0)
        .group_by(free)
        .order_by(free)
    )
    return {int(row[0]): int(row[1]) for row in rows}


def _shares(connection: Connection, cluster: str, key: Any, nobody: str) -> list[ShareRecord]:
    """GPUs that pods of each team (or queue) hold or wait for."""
    name = func.coalesce(key, nobody).label("name")
    placed = _POD.c.node.is_not(None)
    held = func.sum(case((placed, _POD.c.gpus), else_=0))
    rows = connection.execute(
        select(
            name,
            func.count(func.distinct(_POD.c.job_uid)),
            held,
            func.sum(case((placed, 0), else_=_POD.c.gpus)),
        )
        .select_from(
            _POD.outerjoin(
                _JOB, and_(_JOB.c.cluster == _POD.c.cluster, _JOB.c.uid == _POD.c.job_uid)
            )
        )
        .where(_POD.c.cluster == cluster, _LIVE, _POD.c.gpus > 0)
        .group_by(name)
        .order_by(held.desc(), name)
    )
    return [
        ShareRecord(str(row[0]), int(row[1]), int(row[2] or 0), int(row[3] or 0)) for row in rows
    ]


def _waiting(connection: Connection, cluster: str, limit: int) -> list[WaitingRecord]:
    statement = (
        select(*columns_of(Job, WaitingRecord))
        .where(_JOB.c.cluster == cluster, _JOB.c.state.in_(WAITING))
        .order_by(_JOB.c.gpus.desc(), _JOB.c.created_at, _JOB.c.uid)
    )
    return [WaitingRecord(*row) for row in connection.execute(limited(statement, limit))]
