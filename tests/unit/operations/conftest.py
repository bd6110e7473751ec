"""The store's fixtures, on both databases."""

from tests.store_fixtures import engine, postgresql, sqlite_template, store_url

__all__ = ["engine", "postgresql", "sqlite_template", "store_url"]
