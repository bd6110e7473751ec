"""An operation as text: once, and followed until it ends."""

import time
from datetime import datetime

import typer

from app.cli.api import Api, read_record
from app.cli.choices import choice_lines
from app.cli.durations import write_age, write_duration
from app.cli.outcome import CommandFailed, NoAnswer, WaitRanOut
from app.cli.tables import align, printable
from app.store.records import OperationRecord

FOLLOW_POLL_SECONDS = 0.5


def operation_lines(operation: OperationRecord, *, now: datetime) -> list[str]:
    """All that is known of one operation: head, nodes, workloads, choices, steps."""
    head = [
        ["Operation", operation.id],
        ["Kind", f"{operation.kind} ({operation.mode}) of {operation.subject}"],
        ["State", f"{operation.state}: {printable(operation.message) or '-'}"],
        ["Asked by", f"{operation.author}: {printable(operation.reason) or '-'}"],
        ["Begun", f"{write_age(operation.created_at, now=now)} ago"],
        ["Pods", f"{operation.pods_done} of {operation.pods_total} done"],
    ]
    if operation.ended_at is not None:
        head.append(["Ended", f"{write_age(operation.ended_at, now=now)} ago"])
    if operation.deadline_at is not None:
        head.append(["Deadline", operation.deadline_at.isoformat(timespec="seconds")])
    if operation.cancel_requested_by:
        head.append(["Cancelled by", operation.cancel_requested_by])
    lines = align(head)
    if operation.nodes_state:
        rows = [
            ["NODE", "STATE"],
            *([name, state] for name, state in operation.nodes_state.items()),
        ]
        lines += ["", *align(rows)]
    if operation.workloads_state:
        rows = [["WORKLOAD", "VERDICT", "MESSAGE"]]
        rows += [
            [
                str(state.get("name", uid)),
                str(state.get("verdict") or "-"),
                printable(str(state.get("message") or "")) or "-",
            ]
            for uid, state in operation.workloads_state.items()
        ]
        lines += ["", *align(rows)]
    lines += choice_lines(operation)
    if operation.steps:
        rows = [["STEP", "TARGET", "STATE", "TRIES", "AGE", "MESSAGE"]]
        rows += [
            [
                step.name,
                step.target,
                step.state,
                str(step.attempts),
                write_age(step.started_at, now=now),
                printable(step.message) or "-",
            ]
            for step in operation.steps
        ]
        lines += ["", *align(rows)]
    return lines


def follow(
    api: Api, operation_id: str, *, timeout_seconds: float | None, quiet: bool = False
) -> OperationRecord:
    """Writes each change of an operation to the error stream until it ends.

    A server that does not answer for a while, as in a restart, is asked again: the operation goes on
    without it. Raises WaitRanOut after `timeout_seconds`; the operation goes on by itself then.
    """
    begun = time.monotonic()
    said = ""
    while True:
        try:
            operation = read_record(api.get(f"operations/{operation_id}"), OperationRecord)
        except NoAnswer as unheard:
            waited_seconds = time.monotonic() - begun
            if timeout_seconds is not None and waited_seconds > timeout_seconds:
                raise WaitRanOut(
                    f"Operation {operation_id} was not heard of at the end of "
                    f"{write_duration(timeout_seconds)}; it goes on by itself. {unheard}"
                ) from unheard
            if said != "unheard":
                typer.echo(
                    f"[{write_duration(waited_seconds)}] Operation {operation_id} goes on by itself; "
                    f"asking again. {unheard}",
                    err=True,
                )
            said = "unheard"
            time.sleep(FOLLOW_POLL_SECONDS)
            continue
        news = _news(operation)
        if news != said and not quiet:
            typer.echo(f"[{write_duration(time.monotonic() - begun)}] {news}", err=True)
            for line in choice_lines(operation):
                typer.echo(line, err=True)
        said = news
        if operation.ended_at is not None:
            return operation
        if timeout_seconds is not None and time.monotonic() - begun > timeout_seconds:
            raise WaitRanOut(
                f"Operation {operation_id} is still {operation.state} after "
                f"{write_duration(timeout_seconds)} ({printable(operation.message) or 'no message'}); "
                f"it goes on, see `pitwall operations {operation_id}`."
            )
        time.sleep(FOLLOW_POLL_SECONDS)


def raise_unless_done(operation: OperationRecord, *, cancels: bool = False) -> None:
    """Raises CommandFailed unless the operation ended as it was asked to."""
    wished = ("Cancelled",) if cancels else ("Succeeded",)
    if operation.state not in wished:
        raise CommandFailed(
            f"Operation {operation.id} ended {operation.state}: "
            f"{printable(operation.message) or 'no message'}; see `pitwall operations {operation.id}`."
        )


def _news(operation: OperationRecord) -> str:
    return (
        f"{operation.state}, {operation.pods_done} of {operation.pods_total} pods done: "
        f"{printable(operation.message) or '-'}"
    )
