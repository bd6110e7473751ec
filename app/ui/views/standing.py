"""What holds for all operations: a pause, limits that tripped, requests that wait for a second person."""

import streamlit as st

from app.store.records import StatusRecord
from app.ui import live, words
from app.ui.components import parts
from app.ui.guard import guarded
from app.ui.views import asking


def buttons() -> None:
    """Pause or its end, and the reset of each limit that tripped."""
    status = live.status()
    for mark in status.limits:
        if mark.tripped_at is not None and st.button(
            f"Reset limit {mark.name}…", key=f"reset-{mark.name}", help=mark.message
        ):
            asking.open_question(
                asking.Question("reset_limit", title=mark.name, choice={"limit": mark.name})
            )
    if status.pause is None:
        if st.button("Pause…", key="pause", help="Nothing new begins and nothing goes on."):
            asking.open_question(asking.Question("pause"))
    elif st.button("End the pause…", key="unpause", type="primary"):
        asking.open_question(asking.Question("unpause"))


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def notes() -> None:
    """Says what holds; nothing while nothing does."""
    parts.notes("standing", notes_of(live.status()))


def notes_of(status: StatusRecord) -> list[dict[str, object]]:
    """The sentences, the gravest first."""
    found = []
    if status.pause is not None:
        found.append(
            parts.note(
                f"Paused by {status.pause.paused_by} at {status.pause.paused_at:%Y-%m-%d %H:%M} UTC: {status.pause.reason.rstrip('.')}. Nothing begins and nothing goes on.",
                "watch",
            )
        )
    found += [
        parts.note(
            f"The limit {mark.name} tripped, so nothing is done automatically: {mark.message}",
            "watch",
        )
        for mark in status.limits
        if mark.tripped_at is not None
    ]
    found += [
        parts.note(
            f"{one.asked_by} wants {one.kind} of {one.subject}, {words.count(one.gpus, 'GPU')}: it waits for a second "
            f"person's `pitwall approve {one.request_id}`.",
            "watch",
        )
        for one in status.approvals
    ]
    return found
