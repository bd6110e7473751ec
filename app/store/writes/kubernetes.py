"""Storing what Kubernetes says: nodes, pods, jobs, ranks and placements. Written by the active worker alone."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from app.store.frames import refresh_frames
from app.store.writes.bulk import Row, Upsert, clock, select_where_in, update, upsert
from app.store.writes.events import Event, append_events
from app.store.writes.picture import KubernetesChanges, KubernetesNode, RankRow
from collectors.kubernetes import Holder, JobFact, PlacementChange, PlacementKey, PodFact

_TOUCH_AFTER = timedelta(seconds=15)
"""A node's kubernetes_observed_at is moved at most so often: writing it each second would rewrite every row."""

_NODE = Upsert(
    table="node",
    columns=(
        "cluster",
        "name",
        "uid",
        "block",
        "rack",
        "leaf",
        "power_domain",
        "kind",
        "gpu_count_expected",
        "gpu_allocatable",
        "gpu_requested",
        "health",
        "health_reason",
        "health_since",
        "score",
        "service",
        "service_reason",
        "service_since",
        "operation_id",
        "kubernetes_ready",
        "unschedulable",
        "kubernetes_observed_at",
    ),
    key=("cluster", "name"),
    updates=dict.fromkeys(("uid", "block", "rack", "leaf", "power_domain", "kind"))
    | {
        "gpu_count_expected": "COALESCE(old.gpu_count_expected, new.gpu_count_expected)",
        "gpu_allocatable": None,
        "gpu_requested": None,
        "service": None,
        "service_reason": None,
        "service_since": "CASE WHEN old.service = new.service THEN COALESCE(old.service_since, new.service_since) "
        "ELSE new.service_since END",
        "operation_id": None,
        "kubernetes_ready": None,
        "unschedulable": None,
        "kubernetes_observed_at": None,
    },
)

_POD_FIELDS = (
    "namespace",
    "name",
    "node",
    "phase",
    "ready",
    "gpus",
    "rank",
    "job_uid",
    "owner",
    "created_at",
    "started_at",
    "deleted_at",
)
_POD = Upsert(
    table="pod",
    columns=("cluster", "uid", *_POD_FIELDS, "observed_at"),
    key=("cluster", "uid"),
    updates=dict.fromkeys((*_POD_FIELDS, "observed_at")),
)

_JOB_FIELDS = (
    "namespace",
    "name",
    "kind",
    "api_version",
    "team",
    "queue",
    "state",
    "reason",
    "gang",
    "wanted_pods",
    "running_pods",
    "gpus",
    "created_at",
    "started_at",
    "finished_at",
    "generation",
)
_JOB = Upsert(
    table="job",
    columns=("cluster", "uid", *_JOB_FIELDS, "observed_at"),
    key=("cluster", "uid"),
    updates=dict.fromkeys((*_JOB_FIELDS, "observed_at")),
)

_RANK = Upsert(
    table="rank",
    columns=("cluster", "job_uid", "rank", "pod_uid", "pod_name", "node", "phase", "ready"),
    key=("cluster", "job_uid", "rank"),
    updates=dict.fromkeys(("pod_uid", "pod_name", "node", "phase", "ready")),
)

_PLACEMENT = Upsert(
    table="placement",
    columns=("cluster", "pod_uid", "gpu_uuid", "from_at", "job_uid", "rank", "node", "to_at"),
    key=("cluster", "pod_uid", "gpu_uuid", "from_at"),
    updates={},
)


def store_kubernetes(
    connection: Connection, cluster: str, changes: KubernetesChanges, now: datetime
) -> None:
    """Store what changed, and bring frames and summaries up to it where nodes did."""
    if changes.whole:
        _drop_unnamed(connection, cluster, changes, now)
    _store_nodes(connection, cluster, changes.nodes.changed, now)
    _drop_nodes(connection, cluster, changes.nodes.gone, now)
    _store_pods(connection, cluster, changes.pods.changed.values(), now)
    _delete(connection, cluster, "pod", changes.pods.gone)
    _store_jobs(connection, cluster, changes.jobs.changed.values(), now)
    _end_jobs(connection, cluster, changes.jobs.gone, now)
    _store_ranks(connection, cluster, changes.ranks.changed)
    update(
        connection,
        "DELETE FROM rank WHERE cluster = ? AND job_uid = ? AND rank = ?",
        [(cluster, job_uid, rank) for job_uid, rank in sorted(changes.ranks.gone)],
    )
    _store_placements(connection, cluster, changes.placements)
    if changes.whole or changes.nodes.changed or changes.nodes.gone:
        refresh_frames(connection, cluster, now)


def touch_kubernetes(connection: Connection, cluster: str, observed_at: datetime) -> None:
    """Say that Kubernetes was heard of every node it knows, though nothing changed."""
    connection.execute(
        text(
            "UPDATE node SET kubernetes_observed_at = :at WHERE cluster = :cluster AND uid IS NOT NULL "
            "AND (kubernetes_observed_at IS NULL OR kubernetes_observed_at < :before)"
        ),
        {
            "at": clock(connection)(observed_at),
            "cluster": cluster,
            "before": clock(connection)(observed_at - _TOUCH_AFTER),
        },
    )


def open_placements(connection: Connection, cluster: str) -> dict[PlacementKey, Holder]:
    """The intervals that are open: what a worker that starts compares the cluster with."""
    rows = connection.execute(
        text(
            "SELECT pod_uid, node, gpu_uuid, job_uid, rank FROM placement "
            "WHERE cluster = :cluster AND to_at IS NULL"
        ),
        {"cluster": cluster},
    )
    return {PlacementKey(row[0], row[1], row[2]): Holder(row[3], row[4]) for row in rows}


def gpus_of_pods(connection: Connection, cluster: str) -> dict[str, list[str]]:
    """UUIDs of the GPUs that agents see each pod on, by pod UID."""
    rows = connection.execute(
        text(
            "SELECT pod_uid, uuid FROM gpu WHERE cluster = :cluster AND pod_uid IS NOT NULL "
            "AND health <> 'Unknown' ORDER BY uuid"
        ),
        {"cluster": cluster},
    )
    found: dict[str, list[str]] = {}
    for pod_uid, uuid in rows:
        found.setdefault(pod_uid, []).append(uuid)
    return found


def _store_nodes(
    connection: Connection, cluster: str, nodes: Mapping[str, KubernetesNode], now: datetime
) -> None:
    at = clock(connection)(now)
    upsert(
        connection,
        _NODE,
        [
            (
                cluster,
                name,
                node.fact.uid,
                node.fact.block,
                node.fact.rack,
                node.fact.leaf,
                node.fact.power_domain,
                node.fact.kind,
                node.fact.gpu_count_expected,
                node.fact.gpu_allocatable,
                node.fact.gpu_requested,
                "Unknown",
                "no report yet",
                at,
                0,
                node.service,
                node.service_reason,
                at,
                node.operation_id,
                node.fact.ready,
                node.fact.unschedulable,
                at,
            )
            for name, node in sorted(nodes.items())
        ],
    )


def _store_pods(
    connection: Connection, cluster: str, pods: Iterable[PodFact], now: datetime
) -> None:
    upsert(connection, _POD, _fact_rows(connection, cluster, pods, _POD_FIELDS, now))


def _store_jobs(
    connection: Connection, cluster: str, jobs: Iterable[JobFact], now: datetime
) -> None:
    upsert(connection, _JOB, _fact_rows(connection, cluster, jobs, _JOB_FIELDS, now))


def _fact_rows(
    connection: Connection,
    cluster: str,
    facts: Iterable[Any],
    fields: Sequence[str],
    now: datetime,
) -> list[Row]:
    stored = clock(connection)
    at = stored(now)
    return [
        (
            cluster,
            fact.uid,
            *(
                stored(value) if isinstance(value, datetime) else value
                for value in (getattr(fact, name) for name in fields)
            ),
            at,
        )
        for fact in facts
    ]


def _store_ranks(
    connection: Connection, cluster: str, ranks: Mapping[tuple[str, int], RankRow]
) -> None:
    upsert(
        connection,
        _RANK,
        [
            (cluster, job_uid, rank, row.pod_uid, row.pod_name, row.node, row.phase, row.ready)
            for (job_uid, rank), row in sorted(ranks.items())
        ],
    )


def _end_jobs(connection: Connection, cluster: str, uids: Iterable[str], now: datetime) -> None:
    """A job that is gone stays in the store as Removed, unless it had ended before; retention drops it."""
    at = clock(connection)(now)
    gone = sorted(uids)
    update(
        connection,
        "UPDATE job SET reason = CASE WHEN state IN ('Complete', 'Failed') THEN reason "
        "ELSE 'it was removed while it was ' || state END, "
        "state = CASE WHEN state IN ('Complete', 'Failed') THEN state ELSE 'Removed' END, "
        "running_pods = 0, finished_at = COALESCE(finished_at, ?), observed_at = ? "
        "WHERE cluster = ? AND uid = ? AND state <> 'Removed'",
        [(at, at, cluster, uid) for uid in gone],
    )
    update(
        connection,
        "DELETE FROM rank WHERE cluster = ? AND job_uid = ?",
        [(cluster, uid) for uid in gone],
    )


def _store_placements(
    connection: Connection, cluster: str, changes: Sequence[PlacementChange]
) -> None:
    stored = clock(connection)
    update(
        connection,
        "UPDATE placement SET to_at = ? WHERE cluster = ? AND pod_uid = ? AND gpu_uuid = ? AND node = ? "
        "AND to_at IS NULL",
        [
            (stored(change.at), cluster, change.pod_uid, change.gpu_uuid, change.node)
            for change in changes
            if change.kind == "closed"
        ],
    )
    opened = {
        (change.pod_uid, change.gpu_uuid, change.at): change
        for change in changes
        if change.kind == "opened"
    }
    upsert(
        connection,
        _PLACEMENT,
        [
            (
                cluster,
                change.pod_uid,
                change.gpu_uuid,
                stored(change.at),
                change.job_uid,
                change.rank,
                change.node,
                None,
            )
            for change in opened.values()
        ],
    )


def _drop_nodes(connection: Connection, cluster: str, names: Iterable[str], now: datetime) -> None:
    """Forget nodes that the cluster has no more; their open findings end with them."""
    names = frozenset(names)
    gone = sorted(names)
    if not gone:
        return
    at = clock(connection)(now)
    ended = [
        Event(
            at=now,
            node=node,
            kind="finding_closed",
            code=rule,
            severity=severity,
            message="the node was removed from the cluster",
            gpu_uuid=gpu_uuid,
            episode=episode,
        )
        for node, rule, severity, gpu_uuid, episode in select_where_in(
            connection,
            "SELECT node, rule, severity, gpu_uuid, episode FROM finding "
            "WHERE cluster = :cluster AND closed_at IS NULL AND {node IN (:names)}",
            gone,
            cluster=cluster,
        )
        if node in names
    ]
    append_events(connection, cluster, ended)
    update(
        connection,
        "UPDATE finding SET closed_at = ? WHERE cluster = ? AND node = ? AND closed_at IS NULL",
        [(at, cluster, name) for name in gone],
    )
    for statement in (
        "DELETE FROM gpu WHERE cluster = ? AND node = ?",
        "DELETE FROM node WHERE cluster = ? AND name = ?",
    ):
        update(connection, statement, [(cluster, name) for name in gone])


def _drop_unnamed(
    connection: Connection, cluster: str, changes: KubernetesChanges, now: datetime
) -> None:
    """What is stored of Kubernetes and not among the changes is gone: a worker starts from the whole."""
    nodes = _stored(
        connection, cluster, "SELECT name FROM node WHERE cluster = :cluster AND uid IS NOT NULL"
    )
    _drop_nodes(connection, cluster, nodes - changes.nodes.changed.keys(), now)
    pods = _stored(connection, cluster, "SELECT uid FROM pod WHERE cluster = :cluster")
    _delete(connection, cluster, "pod", pods - changes.pods.changed.keys())
    jobs = _stored(
        connection,
        cluster,
        "SELECT uid FROM job WHERE cluster = :cluster AND state NOT IN ('Removed', 'Complete', 'Failed') "
        "UNION SELECT job_uid FROM rank WHERE cluster = :cluster",
    )
    _end_jobs(connection, cluster, jobs - changes.jobs.changed.keys(), now)
    connection.execute(text("DELETE FROM rank WHERE cluster = :cluster"), {"cluster": cluster})


def _stored(connection: Connection, cluster: str, statement: str) -> set[str]:
    return set(connection.execute(text(statement), {"cluster": cluster}).scalars())


def _delete(connection: Connection, cluster: str, table: str, uids: Iterable[str]) -> None:
    update(
        connection,
        f"DELETE FROM {table} WHERE cluster = ? AND uid = ?",
        [(cluster, uid) for uid in sorted(uids)],
    )
