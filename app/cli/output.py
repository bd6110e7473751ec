"""What `-o` offers, and how records are written in each."""

import enum
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from app.cli.api import now_utc, read_record
from app.cli.tables import Column, lay_out


class Output(enum.StrEnum):
    """table for people, wide with every column, json for programs (docs/json.md)."""

    TABLE = "table"
    JSON = "json"
    WIDE = "wide"


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="json's field names are stable: docs/json.md.")
]


def print_listing(
    documents: Sequence[dict], kind: type, columns: Sequence[Column], *, output: Output, empty: str
) -> None:
    """Writes a listing: /v1's own documents as a JSON array, or the table of their records."""
    if output is Output.JSON:
        print_json(list(documents))
        return
    records: list[Any] = [read_record(document, kind) for document in documents]
    if not records:
        typer.echo(empty, err=True)
        return
    lines = lay_out(records, columns, now=now_utc(), wide=output is Output.WIDE)
    typer.echo("\n".join(lines))  # in one go: 16,000 writes take longer than their making


def print_json(document: Any) -> None:
    """One indented JSON document."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
