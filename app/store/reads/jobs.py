"""Reads of jobs and their ranks."""

from typing import Any

from sqlalchemy import Engine, Select, and_, distinct, func, or_, select

from app.store.engine import read
from app.store.reads.rows import columns_of, known_cursor, limited, table_of
from app.store.records import JobRecord, PodRecord, RankRecord
from app.store.tables import Job, Node, Pod, Rank

_JOB = table_of(Job)
_RANK = table_of(Rank)
_NODE = table_of(Node)
_POD = table_of(Pod)

_LIVE = _POD.c.phase.not_in(("Succeeded", "Failed"))

ENDED = ("Complete", "Failed", "Removed")
"""States of a job that runs no more."""


def jobs(
    engine: Engine,
    cluster: str,
    *,
    namespace: str | None = None,
    state: str | None = None,
    node: str | None = None,
    at_risk: bool = False,
    open_only: bool = False,
    limit: int = 100,
    after: str | None = None,
) -> list[JobRecord]:
    """Jobs by namespace, name and UID. `node`: only with a pod on it. `at_risk`: only with one on a Failing node.

    `open_only`: without those that have ended. `after` is the UID of the last job had.
    """
    statement = _with_risk(cluster)
    if namespace is not None:
        statement = statement.where(_JOB.c.namespace == namespace)
    if state is not None:
        statement = statement.where(_JOB.c.state == state)
    if node is not None:
        there = select(_POD.c.job_uid).where(_POD.c.cluster == cluster, _POD.c.node == node)
        statement = statement.where(_JOB.c.uid.in_(there.where(_LIVE)))
    if open_only:
        statement = statement.where(_JOB.c.state.not_in(ENDED))
    if at_risk:
        statement = statement.where(statement.selected_columns["nodes_failing"] > 0)
    statement = statement.order_by(_JOB.c.namespace, _JOB.c.name, _JOB.c.uid)
    with read(engine) as connection:
        if after is not None:
            named = connection.execute(
                select(_JOB.c.namespace, _JOB.c.name).where(
                    _JOB.c.cluster == cluster, _JOB.c.uid == after
                )
            ).first()
            last = known_cursor(named, after)
            same = and_(_JOB.c.namespace == last[0], _JOB.c.name == last[1])
            statement = statement.where(
                or_(
                    _JOB.c.namespace > last[0],
                    and_(_JOB.c.namespace == last[0], _JOB.c.name > last[1]),
                    and_(same, _JOB.c.uid > after),
                )
            )
        return [JobRecord(*row) for row in connection.execute(limited(statement, limit))]


def job(engine: Engine, cluster: str, uid: str) -> JobRecord | None:
    """One job by UID, or by `namespace/name` (the youngest of that name); None when not known."""
    statement = _with_risk(cluster)
    namespace, slash, name = uid.partition("/")
    if slash:
        statement = statement.where(_JOB.c.namespace == namespace, _JOB.c.name == name).order_by(
            _JOB.c.created_at.desc(), _JOB.c.uid
        )
    else:
        statement = statement.where(_JOB.c.uid == uid)
    with read(engine) as connection:
        row = connection.execute(statement.limit(1)).first()
    return None if row is None else JobRecord(*row)


def ranks(engine: Engine, cluster: str, job_uid: str) -> list[RankRecord]:
    """A job's ranks in order, each with the pod that is it now."""
    statement = (
        select(*columns_of(Rank, RankRecord))
        .where(_RANK.c.cluster == cluster, _RANK.c.job_uid == job_uid)
        .order_by(_RANK.c.rank)
    )
    with read(engine) as connection:
        return [RankRecord(*row) for row in connection.execute(statement)]


def pods_of_job(engine: Engine, cluster: str, job_uid: str, *, limit: int = 500) -> list[PodRecord]:
    """A job's pods by rank and name."""
    statement = (
        select(*columns_of(Pod, PodRecord))
        .where(_POD.c.cluster == cluster, _POD.c.job_uid == job_uid)
        .order_by(func.coalesce(_POD.c.rank, -1), _POD.c.name, _POD.c.uid)
    )
    with read(engine) as connection:
        return [PodRecord(*row) for row in connection.execute(limited(statement, limit))]


def _with_risk(cluster: str) -> Select[Any]:
    # By pods and not by ranks: a job that is not Indexed has no ranks and is hurt all the same.
    risk = (
        select(_POD.c.job_uid, func.count(distinct(_POD.c.node)).label("nodes_failing"))
        .join(_NODE, and_(_NODE.c.cluster == _POD.c.cluster, _NODE.c.name == _POD.c.node))
        .where(_POD.c.cluster == cluster, _NODE.c.health == "Failing", _LIVE)
        .group_by(_POD.c.job_uid)
        .subquery()
    )
    return (
        select(
            *columns_of(Job, JobRecord),
            func.coalesce(risk.c.nodes_failing, 0).label("nodes_failing"),
        )
        .select_from(_JOB.outerjoin(risk, risk.c.job_uid == _JOB.c.uid))
        .where(_JOB.c.cluster == cluster)
    )
