"""The fleet on one canvas: names and places once, then a byte a node (and a byte a GPU) at each refresh."""

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import streamlit as st

from app.store.records import NodeRecord, Topology
from app.ui import context, live, travel, words
from app.ui.components import kit

NOTES_SHOWN = 200
"""Nodes whose cause the map tells on hover: the worst. The rest have no cause worth a word."""


def mount_names(fleet: live.Fleet) -> None:
    """Brings names and topology to the browser. Outside the live fragment: they go once."""
    with st.container(key="names"):
        kit.mount("names", names_message(fleet.version), key="names-part")


def mount_map(fleet: live.Fleet, worst: Sequence[NodeRecord], *, height: int) -> None:
    """Draws the states; a click on a node opens it."""
    data = map_message(fleet, worst, height=height)
    travel.follow(kit.mount("map", data, key="map-part"))


def names_message(version: str) -> bytes:
    """Names and places of all nodes for that topology."""
    return _names_message(context.settings().store_url, context.cluster(), version)


@st.cache_resource(max_entries=4, show_spinner=False)
def _names_message(store_url: str, cluster: str, version: str) -> bytes:
    packed = zlib.compress(msgspec.json.encode(compact(live.topology(version))), 9)
    return kit.pack({"version": version}, {"topology": packed})


def compact(topology: Topology) -> dict[str, Any]:
    """The topology with what a rack's names share said once: racks of like names then compress to almost nothing."""
    blocks = []
    for block in topology.blocks:
        racks = []
        for rack in block.racks:
            prefix = _shared_start(rack.nodes)
            racks.append([rack.name, prefix, [name[len(prefix) :] for name in rack.nodes]])
        blocks.append([block.name, racks])
    return {"slots": topology.slots, "blocks": blocks}


def _shared_start(names: Sequence[str]) -> str:
    """What all names begin with; the least and the greatest tell it for all between them."""
    least, greatest = min(names, default=""), max(names, default="")
    at = 0
    while at < len(least) and at < len(greatest) and least[at] == greatest[at]:
        at += 1
    return least[:at]


def map_message(fleet: live.Fleet, worst: Sequence[NodeRecord], *, height: int) -> bytes:
    order = live.order(fleet.version)
    notes = {
        order[node.name]: [
            node.health_reason or node.service_reason,
            words.milliseconds(node.health_since),
        ]
        for node in worst[:NOTES_SHOWN]
        if node.name in order and (node.health_reason or node.service_reason)
    }
    parts = {"node_state": fleet.node_state}
    if fleet.gpu_state is not None:
        parts["gpu_state"] = fleet.gpu_state
    header = {
        "version": fleet.version,
        "now": words.milliseconds(context.now()),
        "height": height,
        "notes": notes,
        "summary": f"Fleet map of {words.count(fleet.nodes, 'node')}.",
    }
    return kit.pack(header, parts)
