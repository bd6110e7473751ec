"""The pipeline's heartbeat and the data's age, in the header of every view."""

from datetime import datetime, timedelta

import streamlit as st

from app.errors import StoreError
from app.store.records import SourceRecord, StatusRecord
from app.ui import context, live, travel, words
from app.ui.components import kit

LATE_AFTER_SECONDS = 30.0
"""Agents report each 15 s when nothing changes: twice that is no longer calm."""

OLD_AFTER_SECONDS = 60.0

_FEEDS = ("agents", "kubernetes", "worker")  # what the state of the fleet is made from


@st.fragment(run_every=live.REFRESH_SECONDS)
def show() -> None:
    """The sources, each with its state, and how old the oldest of what the fleet's state is made from is."""
    try:
        data = describe(live.status())
    except StoreError as error:
        data = blind(str(error))
    travel.follow(kit.mount("pulse", data, key="pulse-part"))


def describe(status: StatusRecord) -> dict[str, object]:
    feeds = {
        source.source: _told_at(source) for source in status.sources if source.source in _FEEDS
    }
    oldest = min((at for at in feeds.values() if at), default=None)
    unheard = [name for name, at in feeds.items() if at is None]
    now = context.now()
    base = {
        "now": words.milliseconds(now),
        "cluster": status.cluster,
        "sources": [_source(source) for source in status.sources],
        "held": f"Operations paused by {status.pause.paused_by}" if status.pause else None,
    }
    if not feeds or oldest is None or unheard:
        missing = words.listed(unheard or list(_FEEDS))
        return {
            **base,
            "tone": "blank",
            "label": "No data yet",
            "at": None,
            "help": f"Not heard yet: {missing}.",
        }
    age = now - oldest
    tone = (
        "calm"
        if age < timedelta(seconds=LATE_AFTER_SECONDS)
        else "watch"
        if age < timedelta(seconds=OLD_AFTER_SECONDS)
        else "act"
    )
    return {
        **base,
        "tone": tone,
        "label": "Data ",
        "at": words.milliseconds(oldest),
        "help": "Age of the oldest of what this page shows: agents' reports, Kubernetes, the worker.",
    }


def _told_at(source: SourceRecord) -> datetime | None:
    """Until when the source's word holds.

    A watch of Kubernetes may rightly bring nothing for minutes: while the worker says that it stands, what was
    read from it is as fresh as that word.
    """
    vouched = source.source == "kubernetes" and source.state == "ok"
    return source.updated_at if vouched else source.last_ok_at


def blind(reason: str) -> dict[str, object]:
    return {
        "now": words.milliseconds(context.now()),
        "cluster": context.cluster(),
        "sources": [],
        "tone": "act",
        "label": "Store can't be read",
        "at": None,
        "help": reason,
    }


def _source(source: SourceRecord) -> dict[str, object]:
    return {
        "name": source.source,
        "state": source.state,
        "tone": words.source_tone(source.state),
        "at": words.milliseconds(source.last_ok_at),
        "help": f"{source.source}: {source.state}{f', {source.message}' if source.message else ''}",
    }
