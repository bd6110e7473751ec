"""Fixtures that run a test on SQLite and on PostgreSQL; imported by the conftest of each folder that stores."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.store.engine import migrate, open_store
from tests.databases import Postgresql, PostgresqlMissing, postgresql_server

BOTH = [
    pytest.param("sqlite", id="sqlite"),
    pytest.param("postgresql", id="postgresql", marks=pytest.mark.postgresql),
]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL server of this session; skips with the reason where none can run."""
    server = postgresql_server()
    try:
        running = server.__enter__()
    except PostgresqlMissing as error:
        pytest.skip(f"PostgreSQL can't run here: {error}")
    yield running
    server.__exit__(None, None, None)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that tests copy."""
    path = tmp_path_factory.mktemp("store") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(params=BOTH)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a migrated, empty store, on each database in turn."""
    if request.param == "postgresql":
        server: Postgresql = request.getfixturevalue("postgresql")
        return server.database()
    path = tmp_path / "pitwall.db"
    shutil.copy(request.getfixturevalue("sqlite_template"), path)
    return f"sqlite:///{path}"


@pytest.fixture(params=BOTH)
def empty_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of a store that was never migrated."""
    if request.param == "postgresql":
        server: Postgresql = request.getfixturevalue("postgresql")
        return server.empty_database()
    return f"sqlite:///{tmp_path / 'empty.db'}"


@pytest.fixture
def engine(store_url: str) -> Iterator[Engine]:
    """An open store on each database in turn."""
    opened = open_store(store_url)
    yield opened
    opened.dispose()


@pytest.fixture
def sqlite_engine(tmp_path: Path, sqlite_template: Path) -> Iterator[Engine]:
    """An open SQLite store, for what only SQLite does."""
    path = tmp_path / "pitwall.db"
    shutil.copy(sqlite_template, path)
    opened = open_store(f"sqlite:///{path}")
    yield opened
    opened.dispose()
