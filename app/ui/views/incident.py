"""One incident: what to do first, whom it hurts, what failed first and what followed, and a person's word on it."""

from typing import Any

import streamlit as st

from app.store.records import IncidentRecord
from app.ui import context, live, travel, words
from app.ui.components import incident as told
from app.ui.components import incident_story as story
from app.ui.components import parts
from app.ui.components.findings import findings_sheet
from app.ui.guard import guarded
from app.ui.views import asking, saying

DRAINABLE_NODES = 16
"""More at once are no plan that a person reads: the nodes' own pages drain them."""


def show(incident_id: str) -> None:
    picture = live.incident(incident_id)
    if picture is None:
        parts.headline(
            "incident-head",
            title="Incident not known",
            trail=[{"text": "Incidents", "open": travel.to("incidents")}],
            cause={"text": f"No incident {incident_id} is known.", "tone": "quiet"},
            action="It may have been forgotten after its time, or the address is mistyped.",
        )
        return
    head, buttons = st.columns([5, 3], vertical_alignment="top")
    with head:
        _head(incident_id, _buttons_state(picture))
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        _buttons(picture)
    saying.show(incident_id)
    _figures(incident_id)
    left, right = st.columns([3, 2], gap="small")
    with left:
        _story(incident_id)
    with right:
        if picture.incident.resolved_at is None:
            _note(picture.incident)
        _timeline(incident_id)
    asking.show()


def _buttons_state(picture: live.IncidentPicture) -> tuple[object, ...]:
    incident = picture.incident
    return (
        incident.resolved_at is None,
        incident.owner,
        incident.acknowledged_by,
        drainable(picture),
    )


def drainable(picture: live.IncidentPicture) -> tuple[str, ...]:
    """The nodes that draining may help: troubled, still able to take work, and held by nothing.

    None of an incident of the pipeline: that nobody hears the nodes says nothing against them. Of a shared
    domain only those that have failed or are silent: the others are hurt by it, not broken.
    """
    incident = picture.incident
    if incident.scope == "pipeline" or incident.resolved_at is not None:
        return ()
    return tuple(
        node.name
        for node in picture.nodes
        if node.operation_id is None
        and node.service not in words.OUT_OF_SERVICE
        and (incident.scope not in told.DOMAINS or node.health in {"Failing", "Unknown"})
    )


def _buttons(picture: live.IncidentPicture) -> None:
    incident = picture.incident
    if incident.resolved_at is not None:
        if not incident.merged_into and st.button("Reopen…", key="reopen"):
            asking.open_question(_question("reopen", incident))
        return
    nodes, mine = drainable(picture), incident.owner == context.person()
    if 0 < len(nodes) <= DRAINABLE_NODES and st.button(
        "Drain the node…" if len(nodes) == 1 else f"Drain {len(nodes)} nodes…",
        key="drain",
        type="primary" if mine and len(nodes) == 1 else "secondary",
        help="Shows what would happen first; nothing is done yet.",
    ):
        asking.open_question(asking.Question("drain", nodes=nodes, reason=incident.title[:500]))
    if st.button("Resolve…", key="resolve", help="Closes it, with your words on why."):
        asking.open_question(_question("resolve", incident))
    if not told.is_handled(incident) and st.button(
        "Acknowledge", key="acknowledge", help="Says that you have seen it; it turns quiet."
    ):
        _say("acknowledge", incident, label="Acknowledge")
    if not mine and st.button(
        "Take over" if incident.owner else "Take it",
        key="own",
        type="secondary" if incident.owner else "primary",
        help="Says that you work on it.",
    ):
        _say("own", incident, label="Take it", owner=context.person())


def _question(kind: str, incident: IncidentRecord) -> asking.Question:
    return asking.Question(kind, incident_id=incident.id, title=incident.title[:120].rstrip("."))


def _say(kind: str, incident: IncidentRecord, *, label: str, **more: str) -> None:
    saying.say(kind, {"incident_id": incident.id, **more}, about=incident.id, label=label)


def _note(incident: IncidentRecord) -> None:
    key = saying.note_key(incident.id)
    with st.form(f"form-{key}", border=False), st.container(horizontal=True, gap="small"):
        text = st.text_input(
            "Note",
            key=key,
            placeholder="What the others should know",
            max_chars=2000,
            label_visibility="collapsed",
        )
        if st.form_submit_button("Add note") and text.strip():
            _say("note", incident, label="The note", text=text.strip())


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _head(incident_id: str, drawn: tuple[object, ...]) -> None:
    picture = live.incident(incident_id)
    if picture is None or (_buttons_state(picture) != drawn and not asking.is_open()):
        st.rerun()
    incident = picture.incident
    over = incident.resolved_at is not None
    state = told.state_of(incident)
    states = [{**state, "at": None if over else words.milliseconds(incident.opened_at)}]
    if incident.owner and not over:
        states.append({"word": f"with {incident.owner}", "tone": "busy", "at": None})
    parts.headline(
        "incident-head",
        title=incident.title,
        trail=[{"text": "Incidents", "open": travel.to("incidents")}],
        states=states,
        cause={"text": f"Do first: {incident.action}", "tone": "plain"}
        if incident.action and not over
        else None,
        facts=told.facts_of(incident),
    )


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _figures(incident_id: str) -> None:
    picture = live.incident(incident_id)
    if picture is None:
        return
    parts.notes("incident-notes", told.notes_of(picture.incident, picture.merged_into))
    still = sum(1 for finding in picture.findings if finding.closed_at is None)
    parts.figures("incident-figures", told.figures_of(picture.incident, findings_open=still))


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _story(incident_id: str) -> None:
    picture = live.incident(incident_id)
    if picture is None:
        return
    incident = picture.incident
    jobs = told.job_rows(incident, context.now())
    if jobs:
        _jobs(jobs, title="Whom it hurts" if incident.resolved_at is None else "Whom it hurt")
    if incident.first:
        parts.card("incident-first", **story.first_card(incident, picture.gpu_index))
    followed = story.consequence_rows(incident, picture.gpu_index)
    if followed:
        _followed(followed, beyond=story.consequences_beyond(incident))
    ordered = sorted(picture.findings, key=lambda finding: finding.closed_at is not None)
    left_out = len(incident.findings) - len(ordered)
    findings_sheet(
        "incident-findings",
        ordered,
        gpu_index=picture.gpu_index,
        handled=told.is_handled(incident) or incident.resolved_at is not None,
        with_node=True,
        empty="No finding is part of it.",
        more=f"and {left_out:,} more" if left_out > 0 and ordered else None,
    )


def _jobs(rows: list[dict[str, Any]], *, title: str) -> None:
    parts.sheet(
        "incident-jobs",
        label="Jobs that it hurts",
        title=title,
        rows=rows,
        dense=True,
        columns=[
            parts.column("job", "Job", "two"),
            parts.column("gpus", "GPUs", "number"),
            parts.column("since", "Hurt since, ago", "age", right=True, missing="not known"),
            parts.column("until", "Well since, ago", "age", right=True, missing="not yet"),
            parts.column("hours", "GPU-hours", right=True, missing="not known"),
        ],
        empty="",
    )


def _followed(rows: list[dict[str, Any]], *, beyond: int) -> None:
    parts.sheet(
        "incident-followed",
        label="What followed the first failure",
        title="What followed it",
        count=str(len(rows) + beyond),
        rows=rows,
        dense=True,
        height="400px" if len(rows) > 8 else None,  # cuts a row in two, so that one sees more
        columns=[
            parts.column("after", "After", "soft", width="84px"),
            parts.column("kind", "What", "soft", width="96px"),
            parts.column("what", "Consequence", "two", wrap=True),
        ],
        empty="",
        more=f"and {beyond:,} more" if beyond else None,
    )


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _timeline(incident_id: str) -> None:
    picture = live.incident(incident_id)
    if picture is None:
        return
    parts.sheet(
        "incident-timeline",
        label="Timeline, newest first",
        title="Timeline",
        count="newest first" if len(picture.timeline) > 1 else "",
        rows=story.timeline_rows(picture.timeline),
        dense=True,
        height="480px",
        columns=[
            parts.column("age", "Ago", "age", width="84px"),
            parts.column("kind", "What", "soft", width="84px"),
            parts.column("what", "Message", "two", wrap=True),
        ],
        empty="Nothing has been told yet.",
    )
    if picture.incident.evidence:
        _evidence(picture.incident)
    if len(picture.incident.nodes) > 1:
        _nodes(picture)


def _evidence(incident: IncidentRecord) -> None:
    parts.sheet(
        "incident-evidence",
        label="Evidence",
        title="Why it is thought so",
        rows=story.evidence_rows(incident),
        dense=True,
        height="320px",
        columns=[
            parts.column("age", "Ago", "age", width="84px"),
            parts.column("source", "Source", "soft", width="96px"),
            parts.column("text", "Evidence", wrap=True),
        ],
        empty="",
    )


def _nodes(picture: live.IncidentPicture) -> None:
    rows, total = story.node_rows(picture.nodes), len(picture.incident.nodes)
    parts.sheet(
        "incident-nodes",
        label="Nodes of this incident",
        title="Nodes",
        count=str(total),
        rows=rows,
        dense=True,
        height="320px",
        columns=[parts.column("node", "Node", "two"), parts.column("state", "State", "state")],
        empty="None of its nodes is known any more.",
        more=f"and {total - len(rows):,} more" if total > len(rows) else None,
    )
