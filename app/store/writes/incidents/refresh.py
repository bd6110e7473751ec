"""Bringing the store's incidents up to what app.incidents says should be open, with their timelines."""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy import update as update_row

from app.incidents.classes import SILENT, class_of, families_of
from app.incidents.domains import family_of_rule
from app.incidents.grouping import group_troubles
from app.incidents.hours import count_gpus, write_job
from app.incidents.hurt import Pods, carry_on, index_pods
from app.incidents.lifetime import (
    FLAPPING_WITHIN_SECONDS,
    HYSTERESIS_SECONDS,
    Before,
    fate_of,
    is_flapping,
    is_return,
    signature_of,
)
from app.incidents.model import DOMAIN_SCOPES, PIPELINE, Fault, Key, Trouble, World
from app.store.writes.bulk import parse_time, select_where_in
from app.store.writes.incidents.facts import node_of_silence, read_faults, read_world
from app.store.writes.incidents.merging import merge
from app.store.writes.incidents.rows import (
    EVENT,
    INCIDENT,
    Row,
    Timeline,
    hurt_words,
    jobs_of,
    read_open,
    read_recent,
    standing_of,
    values_of,
)

TOLD_WITHIN = timedelta(minutes=15)
"""What an incident told of that ended so lately is not told again: an application's XIDs stay open for ten
minutes after the node they came from was repaired."""


@dataclass
class IncidentChanges:
    """Ids of incidents that this refresh opened, changed (reopened among them) and resolved."""

    opened: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)


def refresh_incidents(connection: Connection, cluster: str, now: datetime) -> IncidentChanges:
    """Open, change, merge, reopen and resolve incidents by what the store knows now. Call after age_nodes.

    Writes only what changed.
    """
    rows = read_open(connection, cluster)
    faults = read_faults(connection, cluster)
    if not rows and not faults:
        return IncidentChanges()
    recent = read_recent(connection, cluster, now - TOLD_WITHIN) if faults else []
    told = frozenset(episode for row in recent for episode in row["findings"])
    standing = [standing_of(row) for row in rows]
    world = read_world(connection, cluster, now, faults=faults, standing=standing, told=told)
    refresh = _Refresh(connection, cluster, now, world)
    refresh.run(group_troubles(world, now), rows, recent)
    return refresh.changes


class _Refresh:
    """One refresh in its transaction."""

    def __init__(self, connection: Connection, cluster: str, now: datetime, world: World) -> None:
        self._connection = connection
        self._cluster = cluster
        self._now = now
        self._world = world
        self._pods: Pods = index_pods(world.pods)
        self._timeline = Timeline()
        self.changes = IncidentChanges()

    def run(self, troubles: Sequence[Trouble], rows: Sequence[Row], recent: Sequence[Row]) -> None:
        """Bring every row up to the troubles."""
        known = {(row["scope"], row["subject"]): row for row in rows}
        wanted = {trouble.key for trouble in troubles}
        ended: dict[Key, Row] = {}
        for row in recent:
            if row["merged_into"] is None:
                ended.setdefault((row["scope"], row["subject"]), row)
        homes: dict[str, str] = {}
        for trouble in troubles:
            found = self._bring_up(trouble, known.get(trouble.key), ended.get(trouble.key))
            homes.update(dict.fromkeys(trouble.episodes, found))
        for key, row in known.items():
            if key not in wanted:
                self._end(row, homes)
        for row in recent:
            if row["scope"] == "job" and row["merged_into"] is None:
                self._explain_late(row, homes)
        self._timeline.write(self._connection)

    def _bring_up(self, trouble: Trouble, row: Row | None, ended: Row | None) -> str:
        if row is None:
            if ended is not None and self._has_returned(trouble, ended):
                self._return(trouble, ended, reopened=True)
                return str(ended["id"])
            return self._open(trouble)
        if row["held_open_by"] is not None or self._goes_on(trouble, row):
            self._change(trouble, row)
        elif self._has_returned(trouble, row):
            self._return(trouble, row, reopened=False)
        else:
            self._resolve(row, "every fault of it is gone; what came since is a new episode")
            return self._open(trouble)
        return str(row["id"])

    def _goes_on(self, trouble: Trouble, row: Row) -> bool:
        """Whether what is open is what was open at the last look, rather than something that came since."""
        had = set(row["findings"])
        if any(fault.episode in had for fault in _main(trouble)):
            return True
        if row["ended_at"] is not None:
            return False
        node = self._world.nodes.get(trouble.first.node)
        booted = (row["first"] or {}).get("boot_id")
        if node is not None and booted and node.boot_id and booted != node.boot_id:
            return False
        before = self._before(row)
        # A fault that began before the last one ended (another source took over, say) continues it.
        return min(fault.opened_at for fault in trouble.roots) <= before.ended_at

    def _has_returned(self, trouble: Trouble, row: Row) -> bool:
        ended_at = row["ended_at"] or row["resolved_at"]
        if ended_at is not None and self._now - ended_at > 2 * timedelta(
            seconds=HYSTERESIS_SECONDS
        ):
            return False
        before = self._before(row)
        node = self._world.nodes.get(trouble.first.node)
        return is_return(before, trouble, node.boot_id if node is not None else None)

    def _before(self, row: Row) -> Before:
        """What had ended: its findings' rules, nodes and GPUs, and when the last of them ended."""
        scope = row["scope"]
        episodes: list[str] = list(row["findings"])
        signatures = set()
        ends: list[datetime] = []
        for episode in episodes:
            node = node_of_silence(episode)
            if node is not None:
                signatures.add(signature_of(scope, _bare(SILENT, node)))
        for episode, rule, node, gpu_uuid, closed_at in select_where_in(
            self._connection,
            "SELECT episode, rule, node, gpu_uuid, closed_at FROM finding "
            "WHERE cluster = :cluster AND {episode IN (:names)}",
            episodes[-500:],
            cluster=self._cluster,
        ):
            if episode in episodes:
                signatures.add(signature_of(scope, _bare(rule, node, gpu_uuid)))
                closed = parse_time(closed_at)
                if closed is not None:
                    ends.append(closed)
        first = row["first"] or {}
        known_end = row["ended_at"] or row["resolved_at"]
        silent = any(node_of_silence(episode) for episode in episodes)
        return Before(
            scope=scope,
            cause=row["cause"],
            signatures=frozenset(signatures),
            ended_at=known_end or (self._now if silent else max(ends, default=self._now)),
            node=str(first.get("node") or ""),
            boot_id=first.get("boot_id"),
        )

    def _open(self, trouble: Trouble) -> str:
        incident_id = uuid.uuid4().hex[:12]
        before = self._connection.execute(
            select(INCIDENT.c.episode)
            .where(
                INCIDENT.c.cluster == self._cluster,
                INCIDENT.c.scope == trouble.scope,
                INCIDENT.c.subject == trouble.subject,
            )
            .order_by(INCIDENT.c.episode.desc())
            .limit(1)
        ).scalar()
        values = values_of(trouble, None, self._world, self._pods)
        self._connection.execute(
            insert(INCIDENT).values(
                cluster=self._cluster,
                id=incident_id,
                episode=(before or 0) + 1,
                scope=trouble.scope,
                subject=trouble.subject,
                updated_at=self._now,
                ended_at=self._now if trouble.is_over else None,
                **values,
            )
        )
        self._tell(incident_id, "opened", [trouble.title])
        self._tell(incident_id, "consequence", _following(values["consequences"]))
        self._tell(incident_id, "hurt", [hurt_words(job) for job in trouble.jobs])
        self.changes.opened.append(incident_id)
        return incident_id

    def _change(self, trouble: Trouble, row: Row) -> None:
        values = values_of(trouble, row, self._world, self._pods)
        values["ended_at"] = (row["ended_at"] or self._now) if trouble.is_over else None
        self._store(row, values, trouble)

    def _return(self, trouble: Trouble, row: Row, *, reopened: bool) -> None:
        """What had ended is back: the same incident, once more."""
        values = values_of(trouble, row, self._world, self._pods)
        values["ended_at"] = None
        values["flaps"] = row["flaps"] + 1
        since = self._now - timedelta(seconds=FLAPPING_WITHIN_SECONDS)
        returns = [
            at
            for (at,) in self._connection.execute(
                select(EVENT.c.at).where(
                    EVENT.c.cluster == self._cluster,
                    EVENT.c.incident_id == row["id"],
                    EVENT.c.kind == "flapping",
                    EVENT.c.at >= since,
                )
            )
        ]
        values["flapping"] = row["flapping"] or is_flapping([*returns, self._now], self._now)
        if reopened:
            values |= {"resolved_at": None, "resolved_by": None, "resolution": None}
        times = values["flaps"]
        words = f"it came back, {times} {'time' if times == 1 else 'times'} by now"
        self._tell(row["id"], "flapping", [f"{words}: {trouble.title}"])
        self._store(row, values, trouble)

    def _store(self, row: Row, values: dict[str, Any], trouble: Trouble) -> None:
        changed = {name: value for name, value in values.items() if row[name] != value}
        if not changed:
            return
        self._update(row, changed)
        self.changes.changed.append(row["id"])
        had = set(row["findings"])
        new = [fault for fault in trouble.faults if fault.episode not in had]
        self._tell(
            row["id"], "finding", [fault.message for fault in new if _is_own(fault, trouble)]
        )
        later = [fault.message for fault in new if not _is_own(fault, trouble)]
        self._tell(row["id"], "consequence", later)
        self._tell_jobs(row, trouble.jobs)

    def _end(self, row: Row, homes: dict[str, str]) -> None:
        """Its faults are gone, or are told of by another incident now."""
        target = self._taken_by(row, homes)
        if target is not None:
            merge(
                self._connection,
                self._cluster,
                row,
                target,
                timeline=self._timeline,
                now=self._now,
            )
            self.changes.resolved.append(row["id"])
            return
        fate = fate_of(
            ended_at=row["ended_at"],
            flapping=row["flapping"],
            held_open=row["held_open_by"] is not None,
            now=self._now,
        )
        if fate == "resolve":
            quiet = " and has been quiet for ten minutes" if row["flapping"] else ""
            self._resolve(row, f"every fault of it is gone{quiet}")
            return
        jobs = carry_on(jobs_of(row), {}, self._world, self._now)
        values: dict[str, Any] = {
            "ended_at": row["ended_at"] or self._now,
            "jobs": [write_job(job) for job in jobs] or row["jobs"],
            "gpus_hurt": count_gpus(jobs),
        }
        changed = {name: value for name, value in values.items() if row[name] != value}
        if changed:
            self._update(row, changed)
            self.changes.changed.append(row["id"])
            self._tell_jobs(row, jobs)

    def _explain_late(self, row: Row, homes: dict[str, str]) -> None:
        """A job was interrupted and is back; what did it is found only now (a port's hold is 4 minutes)."""
        target = self._taken_by(row, homes)
        if target is not None and row["resolved_by"] is None and self._scope_of(target) != "job":
            merge(
                self._connection,
                self._cluster,
                row,
                target,
                timeline=self._timeline,
                now=self._now,
            )

    def _taken_by(self, row: Row, homes: dict[str, str]) -> str | None:
        """The one incident that tells of all that is still open of it; None where there is none."""
        if row["held_open_by"] is not None:
            return None
        targets = {homes[episode] for episode in row["findings"] if episode in homes}
        if len(targets) != 1:
            return None
        (target,) = targets
        if row["scope"] == PIPELINE and self._scope_of(target) not in DOMAIN_SCOPES:
            return None  # the mass is over; a node that is still missed is another matter
        return target if target != row["id"] else None

    def _scope_of(self, incident_id: str) -> str:
        statement = select(INCIDENT.c.scope).where(
            INCIDENT.c.cluster == self._cluster, INCIDENT.c.id == incident_id
        )
        return str(self._connection.execute(statement).scalar_one())

    def _resolve(self, row: Row, words: str) -> None:
        jobs = [replace(job, until=job.until or self._now) for job in jobs_of(row)]
        self._update(
            row,
            {
                "resolved_at": self._now,
                "ended_at": row["ended_at"] or self._now,
                "jobs": [write_job(job) for job in jobs] or row["jobs"],
                "gpus_hurt": 0,
            },
        )
        self._tell(row["id"], "resolved", [words])
        self.changes.resolved.append(row["id"])

    def _update(self, row: Row, values: dict[str, Any]) -> None:
        self._connection.execute(
            update_row(INCIDENT)
            .where(INCIDENT.c.cluster == self._cluster, INCIDENT.c.id == row["id"])
            .values(updated_at=self._now, **values)
        )

    def _tell(self, incident_id: str, kind: str, messages: Sequence[str]) -> None:
        self._timeline.add_all(self._cluster, incident_id, self._now, kind, messages)

    def _tell_jobs(self, row: Row, jobs: Iterable[Any]) -> None:
        before = {job.uid: job for job in jobs_of(row)}
        hurt, back = [], []
        for job in jobs:
            old = before.get(job.uid)
            if old is None or (old.until is not None and job.until is None):
                hurt.append(hurt_words(job))
            if job.until is not None and (old is None or old.until is None):
                back.append(f"{job.said} is back or has ended")
        self._tell(row["id"], "hurt", hurt)
        self._tell(row["id"], "recovered", back)


def _main(trouble: Trouble) -> list[Fault]:
    """The faults that make it the same incident: its own, not what followed while there are such."""
    own = [fault for fault in trouble.faults if _is_own(fault, trouble)]
    return own or list(trouble.roots)


def _is_own(fault: Fault, trouble: Trouble) -> bool:
    kind = class_of(fault)
    if kind in ("hardware", "absence"):
        return True
    if trouble.scope == "job":
        return kind in ("job", "application")
    if trouble.scope in DOMAIN_SCOPES:
        return (family_of_rule(trouble.cause) or "") in families_of(fault)
    return kind == "application" and class_of(trouble.first) == "application"


def _following(consequences: Sequence[dict[str, Any]]) -> list[str]:
    return [one["message"] for one in consequences]


def _bare(rule: str, node: str, gpu_uuid: str | None = None) -> Fault:
    at = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return Fault("", rule, "critical", node, "", "", at, gpu_uuid=gpu_uuid)
