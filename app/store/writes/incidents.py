"""Bringing the store's incidents up to what app.incidents says should be open, with their timelines."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, text
from sqlalchemy import update as update_row

from app.incidents import Fault, HurtJob, NodeTrouble, Trouble, group_troubles
from app.store.reads.rows import table_of
from app.store.tables import Incident, IncidentEvent
from app.store.writes.bulk import parse_time, select_where_in

_INCIDENT = table_of(Incident)
_EVENT = table_of(IncidentEvent)

_FAULTS = """
SELECT node, episode, rule, severity, message, action, opened_at FROM finding
WHERE cluster = :cluster AND closed_at IS NULL AND severity IN ('critical', 'fatal')
"""
_SILENT = """
SELECT name, observed_at, received_at FROM node
WHERE cluster = :cluster AND health = 'Unknown' AND health_reason LIKE 'no report since %'
"""
_HEARD = "SELECT COUNT(*) FROM node WHERE cluster = :cluster AND observed_at IS NOT NULL"
_HURT = """
SELECT pod.node, job.uid, job.namespace, job.name, SUM(pod.gpus), MAX(job.gpus),
       MAX(CASE WHEN job.gang THEN 1 ELSE 0 END)
FROM pod JOIN job ON job.cluster = pod.cluster AND job.uid = pod.job_uid
WHERE pod.cluster = :cluster AND pod.phase NOT IN ('Succeeded', 'Failed') AND {pod.node IN (:names)}
GROUP BY pod.node, job.uid, job.namespace, job.name
"""


@dataclass
class IncidentChanges:
    """Ids of incidents that this refresh opened, changed and resolved."""

    opened: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)


def refresh_incidents(connection: Connection, cluster: str, now: datetime) -> IncidentChanges:
    """Open, change and resolve incidents by what the store knows now. Call after age_nodes."""
    wanted = {
        (trouble.scope, trouble.subject): trouble
        for trouble in group_troubles(
            _troubles(connection, cluster), nodes_total=_heard(connection, cluster), now=now
        )
    }
    rows = connection.execute(
        select(_INCIDENT).where(_INCIDENT.c.cluster == cluster, _INCIDENT.c.resolved_at.is_(None))
    ).mappings()
    known = {(row["scope"], row["subject"]): row for row in rows}
    changes = IncidentChanges()
    for key, row in known.items():
        if key not in wanted:
            _resolve(connection, cluster, row["id"], now)
            changes.resolved.append(row["id"])
        elif _change(connection, cluster, row, wanted[key], now):
            changes.changed.append(row["id"])
    for key, trouble in wanted.items():
        if key not in known:
            changes.opened.append(_open(connection, cluster, trouble, now))
    return changes


def _troubles(connection: Connection, cluster: str) -> list[NodeTrouble]:
    faults: dict[str, list[Fault]] = {}
    for node, episode, rule, severity, message, action, opened_at in connection.execute(
        text(_FAULTS), {"cluster": cluster}
    ):
        fault = Fault(episode, rule, severity, message, action, _time(opened_at))
        faults.setdefault(node, []).append(fault)
    silent = {
        name: min(_time(observed_at), _time(received_at))
        for name, observed_at, received_at in connection.execute(
            text(_SILENT), {"cluster": cluster}
        )
    }
    names = sorted({*faults, *silent})
    jobs = _jobs(connection, cluster, names)
    return [
        NodeTrouble(name, faults.get(name, ()), silent.get(name), jobs.get(name, ()))
        for name in names
    ]


def _jobs(connection: Connection, cluster: str, nodes: Sequence[str]) -> dict[str, list[HurtJob]]:
    found: dict[str, list[HurtJob]] = {}
    for node, uid, namespace, name, there, whole, gang in select_where_in(
        connection, _HURT, nodes, cluster=cluster
    ):
        gpus = max(int(whole), int(there)) if gang else int(there)
        found.setdefault(node, []).append(HurtJob(uid, namespace, name, gpus))
    return found


def _heard(connection: Connection, cluster: str) -> int:
    return int(connection.execute(text(_HEARD), {"cluster": cluster}).scalar_one())


def _open(connection: Connection, cluster: str, trouble: Trouble, now: datetime) -> str:
    incident_id = uuid.uuid4().hex[:12]
    before = connection.execute(
        select(_INCIDENT.c.episode)
        .where(
            _INCIDENT.c.cluster == cluster,
            _INCIDENT.c.scope == trouble.scope,
            _INCIDENT.c.subject == trouble.subject,
        )
        .order_by(_INCIDENT.c.episode.desc())
        .limit(1)
    ).scalar()
    connection.execute(
        insert(_INCIDENT).values(
            cluster=cluster,
            id=incident_id,
            episode=(before or 0) + 1,
            scope=trouble.scope,
            subject=trouble.subject,
            severity=trouble.severity,
            title=trouble.title,
            cause=trouble.cause,
            action=trouble.action,
            opened_at=trouble.opened_at,
            updated_at=now,
            jobs=[_document(job) for job in trouble.jobs],
            gpus_hurt=sum(job.gpus for job in trouble.jobs),
            findings=list(trouble.faults),
        )
    )
    _note(connection, cluster, incident_id, now, "opened", trouble.title)
    for job in trouble.jobs:
        _note(connection, cluster, incident_id, now, "hurt", _hurt_words(job))
    return incident_id


def _change(
    connection: Connection,
    cluster: str,
    row: Mapping[Any, Any],
    trouble: Trouble,
    now: datetime,
) -> bool:
    # Whom it has hurt stays said after they were moved away; what it hurts is counted from now.
    hurt = {job["uid"]: job for job in row["jobs"]}
    new_jobs = [job for job in trouble.jobs if job.uid not in hurt]
    hurt.update({job.uid: _document(job) for job in trouble.jobs})
    new_faults = [episode for episode in trouble.faults if episode not in row["findings"]]
    values = {
        "severity": trouble.severity,
        "title": trouble.title,
        "cause": trouble.cause,
        "action": trouble.action,
        "jobs": list(hurt.values()),
        "gpus_hurt": max(row["gpus_hurt"], sum(job.gpus for job in trouble.jobs)),
        "findings": [*row["findings"], *new_faults],
    }
    if all(row[name] == value for name, value in values.items()):
        return False
    connection.execute(
        update_row(_INCIDENT)
        .where(_INCIDENT.c.cluster == cluster, _INCIDENT.c.id == row["id"])
        .values(updated_at=now, **values)
    )
    if new_faults or row["cause"] != trouble.cause:
        _note(connection, cluster, row["id"], now, "finding", trouble.title)
    for job in new_jobs:
        _note(connection, cluster, row["id"], now, "hurt", _hurt_words(job))
    return True


def _resolve(connection: Connection, cluster: str, incident_id: str, now: datetime) -> None:
    connection.execute(
        update_row(_INCIDENT)
        .where(_INCIDENT.c.cluster == cluster, _INCIDENT.c.id == incident_id)
        .values(resolved_at=now, updated_at=now)
    )
    _note(connection, cluster, incident_id, now, "resolved", "every fault of it is gone")


def _note(
    connection: Connection, cluster: str, incident_id: str, at: datetime, kind: str, message: str
) -> None:
    connection.execute(
        insert(_EVENT).values(
            cluster=cluster, incident_id=incident_id, at=at, kind=kind, author="", message=message
        )
    )


def _document(job: HurtJob) -> dict[str, Any]:
    return {"uid": job.uid, "namespace": job.namespace, "name": job.name, "gpus": job.gpus}


def _hurt_words(job: HurtJob) -> str:
    return f"{job.namespace}/{job.name} is hurt: {job.gpus} GPUs"


def _time(value: Any) -> datetime:
    at = parse_time(value)
    assert at is not None
    return at
