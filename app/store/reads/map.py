"""Reads of the map's colours: which job holds each node, and each GPU's last XID. Rows in bulk, as arrays."""

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select

from app.store.engine import read
from app.store.reads.rows import table_of
from app.store.tables import Gpu, Job, Pod
from app.store.vectors import ABSENT

Codes = NDArray[numpy.uint8]

COLOURS = 7
"""Kinds with a colour of their own, those on the most nodes; more are not told apart at a glance."""

MOST_KINDS = 250
"""Kinds that a byte names, ABSENT and OTHER left over."""

OTHER = 254

_SEPARATOR = ","
"""In no node's name: those are DNS labels."""

_POD = table_of(Pod)
_JOB = table_of(Job)
_GPU = table_of(Gpu)


class JobKind(NamedTuple):
    """One job on the map. colour: its place in the palette, None for one that shares the colour of the others."""

    uid: str
    label: str
    team: str
    colour: int | None


class Placed(NamedTuple):
    """nodes: a byte a node, index into jobs, OTHER, or ABSENT for none. teams: the colour of each that has one."""

    nodes: Codes
    jobs: tuple[JobKind, ...]
    teams: dict[str, int]


class LastXids(NamedTuple):
    """gpus: a byte a GPU slot, index into codes, OTHER, or ABSENT for none; nodes: the newest of its GPUs'."""

    nodes: Codes
    gpus: Codes
    codes: tuple[int, ...]
    colours: dict[int, int]


def placed_jobs(engine: Engine, cluster: str, order: Mapping[str, int]) -> Placed:
    """The job of each node's largest pod now. `order`: each node's place in the frames.

    SQL joins the nodes of a job to one text: a row a job, not a row a pod, is ten times as fast from 43,750 pods.
    """
    nodes = func.aggregate_strings(_POD.c.node, _SEPARATOR)
    pods = (
        select(_POD.c.job_uid, _POD.c.gpus, nodes)
        .where(
            _POD.c.cluster == cluster,
            _POD.c.node.is_not(None),
            _POD.c.job_uid.is_not(None),
            _POD.c.gpus > 0,
            _POD.c.phase.not_in(("Succeeded", "Failed")),
        )
        .group_by(_POD.c.job_uid, _POD.c.gpus)
    )
    jobs = select(_JOB.c.uid, _JOB.c.namespace, _JOB.c.name, _JOB.c.team).where(
        _JOB.c.cluster == cluster
    )
    with read(engine) as connection:
        held = [
            (row[0], row[1], row[2].split(_SEPARATOR)) for row in connection.execute(pods).all()
        ]
        wanted = {row[0] for row in held}
        known = {row[0]: row for row in connection.execute(jobs) if row[0] in wanted}
    return place(held, known, order)


def place(
    held: Iterable[tuple[str, int, Sequence[str]]],
    known: Mapping[str, Sequence[Any]],
    order: Mapping[str, int],
) -> Placed:
    """As placed_jobs, of (job uid, GPUs of a pod, nodes) and jobs by uid (uid, namespace, name, team)."""
    held = sorted(held, key=lambda one: (one[1], one[0]))  # the largest pod has the last word
    number_of = {uid: number for number, uid in enumerate(dict.fromkeys(one[0] for one in held))}
    uids = list(number_of)
    holder = numpy.full(len(order), -1, dtype=numpy.int64)
    for uid, _, names in held:
        places = [order[name] for name in names if name in order]
        holder[places] = number_of[uid]
    counts = numpy.bincount(holder[holder >= 0], minlength=len(uids)).tolist()
    sizes = {uid: count for uid, count in zip(uids, counts, strict=True) if count}
    ranked = ranked_by_size(sizes)[:MOST_KINDS]
    teams_of = {uid: str(known[uid][3] or "") if uid in known else "" for uid in sizes}
    colours = colours_of(ranked[:COLOURS])
    jobs = tuple(
        JobKind(
            uid,
            f"{known[uid][1]}/{known[uid][2]}" if uid in known else uid,
            teams_of[uid],
            colours.get(uid),
        )
        for uid in ranked
    )
    teams: Counter[str] = Counter()
    for uid, size in sizes.items():
        if teams_of[uid]:
            teams[teams_of[uid]] += size
    # One past the last job is the place of none, where -1 points.
    codes = numpy.full(len(uids) + 1, OTHER, dtype=numpy.uint8)
    codes[-1] = ABSENT
    for code, uid in enumerate(ranked):
        codes[number_of[uid]] = code
    return Placed(codes[holder], jobs, colours_of(ranked_by_size(teams)[:COLOURS]))


def last_xids(engine: Engine, cluster: str, order: Mapping[str, int], slots: int) -> LastXids:
    """The last XID of each GPU that ever had one; of a node the newest."""
    statement = (
        select(_GPU.c.node, _GPU.c.index, _GPU.c.last_xid)
        .where(_GPU.c.cluster == cluster, _GPU.c.last_xid.is_not(None), _GPU.c.index.is_not(None))
        .order_by(_GPU.c.last_xid_at)
    )
    with read(engine) as connection:
        rows = connection.execute(statement).all()
    return spread_xids(rows, order, slots)


def spread_xids(rows: Iterable[Sequence[Any]], order: Mapping[str, int], slots: int) -> LastXids:
    """As last_xids, of rows (node, index, XID), oldest first."""
    found = [
        (order[node], int(index), int(xid))
        for node, index, xid in rows
        if node in order and 0 <= index < slots
    ]
    latest = {at: xid for at, _, xid in found}
    on_nodes = Counter(latest.values())
    ranked = ranked_by_size({xid: on_nodes[xid] for _, _, xid in found})[:MOST_KINDS]
    code_of = {xid: code for code, xid in enumerate(ranked)}
    nodes = numpy.full(len(order), ABSENT, dtype=numpy.uint8)
    gpus = numpy.full(len(order) * slots, ABSENT, dtype=numpy.uint8)
    for at, index, xid in found:
        nodes[at] = gpus[at * slots + index] = code_of.get(xid, OTHER)
    return LastXids(nodes, gpus, tuple(ranked), colours_of(ranked[:COLOURS]))


def ranked_by_size(sizes: Mapping[Any, int]) -> list[Any]:
    """The keys, those of the most nodes first, equals by name: the same at each read."""
    return sorted(sizes, key=lambda key: (-sizes[key], str(key)))


def colours_of(kinds: Sequence[Any]) -> dict[Any, int]:
    """A palette's place for each, at most COLOURS of them: by the name's own sum, so that a kind keeps its
    colour while others grow past it; where two fall together, the smaller moves on."""
    taken: dict[int, Any] = {}
    for kind in kinds[:COLOURS]:
        at = zlib.crc32(str(kind).encode()) % COLOURS
        while at in taken:
            at = (at + 1) % COLOURS
        taken[at] = kind
    return {kind: at for at, kind in taken.items()}
