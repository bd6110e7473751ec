"""What colours the map, put into a seeded store: measured values of each GPU, jobs over the whole fleet, XIDs."""

import uuid
from datetime import UTC, datetime, timedelta

import numpy
from sqlalchemy import Connection, delete, insert, update

from app.store.engine import open_store, write
from app.store.reads.fleet import topology as read_topology
from app.store.reads.rows import table_of
from app.store.records import Topology
from app.store.tables import FleetFrame, Gpu, Job, Node, Pod
from app.store.vectors import (
    ABSENT,
    STATE_ENCODING,
    TOPOLOGY_ENCODING,
    encode_topology,
    metric_encoding,
    pack,
    quantize,
    unpack,
)
from tests.browser.seed import CLUSTER

# Of the fleet, in thousandths: sizes of jobs as a training cluster has them, the rest is free.
_JOBS = (280, 190, 120, 90, 70, 50, 40, 30, 20, 15, 10, 10, 8, 6, 5)
_TEAMS = ("foundation", "multimodal", "alignment", "evaluation", "speech", "inference")
_XIDS = (79, 48, 63, 94, 13, 31, 119, 74, 95)


def colour(url: str, *, moment: int = 0) -> None:
    """Jobs, readings and XIDs for every node of the store. `moment`: another one has other readings."""
    engine = open_store(url)
    topology = read_topology(engine, CLUSTER)
    with write(engine) as connection:
        busy = _jobs(connection, topology)
        _readings(connection, topology, busy, moment=moment)
        _xids(connection, topology)
    engine.dispose()


def stir(url: str, *, moment: int, states: bool = True) -> None:
    """All readings, which of the last nodes are in use, and some states are others than before, as at each poll."""
    engine = open_store(url)
    topology = read_topology(engine, CLUSTER)
    random = numpy.random.default_rng(moment)
    frame = table_of(FleetFrame)
    with write(engine) as connection:
        row = connection.execute(frame.select().where(frame.c.metric == "node_state")).one()
        codes = unpack(row.data)
        some = random.choice(codes.size, max(1, codes.size // 2000), replace=False)
        if states:
            codes[some] = codes[some] & ~numpy.uint8(3) | (codes[some] + 1) & 3
        _put(connection, topology.version, "node_state", STATE_ENCODING, pack(codes))
        busy = numpy.arange(codes.size) < codes.size * 8 // 10 + moment % 5
        _readings(connection, topology, busy, moment=moment)
    engine.dispose()


def another_topology(url: str) -> str:
    """The last node of the first rack is gone: every number after it is another node's. Returns its name."""
    engine = open_store(url)
    old = read_topology(engine, CLUSTER)
    first, rest = old.blocks[0], old.blocks[1:]
    racks = (type(first.racks[0])(first.racks[0].name, first.racks[0].nodes[:-1]), *first.racks[1:])
    new = Topology("another-topology", old.slots, (type(first)(first.name, racks), *rest))
    gone = first.racks[0].nodes[-1]
    place = old.nodes().index(gone)
    frame = table_of(FleetFrame)
    with write(engine) as connection:
        for row in connection.execute(frame.select()).all():
            if row.metric == "topology":
                _put(connection, new.version, "topology", TOPOLOGY_ENCODING, encode_topology(new))
                continue
            codes = unpack(row.data)
            width = codes.size // len(old.nodes())
            left = numpy.delete(codes, slice(place * width, (place + 1) * width))
            _put(connection, new.version, row.metric, row.encoding, pack(left))
        node = table_of(Node)
        connection.execute(delete(node).where(node.c.name == gone))
    engine.dispose()
    return gone


def _jobs(connection: Connection, topology: Topology) -> numpy.ndarray:
    names, now = topology.nodes(), datetime.now(UTC)
    busy = numpy.zeros(len(names), dtype=bool)
    pod, job = table_of(Pod), table_of(Job)
    connection.execute(delete(pod).where(pod.c.rank.is_not(None)))
    pods, jobs, at = [], [], 0
    for number, share in enumerate(_JOBS):
        uid, name = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"job-{number}")), f"train-{number:02d}"
        count = max(1, len(names) * share // 1000)
        jobs.append({
            "cluster": CLUSTER, "uid": uid, "namespace": "research", "name": name, "kind": "Job", "api_version": "batch/v1",
            "team": _TEAMS[number % len(_TEAMS)], "queue": "q", "state": "Running", "reason": "", "gang": True, "wanted_pods": count,
            "running_pods": count, "gpus": count * topology.slots, "created_at": now - timedelta(hours=9), "generation": 1, "observed_at": now,
        })  # fmt: skip
        for rank, node in enumerate(names[at : at + count]):
            pods.append({
                "cluster": CLUSTER, "uid": f"{uid}-{rank}", "namespace": "research", "name": f"{name}-{rank}", "node": node, "phase": "Running",
                "ready": True, "gpus": topology.slots, "rank": rank, "job_uid": uid, "owner": f"Job/{name}", "created_at": now, "observed_at": now,
            })  # fmt: skip
        busy[at : at + count] = True
        at += count
    connection.execute(insert(job), jobs)
    connection.execute(insert(pod), pods)
    return busy


def _readings(
    connection: Connection, topology: Topology, busy: numpy.ndarray, *, moment: int
) -> None:
    random = numpy.random.default_rng(moment + 7)
    gpus = numpy.repeat(busy, topology.slots)
    frame = table_of(FleetFrame)
    state = unpack(
        connection.execute(frame.select().where(frame.c.metric == "gpu_state")).one().data
    )
    state = numpy.where(state == ABSENT, state, (state & 3) | numpy.where(gpus, 4, 0)).astype(
        numpy.uint8
    )
    _put(connection, topology.version, "gpu_state", STATE_ENCODING, pack(state))
    size = gpus.size
    rows = numpy.repeat(random.normal(0, 4, size // topology.slots), topology.slots)
    values = {
        "temperature_celsius": numpy.where(gpus, 63.0, 34.0) + rows + random.normal(0, 4, size),
        "power_watts": numpy.where(gpus, 560.0, 75.0) + random.normal(0, 45, size) * numpy.where(gpus, 1, 0.1),
        "gpu_utilization_ratio": numpy.clip(numpy.where(gpus, 0.88, 0.0) + random.normal(0, 0.12, size), 0, 1) * gpus,
    }  # fmt: skip
    for metric, found in values.items():
        found[(state == ABSENT) | (state & 3 == 3)] = numpy.nan
        _put(
            connection,
            topology.version,
            metric,
            metric_encoding(metric),
            pack(quantize(found, metric)),
        )


def _xids(connection: Connection, topology: Topology) -> None:
    """On some of the GPUs that the store has rows of."""
    gpu, now = table_of(Gpu), datetime.now(UTC)
    uuids = [row[0] for row in connection.execute(gpu.select().with_only_columns(gpu.c.uuid))][::37]
    for number, one in enumerate(uuids[:300]):
        connection.execute(
            update(gpu)
            .where(gpu.c.uuid == one)
            .values(
                last_xid=_XIDS[number * number % len(_XIDS)],
                last_xid_at=now - timedelta(hours=number),
            )
        )


def _put(connection: Connection, version: str, metric: str, encoding: str, data: bytes) -> None:
    frame = table_of(FleetFrame)
    connection.execute(delete(frame).where(frame.c.cluster == CLUSTER, frame.c.metric == metric))
    connection.execute(
        insert(frame).values(
            cluster=CLUSTER, metric=metric, topology_version=version, encoding=encoding,
            updated_at=datetime.now(UTC), data=data,
        )
    )  # fmt: skip
