"""The page's own components: one kit of script and style sent once, and small mounts that bring data alone.

Streamlit sends a component's script again with each changed message. So each mount's script is one line that
hands its data to the kit, and the kit itself is a mount of its own outside every live fragment.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

_BROWSER = Path(__file__).parent / "browser"
_MAP = (
    "map_classes.js",
    "map_geometry.js",
    "map_paint.js",
    "map_words.js",
    "map_address.js",
    "map_hand.js",
    "map.js",
)
_STYLES = ("base.css", "map.css")
_SCRIPTS = ("kit.js", "parts.js", "layout.js", "door.js", "search.js", *_MAP)
_KIT = "pitwall_kit"
# The line break inside tells Streamlit that it is a script and no file's name.
_SHIM = (
    "export default c =>\nglobalThis.pitwall?.render?pitwall.render('{kind}',c)"
    ":void(globalThis.pitwallWaiting??=[]).push(['{kind}',c])"
)
KINDS = (
    "door",
    "search",
    "pulse",
    "figures",
    "headline",
    "card",
    "notes",
    "sheet",
    "gpus",
    "names",
    "map",
)


def mount_kit() -> None:
    """Brings the kit to the browser and makes Streamlit's shell tight. Once a script run, before any part."""
    st.html(f"<style>{_page_style()}</style>")
    with st.container(key="kit"):
        _component(_KIT, _kit_script())(key="kit-mount")


def mount(
    kind: str,
    data: Mapping[str, Any] | bytes,
    *,
    key: str,
    on_open: Callable[[], None] | None = None,
    states: Sequence[str] = (),
) -> Mapping[str, Any] | None:
    """Shows one part, and returns where the person wants to go ({"page", "query"}) in the run after a click.

    `states`: what the part keeps for the next run, in st.session_state[key]. `key` must be stable: with it the part keeps focus, scroll and hover over refreshes.
    """
    result = _component(f"pitwall_{kind}", _SHIM.format(kind=kind))(
        key=key,
        data=data,
        on_open_change=on_open or _nothing,
        **{f"on_{name}_change": _nothing for name in states},
    )
    opened = result.get("open")
    return opened if isinstance(opened, Mapping) else None


def pack(header: Mapping[str, Any], parts: Mapping[str, bytes]) -> bytes:
    """A binary message: the header's length (4 bytes, little endian), the header as JSON, then the parts in order."""
    head = json.dumps(
        {**header, "parts": [[name, len(part)] for name, part in parts.items()]},
        separators=(",", ":"),
    ).encode()
    return b"".join([struct.pack("<I", len(head)), head, *parts.values()])


def _nothing() -> None:
    """A trigger without a callback is no trigger to Streamlit."""


@cache
def _page_style() -> str:
    return (_BROWSER / "page.css").read_text(encoding="utf-8")


@cache
def _kit_script() -> str:
    style = json.dumps(
        "\n".join(_lean((_BROWSER / name).read_text(encoding="utf-8")) for name in _STYLES)
    )
    scripts = [_lean((_BROWSER / name).read_text(encoding="utf-8")) for name in _SCRIPTS]
    return "\n".join([*scripts, f"export default () => start({style});"])


def _lean(source: str) -> str:
    """The source without indents and lines of comment: every new visitor is sent it. No string spans lines there."""
    lines = (line.strip() for line in source.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/*")))


@cache
def _component(name: str, script: str) -> Callable[..., Mapping[str, Any]]:
    html = '<div class="pw"></div>' if name != _KIT else "<div></div>"
    return st.components.v2.component(name, html=html, js=script, isolate_styles=False)
