"""Automatic: what it did, would have done in a dry-run, and left alone with the reason."""

import streamlit as st

from app.store.reads.automatic import automatic_actions
from app.store.records import AutomaticRecord
from app.ui import context, live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded

SHOWN = 200
_STATES = {
    "asked": ("Asked", "busy"),
    "accepted": ("Under way or done", "calm"),
    "would_act": ("Would have acted", "quiet"),
    "waiting": ("Refused, waits", "watch"),
    "left": ("Left alone", "watch"),
    "ended": ("Ended by itself", "quiet"),
}


@guarded
def show() -> None:
    parts.headline("automatic-head", title="Automatic")
    _rows()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows() -> None:
    found = automatic_actions(context.engine(), context.cluster(), limit=SHOWN + 1)
    parts.sheet(
        "automatic",
        label="What automatic mode did",
        rows=[_row(one) for one in found[:SHOWN]],
        columns=[
            parts.column("node", "Node and finding", "two"),
            parts.column("rule", "Rule"),
            parts.column("action", "Action"),
            parts.column("state", "State", "state"),
            parts.column("reason", "Why", wrap=True, missing="nothing stands against it"),
            parts.column("operation", "Operation", "link", missing="none was opened"),
            parts.column("age", "Ago", "age", right=True),
        ],
        empty="Automatic mode is off, or has found nothing to do. Its rules are a file that PITWALL_AUTOMATIC names.",
        more=f"The last {SHOWN} are shown; `pitwall automatic --all` has more."
        if len(found) > SHOWN
        else "",
    )


def _row(one: AutomaticRecord) -> dict[str, object]:
    word, tone = _STATES.get(one.state, (one.state, "quiet"))
    return parts.row(
        f"{one.rule}-{one.episode}",
        {
            "node": {"text": one.node, "second": one.finding, "open": travel.node(one.node)},
            "rule": one.rule,
            "action": f"{words.sentence(one.action)}{', dry-run' if one.acts == 'dry-run' else ''}",
            "state": parts.state(word, tone),
            "reason": one.reason or None,
            "operation": parts.link(one.operation_id, travel.operation(one.operation_id))
            if one.operation_id
            else None,
            "age": words.milliseconds(one.updated_at),
        },
    )
