"""The fleet map in a real browser: colours, levels, pointer, touch of keys, selection, and what the address keeps."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browser.axe import grave_findings
from tests.browser.conftest import Stage
from tests.browser.map_frames import another_topology, colour, stir
from tests.browser.pages import assert_no_exception, keep, needs_chromium, open_page, serving
from tests.browser.seed import beat, seed

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]
MAP = "document.querySelector('.pw-map').closest('.pw').pwMap"
# Where the middle of a node's cell is on the screen.
PLACE = f"""name => {{
  const map = {MAP}, at = map.topology.index.get(name), box = map.canvas.getBoundingClientRect(), {{ zoom, x, y }} = map.kept;
  return [box.left + (map.plan.xs[at] + map.plan.nodeWidth / 2) * zoom + x, box.top + (map.plan.ys[at] + map.plan.nodeHeight / 2) * zoom + y];
}}"""
BY = ("health", "service", "job", "team", "utilisation", "temperature", "power", "xid")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("map")
    url = f"sqlite:///{folder}/store.db"
    seeded = seed(url, 64)
    colour(url)
    with serving(url, log=folder / "page.log") as server:
        yield Stage(seeded, url, server)


@pytest.fixture
def look(visit: Visit) -> Callable[..., Any]:
    """Opens the map, once it is painted by what the address asks for."""

    def go(query: str = "", **how: Any) -> Any:
        page = visit(f"/?{query}", **how)
        by = parse_qs(query).get("by", ["health"])[0]
        page.wait_for_selector(f'canvas[data-own-by="{by}"]')
        return page

    return go


def query_of(page: Any) -> dict[str, str]:
    return {name: value[0] for name, value in parse_qs(urlsplit(page.url).query).items()}


def await_query(page: Any, name: str, value: str | None) -> None:
    page.wait_for_function(
        "([name, value]) => new URLSearchParams(location.search).get(name) === value",
        arg=[name, value],
    )


def refreshed(page: Any, stage: Stage, *, moment: int) -> None:
    """Waits until what has changed in the store is painted: a message as before is not painted again."""
    page.evaluate(f"window.before = {MAP}.frames")
    stir(stage.store_url, moment=moment, states=False)
    page.wait_for_function(f"{MAP}.frames !== window.before")


def test_each_colour_is_chosen_painted_and_in_the_address(look: Callable[..., Any]) -> None:
    page = look()
    for by in BY[1:]:
        page.get_by_label("Colour by").select_option(by)
        page.wait_for_selector(f'canvas[data-own-by="{by}"]')
        await_query(page, "by", by)
        assert page.locator(".pw-key b").count() >= 2
    assert_no_exception(page)
    page.reload()
    page.wait_for_selector('canvas[data-own-by="xid"]')
    assert page.get_by_label("Colour by").input_value() == "xid"


def test_the_legend_of_a_scale_has_its_unit_and_counts_every_node(look: Callable[..., Any]) -> None:
    page = look("by=power")
    assert page.locator(".pw-key-unit").inner_text() == "W"
    counts = page.locator("[data-look] b").all_inner_texts()
    assert sum(int(count.replace(",", "")) for count in counts) == 64
    assert page.locator('[data-look="unknown"]').is_visible()
    page.mouse.move(*page.evaluate(PLACE, page.evaluate(f"{MAP}.topology.names[9]")))
    assert re.search(r"Power: \d+ W", page.locator(".pw-tip").inner_text())
    assert re.search(r"GPU \d: Healthy, in use, \d+ W", page.locator(".pw-tip").inner_text())


def test_the_legend_filters_by_click_and_by_key(look: Callable[..., Any], stage: Stage) -> None:
    page = look()
    failing = page.locator('[data-look="failing"]')
    failing.click()
    await_query(page, "only", "failing")
    assert page.evaluate(f"{MAP}.kept.only") == "failing"
    refreshed(page, stage, moment=1)
    assert failing.get_attribute("aria-pressed") == "true"
    failing.focus()
    page.keyboard.press("Enter")
    await_query(page, "only", None)
    assert failing.get_attribute("aria-pressed") == "false"


def test_the_card_tells_node_gpu_state_cause_job_and_age(
    look: Callable[..., Any], stage: Stage
) -> None:
    page = look()
    page.mouse.move(*page.evaluate(PLACE, stage.seeded.failing))
    said = page.locator(".pw-tip").inner_text()
    for words in (stage.seeded.failing, "Failing", "XID 79: GPU has fallen off the bus", "research/train-0", "GPU 4: Healthy, in use"):  # fmt: skip
        assert words in said
    assert re.search(r"for \d+ min", said)
    row = page.locator(f'tr[data-node="{stage.seeded.failing}"]').first
    assert row.get_attribute("data-own-pointed") is not None


def test_wheel_zooms_where_the_pointer_is_and_drag_pans(
    look: Callable[..., Any], stage: Stage
) -> None:
    page = look()
    before = page.evaluate(PLACE, stage.seeded.failing)
    page.mouse.move(*before)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    page.wait_for_function(f"{MAP}.kept.zoom > 2")
    after = page.evaluate(PLACE, stage.seeded.failing)
    assert after == pytest.approx(before, abs=3)
    box = page.locator("canvas.pw-canvas").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 60, middle[1] - 40, steps=4)
    page.mouse.up()
    moved = page.evaluate(PLACE, stage.seeded.failing)
    assert moved[0] == pytest.approx(after[0] - 60, abs=2)
    assert page.url.startswith(stage.server.url + "/?")  # a drag opens nothing
    page.get_by_label("Whole fleet").click()
    assert page.evaluate(f"{MAP}.kept.zoom") == 1


def test_a_plain_wheel_scrolls_the_page_until_the_map_is_clicked_into(
    look: Callable[..., Any],
) -> None:
    page = look(height=500)
    canvas = page.locator("canvas.pw-canvas")
    canvas.hover()
    page.mouse.wheel(0, -200)
    assert page.evaluate(f"{MAP}.kept.zoom") == 1
    canvas.focus()
    page.mouse.wheel(0, -200)
    page.wait_for_function(f"{MAP}.kept.zoom > 1")


def test_shift_drag_selects_and_the_drain_dialog_names_the_nodes(
    look: Callable[..., Any], stage: Stage
) -> None:
    page = look()
    names = stage.seeded.names[8:11]
    first, last = page.evaluate(PLACE, names[0]), page.evaluate(PLACE, names[2])
    page.keyboard.down("Shift")
    page.mouse.move(first[0] - 30, first[1] - 3)
    page.mouse.down()
    page.mouse.move(last[0] + 30, last[1] + 3, steps=5)
    page.mouse.up()
    page.keyboard.up("Shift")
    bar = page.get_by_role("toolbar", name="Selected nodes")
    bar.get_by_text("3 nodes selected").wait_for()
    refreshed(page, stage, moment=2)
    assert bar.get_by_text("3 nodes selected").is_visible()
    await_query(page, "select", "seed-64.8-10")
    bar.get_by_role("button", name="Drain…").click()
    dialog = page.get_by_role("dialog")
    dialog.wait_for()
    for name in names:
        assert name in dialog.inner_text().replace("\u200b", "")


def test_keys_walk_select_and_open(look: Callable[..., Any], stage: Stage) -> None:
    page = look()
    page.locator("canvas.pw-canvas").focus()
    page.keyboard.press("ArrowRight")
    said = page.locator('.pw-map [role="status"]')
    assert stage.seeded.names[0] in said.inner_text()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowDown")
    page.get_by_text("3 nodes selected").wait_for()
    assert "selected" in said.inner_text()
    page.keyboard.press("Escape")
    page.locator(".pw-map-bar").wait_for(state="hidden")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"/nodes\?name={stage.seeded.names[2]}$"))


def test_copied_are_the_names(look: Callable[..., Any], stage: Stage) -> None:
    page = look()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("canvas.pw-canvas").focus()
    for key in ("ArrowRight", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    page.get_by_role("button", name="Copy names").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").split() == stage.seeded.names[:2]


def test_a_shared_address_shows_the_same(look: Callable[..., Any], stage: Stage) -> None:
    name = stage.seeded.failing
    page = look(f"by=temperature&zoom=3.00&near={name}&select=seed-64.2-3_9")
    assert page.evaluate(f"{MAP}.kept.zoom") == 3
    x, y = page.evaluate(PLACE, name)
    box = page.locator("canvas.pw-canvas").bounding_box()
    assert 0 < x - box["x"] < box["width"]
    assert 0 < y - box["y"] < box["height"]
    assert page.evaluate(f"[...{MAP}.chosen]") == [2, 3, 9]


def test_what_one_made_of_the_map_is_there_when_one_comes_back(look: Callable[..., Any]) -> None:
    page = look("by=power&select=seed-64.5")
    page.get_by_label("Zoom in").click()
    await_query(page, "zoom", "1.50")
    page.get_by_role("link", name="Jobs", exact=True).click()
    page.wait_for_url(re.compile("/jobs"))
    page.get_by_role("link", name="Overview").click()
    page.wait_for_selector('canvas[data-own-by="power"]')
    await_query(page, "zoom", "1.50")
    assert query_of(page)["by"] == "power"
    assert query_of(page)["select"] == "seed-64.5"
    page.get_by_text("1 node selected").wait_for()


def test_a_selection_of_another_topology_is_refused_with_a_word(look: Callable[..., Any]) -> None:
    page = look("select=00000000.1-4")
    page.get_by_text("was made before nodes came or went").wait_for()
    assert page.evaluate(f"{MAP}.chosen.size") == 0


def test_the_table_tells_the_same_in_words(look: Callable[..., Any], stage: Stage) -> None:
    page = look()
    page.get_by_role("button", name="Table").click()
    table = page.locator(".pw-map-table table")
    assert table.get_by_role("row").nth(1).inner_text().startswith(stage.seeded.failing)
    page.get_by_label("Colour by").select_option("job")
    table.get_by_text("Nodes by job").wait_for()
    assert table.get_by_role("row").count() > 5


def test_the_map_has_its_roles_and_words_for_who_does_not_see_it(look: Callable[..., Any]) -> None:
    page = look()
    canvas = page.locator("canvas.pw-canvas")
    assert canvas.get_attribute("role") == "application"
    assert "64 nodes" in canvas.get_attribute("aria-label")
    assert "Arrow keys" in page.locator("#" + canvas.get_attribute("aria-describedby")).inner_text()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('.pw-map button, .pw-map select')].filter(e => !(e.ariaLabel || e.textContent.trim())).length"
    )
    assert unnamed == 0


def test_a_stale_selection_is_refused_by_the_server_and_names_are_found_anew(
    browser: Any, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    seeded = seed(url, 64)
    with serving(url, log=tmp_path / "page.log") as server:
        page = open_page(browser, f"{server.url}/?select=seed-64.7-9")
        page.get_by_text("3 nodes selected").wait_for()
        # What a tab sends that has not heard of the change yet.
        page.evaluate(
            f"{MAP}.component.setTriggerValue('open', {{ ask: 'drain', version: 'older', spans: [[0, 2]] }})"
        )
        page.get_by_text("Nodes came or went since these were selected").wait_for()
        assert page.get_by_role("dialog").count() == 0
        gone = another_topology(url)
        beat(url)
        assert gone == seeded.names[7]
        page.get_by_text(f"{gone} is gone and no longer selected").wait_for()
        kept = page.evaluate(f"[...{MAP}.chosen].map(at => {MAP}.topology.names[at])")
        assert kept == seeded.names[8:10]
        page.context.close()


@pytest.mark.parametrize("nodes", [2000, 43_750])
def test_a_large_fleet_is_drawn_by_node_or_rack_and_by_gpu_when_zoomed_in(
    browser: Any, tmp_path: Path, nodes: int
) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    seeded = seed(url, nodes)
    colour(url)
    far = "rack" if nodes > 2000 else "node"
    with serving(url, log=tmp_path / "page.log") as server:
        page = open_page(browser, f"{server.url}/?by=temperature")
        page.wait_for_selector(f'canvas[data-own-by="temperature"][data-own-level="{far}"]')
        page.goto(
            f"{server.url}/?by=temperature&zoom={30 if far == 'rack' else 6}&near={seeded.failing}"
        )
        page.wait_for_selector('canvas[data-own-level="gpu"]')
        page.wait_for_function(f"{MAP}.gpuBase[{MAP}.topology.index.get('{seeded.failing}')] >= 0")
        page.mouse.move(*page.evaluate(PLACE, seeded.failing))
        page.mouse.move(*[at + 3 for at in page.evaluate(PLACE, seeded.failing)])
        assert re.search(r"GPU \d: Healthy, in use, \d+ °C", page.locator(".pw-tip").inner_text())
        if far == "rack":
            page.goto(server.url)
            page.wait_for_selector('canvas[data-own-level="rack"]')
            page.locator("canvas.pw-canvas").focus()
            page.keyboard.press("ArrowRight")
            assert (
                "Rack r01 of h100-aa, 32 nodes"
                in page.locator('.pw-map [role="status"]').inner_text()
            )
            page.keyboard.press("Enter")
            page.wait_for_selector('canvas[data-own-level="gpu"]')
        page.context.close()


@pytest.mark.parametrize("width", [390, 1280, 3840])
def test_the_map_fits_a_phone_and_a_wall(look: Callable[..., Any], width: int) -> None:
    page = look(width=width, height=1000)
    box = page.locator("canvas.pw-canvas").bounding_box()
    assert 0 <= box["x"] <= width - box["width"]
    keep(page, f"map-{width}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("by", ["health", "job", "temperature"])
def test_axe_finds_nothing_grave_in_the_map(look: Callable[..., Any], by: str, dark: bool) -> None:
    page = look(f"by={by}&select=seed-64.2-3", dark=dark)
    page.get_by_role("button", name="Table").click()
    page.locator(".pw-map-table table").wait_for()
    assert grave_findings(page, ".pw-map") == []
