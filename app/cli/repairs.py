"""A node's way back, as commands: under repair, and returned from it or from probation."""

from typing import Annotated

import typer

from app.cli.api import open_api
from app.cli.asking import Ask, Manner, ask_at_once
from app.cli.durations import write_age
from app.cli.outcome import BadUse
from app.cli.output import Output, OutputOption, print_json, print_listing
from app.cli.tables import Column, known, printable
from app.settings import read_settings
from app.store.records import DiagnosticRecord, RepairRecord

Nodes = Annotated[list[str], typer.Argument(metavar="NODE", help="Names of nodes.")]

Node = Annotated[str | None, typer.Argument(metavar="[NODE]", help="Only of this node.")]

REPAIRS = (
    Column("NODE", lambda one, now: one.node),
    Column("BEGAN", lambda one, now: write_age(one.opened_at, now=now)),
    Column("BY", lambda one, now: one.opened_by),
    Column("ACTION", lambda one, now: one.action or "-"),
    Column("TOLD", lambda one, now: one.call_error or one.call),
    Column(
        "RETURNED", lambda one, now: write_age(one.returned_at, now=now) if one.returned_at else "-"
    ),
    Column("REPAIR", lambda one, now: one.id, wide=True),
    Column("INCIDENT", lambda one, now: known(one.incident_id), wide=True),
    Column("NOTES", lambda one, now: " / ".join(str(note["text"]) for note in one.notes)),
)
DIAGNOSTICS = (
    Column("NODE", lambda one, now: one.node),
    Column("STATE", lambda one, now: one.state),
    Column("ASKED", lambda one, now: write_age(one.requested_at, now=now)),
    Column("BY", lambda one, now: one.requested_by),
    Column("JOB", lambda one, now: f"{one.namespace}/{one.job}"),
    Column("MESSAGE", lambda one, now: one.message),
)


def register(program: typer.Typer) -> None:
    program.command("repair")(repair)
    program.command("return")(give_back)
    program.command("repair-note")(repair_note)
    program.command("repairs")(repairs)
    program.command("diagnose")(diagnose)
    program.command("diagnostics")(diagnostics)


def repair(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="What is repaired, for those who read it later.")],
    action: Annotated[
        str,
        typer.Option(
            help="What is asked of whoever repairs: reset-gpu, reboot, power-cycle, replace, rma. The site's "
            "webhook is told, where it has one."
        ),
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Note that drained or cordoned nodes are under repair. They stay so until they return."""
    if not reason.strip():
        raise BadUse("--reason is empty; say what is repaired, others will read it.")
    parameters: dict[str, object] = {"nodes": list(dict.fromkeys(nodes)), "text": reason}
    if action:
        parameters["repair"] = action
    ask = Ask("repair", parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=False, wait_timeout="5m", output=output))


def give_back(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    confirm: Annotated[
        str, typer.Option(help="Names of nodes that Failing or a foreign cordon stands against.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the uncordon has ended.")
    ] = False,
    wait_timeout: Annotated[
        str, typer.Option(help="How long --wait waits, then exit code 4.")
    ] = "5m",
    output: OutputOption = Output.TABLE,
) -> None:
    """Uncordon repaired nodes, which puts them on probation; end the probation of those on it."""
    parameters: dict[str, object] = {"nodes": list(dict.fromkeys(nodes))}
    if confirm:
        parameters["confirmation"] = confirm
    ask = Ask("return", parameters, reason=reason)
    manner = Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output)
    said = str(ask_at_once(ask, manner).answer.get("message") or "")
    if "failed again" in said:
        typer.echo(printable(said), err=True)


def repair_note(
    nodes: Nodes,
    text: Annotated[str, typer.Option(help="What was done, found or replaced.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Add a note to the last repair of nodes, also after their return."""
    if not text.strip():
        raise BadUse("--text is empty; say what was done, others will read it.")
    ask = Ask("repair_note", {"nodes": list(dict.fromkeys(nodes)), "text": text}, reason=text)
    ask_at_once(ask, Manner(yes=True, wait=False, wait_timeout="5m", output=output))


def repairs(
    node: Node = None,
    gpu: Annotated[
        str | None, typer.Option(help="Only where this GPU was, by UUID or serial.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Repairs, the newest first, with their notes; how often nodes failed again after a return."""
    where = {"node": node, "gpu": gpu, "limit": str(limit)}
    document = open_api(read_settings()).get("repairs", where)
    print_listing(
        document["items"], RepairRecord, REPAIRS, output=output, empty="No repair is known."
    )
    if output is not Output.JSON:
        for name, count in sorted(document["failed_again"].items()):
            if count:
                typer.echo(f"{name} has failed again {count} times after a return.")


def diagnose(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the Jobs and make none.")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run the site's diagnostic on cordoned nodes that are empty; `pitwall diagnostics` follows it."""
    parameters = {"nodes": list(dict.fromkeys(nodes)), "dry_run": dry_run}
    ask = Ask("diagnose", parameters, reason=reason)
    manner = Manner(yes=True, wait=False, wait_timeout="5m", output=output)
    answer = ask_at_once(ask, manner)
    if dry_run and output is not Output.JSON:
        print_json(answer.answer["jobs"])


def diagnostics(
    node: Node = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Diagnostics, the newest first, and what each said."""
    where = {"node": node, "limit": str(limit)}
    documents = open_api(read_settings()).get("diagnostics", where)["items"]
    print_listing(
        documents, DiagnosticRecord, DIAGNOSTICS, output=output, empty="No diagnostic is known."
    )
