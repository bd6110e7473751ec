"""The store's fixtures, on both databases."""

from tests.store_fixtures import (
    empty_store_url,
    engine,
    postgresql,
    sqlite_engine,
    sqlite_template,
    store_url,
)

__all__ = [
    "empty_store_url",
    "engine",
    "postgresql",
    "sqlite_engine",
    "sqlite_template",
    "store_url",
]
