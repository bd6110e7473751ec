"""Operations: what is being done and was done; one with its live steps under ?id=."""

import streamlit as st

from app.store.records import OperationRecord, StepRecord
from app.ui import live, travel, words
from app.ui.components import parts
from app.ui.components.text import plain
from app.ui.guard import guarded
from app.ui.views import asking, standing

STEP_WORDS = {
    "cordon": "Cordon {}",
    "uncordon": "Uncordon {}",
    "evict": "Evict {}",
    "suspend": "Suspend {}",
    "resume": "Resume {}",
    "force_delete": "Delete {} by force",
    "out_of_service": "Declare {} out of service",
    "in_service": "Take the out-of-service taint off {}",
    "confirm_empty": "Make sure that {} is empty",
    "await_stopped": "Wait until {} has stopped",
    "await_returned": "Wait until {} runs again",
}
STATE_WORDS = {"claimed": "At work", "done": "Done", "waiting": "Waiting", "failed": "Failed"}
_WATCHED_SECONDS = 1.0


@guarded
def show() -> None:
    operation_id = st.query_params.get("id")
    if operation_id:
        _one(operation_id)
        return
    head, buttons = st.columns([5, 2], vertical_alignment="top")
    with head:
        parts.headline("operations-head", title="Operations")
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        standing.buttons()
    standing.notes()
    _rows()
    asking.show()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows() -> None:
    found = sorted(
        live.operations_page(open_only=False), key=lambda operation: operation.ended_at is not None
    )
    rows = [
        parts.row(
            operation.id,
            {
                "what": {
                    "text": title(operation),
                    "open": travel.operation(operation.id),
                    "second": operation.message,
                },
                "state": parts.state(operation.state, words.operation_tone(operation.state)),
                "pods": {
                    "done": operation.pods_done,
                    "total": operation.pods_total,
                    "tone": "busy" if operation.ended_at is None else "calm",
                }
                if operation.pods_total
                else None,
                "why": operation.reason,
                "author": operation.author,
                "age": words.milliseconds(operation.created_at),
            },
            open=travel.operation(operation.id),
        )
        for operation in found
    ]
    parts.sheet(
        "operations",
        label="Operations",
        rows=rows,
        columns=[
            parts.column("what", "Operation", "two"),
            parts.column("state", "State", "state"),
            parts.column("pods", "Pods moved", "bar", missing="no pod to move"),
            parts.column("why", "Reason", missing="no reason given"),
            parts.column("author", "Asked by"),
            parts.column("age", "Asked, ago", "age", right=True),
        ],
        empty="Nothing has been asked for yet. Open a node to drain it, or a job to reschedule it.",
    )


def title(operation: OperationRecord) -> str:
    return f"{operation.kind.capitalize()} {operation.subject}"


def _one(operation_id: str) -> None:
    operation = live.operation(operation_id)
    if operation is None:
        parts.headline(
            "operation-head",
            title="Operation not known",
            trail=[{"text": "Operations", "open": travel.to("operations")}],
            cause={"text": f"No operation {operation_id} is known.", "tone": "quiet"},
        )
        return
    head, buttons = st.columns([5, 2], vertical_alignment="top")
    with head:
        _head(operation_id, _buttons_state(operation))
    with buttons, st.container(horizontal=True, horizontal_alignment="right"):
        _cancel(operation)
    if operation.ended_at is None and operation.choices:
        _choices(operation)
    _live(operation_id)
    asking.show()


def _buttons_state(operation: OperationRecord) -> tuple[object, ...]:
    return (
        operation.ended_at is None,
        operation.cancel_requested_by,
        tuple(str(choice) for choice in operation.choices),
    )


def _cancel(operation: OperationRecord) -> None:
    if operation.ended_at is not None or operation.kind == "uncordon":
        return
    asked = operation.cancel_requested_by
    if st.button(
        "Cancel…",
        key="cancel",
        disabled=asked is not None,
        help=f"{asked} has asked already."
        if asked
        else "Stops after the step at hand; what was evicted stays evicted.",
    ):
        asking.open_question(
            asking.Question("cancel", operation_id=operation.id, title=title(operation))
        )


def _choices(operation: OperationRecord) -> None:
    parts.notes("operation-blocked", [parts.note("It can't go on by itself. Choose:", "act")])
    for at, choice in enumerate(operation.choices):
        with st.container(
            horizontal=True, vertical_alignment="center", gap="small", key=f"choice-{at}"
        ):
            if st.button(
                f"{plain(str(choice.get('label') or choice.get('name'))[:80])}…",
                key=f"choose-{at}",
                width=340,
            ):
                asking.open_question(
                    asking.Question(
                        "choose",
                        operation_id=operation.id,
                        title=title(operation),
                        choice=dict(choice),
                    )
                )
            st.text(str(choice.get("warning", "")))


@st.fragment(run_every=_WATCHED_SECONDS)
@guarded
def _head(operation_id: str, drawn: tuple[object, ...]) -> None:
    operation = live.operation(operation_id)
    if operation is None or (_buttons_state(operation) != drawn and not asking.is_open()):
        st.rerun()
    tone = words.operation_tone(operation.state)
    ended = operation.ended_at is not None
    parts.headline(
        "operation-head",
        title=title(operation),
        trail=[{"text": "Operations", "open": travel.to("operations")}, {"text": operation.id}],
        states=[{"word": operation.state, "tone": tone}],
        cause={"text": operation.message, "tone": tone if tone in {"act", "watch"} else "calm"}
        if operation.message
        else None,
        facts=[
            parts.fact("Asked by", operation.author),
            parts.fact("Reason", operation.reason or "none given"),
            parts.fact("Mode", MODE_WORDS.get(operation.mode, operation.mode)),
            parts.fact("Asked", None, at=words.milliseconds(operation.created_at)),
            *(
                [parts.fact("Ended", None, at=words.milliseconds(operation.ended_at))]
                if ended
                else []
            ),
            *(
                [
                    parts.fact(
                        "Deadline", None, at=words.milliseconds(operation.deadline_at), until=True
                    )
                ]
                if operation.deadline_at and not ended
                else []
            ),
            *(
                [parts.fact("Cancel asked by", operation.cancel_requested_by, tone="watch")]
                if operation.cancel_requested_by and not ended
                else []
            ),
        ],
        progress={
            "done": operation.pods_done,
            "total": operation.pods_total,
            "tone": "busy" if not ended else "calm",
            "label": f"{operation.pods_done} of {words.count(operation.pods_total, 'pod')} moved",
        }
        if operation.pods_total
        else None,
    )


MODE_WORDS = {
    "now": "now",
    "checkpoint": "at each job's next checkpoint",
    "complete": "as jobs end",
    "deadline": "as jobs end, by a deadline",
}


@st.fragment(run_every=_WATCHED_SECONDS)
@guarded
def _live(operation_id: str) -> None:
    operation = live.operation(operation_id)
    if operation is None:
        return
    left, right = st.columns([3, 2], gap="small")
    with left:
        steps_sheet(operation.steps)
    with right:
        outcome_sheets(operation)


def steps_sheet(steps: list[StepRecord]) -> None:
    rows = [
        parts.row(
            str(step.id),
            {
                "state": parts.state(
                    STATE_WORDS.get(step.state, step.state),
                    words.step_tone(step.state) if step.state != "done" else "done",
                ),
                "step": {
                    "text": step_text(step),
                    "second": step.message,
                },
                "tries": step.attempts if step.attempts > 1 else None,
                "age": words.milliseconds(step.ended_at or step.started_at),
            },
        )
        for step in reversed(steps)
    ]
    parts.sheet(
        "steps",
        label="Steps, newest first",
        title="Steps",
        count="newest first" if rows else "",
        rows=rows,
        dense=True,
        columns=[
            parts.column("state", "State", "state", width="96px"),
            parts.column("step", "Step", "two"),
            *(
                [parts.column("tries", "Tries", "number", missing="once")]
                if any(step.attempts > 1 for step in steps)
                else []
            ),
            parts.column("age", "Ago", "age", right=True),
        ],
        empty="The worker has not begun yet.",
    )


_NODE_TONES = {"Drained": "calm", "Draining": "busy", "Cordoning": "busy", "In service": "calm"}
_VERDICT_TONES = {
    "Returned": "done",
    "Finished": "done",
    "Removed": "quiet",
    "Failed": "act",
    "Left": "quiet",
    "Restarting": "busy",
    "Waiting": "busy",
    "Waiting for capacity": "watch",
}


def outcome_sheets(operation: OperationRecord) -> None:
    nodes = [
        parts.row(
            name,
            {
                "name": parts.link(name, travel.node(name)),
                "state": parts.state(state, _NODE_TONES.get(state, "busy")),
            },
            open=travel.node(name),
        )
        for name, state in operation.nodes_state.items()
    ]
    if nodes:
        parts.sheet(
            "operation-nodes",
            label="Nodes of this operation",
            title="Nodes",
            rows=nodes,
            dense=True,
            empty="",
            columns=[parts.column("name", "Node", "link"), parts.column("state", "State", "state")],
        )
    jobs = [
        parts.row(
            uid,
            {
                "name": {
                    "text": str(job.get("name", uid)),
                    "open": travel.job(uid),
                    "second": str(job.get("message", "")),
                },
                "verdict": parts.state(
                    str(job.get("verdict", "")), _VERDICT_TONES.get(str(job.get("verdict")), "busy")
                ),
            },
            open=travel.job(uid),
        )
        for uid, job in operation.workloads_state.items()
    ]
    parts.sheet(
        "operation-jobs",
        label="Jobs of this operation",
        title="Jobs",
        rows=jobs,
        dense=True,
        empty="No job is touched.",
        columns=[parts.column("name", "Job", "two"), parts.column("verdict", "Verdict", "state")],
    )


def step_text(step: StepRecord) -> str:
    """A step in words: what is done to what."""
    subject = step.target.partition("/")[2] or step.target
    words_of = STEP_WORDS.get(step.name, step.name.replace("_", " ").capitalize() + " {}")
    return words_of.replace("{}", subject)
