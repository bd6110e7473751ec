"""The fleet on one canvas: names and places once, then a byte a node (and a byte a GPU) at each refresh."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import streamlit as st

from app.store.records import Topology
from app.ui import context, live, live_map, travel, words
from app.ui.components import kit

MOST_SELECTED = 256
"""Nodes of one selection: more than any limit lets out at once, and what one person can still read through."""

_KEY = "map-part"
_WORD = "map-word"


class Picked(NamedTuple):
    """What a person wants done with the nodes selected on the map."""

    action: str
    nodes: tuple[str, ...]


class Refused(NamedTuple):
    """Why the selection is not taken, in a sentence for the person."""

    word: str


def mount_names(fleet: live.Fleet) -> None:
    """Brings names and topology to the browser. Outside the live fragment: they go once."""
    with st.container(key="names"):
        kit.mount("names", names_message(fleet.version), key="names-part")


def mount_map(fleet: live.Fleet, *, height: int) -> Picked | None:
    """Draws the states. A click on a node opens it; returns what is asked of a selection, in the run after it."""
    asked = _asked()
    data = map_message(fleet, asked, height=height, word=st.session_state.get(_WORD))
    opened = kit.mount("map", data, key=_KEY, states=("asked",))
    if opened is None or "ask" not in opened:
        travel.follow(opened)
        return None
    picked = picked_of(opened, fleet)
    if isinstance(picked, Refused):
        last = st.session_state.get(_WORD, {"number": 0})
        st.session_state[_WORD] = {"number": last["number"] + 1, "text": picked.word}
        st.rerun(scope="fragment")
    return picked


def _asked() -> Mapping[str, Any]:
    """What the browser last asked to be sent; on a first visit what the address says."""
    kept = st.session_state.get(_KEY)
    asked = kept.get("asked") if isinstance(kept, Mapping) else None
    return asked if isinstance(asked, Mapping) else {"by": st.query_params.get("by")}


def picked_of(opened: Mapping[str, Any], fleet: live.Fleet) -> Picked | Refused:
    """The nodes by name, where the browser's selection is of this topology: an index alone could have become another node."""
    if opened.get("version") != fleet.version:
        return Refused(
            "Nodes came or went since these were selected. Look at the selection and ask again."
        )
    spans = live_map.spans_of(opened, fleet, most=MOST_SELECTED)
    if not spans:
        return Refused(f"Nothing is done: select between 1 and {MOST_SELECTED} nodes.")
    names = live.topology(fleet.version).nodes()
    chosen = tuple(name for first, count in spans for name in names[first : first + count])
    return Picked(str(opened["ask"]), tuple(dict.fromkeys(chosen)))


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


def map_message(
    fleet: live.Fleet,
    asked: Mapping[str, Any],
    *,
    height: int,
    word: Mapping[str, Any] | None = None,
) -> bytes:
    """States, colours, and the GPUs of the part that is drawn by GPU.

    `asked`: {"by", "version", "spans"}, the browser's word. `word`: {"number", "text"}, told once by its number.
    """
    by = asked.get("by")
    colours = live_map.layer(fleet, by if by in live_map.COLOUR_BY else live_map.COLOUR_BY[0])
    whole = fleet.nodes <= live.GPU_CELLS_UP_TO_NODES
    spans = (
        ((0, fleet.nodes),)
        if whole
        else live_map.spans_of(asked, fleet, most=live.GPU_CELLS_UP_TO_NODES)
    )
    gpus = live_map.window(fleet, colours, spans)
    header = {
        **colours.header,
        "height": height,
        "by_gpu": whole and bool(gpus),
        "spans": spans if gpus else (),
        "summary": f"Fleet map of {words.count(fleet.nodes, 'node')}.",
        "word": word,
        "most": MOST_SELECTED,
    }
    return kit.pack(header, {"node_state": fleet.node_state, **colours.parts, **gpus})
