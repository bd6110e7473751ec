"""Incidents: one a cause, with whom it hurts and what to do."""

import streamlit as st

from app.store.records import IncidentRecord
from app.ui import live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded


@guarded
def show() -> None:
    parts.headline("incidents-head", title="Incidents")
    resolved_too = st.toggle("Resolved too", key="incidents-resolved")
    _rows(resolved_too)


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows(resolved_too: bool) -> None:
    rows = [row(incident) for incident in live.open_incidents(resolved_too=resolved_too)]
    parts.sheet(
        "incidents",
        label="Incidents",
        rows=rows,
        columns=[
            parts.column("what", "Incident and what to do", "two"),
            parts.column("severity", "Severity", "state"),
            parts.column("hurt", "Who is hurt", "two", missing="no job"),
            parts.column("cause", "Cause", "mono"),
            parts.column("owner", "With", missing="nobody has taken it"),
            parts.column("age", "Opened, ago", "age", right=True),
        ],
        empty="No incident is open." if not resolved_too else "No incident is known.",
    )


def row(incident: IncidentRecord) -> dict[str, object]:
    over = incident.resolved_at is not None
    target = (
        travel.node(incident.subject)
        if incident.scope == "node"
        else travel.to("nodes", search=incident.subject)
    )
    severity = (
        parts.state("Resolved", "quiet")
        if over
        else parts.state(
            incident.severity.capitalize(),
            "quiet" if incident.owner else words.severity_tone(incident.severity),
        )
    )
    jobs = [f"{job.get('namespace')}/{job.get('name')}" for job in incident.jobs]
    hurt = (
        {"text": words.listed(jobs, most=2), "second": words.count(incident.gpus_hurt, "GPU")}
        if jobs
        else {
            "text": "no job",
            "second": words.count(incident.gpus_hurt, "GPU") if incident.gpus_hurt else "",
        }
    )
    return parts.row(
        incident.id,
        {
            "what": {"text": incident.title, "open": target, "second": incident.action},
            "severity": severity,
            "hurt": hurt,
            "cause": incident.cause,
            "owner": incident.owner or incident.acknowledged_by,
            "age": words.milliseconds(incident.opened_at),
        },
        open=target,
    )
