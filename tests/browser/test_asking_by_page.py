"""Asking for something: the preview is read, the request names what was read, and each answer is shown."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, insert

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.records import RequestRecord
from app.store.tables import Pause
from tests.browser.answering import answering, drain_plan
from tests.browser.conftest import Stage
from tests.browser.pages import assert_no_exception, keep, needs_chromium

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]


def test_a_drain_is_previewed_confirmed_and_followed(visit: Visit, stage: Stage) -> None:
    node = stage.seeded.failing
    plan = drain_plan(node)

    def answer(request: RequestRecord) -> dict[str, Any]:
        if request.kind == "preview":
            return {"state": "answered", "answer": plan}
        return {"state": "accepted", "operation_id": stage.seeded.operations["running"]}

    with answering(stage.store_url, answer) as seen:
        page = visit(f"/nodes?name={node}")
        page.get_by_role("button", name="Drain…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("GPU-hours at stake").wait_for()
        for words in (
            "131.7",
            "pretrain/llama-70b-pretrain-4-x7k2p",
            "Restarted with its gang",
            "it belongs to a DaemonSet",
            "Fits elsewhere",
        ):
            assert dialog.get_by_text(words).first.is_visible(), words
        expect(dialog.get_by_label("Reason")).to_have_value(
            "XID 79: GPU has fallen off the bus (GPU 3)"
        )
        keep(page, "drain-dialog")
        confirm = dialog.get_by_role("button", name="Drain 1 node")
        confirm.dblclick()  # a nervous hand asks once
        page.wait_for_url(re.compile(r"/operations\?id="))
        page.get_by_text("Steps").wait_for()
        assert_no_exception(page)
    assert [request.kind for request in seen] == ["preview", "drain"]
    assert seen[1].parameters == {"nodes": [node], "mode": "now", "plan_hash": plan["hash"]}
    assert seen[1].reason == "XID 79: GPU has fallen off the bus (GPU 3)"
    assert seen[1].author.endswith(" (page)")


def test_a_job_without_room_elsewhere_must_be_typed(visit: Visit, stage: Stage) -> None:
    node = stage.seeded.failing
    job = {
        **drain_plan(node)["jobs"][0],
        "fit": {
            "verdict": "does_not_fit",
            "nodes": [],
            "reason": "26 nodes are needed, 8 are there",
        },
    }
    stops = "Job pretrain/llama-70b-pretrain does not fit elsewhere (26 nodes are needed, 8 are there): to stop it all the same, type its name, llama-70b-pretrain."
    plan = drain_plan(node, jobs=[job], blockers=[stops])

    def answer(request: RequestRecord) -> dict[str, Any]:
        if request.kind == "preview":
            return {"state": "answered", "answer": plan}
        return {
            "state": "refused",
            "refusal": "The plan has changed: pod a/b is new.",
            "refusal_code": "plan_changed",
        }

    with answering(stage.store_url, answer) as seen:
        page = visit(f"/nodes?name={node}", height=1100)
        page.get_by_role("button", name="Drain…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text(stops).wait_for()
        keep(page, "drain-dialog-no-room")
        confirm = dialog.get_by_role("button", name="Drain 1 node")
        assert confirm.is_disabled()
        typed = dialog.get_by_label("Typed")
        typed.fill("llama-70b-pretrain")
        typed.press("Enter")
        confirm.and_(page.locator(":enabled")).click()
        dialog.get_by_text("Not done: The plan has changed: pod a/b is new.").wait_for()
        keep(page, "drain-dialog-refused")
    drains = [request for request in seen if request.kind == "drain"]
    assert drains[0].parameters["accept_no_capacity"] == ["llama-70b-pretrain"]


def test_what_nothing_lifts_can_not_be_confirmed(visit: Visit, stage: Stage) -> None:
    node = stage.seeded.failing
    limits = {
        "verdict": "refused",
        "lines": [
            {
                "name": "x",
                "limit": 6,
                "now": 6,
                "after": 7,
                "message": "7 of 64 nodes would be out of service; the limit is 6.",
            }
        ],
    }

    with answering(
        stage.store_url,
        lambda request: {"state": "answered", "answer": drain_plan(node, limits=limits)},
    ):
        page = visit(f"/nodes?name={node}")
        page.get_by_role("button", name="Drain…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("7 of 64 nodes would be out of service; the limit is 6.").wait_for()
        dialog.get_by_text("A limit refuses this, with force as well.").wait_for()
        assert dialog.get_by_role("button", name="Drain 1 node").count() == 0


def test_other_options_are_previewed_anew(visit: Visit, stage: Stage) -> None:
    node = stage.seeded.failing
    with answering(
        stage.store_url, lambda request: {"state": "answered", "answer": drain_plan(node)}
    ) as seen:
        page = visit(f"/nodes?name={node}")
        page.get_by_role("button", name="Drain…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("GPU-hours at stake").wait_for()
        dialog.get_by_text("As jobs end").click()
        page.wait_for_timeout(1500)
    assert [request.parameters["mode"] for request in seen] == ["now", "complete"]


def test_a_worker_that_does_not_answer_is_said(visit: Visit, stage: Stage) -> None:
    page = visit(f"/nodes?name={stage.seeded.failing}")
    page.get_by_role("button", name="Drain…").click()
    page.get_by_role("dialog").get_by_text("Is `pitwall worker` running?").wait_for()


def test_a_dangerous_choice_is_typed_before_it_is_made(visit: Visit, stage: Stage) -> None:
    operation, node = stage.seeded.operations["blocked"], stage.seeded.unknown
    with answering(
        stage.store_url, lambda request: {"state": "accepted", "operation_id": operation}
    ) as seen:
        page = visit(f"/operations?id={operation}")
        page.get_by_role("button", name="The node is powered off…").click()
        dialog = page.get_by_role("dialog")
        confirm = dialog.get_by_role("button", name="Do this")
        assert confirm.is_disabled()
        typed = dialog.get_by_label("Typed")
        typed.fill(node)
        typed.press("Enter")
        confirm.and_(page.locator(":enabled")).click()
        expect(dialog).to_have_count(0)
    [chosen] = seen
    assert (chosen.kind, chosen.parameters) == (
        "choose",
        {"operation_id": operation, "choice": "confirm_power_off", "confirmation": node},
    )


def test_cancelling_says_what_it_does_and_asks(visit: Visit, stage: Stage) -> None:
    operation = stage.seeded.operations["running"]
    with answering(
        stage.store_url, lambda request: {"state": "accepted", "operation_id": operation}
    ) as seen:
        page = visit(f"/operations?id={operation}")
        page.get_by_role("button", name="Cancel…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("What was evicted stays evicted.").wait_for()
        dialog.get_by_role("button", name="Cancel the operation").click()
        expect(dialog).to_have_count(0)
    assert [(request.kind, request.parameters) for request in seen] == [
        ("cancel", {"operation_id": operation})
    ]


def test_a_drained_node_is_uncordoned(visit: Visit, stage: Stage) -> None:
    with answering(stage.store_url, lambda request: {"state": "refused", "refusal": "The node is Failing: type its name to put it in service all the same.", "refusal_code": "protected"}) as seen:  # fmt: skip
        page = visit(f"/nodes?name={stage.seeded.drained}")
        page.get_by_role("button", name="Uncordon…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Uncordon 1 node").click()
        dialog.get_by_text("The node is Failing").wait_for()
        dialog.get_by_text(
            f"To put it in service all the same, type: {stage.seeded.drained}"
        ).wait_for()
        dialog.get_by_label("Typed").wait_for()
    assert seen[0].parameters == {"nodes": [stage.seeded.drained]}


def test_all_operations_are_paused_with_a_reason_and_taken_up_again(
    visit: Visit, stage: Stage
) -> None:
    with answering(stage.store_url, lambda _request: {"state": "accepted", "answer": {}}) as asked:
        page = visit("/operations")
        page.get_by_role("button", name="Pause…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Why").fill("cables")
        dialog.get_by_role("button", name="Pause").click()
        expect(dialog).to_have_count(0)
        engine = open_store(stage.store_url)
        with write(engine) as connection:
            connection.execute(
                insert(table_of(Pause)).values(
                    cluster="default", paused_at=datetime.now(UTC), paused_by="ana", reason="cables"
                )
            )
        try:
            page = visit("/operations")
            expect(page.get_by_text("Paused by ana")).to_be_visible()
            expect(page.locator(".pw-pulse").get_by_text("Paused", exact=True)).to_be_visible()
            keep(page, "operations-paused")
            page.get_by_role("button", name="End the pause…").click()
            page.get_by_role("dialog").get_by_label("Why it is over").fill("they are in")
            page.get_by_role("dialog").get_by_role("button", name="End the pause").click()
            expect(page.get_by_role("dialog")).to_have_count(0)
        finally:
            with write(engine) as connection:
                connection.execute(delete(table_of(Pause)))
            engine.dispose()
    assert [(one.kind, one.parameters.get("text")) for one in asked] == [
        ("pause", "cables"),
        ("unpause", "they are in"),
    ]
