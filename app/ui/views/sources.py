"""Sources: what Pitwall hears, how old its word is, and what not hearing it makes unknown."""

import streamlit as st

from app.store.records import SourceRecord
from app.ui import live, words
from app.ui.components import parts
from app.ui.guard import guarded

MEANINGS = {
    "agents": ("Readings of the GPUs and the nodes' own findings", "Nodes not heard for 45 s are Unknown; nothing is done automatically to them."),
    "ingest": ("Takes the agents' reports and serves /v1", "Reports wait in the agents' spools; the command line has no answer."),
    "kubernetes": ("Nodes, pods, jobs and budgets, by a watch", "Placement and service are as last heard; drains wait, none begins."),
    "prometheus": ("dcgm-exporter's series, where nodes have no agent", "Nodes known by it alone are Unknown; the others do not need it."),
    "worker": ("Watches, judges, answers requests, drains", "Requests wait; no incident opens; a standby takes over within 20 s."),
}  # fmt: skip


@guarded
def show() -> None:
    parts.headline("sources-head", title="Sources")
    _rows()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows() -> None:
    parts.sheet(
        "sources",
        label="Sources",
        rows=[_row(source) for source in live.status().sources],
        columns=[
            parts.column("source", "Source", "two"),
            parts.column("state", "State", "state"),
            parts.column("said", "Says", wrap=True, missing="nothing is amiss"),
            parts.column("ok", "Last well, ago", "age", right=True, missing="never"),
            parts.column("without", "Without it", wrap=True),
        ],
        empty="No source has spoken yet. Start `pitwall ingest` and `pitwall worker`.",
    )


def _row(source: SourceRecord) -> dict[str, object]:
    what, without = MEANINGS.get(source.source.partition(":")[0], ("", ""))
    return parts.row(
        source.source,
        {
            "source": {"text": source.source, "second": what},
            "state": parts.state(words.sentence(source.state), words.source_tone(source.state)),
            "said": source.message or None,
            "ok": words.milliseconds(source.last_ok_at),
            "without": without or None,
        },
    )
