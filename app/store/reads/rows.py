"""From rows to records: the columns that a record names, and cursors over a stable order."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Column, Select, Table
from sqlmodel import SQLModel

from app.errors import RequestRefused

Record = TypeVar("Record", bound=msgspec.Struct)

MAX_LIMIT = 20_001
"""Most records in one answer; longer lists go by cursor."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def table_of(model: type[SQLModel]) -> Table:
    """The SQL table behind a model."""
    return model.__table__  # type: ignore[attr-defined,no-any-return]


def columns_of(model: type[SQLModel], record: type[msgspec.Struct]) -> list[Column[Any]]:
    """The table's columns in the order of the record's fields, those the table has."""
    columns = table_of(model).c
    return [columns[name] for name in record.__struct_fields__ if name in columns]


def limited(statement: Select[Any], limit: int) -> Select[Any]:
    """The statement with its limit, kept between 1 and MAX_LIMIT."""
    return statement.limit(max(1, min(limit, MAX_LIMIT)))


def known_cursor(row: Any, after: str) -> Any:
    """The row that a cursor names. Raises RequestRefused where it is gone: its place is not known then."""
    if row is None:
        raise RequestRefused(
            f"{after}, after which the list is to go on, is gone: read it from the start.",
            code="not_found",
        )
    return row


def counts_of(rows: Sequence[Any], names: Sequence[str]) -> dict[str, int]:
    """{name: count} of (name, count) rows with every known name there, at 0 where no row has it."""
    found = {str(name): int(count) for name, count in rows}
    return {name: found.pop(name, 0) for name in names} | found


def document_of(value: str | None) -> dict[str, str]:
    """The reasons of a GPU's missing values."""
    return json.loads(value) if value else {}


def contains(word: str) -> str:
    """LIKE pattern of a text that holds `word` as it stands; escape character is a backslash."""
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
