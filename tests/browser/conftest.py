"""One page on one seeded store and one Chromium for the tests of the views."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.browser.pages import PageServer, chromium, open_page, serving
from tests.browser.seed import (
    Seeded,
    beat,
    seed,
    seed_alerts,
    seed_audit,
    seed_automatic,
    seed_history,
)


@dataclass(frozen=True)
class Stage:
    """A seeded fleet with its page."""

    seeded: Seeded
    store_url: str
    server: PageServer


# Not for the whole session: Playwright's loop stays in the thread while it is open, and asyncio.run
# in a later test would find it running.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("page")
    url = f"sqlite:///{folder}/store.db"
    seeded = seed(url, 64)
    seed_audit(url, "ana", rows=8)
    seed_automatic(url, seeded.failing)
    seed_history(url, seeded.failing)
    seed_alerts(url, seeded.failing)
    with serving(url, log=folder / "page.log") as server:
        yield Stage(seeded, url, server)


@pytest.fixture
def visit(browser: Any, stage: Stage) -> Iterator[Callable[..., Any]]:
    """Opens an address of the stage's page; closed at the end of the test."""
    opened: list[Any] = []

    def go(address: str = "/", **how: Any) -> Any:
        beat(stage.store_url)
        page = open_page(browser, stage.server.url + address, **how)
        opened.append(page)
        return page

    yield go
    for page in opened:
        page.context.close()
