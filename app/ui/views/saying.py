"""A person's word that is said at once: seen, taken, a note. The answer stands above what it is about.

What was said lives in the session until it is answered, so that a rerun asks nothing twice.
"""

import hashlib
import uuid
from typing import Any

import streamlit as st

from app.store import requests
from app.store.records import RequestRecord
from app.ui import context, live, words
from app.ui.components import parts
from app.ui.views import asking

_SAID = "said"
_NONCE = "said-nonce"
_NOTES = "said-notes"


def say(kind: str, parameters: dict[str, Any], *, about: str, label: str) -> None:
    """Writes the request and takes the answer when it comes at once. about: what `show` is to show it beside."""
    key = f"{_nonce()}-{kind}-{hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()[:16]}"
    sent = asking.submit(kind, parameters, key=key, reason=str(parameters.get("text", "")))
    if sent is None:
        return
    st.session_state[_SAID] = {"about": about, "label": label, "kind": kind, "request": sent.id}
    record = asking.soon(sent.id)
    if record is not None and record.state != "pending":
        _take(record)
        st.rerun()


def show(about: str) -> None:
    """What was said about this and is not done yet: that it waits, or why it was refused."""
    said = st.session_state.get(_SAID)
    if said is None or said["about"] != about:
        return
    if said.get("refusal"):
        parts.notes("said-refused", [parts.note(f"Not done: {said['refusal']}", "act")])
        return
    _await(said["label"], said["request"])


def note_key(about: str) -> str:
    """The key of the field for a note: another one once a note is taken, so that the field is empty again."""
    return f"note-{about}-{st.session_state.get(_NOTES, 0)}"


def _nonce() -> str:
    return str(st.session_state.setdefault(_NONCE, uuid.uuid4().hex))


def _take(record: RequestRecord) -> None:
    said = st.session_state[_SAID]
    st.session_state[_NONCE] = uuid.uuid4().hex
    live.forget()
    if record.state == "refused":
        st.session_state[_SAID] = {**said, "refusal": record.refusal or "no reason was given."}
        return
    st.session_state.pop(_SAID)
    if said["kind"] == "note":
        st.session_state[_NOTES] = st.session_state.get(_NOTES, 0) + 1


@st.fragment(run_every=asking.ASK_AGAIN_SECONDS)
def _await(label: str, request_id: str) -> None:
    record = requests.request(context.engine(), context.cluster(), request_id)
    if record is not None and record.state != "pending":
        _take(record)
        st.rerun()
    waited = (context.now() - record.created_at).total_seconds() if record else 0.0
    text, tone = f"{label}: handing it to the worker…", "busy"
    if record is None:
        text, tone = f"{label}: it is not in the store.", "watch"
    elif waited >= asking.SLOW_SECONDS:
        age = words.age(record.created_at, context.now())
        text = f"{label}: no answer yet. Is `pitwall worker` running? Asked {age} ago."
        tone = "watch"
    parts.notes("said-wait", [parts.note(text, tone)])
