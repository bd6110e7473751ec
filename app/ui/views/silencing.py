"""Dialogs of alerts: a silence or a maintenance window, its end, a test message. What is asked lives in the session."""

import uuid
from datetime import UTC, datetime, time
from typing import Any

import streamlit as st

from app.ui import context, live, rights
from app.ui.components import parts
from app.ui.views import asking

ON = {
    "node": "Node",
    "rack": "Rack",
    "block": "Block",
    "job": "Job (namespace/name)",
    "rule": "Rule",
    "team": "Team",
    "all": "Everything",
}
LENGTHS = {"30 min": 1800.0, "2 h": 7200.0, "8 h": 28800.0, "1 d": 86400.0, "7 d": 604800.0}
_KEY = "alert-question"


def ask_silence(on: str = "node", value: str = "") -> None:
    """Opens the dialog, with what it is on filled in."""
    st.session_state[_KEY] = {"kind": "silence", "on": on, "value": value, "key": uuid.uuid4().hex}


def ask_end(silences: list[tuple[str, str]]) -> None:
    """Opens the dialog that ends one of these (id, words)."""
    st.session_state[_KEY] = {"kind": "unsilence", "silences": silences, "key": uuid.uuid4().hex}


def ask_test() -> None:
    """Opens the dialog that sends a test message."""
    st.session_state[_KEY] = {"kind": "test_receiver", "key": uuid.uuid4().hex}


def ask_receiver() -> None:
    """Opens the dialog that adds a receiver."""
    st.session_state[_KEY] = {"kind": "receiver_add", "key": uuid.uuid4().hex}


def show() -> None:
    """Shows the open dialog, if there is one; at the end of a view."""
    question = st.session_state.get(_KEY)
    if question is None:
        return
    titles = {
        "silence": "Silence",
        "unsilence": "End a silence",
        "test_receiver": "Test message",
        "receiver_add": "Add a receiver",
    }
    bodies = {
        "silence": _silence,
        "unsilence": _end,
        "test_receiver": _test,
        "receiver_add": _receiver,
    }
    kind = question["kind"]
    st.dialog(titles[kind], width="medium", on_dismiss=_close)(bodies[kind])(question)


def _close() -> None:
    st.session_state.pop(_KEY, None)


def _silence(question: dict[str, Any]) -> None:
    st.text("Nobody is told of it meanwhile. It stays visible here and is counted.")
    on = st.selectbox(
        "On",
        list(ON),
        format_func=ON.__getitem__,
        index=list(ON).index(question["on"]),
        key="silence-on",
    )
    value = ""
    if on != "all":
        value = st.text_input(
            ON[on], value=question["value"], key="silence-value", max_chars=300
        ).strip()
    length = st.segmented_control(
        "For", list(LENGTHS), default="2 h", required=True, key="silence-length"
    )
    parameters: dict[str, Any] = {"on": on, "value": value, "seconds": LENGTHS[length]}
    kind = "silence"
    if st.toggle("Maintenance that begins later", key="silence-later"):
        kind = "maintenance"
        today = context.now()
        with st.container(horizontal=True, gap="small"):
            day = st.date_input(
                "Day, UTC", value=today.date(), min_value=today.date(), key="silence-day"
            )
            clock = st.time_input("Time, UTC", value=time(22, 0), key="silence-time")
        if hasattr(day, "year"):
            parameters["starts_at"] = datetime.combine(day, clock, UTC).isoformat()
    reason = st.text_input(
        "Reason", key="silence-reason", placeholder="Riser is replaced, case 4711", max_chars=500
    ).strip()
    ready = bool(reason) and (on == "all" or bool(value))
    _button(
        question,
        kind,
        {**parameters, "text": reason},
        "Silence it" if kind == "silence" else "Plan the window",
        ready=ready,
    )


def _end(question: dict[str, Any]) -> None:
    names = dict(question["silences"])
    chosen = st.selectbox(
        "Which", list(names), format_func=names.__getitem__, key="unsilence-which"
    )
    _button(question, "unsilence", {"silence_id": chosen}, "End it now", ready=chosen is not None)


def _test(question: dict[str, Any]) -> None:
    st.text("It says that nothing is wrong and who asked for it.")
    name = st.text_input(
        "Receiver", key="test-receiver", placeholder="pager", max_chars=100
    ).strip()
    _button(question, "test_receiver", {"receiver": name}, "Send it", ready=bool(name))


def _receiver(question: dict[str, Any]) -> None:
    st.text(
        "Its address is a secret and is not typed here: put it into a file of PITWALL_ALERT_SECRETS_DIR, or into a "
        "variable PITWALL_ALERT_SECRET_... of the worker, and give that name."
    )
    name = st.text_input("Name", key="receiver-name", placeholder="pager", max_chars=100).strip()
    secret = st.text_input(
        "Name of its secret", key="receiver-secret", placeholder="pager-address", max_chars=200
    ).strip()
    severities = st.segmented_control(
        "Told of",
        ("All", "Critical and fatal"),
        default="Critical and fatal",
        required=True,
        key="receiver-told",
    )
    ended = st.toggle("Also when it is over", value=True, key="receiver-ended")
    parameters: dict[str, Any] = {"receiver": name, "secret": secret, "send_resolved": ended}
    if severities != "All":
        parameters["matchers"] = ['severity=~"critical|fatal"']
    _button(question, "receiver_add", parameters, "Add it", ready=bool(name and secret))


def _button(
    question: dict[str, Any], kind: str, parameters: dict[str, Any], label: str, *, ready: bool
) -> None:
    denied = rights.refusal(kind)
    if denied:
        parts.notes("silence-denied", [parts.note(denied, "watch")])
    if question.get("refusal"):
        parts.notes("silence-refused", [parts.note(f"Not done: {question['refusal']}", "act")])
    if not st.button(label, type="primary", disabled=not ready or bool(denied), key="silence-do"):
        return
    sent = asking.submit(
        kind, parameters, key=question["key"], reason=str(parameters.get("text", ""))
    )
    if sent is None:
        return
    answer = asking.soon(sent.id)
    if answer is None or answer.state == "pending":
        question |= {"refusal": "no answer yet; is `pitwall worker` running?"}
    elif answer.state == "refused":
        question |= {"refusal": answer.refusal, "key": uuid.uuid4().hex}
    else:
        _close()
        live.forget()
    st.rerun()
