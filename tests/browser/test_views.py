"""Every view in a real browser on a seeded store: it paints, it leads on, it lives, it keeps quiet."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.tables import Node
from tests.browser.conftest import Stage
from tests.browser.pages import assert_no_exception, keep, needs_chromium, open_page, serving
from tests.browser.seed import beat, seed

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]
PAINTED = "canvas[data-own-painted]"
# Where the middle of a node's cell is on the screen.
PLACE = """name => {
  const root = document.querySelector(".pw-map").closest(".pw"), map = root.pwMap, at = map.topology.index.get(name);
  const box = root.querySelector("canvas").getBoundingClientRect();
  return [box.left + map.plan.xs[at] + map.plan.nodeWidth / 2, box.top + map.plan.ys[at] + map.plan.nodeHeight / 2];
}"""


def addresses(stage: Stage) -> dict[str, str]:
    seeded = stage.seeded
    return {
        "overview": "/", "nodes": "/nodes", "node": f"/nodes?name={seeded.failing}", "jobs": "/jobs", "job": f"/jobs?uid={seeded.job_uid}",
        "incidents": "/incidents", "operations": "/operations", "operation": f"/operations?id={seeded.operations['running']}",
        "operation-blocked": f"/operations?id={seeded.operations['blocked']}",
        "capacity": "/capacity", "audit": "/audit", "sources": "/sources", "settings": "/settings", "automatic": "/automatic", "alerts": "/alerts",
    }  # fmt: skip


VIEWS = (
    "overview",
    "nodes",
    "node",
    "jobs",
    "job",
    "incidents",
    "operations",
    "operation",
    "operation-blocked",
    "capacity",
    "audit",
    "sources",
    "settings",
    "automatic",
    "alerts",
)
FIRST_WORDS = {
    "overview": "Worst nodes", "nodes": "Agent heard", "node": "GPU 7", "jobs": "llama-70b-pretrain", "job": "Node's state", "incidents": "Who is hurt",
    "operations": "Asked by", "operation": "Steps", "operation-blocked": "It can't go on by itself",
    "capacity": "Waiting, and why", "audit": "Asked by", "sources": "Without it", "settings": "PITWALL_STORE_URL", "automatic": "Rule", "alerts": "Muted by",
}  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_paints(visit: Visit, stage: Stage, view: str, dark: bool) -> None:
    said: list[str] = []
    page = visit("/nodes", dark=dark) if view == "overview" else visit("/", dark=dark)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(stage.server.url + addresses(stage)[view])
    page.get_by_text(FIRST_WORDS[view]).first.wait_for()
    if view == "overview":
        page.wait_for_selector(PAINTED)
    page.wait_for_timeout(700)  # one refresh: what it changes must not break
    keep(page, f"{view}-{'dark' if dark else 'light'}")
    assert_no_exception(page)
    assert not said


@pytest.mark.parametrize("width", [1280, 2560])
def test_the_overview_fits_the_screen(visit: Visit, width: int) -> None:
    page = visit("/", width=width, height=1000)
    page.wait_for_selector(PAINTED)
    keep(page, f"overview-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        "[...document.querySelectorAll('.pw-figure-value, .pw-pulse')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"
    )
    assert not cut


def test_nothing_is_fetched_from_elsewhere(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for address in addresses(stage).values():
        page.goto(stage.server.url + address)
        page.wait_for_selector(".pw-pulse")
        page.wait_for_timeout(300)
    foreign = [url for url in asked if not url.startswith((stage.server.url, "data:", "blob:"))]
    assert not foreign


def test_a_click_on_the_map_opens_the_node(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    page.wait_for_selector(PAINTED)
    page.mouse.move(*page.evaluate(PLACE, stage.seeded.failing))
    tip = page.locator(".pw-tip")
    assert "XID 79: GPU has fallen off the bus (GPU 3)" in tip.inner_text()
    assert "8 of 8 GPUs in use, 1 failing" in tip.inner_text()
    page.mouse.click(*page.evaluate(PLACE, stage.seeded.failing))
    page.wait_for_url(re.compile(rf"/nodes\?name={stage.seeded.failing}$"))
    page.locator("h1", has_text=stage.seeded.failing).wait_for()


def test_the_map_is_walked_by_keys(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    page.wait_for_selector(PAINTED)
    page.locator(PAINTED).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    name = stage.seeded.names[1]
    assert name in page.locator(".pw-tip").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/nodes\?name={name}$"))


def test_zoom_and_the_legends_filter_outlive_a_refresh(visit: Visit) -> None:
    page = visit("/")
    page.wait_for_selector(PAINTED)
    page.get_by_label("Zoom in").click()
    page.locator(".pw-key", has_text="Failing").click()
    page.wait_for_timeout(2600)
    assert page.evaluate("pitwall.views.map.zoom") == 1.5
    assert page.locator(".pw-key", has_text="Failing").get_attribute("aria-pressed") == "true"


def test_a_row_and_a_link_lead_on_and_can_be_shared(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    page.get_by_role("table", name="Worst nodes").get_by_role(
        "link", name=stage.seeded.failing
    ).click()
    page.locator("h1", has_text=stage.seeded.failing).wait_for()
    href = page.get_by_role("link", name="llama-70b-pretrain, rank 4").first.get_attribute("href")
    assert href == f"jobs?uid={stage.seeded.job_uid}"
    page.get_by_role("link", name="llama-70b-pretrain, rank 4").first.click()
    page.get_by_text("gang: all ranks or none").wait_for()


def test_a_change_in_the_store_is_on_the_page_without_a_reload(visit: Visit, stage: Stage) -> None:
    page = visit(f"/nodes?name={stage.seeded.degraded}")
    page.get_by_text("Row remap waits for a reset on GPU 1").first.wait_for()
    table = table_of(Node)
    engine = open_store(stage.store_url)
    with write(engine) as connection:
        connection.execute(
            update(table)
            .where(table.c.name == stage.seeded.degraded)
            .values(health_reason="Row remap failed on GPU 1", health_since=datetime.now(UTC))
        )
    begun = datetime.now(UTC)
    page.get_by_text("Row remap failed on GPU 1").wait_for()
    assert (datetime.now(UTC) - begun).total_seconds() < 5
    page.get_by_text(re.compile(r"for \d s")).wait_for()
    engine.dispose()


def test_ages_tick_in_the_browser(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    fresh = page.locator(".pw-fresh time")
    first = fresh.inner_text()
    page.wait_for_function(
        "first => document.querySelector('.pw-fresh time').innerText !== first", arg=first
    )


def test_a_page_whose_server_is_gone_says_that_it_is_paused(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    seed(url, 64)
    with serving(url, log=tmp_path / "page.log") as server:
        page = open_page(browser, server.url)
        assert not page.locator(".pw-paused").is_visible()
    page.locator(".pw-paused").wait_for(timeout=20_000)
    keep(page, "paused")
    page.context.close()


@pytest.mark.parametrize("nodes", [2000, 43_750])
def test_large_fleets_are_shown_too(browser: Any, tmp_path: Path, nodes: int) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    seeded = seed(url, nodes)
    with serving(url, log=tmp_path / "page.log") as server:
        beat(url)
        page = open_page(browser, server.url)
        page.wait_for_selector(f'canvas[data-own-painted="{nodes}"]')
        keep(page, f"overview-{nodes}")
        page.mouse.click(*page.evaluate(PLACE, seeded.failing))
        page.locator("h1", has_text=seeded.failing).wait_for()
        for address, words in (("/nodes?health=Failing", "XID 79"), ("/jobs", "llama-70b-pretrain"), (f"/jobs?uid={seeded.job_uid}", "Node's state"), ("/incidents", "Who is hurt")):  # fmt: skip
            page.goto(server.url + address)
            page.get_by_text(words).first.wait_for()
            assert_no_exception(page)
        page.context.close()
