"""Incidents as commands: the list, one of them, and a person's word on it."""

from typing import Annotated

import typer

from app.cli.api import now_utc, open_api, read_record
from app.cli.asking import Ask, Manner, ask_at_once
from app.cli.columns import INCIDENTS
from app.cli.incident_text import incident_lines
from app.cli.outcome import BadUse, CommandFailed
from app.cli.output import Output, OutputOption, print_json, print_listing
from app.settings import read_settings
from app.store.records import FindingRecord, IncidentRecord

Id = Annotated[str, typer.Argument(metavar="ID", help="Of the incident.")]
Words = Annotated[str, typer.Option("--text", "--reason", help="For those who read it later.")]


def register(program: typer.Typer) -> None:
    for command in (incidents, incident, acknowledge, own, note, resolve, reopen):
        program.command(command.__name__)(command)


def incidents(
    everything: Annotated[
        bool, typer.Option("--all", help="Resolved ones too, after the open ones.")
    ] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """The open incidents: first what hurts the most jobs and GPUs now, then the gravest."""
    where = {"open_only": str(not everything).lower()}
    documents = list(open_api(read_settings()).items("incidents", where, limit=limit))
    print_listing(documents, IncidentRecord, INCIDENTS, output=output, empty="No incident is open.")


def incident(incident_id: Id, output: OutputOption = Output.TABLE) -> None:
    """One incident: whom it hurts, the first failure, what followed it, evidence and timeline."""
    document = open_api(read_settings()).get(f"incidents/{incident_id}")
    if output is Output.JSON:
        print_json(document)
        return
    if not isinstance(document, dict):
        raise CommandFailed(f"/v1 answered incident {incident_id} with no object.")
    lines = incident_lines(
        read_record(document.get("incident"), IncidentRecord),
        timeline=read_record(document.get("timeline", []), list[dict]),
        findings=read_record(document.get("findings", []), list[FindingRecord]),
        now=now_utc(),
    )
    typer.echo("\n".join(lines))


def acknowledge(incident_id: Id, output: OutputOption = Output.TABLE) -> None:
    """Say that you have seen an incident."""
    _ask("acknowledge", {"incident_id": incident_id}, output=output)


def own(
    incident_id: Id,
    owner: Annotated[str, typer.Option(help="Who works on it; you, when not given.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Take an incident, or give it to somebody."""
    name = owner.strip() or str(open_api(read_settings()).get("whoami")["username"])
    _ask("own", {"incident_id": incident_id, "owner": name}, output=output)


def note(incident_id: Id, text: Words, output: OutputOption = Output.TABLE) -> None:
    """Write a note into an incident's timeline."""
    _say("note", incident_id, text, output=output)


def resolve(incident_id: Id, text: Words, output: OutputOption = Output.TABLE) -> None:
    """Say that an incident is over, and why."""
    _say("resolve", incident_id, text, output=output)


def reopen(incident_id: Id, text: Words, output: OutputOption = Output.TABLE) -> None:
    """Open a resolved incident again; only a person resolves it then."""
    _say("reopen", incident_id, text, output=output)


def _say(kind: str, incident_id: str, text: str, *, output: Output) -> None:
    if not text.strip():
        raise BadUse("--text is empty; write what others should read.")
    parameters = {"incident_id": incident_id, "text": text.strip()}
    _ask(kind, parameters, reason=text.strip(), output=output)


def _ask(kind: str, parameters: dict[str, str], *, output: Output, reason: str = "") -> None:
    ask = Ask(kind, parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=False, wait_timeout="5m", output=output))
