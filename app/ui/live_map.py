"""What the map is coloured by, shared by all viewers: a byte a node, and a byte a GPU where GPUs are drawn.

A fleet of up to GPU_CELLS_UP_TO_NODES is drawn by GPU, whole. Of a larger one the browser names the part it has
zoomed into (spans of nodes), and is sent that part's GPUs alone.
"""

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy
import streamlit as st
from numpy.typing import NDArray

from app.store.reads import fleet as fleet_reads
from app.store.reads import map as map_reads
from app.store.records import NodeRecord
from app.store.vectors import ABSENT, SCALES, node_values, pack, unpack
from app.ui import context, live, words
from app.ui.components.text import visible

Spans = tuple[tuple[int, int], ...]
"""Of nodes, (first, count) each, by place in the topology."""

COLOUR_BY = ("health", "service", "job", "team", "utilisation", "temperature", "power", "xid")
"""As the browser names them; the first is what one sees unasked."""

SLOW_SECONDS = 10.0
"""Which job holds a node changes by the minute, and costs a look at every pod."""

NOTES_SHOWN = 200
"""Nodes whose cause the map tells on hover: the worst. The rest have no cause worth a word."""

JOBS_ALWAYS_BYTES = 8_000
"""Up to here the jobs go along whatever the colours, for the hover card; a map of jobs has them anyway."""


class Metric(NamedTuple):
    """A measured colour. factor: from the frame's unit to that on the page; step: of a node's byte, on the page.

    Steps are no finer than a colour tells: a byte of five bits' worth keeps 43,750 nodes under 30 kB.
    """

    frame: str
    factor: float
    step: float
    highest: bool


METRICS = {
    "temperature": Metric("temperature_celsius", 1.0, 1.0, highest=True),
    "power": Metric("power_watts", 1.0, 25.0, highest=False),
    "utilisation": Metric("gpu_utilization_ratio", 100.0, 4.0, highest=False),
}


class Layer(NamedTuple):
    """header: what goes with each message. parts: compressed bytes. gpus: a byte a GPU slot, None where there is none."""

    version: str
    header: dict[str, Any]
    parts: dict[str, bytes]
    gpus: NDArray[numpy.uint8] | None


def layer(fleet: live.Fleet, by: str) -> Layer:
    """The colours of that topology, one encode for all viewers."""
    return _layer(
        context.settings().store_url, context.cluster(), fleet.version, fleet.updated_at, by
    )


@st.cache_resource(ttl=live.FRESH_SECONDS, max_entries=32, show_spinner=False)
def _layer(store_url: str, cluster: str, version: str, updated_at: datetime, by: str) -> Layer:
    header: dict[str, Any] = {"version": version, "by": by}
    told: dict[str, Any] = {"notes": _notes(version)}
    parts, gpus = {}, None
    placed = _placed(store_url, cluster, version)
    packed = pack(placed.nodes)
    if by in {"job", "team"} or len(packed) <= JOBS_ALWAYS_BYTES:
        parts["job"] = packed
        told |= {
            "jobs": [
                (job.uid, visible(job.label), visible(job.team), job.colour) for job in placed.jobs
            ],
            "teams": {visible(team): colour for team, colour in placed.teams.items()},
        }
    if by == "xid":
        xids = _xids(store_url, cluster, version)
        parts["node"], gpus = pack(xids.nodes), xids.gpus
        told |= {"xids": xids.codes, "xid_colours": [xids.colours.get(one) for one in xids.codes]}
    elif by in METRICS:
        metric = METRICS[by]
        found = fleet_reads.frame(context.engine(), cluster, metric.frame)
        if found is not None and found.topology_version == version:
            gpus = unpack(found.data)
            parts["node"] = _node_bytes(gpus, metric, slots=live.topology(version).slots)
        header |= {"step": metric.step, "gpu_step": SCALES[metric.frame] * metric.factor}
    if gpus is not None:
        gpus.flags.writeable = False
    parts["told"] = zlib.compress(msgspec.json.encode(told), 6)
    return Layer(version, header, parts, gpus)


def _node_bytes(codes: NDArray[numpy.uint8], metric: Metric, *, slots: int) -> bytes:
    scale = SCALES[metric.frame] * metric.factor / metric.step
    values = node_values(codes, slots=slots, scale=scale, highest=metric.highest)
    steps = numpy.where(numpy.isnan(values), ABSENT, numpy.clip(numpy.rint(values), 0, ABSENT - 1))
    return zlib.compress(steps.astype(numpy.uint8).tobytes(), 6)


@st.cache_resource(ttl=SLOW_SECONDS, max_entries=4, show_spinner=False)
def _placed(store_url: str, cluster: str, version: str) -> map_reads.Placed:
    return map_reads.placed_jobs(context.engine(), cluster, live.order(version))


@st.cache_resource(ttl=SLOW_SECONDS, max_entries=4, show_spinner=False)
def _xids(store_url: str, cluster: str, version: str) -> map_reads.LastXids:
    slots = live.topology(version).slots
    return map_reads.last_xids(context.engine(), cluster, live.order(version), slots)


def _notes(version: str) -> dict[int, tuple[str, int | None]]:
    """By the node's place: why it is as it is, and since when (Unix milliseconds)."""
    order = live.order(version)
    return {
        order[node.name]: (visible(_why(node)), words.milliseconds(node.health_since))
        for node in live.worst_nodes()[:NOTES_SHOWN]
        if node.name in order and _why(node)
    }


def _why(node: NodeRecord) -> str:
    return node.health_reason or node.service_reason


def window(fleet: live.Fleet, colours: Layer, spans: Spans) -> dict[str, bytes]:
    """The GPUs of these nodes: their state, and what they are coloured by where GPUs have that."""
    state = _gpu_state(context.settings().store_url, context.cluster(), fleet.version)
    if state is None or not spans:
        return {}
    slots = live.topology(fleet.version).slots
    found = {"gpu_state": pack(_cut(state, spans, slots))}
    if colours.gpus is not None:
        found["gpu"] = pack(_cut(colours.gpus, spans, slots))
    return found


@st.cache_resource(ttl=live.FRESH_SECONDS, max_entries=4, show_spinner=False)
def _gpu_state(store_url: str, cluster: str, version: str) -> NDArray[numpy.uint8] | None:
    found = fleet_reads.frame(context.engine(), cluster, "gpu_state")
    if found is None or found.topology_version != version:
        return None
    codes = unpack(found.data)
    codes.flags.writeable = False
    return codes


def _cut(codes: NDArray[numpy.uint8], spans: Spans, slots: int) -> NDArray[numpy.uint8]:
    return numpy.concatenate(
        [codes[first * slots : (first + count) * slots] for first, count in spans]
    )


def spans_of(told: Any, fleet: live.Fleet, *, most: int) -> Spans:
    """Spans that a browser names, () where they are none of this topology. Not more than `most` nodes.

    `told`: {"version", "spans": [[first, count], ...]}, the browser's word: anything may stand there.
    """
    if not isinstance(told, Mapping) or told.get("version") != fleet.version:
        return ()
    named = told.get("spans")
    if not isinstance(named, Sequence) or isinstance(named, str) or len(named) > most:
        return ()
    spans, left = [], most
    for one in named:
        if not _is_span(one) or one[0] + one[1] > fleet.nodes or one[1] > left:
            return ()
        left -= one[1]
        spans.append((one[0], one[1]))
    return tuple(spans)


def _is_span(one: Any) -> bool:
    return (
        isinstance(one, Sequence)
        and len(one) == 2
        and all(type(part) is int for part in one)
        and one[0] >= 0
        and one[1] > 0
    )
