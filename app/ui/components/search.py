"""The search in the header of every view: one key, a few letters, and one is there."""

import streamlit as st

from app.errors import StoreError
from app.store.page_records import HitRecord
from app.store.reads.search import search
from app.ui import context, travel
from app.ui.components import kit
from app.ui.components.text import visible

MAX_LETTERS = 100
_KEY = "search-part"
_KINDS = {"gpu": "GPU"}


@st.fragment
def show() -> None:
    """The field, and what was found for what stands in it."""
    query = str((st.session_state.get(_KEY) or {}).get("query") or "")[:MAX_LETTERS]
    try:
        hits, trouble = search(context.engine(), context.cluster(), query), ""
    except StoreError as error:
        hits, trouble = [], str(error)
    data = {"query": query, "hits": [_shown(hit) for hit in hits], "trouble": trouble}
    travel.follow(kit.mount("search", data, key=_KEY, states=("query",)))


def _shown(hit: HitRecord) -> dict[str, object]:
    target = {
        "node": travel.node,
        "gpu": travel.node,
        "pod": travel.node,
        "job": travel.job,
        "incident": travel.incident,
        "operation": travel.operation,
    }[hit.kind]
    return {
        "kind": _KINDS.get(hit.kind, hit.kind.capitalize()),
        "label": visible(hit.label),
        "second": visible(hit.second),
        # A pod that is on no node yet has no page.
        "open": target(hit.key) if hit.key else travel.to("jobs"),
    }
