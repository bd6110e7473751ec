"""A person's word on an incident: taken up, noted, resolved, reopened. In the caller's transaction.

Each leaves an entry in the incident's timeline with its author; who calls writes the audit. Raises
RequestRefused, nothing being kept then.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy import update as update_row

from app.errors import RequestRefused
from app.incidents.classes import is_event
from app.incidents.hours import write_job
from app.incidents.lifetime import holds_open
from app.incidents.model import Fault
from app.incidents.words import fault_words
from app.store.writes.bulk import clock, select_where_in, update
from app.store.writes.central import judge_again
from app.store.writes.events import Event, append_events
from app.store.writes.incidents.facts import node_of_silence, read_silent, time_of
from app.store.writes.incidents.rows import EVENT, INCIDENT, Row, jobs_of
from app.store.writes.node_health import Beside, combine_health

MAX_TEXT_LENGTH = 2000
MAX_OWNER_LENGTH = 200


def acknowledge(
    connection: Connection, cluster: str, incident_id: str, *, author: str, now: datetime
) -> None:
    """Somebody has seen it. Who was first stays named."""
    row = _open_one(connection, cluster, incident_id)
    if row["acknowledged_by"] is None:
        _set(connection, row, {"acknowledged_by": author, "acknowledged_at": now}, now)
    _tell(connection, row, now, kind="acknowledged", author=author, message="")


def own(
    connection: Connection,
    cluster: str,
    incident_id: str,
    *,
    owner: str,
    author: str,
    now: datetime,
) -> None:
    """Somebody works on it; an empty owner is the author."""
    row = _open_one(connection, cluster, incident_id)
    owner = owner.strip() or author
    if len(owner) > MAX_OWNER_LENGTH:
        raise RequestRefused(f"An owner has at most {MAX_OWNER_LENGTH} characters.")
    _set(connection, row, {"owner": owner}, now)
    _tell(connection, row, now, kind="owned", author=author, message=owner)


def note(
    connection: Connection,
    cluster: str,
    incident_id: str,
    *,
    words: str,
    author: str,
    now: datetime,
) -> None:
    """Something that others should know."""
    row = _open_one(connection, cluster, incident_id)
    words = _worded(words, "A note")
    _set(connection, row, {}, now)
    _tell(connection, row, now, kind="note", author=author, message=words)


def resolve(
    connection: Connection,
    cluster: str,
    incident_id: str,
    *,
    words: str,
    author: str,
    now: datetime,
) -> list[str]:
    """It is over: closes what only tells of something that happened (XIDs) and gives the nodes judged anew.

    Refused while a fault still holds: that one ends by itself when it is gone.
    """
    row = _open_one(connection, cluster, incident_id)
    words = _worded(words, "A resolution")
    faults = _open_faults(connection, cluster, row["findings"])
    _refuse_while_held(connection, cluster, row, faults)
    nodes = _close(connection, cluster, faults, author=author, now=now)
    jobs = [replace(job, until=job.until or now) for job in jobs_of(row)]
    _set(
        connection,
        row,
        {
            "resolved_at": now,
            "ended_at": row["ended_at"] or now,
            "resolved_by": author,
            "resolution": words,
            "held_open_by": None,
            "jobs": [write_job(job) for job in jobs] or row["jobs"],
            "gpus_hurt": 0,
        },
        now,
    )
    _tell(connection, row, now, kind="resolved", author=author, message=words)
    return nodes


def reopen(
    connection: Connection,
    cluster: str,
    incident_id: str,
    *,
    words: str,
    author: str,
    now: datetime,
) -> None:
    """It is not over: open until a person resolves it."""
    row = _one(connection, cluster, incident_id)
    words = _worded(words, "A reopening")
    if row["resolved_at"] is None:
        raise RequestRefused(f"Incident {incident_id} is open already.", code="conflict")
    if row["merged_into"] is not None:
        raise RequestRefused(
            f"Incident {incident_id} is told as a consequence of {row['merged_into']}: reopen that one.",
            code="conflict",
        )
    other = connection.execute(
        select(INCIDENT.c.id).where(
            INCIDENT.c.cluster == cluster,
            INCIDENT.c.scope == row["scope"],
            INCIDENT.c.subject == row["subject"],
            INCIDENT.c.resolved_at.is_(None),
        )
    ).scalar()
    if other is not None:
        raise RequestRefused(
            f"Incident {other} of the same {row['scope']} is open: add to that one.",
            code="conflict",
        )
    values = {"resolved_at": None, "resolved_by": None, "resolution": None, "held_open_by": author}
    _set(connection, row, values, now)
    _tell(connection, row, now, kind="reopened", author=author, message=words)


def _one(connection: Connection, cluster: str, incident_id: str) -> Row:
    row = (
        connection.execute(
            select(INCIDENT)
            .where(INCIDENT.c.cluster == cluster, INCIDENT.c.id == incident_id)
            .with_for_update()
        )
        .mappings()
        .first()
    )
    if row is None:
        raise RequestRefused(
            f"There is no incident {incident_id or '(none named)'}: see `pitwall incidents`.",
            code="not_found",
        )
    return row


def _open_one(connection: Connection, cluster: str, incident_id: str) -> Row:
    row = _one(connection, cluster, incident_id)
    if row["merged_into"] is not None:
        raise RequestRefused(
            f"Incident {incident_id} is told as a consequence of {row['merged_into']}: turn to that one.",
            code="conflict",
        )
    if row["resolved_at"] is not None:
        raise RequestRefused(
            f"Incident {incident_id} is resolved: reopen it, or turn to the one that is open.",
            code="conflict",
        )
    return row


def _worded(words: str, what: str) -> str:
    words = words.strip()
    if not words:
        raise RequestRefused(f"{what} needs a text: others will read it.")
    if len(words) > MAX_TEXT_LENGTH:
        raise RequestRefused(f"{what} has at most {MAX_TEXT_LENGTH:,} characters.")
    return words


def _open_faults(connection: Connection, cluster: str, episodes: Iterable[str]) -> list[Fault]:
    """The open findings among these episodes, the first first."""
    names = sorted(set(episodes))
    wanted = frozenset(names)
    found = []
    for episode, rule, severity, node, message, opened_at, gpu_uuid, changes in select_where_in(
        connection,
        "SELECT episode, rule, severity, node, message, opened_at, gpu_uuid, changes_health "
        "FROM finding WHERE cluster = :cluster AND closed_at IS NULL AND {episode IN (:names)}",
        names,
        cluster=cluster,
    ):
        if episode in wanted:
            fault = Fault(
                episode,
                rule,
                severity,
                node,
                message,
                "",
                time_of(opened_at),
                gpu_uuid=gpu_uuid,
                changes_health=bool(changes),
            )
            found.append(fault)
    return sorted(found, key=lambda fault: fault.opened_at)


def _refuse_while_held(connection: Connection, cluster: str, row: Row, faults: list[Fault]) -> None:
    holding = [
        fault_words(fault)
        for fault in faults
        if holds_open(fault, scope=row["scope"], cause=row["cause"])
    ]
    silent = read_silent(connection, cluster)
    told = set(row["findings"])
    holding += [
        fault.message for fault in silent if fault.episode in told or _names(told, fault.node)
    ]
    if not holding:
        return
    more = f" (and {len(holding) - 1} more)" if len(holding) > 1 else ""
    remedy = "restart the job" if row["scope"] == "job" else "drain or repair what fails"
    raise RequestRefused(
        f"{holding[0].rstrip('.')}{more}, and that is still so: {remedy}; the incident resolves by itself.",
        code="conflict",
    )


def _names(told: Iterable[str], node: str) -> bool:
    return any(node_of_silence(episode) == node for episode in told)


def _close(
    connection: Connection,
    cluster: str,
    faults: list[Fault],
    *,
    author: str,
    now: datetime,
) -> list[str]:
    """Close findings that a person may close, and judge their nodes anew. The agent is told by ingest."""
    closing = [fault for fault in faults if is_event(fault.rule)]
    if not closing:
        return []
    stored = clock(connection)
    update(
        connection,
        "UPDATE finding SET closed_at = ?, closed_by = ? "
        "WHERE cluster = ? AND episode = ? AND closed_at IS NULL",
        [(stored(now), author, cluster, fault.episode) for fault in closing],
    )
    append_events(
        connection,
        cluster,
        [
            Event(
                at=now,
                node=fault.node,
                kind="finding_closed",
                code=fault.rule,
                severity=fault.severity,
                message=f"closed by {author}",
                gpu_uuid=fault.gpu_uuid,
                episode=fault.episode,
            )
            for fault in closing
        ],
    )
    names = sorted({fault.node for fault in closing if fault.node and fault.changes_health})
    _judge_reports(connection, cluster, names)
    judge_again(connection, cluster, names, now)
    return names


def _judge_reports(connection: Connection, cluster: str, names: list[str]) -> None:
    """What the nodes' own reports make of them without what was closed; the next report says it itself."""
    left: dict[str, list[Beside]] = {name: [] for name in names}
    for node, source, severity, message, opened_at, changes in select_where_in(
        connection,
        "SELECT node, source, severity, message, opened_at, changes_health FROM finding "
        "WHERE cluster = :cluster AND closed_at IS NULL AND {node IN (:names)}",
        names,
        cluster=cluster,
    ):
        if node in left and changes and source in ("agent", "dcgm"):
            left[node].append(Beside(severity, message, opened_at))
    rows = []
    for name, findings in left.items():
        health, reason = combine_health("Healthy", "no open finding", findings)
        rows.append((health, reason, cluster, name))
    update(
        connection,
        "UPDATE node SET reported_health = ?, reported_reason = ? "
        "WHERE cluster = ? AND name = ? AND reported_health IN ('Failing', 'Degraded')",
        rows,
    )


def _set(connection: Connection, row: Row, values: dict[str, Any], now: datetime) -> None:
    connection.execute(
        update_row(INCIDENT)
        .where(INCIDENT.c.cluster == row["cluster"], INCIDENT.c.id == row["id"])
        .values(updated_at=now, **values)
    )


def _tell(
    connection: Connection, row: Row, now: datetime, *, kind: str, author: str, message: str
) -> None:
    connection.execute(
        insert(EVENT).values(
            cluster=row["cluster"],
            incident_id=row["id"],
            at=now,
            kind=kind,
            author=author,
            message=message,
        )
    )
