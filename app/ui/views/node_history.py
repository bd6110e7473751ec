"""A node's past: what its GPUs read, with the events and jobs over it, and its repairs. Plotly, out of the live parts."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy
import plotly.graph_objects as go
import streamlit as st

from app.store.chunks import Chunk
from app.store.page_records import StayRecord
from app.store.reads.fleet import events_of_node
from app.store.reads.history import node_hours, node_minutes, stays_on_node
from app.store.reads.repairs import diagnostics, repairs
from app.store.records import EventRecord, GpuRecord
from app.ui import context, words
from app.ui.components import parts
from app.ui.components.text import visible
from app.ui.guard import guarded
from app.ui.theme import DARK, LIGHT, Palette

RANGES = {
    "15 min": timedelta(minutes=15),
    "1 h": timedelta(hours=1),
    "6 h": timedelta(hours=6),
    "24 h": timedelta(hours=24),
    "7 d": timedelta(days=7),
    "30 d": timedelta(days=30),
    "90 d": timedelta(days=90),
}
MINUTES_UP_TO = timedelta(hours=24)
"""Beyond it hours are shown: 90 days of minutes are 130,000 points a GPU."""

METRICS: dict[str, tuple[str, str, float]] = {
    "temperature_celsius": ("Temperature", "°C", 1.0),
    "memory_temperature_celsius": ("Memory temperature", "°C", 1.0),
    "power_watts": ("Power", "W", 1.0),
    "gpu_utilization_ratio": ("Utilisation", "%", 100.0),
    "memory_used_bytes": ("Memory used", "GB", 1e-9),
    "sm_clock_hertz": ("SM clock", "MHz", 1e-6),
}
EVENTS_SHOWN = 200
REFRESH_SECONDS = 60.0
"""Minutes are added each minute; plotly is built anew at each change."""

HEIGHT_PIXELS = 400
_MARKS = {"xid": ("XID", "triangle-down"), "finding_opened": ("Opened", "triangle-down"), "finding_closed": ("Closed", "circle-open"), "node_health": ("Health", "diamond-open")}  # fmt: skip


def show(name: str, gpus: Sequence[GpuRecord]) -> None:
    """The plot with its choices, then the node's repairs and diagnostics."""
    _plot(
        name, {gpu.uuid: gpu.index for gpu in gpus}, {g.uuid for g in gpus if g.health != "Healthy"}
    )
    _repairs(name)


@st.fragment(run_every=REFRESH_SECONDS)
@guarded
def _plot(name: str, index: dict[str, int | None], amiss: set[str]) -> None:
    with st.container(border=True, key="history"):
        with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
            wanted = st.query_params.get("range")
            span = st.segmented_control(
                "History",
                list(RANGES),
                default=wanted if wanted in RANGES else "1 h",
                key="history-range",
                required=True,
            )
            metric = st.selectbox(
                "Reading",
                list(METRICS),
                format_func=lambda key: f"{METRICS[key][0]}, {METRICS[key][1]}",
                key="history-metric",
                width=220,
            )
        until = context.now()
        since = until - RANGES[span]
        chunk = _read(name, since, until)
        events = events_of_node(
            context.engine(), context.cluster(), name, since=since, limit=EVENTS_SHOWN
        )
        stays = stays_on_node(context.engine(), context.cluster(), name, since=since, until=until)
        if chunk is None or metric not in chunk.metrics:
            st.text(
                "No reading of this time is kept. Minutes are kept while the agent reports, hours for 90 days."
            )
            return
        palette = DARK if st.context.theme.type == "dark" else LIGHT
        st.plotly_chart(
            figure(
                chunk,
                metric,
                events,
                stays,
                index=index,
                amiss=amiss,
                since=since,
                until=until,
                palette=palette,
            ),
            key="history-plot",
            theme=None,
            config={
                "displaylogo": False,
                "toImageButtonOptions": {"filename": f"pitwall-{name}-{metric}", "scale": 2},
                "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
            },
        )


def _read(name: str, since: datetime, until: datetime) -> Chunk | None:
    reader = node_minutes if until - since <= MINUTES_UP_TO else node_hours
    return reader(context.engine(), context.cluster(), name, since=since, until=until)


def figure(
    chunk: Chunk,
    metric: str,
    events: Sequence[EventRecord],
    stays: Sequence[StayRecord],
    *,
    index: dict[str, int | None],
    amiss: set[str],
    since: datetime,
    until: datetime,
    palette: Palette,
) -> go.Figure:
    """Lines of the GPUs' means, healthy ones quiet; events as marks above, jobs as bars below."""
    label, unit, factor = METRICS[metric]
    times = numpy.array(chunk.minutes, dtype="datetime64[m]")
    column = chunk.metrics.index(metric)
    plot = go.Figure()
    # What is amiss last, so that it lies on top.
    order = sorted(range(len(chunk.gpus)), key=lambda at: (chunk.gpus[at] in amiss, chunk.gpus[at]))
    for at in order:
        uuid = chunk.gpus[at]
        number = index.get(uuid)
        named = f"GPU {number}" if number is not None else f"{uuid[:12]}, not here any more"
        bad = uuid in amiss
        plot.add_scatter(
            x=times,
            y=chunk.mean[:, at, column] * factor,
            name=named,
            mode="lines" if len(times) > 1 else "markers",
            line={
                "color": palette.act[0] if bad else palette.calm[0],
                "width": 2.2 if bad else 1.2,
            },
            hovertemplate=f"{named}: %{{y:.1f}} {unit}<extra></extra>",
            connectgaps=False,
        )
    _mark_events(plot, events, palette)
    _lay_jobs(plot, stays, since=since, until=until, palette=palette)
    plot.update_layout(
        height=HEIGHT_PIXELS,
        margin={"l": 48, "r": 12, "t": 8, "b": 28},
        showlegend=False,
        hovermode="x",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": palette.ink, "size": 12, "family": "Source Sans, sans-serif"},
        xaxis={"range": [since, until], "gridcolor": palette.line, "zeroline": False, "title": {"text": "UTC", "standoff": 0}},
        yaxis={"title": f"{label}, {unit}", "gridcolor": palette.line, "zeroline": False, "domain": [0.3, 0.9]},
        yaxis2={"range": [-0.5, 2.9], "domain": [0, 0.2], "visible": False, "fixedrange": True},
        yaxis3={"range": [-1, 1], "domain": [0.92, 1], "visible": False, "fixedrange": True},
    )  # fmt: skip
    return plot


def _mark_events(plot: go.Figure, events: Sequence[EventRecord], palette: Palette) -> None:
    for kind, (word, symbol) in _MARKS.items():
        mine = [event for event in events if event.kind == kind]
        if not mine:
            continue
        grave = kind in {"xid", "finding_opened"}
        plot.add_scatter(
            x=[event.at for event in mine],
            y=[0] * len(mine),
            yaxis="y3",
            mode="markers",
            marker={
                "symbol": symbol,
                "size": 9,
                "color": palette.watch[0] if grave else palette.blank[0],
            },
            # Text of the cluster: plotly reads tags and entities in hover text.
            text=[_inert(f"{word}: {event.message or event.code}") for event in mine],
            hovertemplate="%{text}<extra></extra>",
            name=word,
        )


def _lay_jobs(
    plot: go.Figure,
    stays: Sequence[StayRecord],
    *,
    since: datetime,
    until: datetime,
    palette: Palette,
) -> None:
    for number, stay in enumerate(stays[:30]):
        begin, end = max(stay.from_at, since), min(stay.to_at or until, until)
        lane = number % 3
        plot.add_scatter(
            x=[begin, end],
            y=[lane, lane],
            yaxis="y2",
            mode="lines",
            line={"color": palette.kinds[number % len(palette.kinds)], "width": 7},
            text=[_inert(f"{stay.name}, {words.count(stay.gpus, 'GPU')}")] * 2,
            hovertemplate="%{text}<extra></extra>",
            name=_inert(stay.name),
        )
        plot.add_annotation(
            x=begin,
            y=lane,
            yref="y2",
            text=_inert(stay.name),
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            yshift=3,
            font={"size": 11},
        )


def _inert(text: str) -> str:
    """The text without what plotly would read as markup."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")[:200]


def _repairs(name: str) -> None:
    engine, cluster = context.engine(), context.cluster()
    stays, runs = (
        repairs(engine, cluster, node=name, limit=20),
        diagnostics(engine, cluster, node=name, limit=20),
    )
    if not stays and not runs:
        return
    rows: list[tuple[datetime, dict[str, Any]]] = [
        (
            one.opened_at,
            {
                "what": {
                    "text": one.action or "Repair",
                    "second": " / ".join(str(n["text"]) for n in one.notes),
                },
                "state": parts.state("Returned", "calm")
                if one.returned_at
                else parts.state("Under repair", "busy"),
                "by": one.opened_by,
                "age": words.milliseconds(one.opened_at),
            },
        )
        for one in stays
    ]
    tones = {"passed": "calm", "failed": "act", "gone": "watch", "running": "busy", "asked": "busy"}
    rows += [
        (
            one.requested_at,
            {
                "what": {"text": f"Diagnostic {one.id}", "second": one.message},
                "state": parts.state(words.sentence(one.state), tones.get(one.state, "quiet")),
                "by": one.requested_by,
                "age": words.milliseconds(one.requested_at),
            },
        )
        for one in runs
    ]
    parts.sheet(
        "node-repairs",
        label="Repairs and diagnostics",
        title="Repairs and diagnostics",
        dense=True,
        rows=[
            parts.row(f"{at.timestamp()}-{number}", cells)
            for number, (at, cells) in enumerate(sorted(rows, key=lambda row: row[0], reverse=True))
        ],
        columns=[
            parts.column("what", "What and notes", "two"),
            parts.column("state", "State", "state"),
            parts.column("by", "Asked by"),
            parts.column("age", "Ago", "age", right=True),
        ],
        empty="",
    )
