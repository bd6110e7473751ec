"""What holds for all operations, as commands: pause, unpause, approve, reset-limit, undo."""

import sys
from datetime import UTC
from typing import Annotated

import typer

from app.cli.api import now_utc, open_api, read_record
from app.cli.asking import Ask, Manner, ask_at_once
from app.cli.durations import write_duration
from app.cli.outcome import BadUse, CommandFailed
from app.cli.output import Output, OutputOption, print_json
from app.cli.plan_text import plan_lines
from app.cli.tables import align, printable
from app.settings import read_settings
from app.store.records import ApprovalRecord, RequestRecord, StatusRecord

Reason = Annotated[str, typer.Option(help="Why, for those who read it later.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when the operation has ended.")]
WaitTimeout = Annotated[str, typer.Option(help="How long --wait waits, then exit code 4.")]


def register(program: typer.Typer) -> None:
    for command in (pause, unpause, approve, undo):
        program.command(command.__name__)(command)
    program.command("reset-limit")(reset_limit)


def pause(reason: Reason, output: OutputOption = Output.TABLE) -> None:
    """Hold everything: nothing begins, running operations take no further step. Cancel and uncordon go on."""
    _say("pause", {}, reason, output)


def unpause(reason: Reason, output: OutputOption = Output.TABLE) -> None:
    """End the pause; running operations go on where they were."""
    _say("unpause", {}, reason, output)


def reset_limit(
    limit: Annotated[str, typer.Argument(help="stock, floor, rate, block or topology.")],
    reason: Reason,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let automation act again after a limit has tripped; the rate is counted anew."""
    _say("reset_limit", {"limit": limit}, reason, output)


def undo(
    operation_id: Annotated[str, typer.Argument(metavar="ID", help="Of the operation.")],
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    confirm: Annotated[str, typer.Option(help="Names of nodes that Failing stands against.")] = "",
    wait: Wait = False,
    wait_timeout: WaitTimeout = "5m",
    output: OutputOption = Output.TABLE,
) -> None:
    """Take back what can be: cancel it while it runs, else uncordon the nodes that it cordoned."""
    parameters = {"operation_id": operation_id}
    if confirm:
        parameters["confirmation"] = confirm
    # Of a running one the operation itself ends, Cancelled; of an ended one an uncordon succeeds.
    running = open_api(read_settings()).get(f"operations/{operation_id}").get("ended_at") is None
    ask_at_once(
        Ask("undo", parameters, reason=reason),
        Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output, cancels=running),
    )


def approve(
    request_id: Annotated[str | None, typer.Argument(metavar="[REQUEST]")] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    plan: Annotated[
        str | None, typer.Option(help="Only if the plan that waits has this hash.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = False,
    wait_timeout: WaitTimeout = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Say yes to what somebody else asked for and is too large for one person; without REQUEST list what waits."""
    api = open_api(read_settings())
    if request_id is None:
        document = api.get("status")
        if output is Output.JSON:
            print_json(document.get("approvals", []))
            return
        for line in _approval_lines(read_record(document, StatusRecord).approvals):
            typer.echo(line)
        return
    if not (yes or sys.stdin.isatty()):
        raise BadUse("There is no terminal to ask on, so nothing was approved; give --yes.")
    record = read_record(api.get(f"requests/{request_id}"), RequestRecord)
    if record.state != "awaiting_approval":
        raise CommandFailed(f"Request {record.id} waits for no approval: it is {record.state}.")
    shown = record.answer["plan"]
    approval = record.answer["approval"]
    # Its own times are of when it was asked; what counts for the yes is the approval's.
    for line in plan_lines({**shown, "expires_at": approval["expires_at"]}, now=now_utc()):
        typer.echo(line, err=output is Output.JSON)
    typer.echo(
        f"Asked by {printable(record.author)}: {printable(record.reason) or '-'}",
        err=output is Output.JSON,
    )
    if plan is not None and plan != approval["plan_hash"]:
        raise CommandFailed(
            f"Plan {approval['plan_hash']} waits, not {plan}: read it and ask again."
        )
    if not yes and not typer.confirm("Approve as planned?", err=True):
        raise CommandFailed("Not confirmed, so nothing was approved.")
    parameters = {"request_id": record.id, "plan_hash": approval["plan_hash"]}
    ask_at_once(
        Ask("approve", parameters, reason=reason),
        Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output),
    )


def status_lines(record: StatusRecord) -> list[str]:
    """Pause, tripped limits and what waits for approval; [] when there is nothing of it."""
    lines = []
    if record.pause is not None:
        at = record.pause.paused_at.astimezone(UTC)
        lines.append(
            f"Paused by {printable(record.pause.paused_by)} at {at:%Y-%m-%d %H:%M:%S} UTC: "
            f"{printable(record.pause.reason)}"
        )
    lines += [
        f"Limit {mark.name} has tripped, automation stands still: {printable(mark.message)}"
        for mark in record.limits
        if mark.tripped_at is not None
    ]
    if record.approvals:
        count = len(record.approvals)
        waits = "1 request waits" if count == 1 else f"{count} requests wait"
        lines.append(f"{waits} for a second person: pitwall approve")
    return lines


def _say(kind: str, parameters: dict[str, str], reason: str, output: Output) -> None:
    if not reason.strip():
        raise BadUse("--reason is empty; say why, others will read it.")
    ask = Ask(kind, {**parameters, "text": reason}, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=False, wait_timeout="5m", output=output))


def _approval_lines(approvals: list[ApprovalRecord]) -> list[str]:
    if not approvals:
        return ["Nothing waits for approval."]
    rows = [["REQUEST", "KIND", "SUBJECT", "GPUS", "ASKED BY", "LEFT", "REASON"]]
    rows += [
        [
            approval.request_id,
            approval.kind,
            printable(approval.subject),
            str(approval.gpus),
            printable(approval.asked_by),
            write_duration(max(0.0, (approval.expires_at - now_utc()).total_seconds())),
            printable(approval.reason) or "-",
        ]
        for approval in approvals
    ]
    return align(rows)
