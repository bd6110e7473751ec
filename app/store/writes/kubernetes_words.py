"""What the store says beside Kubernetes's word: of nodes, and of jobs that operations have."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, or_, select, text

from app.store.reads.rows import table_of
from app.store.tables import Operation
from collectors.job_interruptions import AFTERMATH, FAR, NEWS, Span
from collectors.node_conditions import StoreWord

_operation = table_of(Operation)

_word = lru_cache(maxsize=4096)(StoreWord)
"""Nearly all nodes have one of a few words: the same word is then the same object."""


def store_words(connection: Connection, cluster: str) -> dict[str, StoreWord]:
    """The store's word on each node. What nobody has reported lately is not known."""
    counted = connection.execute(
        text(
            "SELECT node, COUNT(DISTINCT COALESCE(gpu_uuid, rule)) AS gpus FROM finding "
            "WHERE cluster = :cluster AND closed_at IS NULL AND severity = 'fatal' GROUP BY node"
        ),
        {"cluster": cluster},
    )
    fatal: dict[str, int] = {row.node: row.gpus for row in counted}
    rows = connection.execute(
        text("SELECT name, gpu_count, reported_health, planned FROM node WHERE cluster = :cluster"),
        {"cluster": cluster},
    )
    words = {}
    for name, gpu_count, health, planned in rows:
        if health is None or health == "Unknown":
            words[name] = _word(None, None, planned)
        else:
            words[name] = _word(gpu_count, fatal.get(name, 0), planned)
    return words


def held_jobs(connection: Connection, cluster: str, now: datetime) -> dict[str, list[Span]]:
    """When operations had each job, by UID, as far as that matters to ranks that ended lately."""
    rows = connection.execute(
        select(
            _operation.c.created_at,
            _operation.c.ended_at,
            _operation.c.plan,
            _operation.c.workloads_state,
        ).where(
            _operation.c.cluster == cluster,
            or_(
                _operation.c.ended_at.is_(None),
                _operation.c.ended_at > now - NEWS - AFTERMATH,
            ),
        )
    )
    held: dict[str, list[Span]] = {}
    for created_at, ended_at, plan, workloads in rows:
        # Kubernetes writes whole seconds: a rank may have ended in the second before.
        since = created_at - timedelta(seconds=1)
        span = Span(since, FAR if ended_at is None else ended_at + AFTERMATH)
        for uid in _jobs_of(plan, workloads):
            held.setdefault(uid, []).append(span)
    return held


def _jobs_of(plan: Mapping[str, Any], workloads: Mapping[str, Any]) -> set[str]:
    planned = {job.get("uid") for job in plan.get("jobs") or ()}
    return {uid for uid in (*workloads, *planned) if uid}
