import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.store_fixtures import sqlite_engine, sqlite_template  # noqa: F401


@pytest.fixture(autouse=True)
def quiet_logs() -> Iterator[None]:
    """A week's worth of silent nodes is no news here."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)
