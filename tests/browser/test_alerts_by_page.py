"""Alerts by a browser: a silence is asked for, ended; a test message; a dead letter is sent again."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.answering import answering
from tests.browser.conftest import Stage
from tests.browser.pages import assert_no_exception, keep, needs_chromium

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]
TAKEN = {"state": "accepted", "answer": {}}


def test_a_silence_is_asked_for_with_a_reason_and_an_end(visit: Visit, stage: Stage) -> None:
    with answering(stage.store_url, lambda _request: TAKEN) as asked:
        page = visit("/alerts")
        page.get_by_role("button", name="Silence…", exact=True).click()
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_role("button", name="Silence it")).to_be_disabled()
        dialog.get_by_label("Node").fill("h100-a-r01-05")
        dialog.get_by_label("Reason").fill("riser is replaced")
        page.keyboard.press("Tab")
        keep(page, "silence-dialog")
        dialog.get_by_role("button", name="Silence it").click()
        expect(dialog).to_have_count(0)
    (request,) = asked
    assert request.kind == "silence"
    assert request.parameters == {
        "on": "node",
        "value": "h100-a-r01-05",
        "seconds": 7200.0,
        "text": "riser is replaced",
    }
    assert_no_exception(page)


def test_a_refusal_is_told_in_the_dialog_and_nothing_is_lost(visit: Visit, stage: Stage) -> None:
    refused = {
        "state": "refused",
        "refusal": "It lasts longer than 30 days.",
        "refusal_code": "invalid",
    }
    with answering(stage.store_url, lambda _request: refused):
        page = visit("/alerts")
        page.get_by_role("button", name="Silence…", exact=True).click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Node").fill("n1")
        dialog.get_by_label("Reason").fill("x")
        page.keyboard.press("Tab")
        dialog.get_by_role("button", name="Silence it").click()
        expect(dialog.get_by_text("It lasts longer than 30 days.")).to_be_visible()
        expect(dialog.get_by_label("Reason")).to_have_value("x")


def test_a_silence_is_ended_and_a_test_message_sent(visit: Visit, stage: Stage) -> None:
    with answering(stage.store_url, lambda _request: TAKEN) as asked:
        page = visit("/alerts")
        page.get_by_role("button", name="End a silence…").click()
        page.get_by_role("dialog").get_by_role("button", name="End it now").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Test message…").click()
        page.get_by_role("dialog").get_by_label("Receiver").fill("pager")
        page.keyboard.press("Tab")
        page.get_by_role("dialog").get_by_role("button", name="Send it").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
    assert [(one.kind, one.parameters) for one in asked] == [
        ("unsilence", {"silence_id": "s1"}),
        ("test_receiver", {"receiver": "pager"}),
    ]


def test_a_receiver_is_added_by_the_name_of_its_secret(visit: Visit, stage: Stage) -> None:
    with answering(stage.store_url, lambda _request: TAKEN) as asked:
        page = visit("/alerts")
        page.get_by_role("button", name="Add receiver…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("chat")
        dialog.get_by_label("Name of its secret").fill("chat-address")
        page.keyboard.press("Tab")
        dialog.get_by_role("button", name="Add it").click()
        expect(dialog).to_have_count(0)
    (request,) = asked
    assert request.kind == "receiver_add"
    assert request.parameters == {
        "receiver": "chat", "secret": "chat-address", "send_resolved": True, "matchers": ['severity=~"critical|fatal"'],
    }  # fmt: skip


def test_a_dead_letter_is_sent_again(visit: Visit, stage: Stage) -> None:
    with answering(stage.store_url, lambda _request: TAKEN) as asked:
        page = visit("/alerts")
        expect(page.get_by_text("answered 404, tried 1 time")).to_be_visible()
        page.get_by_role("button", name="Send again").click()
        page.wait_for_timeout(800)
    assert [(one.kind, one.parameters) for one in asked] == [
        ("send_again", {"delivery_id": "d-chat"})
    ]
