"""Alerts: what people are told, what is silent and until when, who could not be reached, and whether all that works."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import streamlit as st

from app.store.alert_records import AlertRecord, DeliveryRecord, ReceiverRecord, SilenceRecord
from app.store.reads import alerts as reads
from app.ui import context, live, rights, travel, words
from app.ui.components import parts
from app.ui.guard import guarded
from app.ui.views import asking, silencing

SHOWN = 100
_EVENTS = {"trigger": "Firing", "acknowledge": "Taken up", "resolve": "Over", "test": "Test"}


@guarded
def show() -> None:
    head, buttons = st.columns([5, 2], vertical_alignment="top")
    with head:
        parts.headline("alerts-head", title="Alerts")
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        if st.button("Add receiver…", key="alerts-receiver"):
            silencing.ask_receiver()
        if st.button("Test message…", key="alerts-test"):
            silencing.ask_test()
        if st.button("Silence…", key="alerts-silence", type="primary"):
            silencing.ask_silence()
    _live()
    _dead()
    silencing.show()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _live() -> None:
    engine, cluster, now = context.engine(), context.cluster(), context.now()
    found = reads.alerts(engine, cluster, limit=SHOWN + 1)
    silences = reads.silences(engine, cluster, now=now)
    told = reads.receivers(engine, cluster)
    parts.figures(
        "alerts-figures",
        figures_of(found, silences, told, reads.delivery_lag_seconds(engine, cluster, now=now)),
    )
    left, right = st.columns([3, 2], gap="small")
    with left:
        _alerts(found)
    with right:
        _silences(silences)
        _receivers(told)


def figures_of(
    found: Sequence[AlertRecord],
    silences: Sequence[SilenceRecord],
    told: Sequence[ReceiverRecord],
    lag_seconds: float,
) -> list[dict[str, Any]]:
    muted = sum(bool(one.silenced_by or one.inhibited_by) for one in found)
    grave = sum(
        one.severity in ("critical", "fatal") and one.state == "firing"
        and not (one.acknowledged_by or one.silenced_by or one.inhibited_by)
        for one in found
    )  # fmt: skip
    dead = sum(one.dead for one in told)
    pipeline = [
        s
        for s in live.status().sources
        if s.source == "watchdog" or s.source.startswith("alertmanager:")
    ]
    amiss = [one.source for one in pipeline if one.state != "ok"]
    return [
        {"label": "Need a person", "value": str(grave), "of": f"of {len(found)} open", "tone": "act" if grave else "calm", "help": "Critical or fatal, taken up by nobody, neither silenced nor inhibited."},
        {"label": "Muted", "value": str(muted), "note": f"{words.count(len(silences), 'silence')} set", "tone": "calm"},
        {"label": "Delivery lag", "value": "none" if lag_seconds < 1 else words.age(_ago(lag_seconds), context.now()), "note": "age of the oldest message not delivered", "tone": "watch" if lag_seconds > 60 else "calm"},
        {"label": "Given up", "value": str(dead), "note": "messages, see below" if dead else "no message", "tone": "act" if dead else "calm"},
        {"label": "Alertmanager and watchdog", "value": "amiss" if amiss else "well" if pipeline else "none set", "note": words.listed(amiss) if amiss else words.count(len(pipeline), "receiver"), "tone": "watch" if amiss else "calm", "open": travel.to("sources")},
    ]  # fmt: skip


def _ago(seconds: float) -> datetime:
    return context.now() - timedelta(seconds=seconds)


def _alerts(found: Sequence[AlertRecord]) -> None:
    parts.sheet(
        "alerts",
        label="Open alerts",
        title="Open",
        count=str(min(len(found), SHOWN)) if found else "",
        rows=[_alert_row(one) for one in found[:SHOWN]],
        columns=[
            parts.column("what", "Alert", "two"),
            parts.column("state", "Severity", "state"),
            parts.column("muted", "Muted by", "soft", wrap=True, missing="nothing: it is told"),
            parts.column("with", "With", missing="nobody has taken it up"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="Nothing is told to anybody now.",
        more=f"The last {SHOWN} are shown; `pitwall alerts` has more."
        if len(found) > SHOWN
        else "",
    )


def _alert_row(one: AlertRecord) -> dict[str, Any]:
    muted = ", ".join([*(f"silence {name}" for name in one.silenced_by), *(["another alert"] if one.inhibited_by else [])])  # fmt: skip
    quiet = bool(muted or one.acknowledged_by)
    target = (
        {"open": travel.incident(one.incident_id)}
        if one.incident_id
        else {"open": travel.operation(one.operation_id)}
        if one.operation_id
        else {}
    )
    word = "Unknown" if one.state == "unknown" else one.severity.capitalize()
    tone = (
        "blank"
        if one.state == "unknown"
        else "quiet"
        if quiet
        else words.severity_tone(one.severity)
    )
    return parts.row(
        one.id,
        {
            "what": {
                "text": str(one.annotations.get("summary") or one.labels.get("alertname", "")),
                "second": str(
                    one.annotations.get("hurts") or one.annotations.get("description") or ""
                ),
                **target,
            },
            "state": parts.state(word, tone),
            "muted": muted or None,
            "with": one.acknowledged_by,
            "age": words.milliseconds(one.started_at),
        },
        **target,
    )


def _silences(silences: Sequence[SilenceRecord]) -> None:
    now = context.now()
    parts.sheet(
        "silences",
        label="Silences and maintenance windows",
        title="Silences",
        count=str(len(silences)) if silences else "",
        dense=True,
        rows=[
            parts.row(
                one.id,
                {
                    "on": {
                        "text": ", ".join(f"{m['label']}{m['op']}{m['value']}" for m in one.matchers),
                        "second": f"{one.reason} · {one.author}" + (" at Alertmanager" if one.origin != "pitwall" else ""),
                    },
                    "state": parts.state("Maintenance" if one.kind == "maintenance" else "Silent", "busy")
                    if one.starts_at <= now
                    else parts.state("To come", "quiet"),
                    "hides": one.hides,
                    "ends": f"{one.ends_at:%m-%d %H:%M}",
                },
            )
            for one in silences
        ],
        columns=[
            parts.column("on", "On", "two"),
            parts.column("state", "State", "state"),
            parts.column("hides", "Hides", "number"),
            parts.column("ends", "Until, UTC", right=True),
        ],
        empty="Nothing is silent.",
    )  # fmt: skip
    ours = [one for one in silences if one.origin == "pitwall"]
    if ours and st.button("End a silence…", key="alerts-unsilence"):
        silencing.ask_end([(one.id, f"{one.reason} ({one.id})") for one in ours])
        st.rerun()


def _receivers(told: Sequence[ReceiverRecord]) -> None:
    parts.sheet(
        "receivers",
        label="Receivers",
        title="Receivers",
        dense=True,
        rows=[
            parts.row(
                one.name,
                {
                    "name": {"text": one.name, "second": one.last_error or (f"secret {one.secret}" if one.secret else "of the file")},
                    "state": parts.state(f"{one.dead} given up", "act")
                    if one.dead
                    else parts.state(f"{one.pending} waiting", "watch")
                    if one.pending
                    else parts.state("Reached", "calm")
                    if one.last_sent_at
                    else parts.state("Not told yet", "quiet"),
                    "sent": words.milliseconds(one.last_sent_at),
                },
            )
            for one in told
        ],
        columns=[
            parts.column("name", "Receiver", "two"),
            parts.column("state", "State", "state"),
            parts.column("sent", "Told, ago", "age", right=True, missing="never"),
        ],
        empty="Nobody has been told anything yet. Receivers are in the file that PITWALL_ALERTS names.",
    )  # fmt: skip


@guarded
def _dead() -> None:
    """Dead letters, each with its buttons; not in the live part, so that no button moves under a hand."""
    found = reads.deliveries(context.engine(), context.cluster(), state="dead", limit=20)
    if not found:
        return
    parts.notes(
        "dead-head",
        [
            parts.note(
                "These messages were given up: mend the receiver, then send them again.", "act"
            )
        ],
    )
    for one in found:
        with st.container(horizontal=True, vertical_alignment="center", gap="small", border=True):
            st.text(_said(one))
            denied = rights.refusal("send_again")
            if st.button(
                "Send again", key=f"again-{one.id}", disabled=bool(denied), help=denied or None
            ):
                _do("send_again", one.id)
            if st.button("Drop", key=f"drop-{one.id}", disabled=bool(denied), help=denied or None):
                _do("drop_delivery", one.id)


def _said(one: DeliveryRecord) -> str:
    title = str(one.message.get("title", ""))
    return f"{_EVENTS.get(one.event, one.event)} to {one.receiver}: {title} — {one.last_error}, tried {words.count(one.attempts, 'time')}"


def _do(kind: str, delivery_id: str) -> None:
    sent = asking.submit(
        kind,
        {"delivery_id": delivery_id},
        key=f"{kind}-{delivery_id}-{context.now():%s}",
        reason="",
    )
    if sent is not None:
        asking.soon(sent.id)
        st.rerun()
