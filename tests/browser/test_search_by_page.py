"""The search of every view: by one key, by arrows, and to the page of what was found."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Stage
from tests.browser.pages import assert_no_exception, keep, needs_chromium

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]
FIELD = "Search nodes, GPUs, jobs, pods, incidents and operations"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_key_a_few_letters_and_one_is_at_the_node(visit: Visit, stage: Stage, dark: bool) -> None:
    page = visit("/jobs", dark=dark)
    page.keyboard.press("/")
    field = page.get_by_role("combobox", name=FIELD)
    expect(field).to_be_focused()
    page.keyboard.type("llama")
    expect(page.get_by_role("option").first).to_contain_text("llama")
    keep(page, f"search-{'dark' if dark else 'light'}")
    page.keyboard.press("Control+A")
    page.keyboard.type(stage.seeded.failing)
    first = page.get_by_role("option").first
    expect(first).to_contain_text(stage.seeded.failing)
    expect(first).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=stage.seeded.failing)).to_be_visible()
    assert f"name={stage.seeded.failing}" in page.url
    expect(field).to_have_value("")
    expect(page.get_by_role("option")).to_have_count(0)
    assert_no_exception(page)


def test_arrows_choose_and_escape_leaves(visit: Visit, stage: Stage) -> None:
    page = visit("/")
    page.keyboard.press("Control+k")
    page.keyboard.type("h100-a-r01")
    expect(page.get_by_role("option").nth(2)).to_be_visible()
    second = page.get_by_role("option").nth(1).inner_text().split("\n")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=second[1])).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("nothing-is-called-so")
    expect(page.get_by_text("Nothing is named like nothing-is-called-so.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("combobox", name=FIELD)).not_to_be_focused()
    expect(page.get_by_text("Nothing is named like")).to_have_count(0)


def test_what_is_typed_elsewhere_stays_there(visit: Visit) -> None:
    page = visit("/nodes")
    page.get_by_label("Name or cause").click()
    page.keyboard.type("a/b")
    expect(page.get_by_label("Name or cause")).to_have_value("a/b")
    expect(page.get_by_role("combobox", name=FIELD)).not_to_be_focused()


def test_what_is_typed_survives_the_refreshes(visit: Visit) -> None:
    page = visit("/")
    page.keyboard.press("/")
    page.keyboard.type("h100")
    expect(page.get_by_role("option").first).to_be_visible()
    page.wait_for_timeout(4500)  # two refreshes of the live parts
    expect(page.get_by_role("combobox", name=FIELD)).to_have_value("h100")
    expect(page.get_by_role("combobox", name=FIELD)).to_be_focused()
    expect(page.get_by_role("option").first).to_be_visible()
