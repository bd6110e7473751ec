"""Asking the worker for something: a dialog that says what will happen, a request, and the way to its operation.

The question lives in the session, so that a rerun shows the same dialog; what is asked lives in the store, so
that a closed tab changes nothing and a second click asks nothing twice.
"""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from app.errors import PitwallError
from app.store import requests
from app.store.records import RequestRecord
from app.ui import context, live, rights, travel, words
from app.ui.components import parts
from app.ui.components import plan as plans
from app.ui.components.text import plain
from app.ui.components.wordings import WORDINGS, Wording

ASK_AGAIN_SECONDS = 0.4
AT_ONCE_SECONDS = 0.6
"""Three of the worker's ticks."""

SLOW_SECONDS = 5.0
"""The worker answers within its 0.2 s tick; from here the dialog says that it may not be running."""

_KEY = "question"
MODES = {"now": "Now", "checkpoint": "At the next checkpoint", "complete": "As jobs end", "deadline": "By a deadline"}  # fmt: skip
_TITLES = {
    "drain": "Drain",
    "reschedule": "Reschedule",
    "uncordon": "Uncordon",
    "cancel": "Cancel",
    "choose": "Choose for",
    **{kind: wording.title for kind, wording in WORDINGS.items()},
}


@dataclass
class Question:
    """What a person is being asked about. kind: drain, reschedule, uncordon, cancel, choose, or one of WORDINGS."""

    kind: str
    nodes: tuple[str, ...] = ()
    job: str = ""
    operation_id: str = ""
    incident_id: str = ""
    title: str = ""
    reason: str = ""
    choice: dict[str, Any] = field(default_factory=dict)
    key: str = field(
        default_factory=lambda: uuid.uuid4().hex
    )  # a second click with it asks nothing twice
    previews: dict[str, str] = field(default_factory=dict)  # parameters -> request id
    sent: str | None = None  # id of the request that was confirmed
    refusal: str = ""

    @property
    def subject(self) -> str:
        return self.title or ", ".join(self.nodes)


def open_question(question: Question) -> None:
    st.session_state[_KEY] = question


def is_open() -> bool:
    return _KEY in st.session_state


def show() -> None:
    """Shows the open question, if there is one; at the end of a view, outside its live fragments."""
    question = st.session_state.get(_KEY)
    if question is None:
        return
    planned = question.kind in {"drain", "reschedule"}
    body = _planned if planned else _simple
    st.dialog(
        f"{_TITLES[question.kind]} {plain(question.subject)}",
        width="large" if planned else "medium",
        on_dismiss=_close,
    )(body)(question)


def _close() -> None:
    st.session_state.pop(_KEY, None)


def _planned(question: Question) -> None:
    if question.sent:
        _await(question, question.sent, "Handing it to the worker")
        return
    parameters = _options(question)
    identity = repr(sorted(parameters.items()))
    if identity not in question.previews:
        asked = submit(
            "preview",
            {"action": question.kind, **parameters},
            key=f"{question.key}-{len(question.previews)}",
            reason="",
        )
        if asked is None:
            return
        question.previews[identity] = asked.id
        answer = soon(asked.id)
    else:
        answer = requests.request(context.engine(), context.cluster(), question.previews[identity])
    if answer is None or answer.state == "pending":
        _await(question, question.previews[identity], "Asking the worker what would happen")
    elif answer.state == "refused":
        parts.notes("ask-refused", [parts.note(answer.refusal, "act")])
    else:
        _confirm(question, parameters, answer.answer)


def soon(request_id: str) -> RequestRecord | None:
    """The answer if it comes at once, as it does while the worker lives: that spares two reruns."""
    until = time.monotonic() + AT_ONCE_SECONDS
    while True:
        record = requests.request(context.engine(), context.cluster(), request_id)
        if record is None or record.state != "pending" or time.monotonic() > until:
            return record
        time.sleep(AT_ONCE_SECONDS / 12)


def _options(question: Question) -> dict[str, Any]:
    if question.kind == "reschedule":
        return {"job": question.job}
    parameters: dict[str, Any] = {"nodes": list(question.nodes)}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        mode = st.segmented_control(
            "When",
            list(MODES),
            format_func=MODES.__getitem__,
            default="now",
            required=True,
            key="ask-mode",
        )
        parameters["mode"] = mode
        if mode == "deadline":
            hours = st.number_input(
                "Hours until then",
                min_value=0.1,
                max_value=8000.0,
                value=2.0,
                step=0.5,
                key="ask-hours",
                width=140,
            )
            parameters["deadline_seconds"] = hours * 3600
        if st.toggle(
            "Give up emptyDir data",
            key="ask-emptydir",
            help="Moves pods with data on the node's disk; that data is lost.",
        ):
            parameters["delete_emptydir_data"] = True
        if st.toggle(
            "Pods without owner too",
            key="ask-force",
            help="Moves pods that no controller brings back; they are gone.",
        ):
            parameters["force"] = True
    return parameters


def _confirm(question: Question, parameters: dict[str, Any], plan: dict[str, Any]) -> None:
    plans.show_plan(plan)
    if question.refusal:
        parts.notes("ask-refused", [parts.note(f"Not done: {question.refusal}", "act")])
    expires = plans.expires_at(plan)
    stale = expires is not None and expires <= context.now()
    hard, names = plans.hard_blockers(plan), plans.to_type(plan)
    if plans.is_refused(plan):
        st.caption(
            "A limit refuses this, with force as well. Bring a node back first, or change the limit in the settings."
        )
        return
    if hard:
        st.caption("Something stands in the way: see above for what lifts it.")
        return
    reason = st.text_input(
        "Reason",
        value=question.reason,
        key="ask-reason",
        placeholder="What the others should read in the audit",
        max_chars=500,
    )
    typed = ""
    if names:
        typed = _typed(" ".join(names), "To stop it all the same, type")
    denied = rights.refusal(question.kind)
    if denied:
        parts.notes("ask-denied", [parts.note(denied, "watch")])
    ready = not denied and bool(reason.strip()) and set(typed.split()) >= set(names) and not stale
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        verb = (
            f"{_TITLES[question.kind]} {words.count(len(question.nodes), 'node')}"
            if question.nodes
            else "Reschedule the job"
        )
        if st.button(verb, type="primary", disabled=not ready, key="ask-confirm"):
            extra = {
                "plan_hash": plan.get("hash"),
                **({"accept_no_capacity": names} if names else {}),
            }
            _send(question, question.kind, {**parameters, **extra}, reason.strip())
        if stale and st.button("Preview again", key="ask-again"):
            question.previews.clear()
            question.key = uuid.uuid4().hex
            st.rerun()
        st.caption(
            "The preview has expired."
            if stale
            else "A reason is needed."
            if not reason.strip()
            else f"As previewed; if the cluster changes meanwhile, nothing is done. Asked by {plain(context.author())}."
        )


def _simple(question: Question) -> None:
    if question.sent:
        _await(question, question.sent, "Handing it to the worker")
        return
    if question.refusal:
        parts.notes("ask-refused", [parts.note(f"Not done: {question.refusal}", "act")])
    if denied := rights.refusal(question.kind, str(question.choice.get("name", ""))):
        parts.notes("ask-denied", [parts.note(denied, "watch")])
        return
    if question.kind == "uncordon":
        st.text("Kubernetes may place pods on it again.")
        reason = st.text_input("Reason", value=question.reason, key="ask-reason", max_chars=500)
        typed = (
            _typed(question.nodes[0], "To put it in service all the same, type")
            if question.refusal
            else ""
        )
        if st.button(
            f"Uncordon {words.count(len(question.nodes), 'node')}",
            type="primary",
            key="ask-confirm",
        ):
            _send(
                question,
                "uncordon",
                {"nodes": list(question.nodes), **({"confirmation": typed} if typed else {})},
                reason.strip(),
            )
    elif question.kind == "cancel":
        st.text(
            "It stops after the step at hand and takes back what it can: nodes it cordoned are uncordoned, jobs it suspended are resumed. What was evicted stays evicted."
        )
        if st.button("Cancel the operation", type="primary", key="ask-confirm"):
            _send(question, "cancel", {"operation_id": question.operation_id}, "")
    elif question.kind in WORDINGS:
        _worded(question, WORDINGS[question.kind])
    else:
        _choice(question)


def _worded(question: Question, wording: Wording) -> None:
    """A form, so that what was typed goes with the click and Enter sends it."""
    st.text(wording.meaning)
    about: dict[str, Any] = (
        {"incident_id": question.incident_id}
        if question.incident_id
        else {"nodes": list(question.nodes)}
    ) | question.choice
    with st.form("ask-form", border=False):
        text = st.text_input(
            wording.label,
            value=question.reason,
            key="ask-text",
            placeholder=wording.placeholder,
            max_chars=500,
        ).strip()
        if question.refusal and question.kind == "return":
            typed = _typed(question.nodes[0], "To put it in service all the same, type")
            about |= {"confirmation": typed.strip()} if typed.strip() else {}
        sent = st.form_submit_button(wording.button, type="primary", key="ask-confirm")
    if sent and wording.needs_text and not text:
        parts.notes("ask-empty", [parts.note("Write some words: others will read them.", "watch")])
    elif sent:
        about |= {"text": text} if wording.in_parameters else {}
        _send(question, question.kind, about, text)


def _choice(question: Question) -> None:
    choice = question.choice
    st.text(str(choice.get("label", "")))
    parts.notes(
        "ask-warning",
        [parts.note(str(choice["warning"]), "watch")] if choice.get("warning") else [],
    )
    wanted = str(choice.get("confirmation") or "")
    typed = _typed(wanted, "To confirm, type") if wanted else ""
    if st.button("Do this", type="primary", disabled=typed.strip() != wanted, key="ask-confirm"):
        _send(
            question,
            "choose",
            {
                "operation_id": question.operation_id,
                "choice": str(choice.get("name")),
                "confirmation": typed.strip(),
            },
            "",
        )


def _typed(wanted: str, asking_for: str) -> str:
    """What the person types to mean it. The words stand above the field: a label is Markdown, and read aloud as typed."""
    parts.notes("ask-to-type", [parts.note(f"{asking_for}: {wanted}", "watch")])
    return str(st.text_input("Typed", key="ask-typed", label_visibility="collapsed"))


def _send(question: Question, kind: str, parameters: dict[str, Any], reason: str) -> None:
    """Writes the request. A rerun of the whole page closes a dialog for a moment, so only the dialog runs again."""
    sent = submit(kind, parameters, key=f"{question.key}-do", reason=reason)
    if sent is None:
        return
    question.sent, question.refusal = sent.id, ""
    record = soon(sent.id)
    if record is not None and record.state != "pending":
        _take(question, record)
    st.rerun(scope="fragment")


def submit(kind: str, parameters: dict[str, Any], *, key: str, reason: str) -> RequestRecord | None:
    """Writes a request of the person at the page; says why where it can't be written."""
    try:
        who = context.signed_in()
        return requests.submit(
            context.engine(),
            context.cluster(),
            kind=kind,
            parameters=parameters,
            author=context.author(),
            reason=reason,
            idempotency_key=key,
            now=context.now(),
            author_groups=who.groups,
            author_role=who.role,
        )
    except PitwallError as error:
        parts.notes("ask-error", [parts.note(str(error), "act")])
        return None


def _await(question: Question, request_id: str, words_meanwhile: str) -> None:
    """Looks for the answer each moment; a fragment of its own, so that the rest keeps what was typed."""

    @st.fragment(run_every=ASK_AGAIN_SECONDS)
    def look() -> None:
        record = requests.request(context.engine(), context.cluster(), request_id)
        if record is not None and record.state != "pending":
            _answered(question, record)
        waited = (context.now() - record.created_at).total_seconds() if record else 0.0
        if waited < SLOW_SECONDS:
            parts.notes("ask-wait", [parts.note(f"{words_meanwhile}…", "busy")])
        else:
            parts.notes(
                "ask-wait",
                [
                    parts.note(
                        f"{words_meanwhile}: no answer yet. Is `pitwall worker` running? Asked {words.age(record.created_at, context.now())} ago."
                        if record
                        else f"{words_meanwhile}: it is not in the store.",
                        "watch",
                    )
                ],
            )

    look()


def _answered(question: Question, record: RequestRecord) -> None:
    if record.kind != "preview":
        _take(question, record)
    st.rerun()


def _take(question: Question, record: RequestRecord) -> None:
    """Goes to the operation when the worker has accepted; else the dialog tells why not and previews anew."""
    if record.state == "accepted":
        _close()
        live.forget()
        if record.operation_id:
            travel.follow(travel.operation(record.operation_id))
        st.rerun()
    # What waits for a second person is not refused, and yet not done: its own sentence says so.
    approval = record.answer.get("approval") or {}
    question.refusal = record.refusal or str(approval.get("message", ""))
    question.sent = None
    question.key = uuid.uuid4().hex
    question.previews.clear()
