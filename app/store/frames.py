"""The fleet's frames and the blocks' summaries, kept by the writers so that the page reads little.

`update_frames` changes the bytes of the nodes that reported; `refresh_frames` makes the topology and
the states of nodes anew, and everything where nodes came, went or moved.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.store.records import Block, Rack, Topology
from app.store.summaries import UNPLACED, refresh_summaries
from app.store.vectors import (
    ABSENT,
    HEALTH_CODES,
    LEAST_SLOTS,
    MOST_SLOTS,
    SCALES,
    SERVICE_CODES,
    STATE_ENCODING,
    TOPOLOGY_ENCODING,
    decode_topology,
    encode_topology,
    metric_encoding,
    pack,
    quantize,
    unpack,
)
from app.store.writes.bulk import Row, Upsert, clock, upsert
from app.store.writes.gpus import HEALTH, INDEX, PLACES, POD, GpuRows
from collectors.garbage import collector_paused

Codes = NDArray[numpy.uint8]

_UNKNOWN = HEALTH_CODES["Unknown"]
_HEALTH_BITS = numpy.uint8(0b11)
_ALLOCATED = numpy.uint8(0b100)
_METRICS = tuple(SCALES)
_GPU_FRAMES = ("gpu_state", *_METRICS)

_FRAME = Upsert(
    table="fleet_frame",
    columns=("cluster", "metric", "topology_version", "encoding", "updated_at", "data"),
    key=("cluster", "metric"),
    updates={"topology_version": None, "encoding": None, "updated_at": None, "data": None},
)


@dataclass(frozen=True)
class _Layout:
    """A topology with the place of each node in it."""

    topology: Topology
    place_of: dict[str, int]


_layouts: dict[str, _Layout] = {}
"""The last topology of each cluster by its version: decoding 43,750 names each tick would cost more than the tick's frames."""


def update_frames(
    connection: Connection,
    cluster: str,
    now: datetime,
    *,
    health: dict[str, str],
    gpu_rows: Iterable[GpuRows],
) -> None:
    """Bring frames and summaries up to what a batch stored: each node's health, and its GPUs' rows."""
    stored = _load(connection, cluster)
    layout = _layout(cluster, stored)
    batches = list(gpu_rows)
    if layout is None or not _fits(layout, stored, health, batches):
        refresh_frames(connection, cluster, now, whole=True)
        return
    frames = {metric: unpack(stored[metric][2]) for metric in ("node_state", *_GPU_FRAMES)}
    places = numpy.fromiter((layout.place_of[name] for name in health), numpy.int64, len(health))
    codes = numpy.fromiter(
        (HEALTH_CODES[word] for word in health.values()), numpy.uint8, len(health)
    )
    node_state = frames["node_state"]
    node_state[places] = (node_state[places] & ~_HEALTH_BITS) | codes
    for batch in batches:
        _put_gpus(frames, layout, batch)
    _save(connection, cluster, now, version=layout.topology.version, frames=frames)
    refresh_summaries(
        connection, cluster, now, topology=layout.topology, gpu_state=frames["gpu_state"]
    )


def silence_frames(
    connection: Connection, cluster: str, now: datetime, *, nodes: Collection[str]
) -> None:
    """Make nodes and their GPUs Unknown in the frames."""
    stored = _load(connection, cluster)
    layout = _layout(cluster, stored)
    if layout is None or any(name not in layout.place_of for name in nodes):
        refresh_frames(connection, cluster, now, whole=True)
        return
    frames = {metric: unpack(stored[metric][2]) for metric in ("node_state", *_GPU_FRAMES)}
    places = numpy.array([layout.place_of[name] for name in nodes], dtype=numpy.int64)
    frames["node_state"][places] |= _UNKNOWN
    _forget_gpus(frames, layout, places)
    _save(connection, cluster, now, version=layout.topology.version, frames=frames)
    refresh_summaries(
        connection, cluster, now, topology=layout.topology, gpu_state=frames["gpu_state"]
    )


def refresh_frames(
    connection: Connection, cluster: str, now: datetime, *, whole: bool = False
) -> None:
    """Make the topology and the nodes' states from the node rows; the GPUs' frames from the gpu rows
    where the topology is another than before, or when `whole`."""
    nodes = connection.execute(
        text(
            "SELECT name, COALESCE(block, :none), COALESCE(rack, :none), health, service FROM node "
            "WHERE cluster = :cluster"
        ),
        {"cluster": cluster, "none": UNPLACED},
    ).all()
    # By block, rack and name, numbers in names counting as numbers, as people order them.
    ordered = sorted(nodes, key=lambda row: (_natural(row[1]), _natural(row[2]), _natural(row[0])))
    slots = _slots(connection, cluster)
    topology = _topology(ordered, slots)
    stored = _load(connection, cluster)
    place_of = {row[0]: place for place, row in enumerate(ordered)}
    layout = _Layout(topology, place_of)
    frames: dict[str, Codes] = {
        "node_state": numpy.fromiter(
            (HEALTH_CODES[row[3]] | SERVICE_CODES.get(row[4], 0) << 2 for row in ordered),
            numpy.uint8,
            len(ordered),
        )
    }
    same = "topology" in stored and stored["topology"][0] == topology.version
    complete = all(
        metric in stored and stored[metric][0] == topology.version for metric in _GPU_FRAMES
    )
    if whole or not same or not complete:
        with collector_paused():
            frames |= _gpu_frames(connection, cluster, layout)
        gpu_state = frames["gpu_state"]
    else:
        gpu_state = unpack(stored["gpu_state"][2])
    _save(
        connection,
        cluster,
        now,
        version=topology.version,
        frames=frames,
        topology=None if same else topology,
    )
    _layouts[cluster] = layout
    refresh_summaries(connection, cluster, now, topology=topology, gpu_state=gpu_state)


def _put_gpus(frames: dict[str, Codes], layout: _Layout, batch: GpuRows) -> None:
    slots, rows = layout.topology.slots, batch.rows
    places = numpy.array([layout.place_of[name] for name in batch.nodes], dtype=numpy.int64)
    # What a node's newest report does not list is known of no more.
    _forget_gpus(frames, layout, places)
    if not rows:
        return
    index = numpy.array(
        [row[INDEX] if row[INDEX] is not None else -1 for row in rows], dtype=numpy.int64
    )
    at = numpy.repeat(places, batch.counts) * slots + index
    state = numpy.array([HEALTH_CODES[row[HEALTH]] for row in rows], dtype=numpy.uint8)
    state |= numpy.where([row[POD] is not None for row in rows], _ALLOCATED, numpy.uint8(0))
    placed = (index >= 0) & (index < slots)
    at, state = at[placed], state[placed]
    known = (state & _HEALTH_BITS) != _UNKNOWN
    frames["gpu_state"][at] = state
    for metric in _METRICS:
        place = PLACES[metric]
        values = numpy.array([row[place] for row in rows], dtype=numpy.float64)[placed]
        frames[metric][at] = numpy.where(known, quantize(values, metric), ABSENT)


def _forget_gpus(frames: dict[str, Codes], layout: _Layout, places: NDArray[numpy.int64]) -> None:
    """Make the GPUs of nodes Unknown where there are any."""
    slots = layout.topology.slots
    state = frames["gpu_state"].reshape(-1, slots)
    there = state[places]
    state[places] = numpy.where(there == ABSENT, there, there & _ALLOCATED | _UNKNOWN)
    for metric in _METRICS:
        frames[metric].reshape(-1, slots)[places] = ABSENT


def _gpu_frames(connection: Connection, cluster: str, layout: _Layout) -> dict[str, Codes]:
    size = len(layout.place_of) * layout.topology.slots
    frames: dict[str, Codes] = {
        metric: numpy.full(size, ABSENT, dtype=numpy.uint8) for metric in _GPU_FRAMES
    }
    names = ", ".join(("node", "health", "pod_uid", '"index"', *_METRICS))
    # Oldest first: of two rows in one slot, a GPU and the one it was replaced with, the newer wins.
    rows = connection.execute(
        text(f"SELECT {names} FROM gpu WHERE cluster = :cluster ORDER BY observed_at"),
        {"cluster": cluster},
    ).all()
    rows = [row for row in rows if row[0] in layout.place_of and row[3] is not None]
    slots = layout.topology.slots
    index = numpy.array([row[3] for row in rows], dtype=numpy.int64)
    at = numpy.array([layout.place_of[row[0]] for row in rows], dtype=numpy.int64) * slots + index
    placed = index < slots
    state = numpy.array([HEALTH_CODES[row[1]] for row in rows], dtype=numpy.uint8)
    state |= numpy.where(
        numpy.array([row[2] is not None for row in rows], dtype=bool), _ALLOCATED, numpy.uint8(0)
    )
    known = (state & _HEALTH_BITS) != _UNKNOWN
    frames["gpu_state"][at[placed]] = state[placed]
    for column, metric in enumerate(_METRICS, start=4):
        values = quantize(numpy.array([row[column] for row in rows], dtype=numpy.float64), metric)
        frames[metric][at[placed]] = numpy.where(known, values, ABSENT)[placed]
    return frames


def _fits(
    layout: _Layout,
    stored: dict[str, tuple[str, str, bytes]],
    health: dict[str, str],
    batches: Sequence[GpuRows],
) -> bool:
    version = layout.topology.version
    if any(
        metric not in stored or stored[metric][0] != version
        for metric in ("node_state", *_GPU_FRAMES)
    ):
        return False
    if any(name not in layout.place_of for name in health):
        return False
    slots = layout.topology.slots
    return slots >= MOST_SLOTS or not any(
        row[INDEX] is not None and slots <= row[INDEX] < MOST_SLOTS
        for batch in batches
        for row in batch.rows
    )


def _load(connection: Connection, cluster: str) -> dict[str, tuple[str, str, bytes]]:
    rows = connection.execute(
        text(
            "SELECT metric, topology_version, encoding, data FROM fleet_frame WHERE cluster = :cluster"
        ),
        {"cluster": cluster},
    )
    return {row[0]: (row[1], row[2], bytes(row[3])) for row in rows}


def _save(
    connection: Connection,
    cluster: str,
    now: datetime,
    *,
    version: str,
    frames: dict[str, Codes],
    topology: Topology | None = None,
) -> None:
    at = clock(connection)(now)
    rows: list[Row] = [
        (
            cluster,
            metric,
            version,
            metric_encoding(metric) if metric in SCALES else STATE_ENCODING,
            at,
            pack(codes),
        )
        for metric, codes in sorted(frames.items())
    ]
    if topology is not None:
        rows.append(
            (cluster, "topology", version, TOPOLOGY_ENCODING, at, encode_topology(topology))
        )
    upsert(connection, _FRAME, rows)


def _layout(cluster: str, stored: dict[str, tuple[str, str, bytes]]) -> _Layout | None:
    if "topology" not in stored:
        return None
    version = stored["topology"][0]
    known = _layouts.get(cluster)
    if known is not None and known.topology.version == version:
        return known
    topology = decode_topology(stored["topology"][2])
    layout = _Layout(topology, {name: place for place, name in enumerate(topology.nodes())})
    _layouts[cluster] = layout
    return layout


def _slots(connection: Connection, cluster: str) -> int:
    greatest = connection.execute(
        text('SELECT MAX("index") FROM gpu WHERE cluster = :cluster AND "index" < :most'),
        {"cluster": cluster, "most": MOST_SLOTS},
    ).scalar_one()
    return max(LEAST_SLOTS, 0 if greatest is None else int(greatest) + 1)


def _topology(ordered: Sequence[Any], slots: int) -> Topology:
    blocks: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for name, block, rack, *_ in ordered:
        if not blocks or blocks[-1][0] != block:
            blocks.append((block, []))
        racks = blocks[-1][1]
        if not racks or racks[-1][0] != rack:
            racks.append((rack, []))
        racks[-1][1].append(name)
    made = tuple(
        Block(block, tuple(Rack(rack, tuple(names)) for rack, names in racks))
        for block, racks in blocks
    )
    bare = Topology(version="", slots=slots, blocks=made)
    return Topology(
        version=hashlib.sha256(encode_topology(bare)).hexdigest()[:16], slots=slots, blocks=made
    )


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key of a name: rack-2 before rack-10; unplaced nodes last."""
    if name == UNPLACED:
        return ((2, 0, ""),)
    parts, word = [], ""
    for character in name:
        if word and character.isdecimal() != word[-1].isdecimal():
            parts.append(word)
            word = ""
        word += character
    parts.append(word)
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part)
