"""Incidents: one a cause, first those that hurt most; one with its story under ?id=."""

import streamlit as st

from app.ui import live
from app.ui.components import incident as told
from app.ui.components import parts
from app.ui.guard import guarded
from app.ui.views import incident


@guarded
def show() -> None:
    incident_id = st.query_params.get("id")
    if incident_id:
        incident.show(incident_id)
        return
    parts.headline("incidents-head", title="Incidents")
    resolved_too = st.toggle("Resolved too", key="incidents-resolved")
    _rows(resolved_too)


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows(resolved_too: bool) -> None:
    found = live.open_incidents(resolved_too=resolved_too)
    parts.sheet(
        "incidents",
        label="Incidents",
        rows=[told.list_row(one) for one in found],
        columns=[
            parts.column("what", "Incident and what to do", "two", wrap=True),
            parts.column("hurt", "Who is hurt now", "two"),
            parts.column(
                "lost", "GPU-hours lost", right=True, missing="no job was hurt, or not known"
            ),
            parts.column("severity", "Severity", "state"),
            parts.column("owner", "With", missing="nobody has taken it"),
            parts.column("age", "Opened, ago", "age", right=True),
        ],
        empty="No incident is open." if not resolved_too else "No incident is known.",
        more=f"The first {live.INCIDENTS_SHOWN} are shown: `pitwall incidents` lists all."
        if len(found) >= live.INCIDENTS_SHOWN
        else None,
    )
