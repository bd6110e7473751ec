"""Nodes: a list to search and filter, and one node's page under ?name=."""

import streamlit as st

from app.ui import live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded
from app.ui.views import node

PAGE_ROWS = 50


@guarded
def show() -> None:
    name = st.query_params.get("name")
    if name:
        node.show(name)
        return
    _list()


def _list() -> None:
    query = st.query_params
    parts.headline("nodes-head", title="Nodes")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        search = st.text_input(
            "Name or cause",
            value=query.get("search", ""),
            placeholder="h100-a-r01, XID 79",
            width=320,
            key="nodes-search",
        )
        health = st.segmented_control(
            "Health",
            words.HEALTH,
            default=query.get("health") if query.get("health") in words.HEALTH else None,
            key="nodes-health",
        )
        services = ("Any", *words.SERVICE)
        wanted = query.get("service", "Any")
        service = st.selectbox(
            "Service",
            services,
            index=services.index(wanted) if wanted in services else 0,
            width=160,
            key="nodes-service",
        )
    _remember(
        search=search.strip() or None, health=health, service=None if service == "Any" else service
    )
    _rows(search.strip() or None, health, None if service == "Any" else service)


def _remember(**filters: str | None) -> None:
    """The filters go into the address, so that a view can be shared; a changed filter starts at the first page."""
    kept = {name: value for name, value in filters.items() if value}
    now = {name: value for name, value in st.query_params.items() if name != "after"}
    if kept != now:
        st.query_params.from_dict(kept)


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows(search: str | None, health: str | None, service: str | None) -> None:
    after = st.query_params.get("after")
    found = live.nodes_page(
        health=health,
        service=service,
        search=search,
        order="worst",
        after=after,
        limit=PAGE_ROWS + 1,
    )
    shown = found[:PAGE_ROWS]
    rows = [
        parts.row(
            item.name,
            {
                "name": parts.link(item.name, travel.node(item.name)),
                "health": parts.state(item.health, words.health_tone(item.health, item.service)),
                "cause": item.health_reason or item.service_reason,
                "for": words.milliseconds(item.health_since),
                "service": item.service,
                "gpus": None
                if item.gpu_requested is None or item.gpu_allocatable is None
                else f"{item.gpu_requested} of {item.gpu_allocatable}",
                "place": " / ".join(filter(None, [item.block, item.rack])),
                "heard": words.milliseconds(item.observed_at),
            },
            open=travel.node(item.name),
        )
        for item in shown
    ]
    parts.sheet(
        "nodes",
        label="Nodes",
        rows=rows,
        columns=[
            parts.column("name", "Node", "link"),
            parts.column("health", "Health", "state"),
            parts.column("cause", "Cause", missing="no cause: nothing is wrong"),
            parts.column("for", "For", "age"),
            parts.column("service", "Service"),
            parts.column("gpus", "GPUs in use", missing="Kubernetes has not said"),
            parts.column("place", "Block / rack", "soft"),
            parts.column("heard", "Agent heard, ago", "age", right=True),
        ],
        empty="No node matches. Clear the search or the filters."
        if search or health or service
        else "No node is known yet.",
    )
    _pager(after=after, last=shown[-1].name if len(found) > PAGE_ROWS else None)


def _pager(*, after: str | None, last: str | None) -> None:
    with st.container(horizontal=True, gap="small"):
        if after and st.button("First page", key="nodes-first"):
            st.query_params.pop("after", None)
            st.rerun(scope="fragment")
        if last and st.button("Next page", key="nodes-next"):
            st.query_params["after"] = last
            st.rerun(scope="fragment")
