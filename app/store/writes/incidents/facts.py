"""What incidents are judged by, read from the store: open faults, and the nodes, pods and jobs they reach.

A quiet fleet costs two reads; the sizes of racks and leaves are counted only where three of their nodes
have troubles of one family.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from app.incidents.classes import APPLICATION_RULES, NOT_READY, SILENT, class_of
from app.incidents.domains import LEAST_NODES, places_to_count
from app.incidents.model import (
    PIPELINE,
    Fault,
    JobFact,
    NodeFact,
    PodFact,
    Standing,
    World,
)
from app.incidents.words import SILENT_ACTION, silent_message
from app.store.writes.bulk import clock, parse_time, select_where_in

LEFT_WITHIN = timedelta(minutes=15)
"""A pod that left so lately may have been what a fault hit: a crash is replaced within seconds, and the
fault told a minute later."""

PLACE_COLUMNS = {"leaf": "leaf", "rack": "rack", "power": "power_domain", "block": "block"}

_FAULTS = """
SELECT finding.episode, finding.rule, finding.severity, finding.node, finding.message, finding.action,
       finding.opened_at, finding.source, finding.gpu_uuid, gpu."index", finding.xid, finding.job_uid,
       finding.rank, finding.pod_uids, finding.changes_health, gpu.pod_uid
FROM finding LEFT JOIN gpu ON gpu.cluster = finding.cluster AND gpu.uuid = finding.gpu_uuid
WHERE finding.cluster = :cluster AND finding.closed_at IS NULL AND finding.severity <> 'advice'
"""
_SILENT = """
SELECT name, observed_at, received_at FROM node
WHERE cluster = :cluster AND reported_health = 'Unknown'
  AND reported_reason LIKE 'no report since %' AND observed_at IS NOT NULL
"""
_NODES = """
SELECT name, leaf, rack, power_domain, block, boot_id, observed_at, planned, service, service_since,
       kubernetes_ready
FROM node WHERE cluster = :cluster AND {name IN (:names)}
"""
_PODS = """
SELECT uid, name, node, job_uid, rank, gpus, started_at, deleted_at FROM pod
WHERE cluster = :cluster AND phase NOT IN ('Succeeded', 'Failed') AND {node IN (:names)}
"""
_LEFT = """
SELECT pod_uid, node, job_uid, rank, from_at, to_at, gpu_uuid FROM placement
WHERE cluster = :cluster AND to_at >= :since AND {node IN (:names)}
"""
_JOBS = """
SELECT uid, namespace, name, gang, gpus, state, wanted_pods, running_pods, finished_at FROM job
WHERE cluster = :cluster AND {uid IN (:names)}
"""
_BLIND = "SELECT state FROM source_status WHERE cluster = :cluster AND source = 'kubernetes'"
_OFF = ("Drained", "Under repair")


def read_faults(connection: Connection, cluster: str) -> list[Fault]:
    """The open findings, and each silent node's silence as a fault of its own."""
    faults = [_fault(row) for row in connection.execute(text(_FAULTS), {"cluster": cluster})]
    return [*faults, *read_silent(connection, cluster)]


def read_silent(connection: Connection, cluster: str) -> list[Fault]:
    """Each silent node's silence, since it was last heard."""
    faults = []
    for name, observed_at, received_at in connection.execute(text(_SILENT), {"cluster": cluster}):
        since = time_of(observed_at)
        if received_at is not None:
            since = min(since, time_of(received_at))
        faults.append(
            Fault(
                episode=silent_episode(name, since),
                rule=SILENT,
                severity="critical",
                node=name,
                message=silent_message(name, since),
                action=SILENT_ACTION,
                opened_at=since,
                source="ingest",
            )
        )
    return faults


def silent_episode(node: str, since: datetime) -> str:
    """What a node's silence is known by; a node's name holds no slash."""
    return f"{SILENT}/{node}/{since:%Y%m%dT%H%M%S.%fZ}"


def node_of_silence(episode: str) -> str | None:
    """The node of a silence, None where the episode is a finding's."""
    rule, _, rest = episode.partition("/")
    return rest.partition("/")[0] if rule == SILENT else None


def read_world(
    connection: Connection,
    cluster: str,
    now: datetime,
    *,
    faults: Sequence[Fault],
    standing: Sequence[Standing],
    told: frozenset[str],
) -> World:
    """All that these faults and incidents reach."""
    hurt_on = sorted({fault.node for fault in faults if fault.node and _may_hurt(fault)})
    names = {fault.node for fault in faults if fault.node}
    for one in standing:
        names |= one.nodes
    nodes = _nodes(connection, cluster, sorted(names))
    pods = list(_pods(connection, cluster, hurt_on))
    there = {pod.uid for pod in pods}
    left = _left(connection, cluster, hurt_on, since=now - LEFT_WITHIN)
    pods.extend(pod for pod in left if pod.uid not in there)
    uids = {pod.job_uid for pod in pods} | {fault.job_uid for fault in faults}
    uids |= {job.uid for one in standing for job in one.jobs if job.until is None}
    places = places_to_count(faults, nodes, (one.key for one in standing))
    return World(
        faults=_with_pods(faults, pods),
        nodes=nodes,
        jobs=_jobs(connection, cluster, sorted(uid for uid in uids if uid is not None)),
        pods=pods,
        standing=standing,
        sizes=_sizes(connection, cluster, places),
        nodes_known=_count(connection, cluster, "") if places else 0,
        nodes_heard=_count(connection, cluster, "AND observed_at IS NOT NULL")
        if _may_be_mass(faults, standing)
        else 0,
        told=told,
        blind=_blind(connection, cluster) if faults else (),
    )


def time_of(value: Any) -> datetime:
    """A time that is there, as a raw read gives it."""
    at = parse_time(value)
    assert at is not None
    return at


def _fault(row: Any) -> Fault:
    episode, rule, severity, node, message, action, opened_at, source = row[:8]
    gpu_uuid, gpu_index, xid, job_uid, rank, pod_uids, changes_health, gpu_pod = row[8:]
    named = tuple(pod_uids.split(",")) if pod_uids else ()
    if not named and gpu_pod and rule in APPLICATION_RULES:
        named = (gpu_pod,)
    return Fault(
        episode=episode,
        rule=rule,
        severity=severity,
        node=node,
        message=message,
        action=action,
        opened_at=time_of(opened_at),
        source=source,
        gpu_uuid=gpu_uuid,
        gpu_index=gpu_index,
        xid=xid,
        job_uid=job_uid,
        rank=rank,
        pod_uids=named,
        changes_health=bool(changes_health),
    )


def _with_pods(faults: Iterable[Fault], pods: Iterable[PodFact]) -> list[Fault]:
    """The faults without pods that came only after them."""
    came = {pod.uid: pod.since for pod in pods if pod.since is not None}
    fitting = []
    for fault in faults:
        late = [uid for uid in fault.pod_uids if uid in came and came[uid] > fault.opened_at]
        if late:
            fault = replace(fault, pod_uids=tuple(uid for uid in fault.pod_uids if uid not in late))
        fitting.append(fault)
    return fitting


def _may_hurt(fault: Fault) -> bool:
    return class_of(fault) in ("hardware", "absence", "application", "job")


def _nodes(connection: Connection, cluster: str, names: Sequence[str]) -> dict[str, NodeFact]:
    wanted = frozenset(names)
    found = {}
    for name, leaf, rack, power, block, *rest in _select(connection, _NODES, names, cluster):
        if name not in wanted:
            continue
        boot_id, observed_at, planned, service, service_since, ready = rest
        off_since = parse_time(service_since) if service in _OFF else None
        places = {"leaf": leaf, "rack": rack, "power": power, "block": block}
        found[name] = NodeFact(
            name=name,
            places={kind: place for kind, place in places.items() if place},
            boot_id=boot_id,
            reported=observed_at is not None,
            planned=planned,
            off_since=off_since,
            kubernetes_ready=None if ready is None else bool(ready),
        )
    return found


def _pods(connection: Connection, cluster: str, nodes: Sequence[str]) -> Iterator[PodFact]:
    wanted = frozenset(nodes)
    for uid, name, node, job_uid, rank, gpus, started_at, deleted_at in _select(
        connection, _PODS, nodes, cluster
    ):
        if node in wanted:
            yield PodFact(
                uid=uid,
                name=name,
                node=node,
                job_uid=job_uid,
                rank=rank,
                gpus=int(gpus),
                since=parse_time(started_at),
                is_leaving=deleted_at is not None,
            )


def _left(
    connection: Connection, cluster: str, nodes: Sequence[str], *, since: datetime
) -> list[PodFact]:
    """Pods that left these nodes lately, with the GPUs they held as far as known."""
    wanted = frozenset(nodes)
    found: dict[str, PodFact] = {}
    for pod_uid, node, job_uid, rank, from_at, to_at, gpu_uuid in select_where_in(
        connection, _LEFT, nodes, cluster=cluster, since=clock(connection)(since)
    ):
        if node not in wanted:
            continue
        before = found.get(pod_uid)
        began, left = time_of(from_at), time_of(to_at)
        if before is not None and before.since is not None and before.until is not None:
            began, left = min(began, before.since), max(left, before.until)
        found[pod_uid] = PodFact(
            uid=pod_uid,
            name="",
            node=node,
            job_uid=job_uid,
            rank=rank,
            gpus=(before.gpus if before else 0) + (1 if gpu_uuid else 0),
            since=began,
            until=left,
        )
    return list(found.values())


def _jobs(connection: Connection, cluster: str, uids: Sequence[str]) -> dict[str, JobFact]:
    wanted = frozenset(uids)
    return {
        uid: JobFact(
            uid=uid,
            namespace=namespace,
            name=name,
            gang=bool(gang),
            gpus=int(gpus),
            state=state,
            wanted_pods=int(wanted_pods),
            running_pods=int(running),
            finished_at=parse_time(finished_at),
        )
        for uid, namespace, name, gang, gpus, state, wanted_pods, running, finished_at in _select(
            connection, _JOBS, uids, cluster
        )
        if uid in wanted
    }


def _sizes(
    connection: Connection, cluster: str, places: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    by_kind: dict[str, list[str]] = {}
    for kind, name in sorted(places):
        by_kind.setdefault(kind, []).append(name)
    sizes = {}
    # What holds the very same nodes is found among the others' domains, so each is counted.
    for kind, names in by_kind.items():
        column = PLACE_COLUMNS[kind]
        statement = (
            f'SELECT "{column}", COUNT(*) FROM node WHERE cluster = :cluster '
            f'AND {{"{column}" IN (:names)}} GROUP BY "{column}"'
        )
        for name, count in _select(connection, statement, names, cluster):
            sizes[kind, name] = int(count)
    return sizes


def _count(connection: Connection, cluster: str, condition: str) -> int:
    statement = f"SELECT COUNT(*) FROM node WHERE cluster = :cluster {condition}"
    return int(connection.execute(text(statement), {"cluster": cluster}).scalar_one())


def _may_be_mass(faults: Iterable[Fault], standing: Iterable[Standing]) -> bool:
    missed: Mapping[str, list[str]] = {SILENT: [], NOT_READY: []}
    for fault in faults:
        if fault.rule in missed:
            missed[fault.rule].append(fault.node)
    if any(one.scope == PIPELINE for one in standing):
        return True
    return any(len(nodes) >= LEAST_NODES for nodes in missed.values())


def _blind(connection: Connection, cluster: str) -> tuple[str, ...]:
    state = connection.execute(text(_BLIND), {"cluster": cluster}).scalar()
    if state is None or state == "ok":
        return ()
    return ("Kubernetes was not heard at this time: whom this hurts is as it last said",)


def _select(
    connection: Connection, statement: str, names: Sequence[str], cluster: str
) -> Iterator[Any]:
    return select_where_in(connection, statement, names, cluster=cluster)
