"""Incidents as the store keeps them: rows to what is judged, troubles to rows, and timelines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from app.incidents.classes import class_of
from app.incidents.hours import count_gpus, read_job, write_job, write_time
from app.incidents.hurt import Pods, job_of
from app.incidents.lifetime import keeps_first
from app.incidents.model import (
    DOMAIN_SCOPES,
    PIPELINE,
    Evidence,
    Fault,
    HurtJob,
    Standing,
    Trouble,
    World,
)
from app.incidents.words import fault_words
from app.store.reads.rows import table_of
from app.store.tables import Incident, IncidentEvent

INCIDENT = table_of(Incident)
EVENT = table_of(IncidentEvent)

MOST_CONSEQUENCES = 50
MOST_EVIDENCE = 120
MOST_FINDINGS = 2000
"""Episodes kept of one incident; open ones are kept whatever their number."""

MOST_EVENTS = 20
"""Findings and jobs told one by one in a timeline at once; the rest are a number."""

Row = Mapping[Any, Any]


@dataclass
class Timeline:
    """Entries to be appended."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        cluster: str,
        incident_id: str,
        at: datetime,
        kind: str,
        message: str,
        author: str = "",
    ) -> None:
        """One entry."""
        self.rows.append(
            {
                "cluster": cluster,
                "incident_id": incident_id,
                "at": at,
                "kind": kind,
                "author": author,
                "message": message,
            }
        )

    def add_all(
        self, cluster: str, incident_id: str, at: datetime, kind: str, messages: Sequence[str]
    ) -> None:
        """Entries of one kind, the first 20 one by one."""
        for message in messages[:MOST_EVENTS]:
            self.add(cluster, incident_id, at, kind, message)
        if len(messages) > MOST_EVENTS:
            self.add(cluster, incident_id, at, kind, f"and {len(messages) - MOST_EVENTS:,} more")

    def write(self, connection: Connection) -> None:
        """Append them."""
        if self.rows:
            connection.execute(insert(EVENT), self.rows)


def read_open(connection: Connection, cluster: str) -> list[Row]:
    """The incidents that are not resolved."""
    statement = select(INCIDENT).where(
        INCIDENT.c.cluster == cluster, INCIDENT.c.resolved_at.is_(None)
    )
    return list(connection.execute(statement).mappings())


def read_recent(connection: Connection, cluster: str, since: datetime) -> list[Row]:
    """The incidents that were resolved since then, the last first."""
    statement = (
        select(INCIDENT)
        .where(INCIDENT.c.cluster == cluster, INCIDENT.c.resolved_at >= since)
        .order_by(INCIDENT.c.resolved_at.desc(), INCIDENT.c.episode.desc())
    )
    return list(connection.execute(statement).mappings())


def standing_of(row: Row) -> Standing:
    """An open incident as the judgement needs it."""
    return Standing(
        id=row["id"],
        scope=row["scope"],
        subject=row["subject"],
        cause=row["cause"],
        opened_at=row["opened_at"],
        findings=frozenset(row["findings"]),
        nodes=frozenset(row["nodes"]),
        first=row["first"] or {},
        jobs=jobs_of(row),
        ended_at=row["ended_at"],
        certainty=row["certainty"],
        certainty_ratio=row["certainty_ratio"],
        arithmetic=tuple(
            Evidence(
                datetime.fromisoformat(one["at"]), one["source"], one["text"], one.get("key", "")
            )
            for one in row["evidence"]
            if str(one.get("key", "")).startswith("topology")
        ),
        held_open=row["held_open_by"] is not None,
    )


def jobs_of(row: Row) -> tuple[HurtJob, ...]:
    """Whom an incident has hurt, as far as it is known since when."""
    return tuple(read_job(job) for job in row["jobs"] if job.get("since"))


def values_of(trouble: Trouble, row: Row | None, world: World, pods: Pods) -> dict[str, Any]:
    """The columns of an incident by what is open now and, where it stands, by what was told of it.

    What failed first, what followed and why it is thought so stay told after it is gone.
    """
    before = row["first"] if row is not None else {}
    kept = row is not None and keeps_first(before or {}, trouble)
    first = before if kept else first_of(trouble.first, world, pods)
    if row is not None and not kept and before and before.get("episode") == first["episode"]:
        # It was told what ran there when it failed; that pods have left since changes nothing.
        first = {
            key: before.get(key) if before.get(key) is not None else value
            for key, value in first.items()
        } | {"message": first["message"]}
    shared = trouble.scope in (PIPELINE, *DOMAIN_SCOPES)
    nodes = sorted({*trouble.nodes, *(row["nodes"] if row is not None else ())})
    # A mass or a domain is counted by all that it has hit, one by what failed first.
    stays = row is not None and (nodes == row["nodes"] if shared else kept)
    values = {
        "severity": trouble.severity,
        "title": row["title"] if row is not None and stays else trouble.title,
        "cause": row["cause"] if kept and row is not None else trouble.cause,
        "action": trouble.action,
        "opened_at": min(row["opened_at"], trouble.opened_at)
        if row is not None
        else trouble.opened_at,
        "jobs": [write_job(job) for job in trouble.jobs],
        "gpus_hurt": count_gpus(trouble.jobs),
        "findings": _findings(trouble, row),
        "nodes": nodes,
        "first": first,
        "consequences": _consequences(trouble, row, first, world, pods),
        "evidence": _evidence(trouble.evidence, row["evidence"] if row is not None else ()),
        "certainty": trouble.certainty,
        "certainty_ratio": trouble.certainty_ratio,
    }
    return values


def first_of(fault: Fault, world: World, pods: Pods) -> dict[str, Any]:
    """The first failure, with the job, rank and pod that it hit where that is one."""
    uid = job_of(fault, pods)
    named = [pods.by_uid[one] for one in fault.pod_uids if one in pods.by_uid]
    there = named or [
        pod for pod in pods.by_node.get(fault.node, ()) if pod.job_uid and pod.until is None
    ]
    pod = there[0] if len(there) == 1 and class_of(fault) != "job" else None
    if uid is None and pod is not None:
        uid = pod.job_uid
    job = world.jobs.get(uid or "")
    node = world.nodes.get(fault.node)
    rank = fault.rank if fault.rank is not None else (pod.rank if pod is not None else None)
    return {
        "at": write_time(fault.opened_at),
        "node": fault.node,
        "gpu_uuid": fault.gpu_uuid,
        "gpu_index": fault.gpu_index,
        "rule": fault.rule,
        "xid": fault.xid,
        "message": fault.message,
        "job": job.said if job is not None else uid,
        "rank": rank,
        "pod": (pod.name or pod.uid) if pod is not None else None,
        "episode": fault.episode,
        "severity": fault.severity,
        "boot_id": node.boot_id if node is not None else None,
    }


def hurt_words(job: HurtJob) -> str:
    """That a job is hurt."""
    return f"{job.said} is hurt: {job.gpus} GPUs"


def _findings(trouble: Trouble, row: Row | None) -> list[str]:
    had = list(row["findings"]) if row is not None else []
    new = sorted(trouble.episodes - set(had))
    findings = [*had, *new]
    if len(findings) > MOST_FINDINGS:
        closed = [one for one in findings if one not in trouble.episodes]
        drop = set(closed[: len(findings) - MOST_FINDINGS])
        findings = [one for one in findings if one not in drop]
    return findings


def _consequences(
    trouble: Trouble, row: Row | None, first: Mapping[str, Any], world: World, pods: Pods
) -> list[dict[str, Any]]:
    told = {
        one["key"]: one for one in (row["consequences"] if row is not None else ()) if "key" in one
    }
    beyond = next(
        (
            one["count"]
            for one in (row["consequences"] if row is not None else ())
            if "count" in one
        ),
        0,
    )
    known = set(row["findings"]) if row is not None else set()
    new = 0
    for fault in trouble.faults:
        if fault.episode == first.get("episode"):
            told.pop(fault.episode, None)
            continue
        if fault.episode in told or len(told) < MOST_CONSEQUENCES:
            told[fault.episode] = _consequence(fault, world, pods)
        elif fault.episode not in known:
            new += 1
    found = sorted(told.values(), key=lambda one: (one["at"], one["key"]))
    if beyond + new:
        count = beyond + new
        found.append({"kind": "more", "count": count, "message": f"and {count:,} more"})
    return found


def _consequence(fault: Fault, world: World, pods: Pods) -> dict[str, Any]:
    uid = job_of(fault, pods)
    job = world.jobs.get(uid or "")
    return {
        "at": write_time(fault.opened_at),
        "kind": class_of(fault),
        "node": fault.node,
        "gpu_uuid": fault.gpu_uuid,
        "job": job.said if job is not None else uid,
        "rank": fault.rank,
        "message": fault_words(fault),
        "key": fault.episode,
    }


def _evidence(new: Iterable[Evidence], before: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    told = {str(one.get("key") or one["text"]): dict(one) for one in before}
    for one in new:
        if one.key in told or len(told) < MOST_EVIDENCE:
            told[one.key] = {
                "at": write_time(one.at),
                "source": one.source,
                "text": one.text,
                "key": one.key,
            }
    return list(told.values())
