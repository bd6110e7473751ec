"""A store and a lease of each test's own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from office import Office
from receiving import HttpReceiver, http_receiver

from app.store.engine import migrate, open_store
from tests.databases import Postgresql
from tests.store_fixtures import postgresql  # noqa: F401


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    url = f"sqlite:///{tmp_path / 'alerts.db'}"
    migrate(url)
    engine = open_store(url)
    yield Office(engine, url)
    engine.dispose()


@pytest.fixture
def postgresql_office(postgresql: Postgresql) -> Iterator[Office]:  # noqa: F811
    """The same on PostgreSQL."""
    url = postgresql.database()
    engine = open_store(url)
    yield Office(engine, url)
    engine.dispose()


@pytest.fixture
def hook() -> Iterator[HttpReceiver]:
    with http_receiver() as found:
        yield found
