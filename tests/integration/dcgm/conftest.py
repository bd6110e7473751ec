"""Sites for the tests of dcgm-exporter's nodes."""

from collections.abc import Iterator

import pytest
from dcgm_site import Site, site_of
from sqlalchemy import Engine

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


@pytest.fixture
def site(engine: Engine) -> Iterator[Site]:
    with site_of(engine) as made:
        yield made


@pytest.fixture
def sqlite_site(sqlite_engine: Engine) -> Iterator[Site]:
    with site_of(sqlite_engine) as made:
        yield made
