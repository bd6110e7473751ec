"""Column types shared by the tables: aware UTC times, 64-bit integers, JSON documents."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field

IN_PLACE = {"postgresql_with": {"fillfactor": 45}}
"""Options of a table of which each poll changes every row: with room for a second version of each row
in its page PostgreSQL updates in place and touches no index."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. timestamptz in PostgreSQL; in SQLite the text `YYYY-MM-DD HH:MM:SS.ffffff`.

    Raises ValueError for a naive datetime: a time without a zone is a bug here.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: pass an aware UTC time")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def time_column(**options: Any) -> Any:
    """A required aware UTC time column."""
    return Field(sa_type=UtcDateTime, nullable=False, **options)


def optional_time_column(**options: Any) -> Any:
    """An aware UTC time column that may be unknown."""
    return Field(default=None, sa_type=UtcDateTime, nullable=True, **options)


def big_integer_column(*, default: Any = None, **options: Any) -> Any:
    """A 64-bit integer column (a plain int is 32-bit in PostgreSQL)."""
    return Field(default=default, sa_type=BigInteger, **options)


def identity_column() -> Any:
    """A 64-bit key that the database counts up.

    SQLite counts only a column of the very type INTEGER (its rowid), which is 64-bit there.
    """
    return Field(
        default=None, primary_key=True, sa_type=BigInteger().with_variant(Integer(), "sqlite")
    )


def optional_json_column() -> Any:
    """A JSON document column that may be unknown."""
    return Field(default=None, sa_type=JSON, nullable=True)


def json_column(default_factory: Any = dict) -> Any:
    """A JSON document column."""
    return Field(default_factory=default_factory, sa_type=JSON, nullable=False)
