"""What automatic mode did, would have done, and left alone."""

from typing import Annotated

import typer

from app.cli.api import open_api
from app.cli.durations import write_age
from app.cli.output import Output, OutputOption, print_listing
from app.cli.tables import Column, known
from app.settings import read_settings
from app.store.records import AutomaticRecord

COLUMNS = (
    Column("NODE", lambda row, now: row.node),
    Column("FINDING", lambda row, now: row.finding),
    Column("RULE", lambda row, now: row.rule),
    Column(
        "ACTION", lambda row, now: f"{row.action}{' (dry-run)' if row.acts == 'dry-run' else ''}"
    ),
    Column("STATE", lambda row, now: row.state),
    Column("FOR", lambda row, now: write_age(row.updated_at, now=now)),
    Column("OPERATION", lambda row, now: known(row.operation_id)),
    Column("REQUEST", lambda row, now: known(row.request_id), wide=True),
    Column("EPISODE", lambda row, now: row.episode, wide=True),
    Column("REASON", lambda row, now: row.reason),
)


def register(program: typer.Typer) -> None:
    program.command("automatic")(automatic)


def automatic(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is done with: accepted, would_act, ended.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 200,
    output: OutputOption = Output.TABLE,
) -> None:
    """What automatic mode asked for, would have, or left alone, and why."""
    where = {"open_only": str(not everything).lower(), "limit": str(limit)}
    documents = open_api(read_settings()).get("automatic", where)["items"]
    print_listing(
        documents,
        AutomaticRecord,
        COLUMNS,
        output=output,
        empty="Automatic mode has nothing in hand.",
    )
