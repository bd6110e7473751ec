from tests.store_fixtures import sqlite_engine, sqlite_template  # noqa: F401
