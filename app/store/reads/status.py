"""The cluster in a few numbers, and how well Pitwall itself hears it."""

from datetime import datetime

import msgspec
from sqlalchemy import Connection, Engine, distinct, func, select

from app.store.engine import read
from app.store.reads.rows import columns_of, counts_of, table_of
from app.store.reads.standing import approvals, limit_marks, pause
from app.store.records import CountsRecord, SourceRecord, StatusRecord
from app.store.tables import Incident, Job, Node, Operation, Pod, SourceStatus, SummaryBlock
from app.store.vectors import HEALTHS, SERVICES

_NODE = table_of(Node)
_SUMMARY = table_of(SummaryBlock)
_JOB = table_of(Job)
_POD = table_of(Pod)
_INCIDENT = table_of(Incident)
_OPERATION = table_of(Operation)
_SOURCE = table_of(SourceStatus)

SOURCE_SILENCE_SECONDS = 45.0
"""A source whose own writer has said nothing for so long is blind, as a node's is (facts/gpu-health.md)."""


def counts(engine: Engine, cluster: str) -> CountsRecord:
    """Counts of the fleet; nodes and GPUs from the kept summary of blocks."""
    with read(engine) as connection:
        return _counts(connection, cluster)


def status(engine: Engine, cluster: str, now: datetime) -> StatusRecord:
    """Counts and sources of one moment. A source not heard for 45 s is blind, whatever it said last."""
    with read(engine) as connection:
        found = _counts(connection, cluster)
        rows = connection.execute(
            select(*columns_of(SourceStatus, SourceRecord))
            .where(_SOURCE.c.cluster == cluster)
            .order_by(_SOURCE.c.source)
        ).all()
        held = pause(connection, cluster)
        waiting = approvals(connection, cluster)
        marks = limit_marks(connection, cluster)
    return StatusRecord(
        cluster=cluster,
        at=now,
        counts=found,
        sources=[_aged(SourceRecord(*row), now) for row in rows],
        pause=held,
        approvals=waiting,
        limits=marks,
    )


def sources(engine: Engine, cluster: str, now: datetime) -> list[SourceRecord]:
    """The sources by name, as `status` gives them."""
    return status(engine, cluster, now).sources


def blocks(engine: Engine, cluster: str) -> dict[str, dict]:
    """The kept summary of each block: {"health", "service", "gpus", "gpus_requested", ...}."""
    with read(engine) as connection:
        rows = connection.execute(
            select(_SUMMARY.c.block, _SUMMARY.c.counts)
            .where(_SUMMARY.c.cluster == cluster)
            .order_by(_SUMMARY.c.block)
        ).all()
    return {str(row[0]): row[1] for row in rows}


def _counts(connection: Connection, cluster: str) -> CountsRecord:
    summaries = [
        row[0]
        for row in connection.execute(
            select(_SUMMARY.c.counts).where(_SUMMARY.c.cluster == cluster)
        )
    ]
    health = _summed(summaries, "health")
    usable = sum(summary["gpus_usable"] for summary in summaries)
    usable_requested = sum(summary["gpus_usable_requested"] for summary in summaries)
    return CountsRecord(
        nodes=sum(health.values()),
        gpus=sum(summary["gpus"] for summary in summaries),
        nodes_by_health=counts_of(list(health.items()), HEALTHS),
        nodes_by_service=counts_of(list(_summed(summaries, "service").items()), SERVICES),
        gpus_by_health=counts_of(list(_summed(summaries, "gpus_by_health").items()), HEALTHS),
        gpus_requested=sum(summary["gpus_requested"] for summary in summaries),
        gpus_usable=usable,
        gpus_free=max(0, usable - usable_requested),
        gpus_on_probation=sum(summary.get("gpus_on_probation", 0) for summary in summaries),
        jobs_running=_one(
            connection,
            select(func.count()).where(_JOB.c.cluster == cluster, _JOB.c.state == "Running"),
        ),
        jobs_at_risk=_one(
            connection,
            select(func.count(distinct(_POD.c.job_uid)))
            .select_from(
                _POD.join(
                    _NODE, (_NODE.c.cluster == _POD.c.cluster) & (_NODE.c.name == _POD.c.node)
                )
            )
            .where(
                _POD.c.cluster == cluster,
                _POD.c.phase.not_in(("Succeeded", "Failed")),
                _NODE.c.health.in_(("Failing", "Unknown")),
            ),
        ),
        incidents_open=_one(
            connection,
            select(func.count()).where(
                _INCIDENT.c.cluster == cluster, _INCIDENT.c.resolved_at.is_(None)
            ),
        ),
        operations_open=_one(
            connection,
            select(func.count()).where(
                _OPERATION.c.cluster == cluster, _OPERATION.c.ended_at.is_(None)
            ),
        ),
    )


def _one(connection: Connection, statement: object) -> int:
    return int(connection.execute(statement).scalar_one())  # type: ignore[call-overload]


def _summed(summaries: list[dict], key: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for summary in summaries:
        for name, count in summary[key].items():
            total[name] = total.get(name, 0) + count
    return total


def _aged(source: SourceRecord, now: datetime) -> SourceRecord:
    silent_seconds = (now - source.updated_at).total_seconds()
    if silent_seconds <= SOURCE_SILENCE_SECONDS:
        return source
    return msgspec.structs.replace(
        source,
        state="blind",
        message=f"not heard for {silent_seconds:.0f} s; its last word: {source.message or source.state}",
    )
