"""An incident from the list to its end: what the eye finds, a person's word and the worker's answer to it."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import insert, update

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.records import RequestRecord
from app.store.tables import Finding, Incident, IncidentEvent
from tests.browser.answering import Answer, answering, drain_plan
from tests.browser.conftest import Stage
from tests.browser.pages import assert_no_exception, keep, needs_chromium
from tests.browser.seed import CLUSTER
from tests.browser.seed_incidents import LEAF, Told, seed_incidents
from tests.browser.test_hostile_text import EVIL

pytestmark = [needs_chromium, pytest.mark.browser]

Visit = Callable[..., Any]


@pytest.fixture
def told(stage: Stage) -> Iterator[Told]:
    """The incidents as they were at first, whatever another test said of them."""
    told = seed_incidents(stage.store_url, stage.seeded)
    yield told
    engine = open_store(stage.store_url)
    with write(engine) as connection:
        connection.execute(table_of(IncidentEvent).delete())
        finding = table_of(Finding)
        connection.execute(finding.delete().where(finding.c.rule == "job-interrupted"))
    engine.dispose()


def _worker(stage: Stage) -> Callable[[RequestRecord], Answer]:
    """Does to the store what the worker does on a person's word."""
    kinds = {"acknowledge": "acknowledged", "own": "owned", "resolve": "resolved", "reopen": "reopened"}  # fmt: skip

    def answer(request: RequestRecord) -> Answer:
        if request.kind == "preview":
            return {"state": "answered", "answer": drain_plan(stage.seeded.failing)}
        incident, event = table_of(Incident), table_of(IncidentEvent)
        given, now = request.parameters, datetime.now(UTC)
        said: dict[str, dict[str, Any]] = {
            "acknowledge": {"acknowledged_by": request.author, "acknowledged_at": now},
            "own": {"owner": given.get("owner")},
            "note": {},
            "resolve": {"resolved_at": now, "resolved_by": request.author, "resolution": given.get("text")},
            "reopen": {"resolved_at": None, "held_open_by": request.author},
        }  # fmt: skip
        values = said[request.kind]
        engine = open_store(stage.store_url)
        with write(engine) as connection:
            row = {"cluster": CLUSTER, "incident_id": given["incident_id"], "at": now, "kind": kinds.get(request.kind, request.kind),
                   "author": request.author, "message": given.get("text", "")}  # fmt: skip
            connection.execute(insert(event), [row])
            if values:
                named = incident.c.id == given["incident_id"]
                connection.execute(update(incident).where(named).values(**values))
        engine.dispose()
        return {"state": "accepted"}

    return answer


def test_from_the_list_to_the_incident_its_acknowledgement_and_a_note(
    visit: Visit, stage: Stage, told: Told
) -> None:
    with answering(stage.store_url, _worker(stage)) as seen:
        page = visit("/incidents")
        rows = page.get_by_role("table", name="Incidents").locator("tbody tr")
        expect(rows).to_have_count(4)
        expect(rows.nth(0)).to_contain_text("1 job, 208 GPUs")
        expect(rows.nth(1)).to_contain_text("likely")
        keep(page, "incidents-by-hurt-light")
        rows.nth(0).get_by_role("link").click()
        page.wait_for_url(re.compile(rf"/incidents\?id={told.story}$"))
        page.get_by_text("Do first: drain the node and power-cycle it").wait_for()
        first = page.get_by_role("region", name="First failure", exact=True)
        for words in (stage.seeded.failing, "GPU-", "79", "llama-70b-pretrain-4-x7k2p"):
            expect(first).to_contain_text(words)
        expect(first).not_to_contain_text("NCCL")
        followed = page.get_by_role("table", name="What followed the first failure")
        expect(followed.locator("tbody tr").first).to_contain_text("+4 s")
        keep(page, "incident-light")
        page.get_by_role("button", name="Acknowledge").click()
        page.get_by_text("Seen by").wait_for()
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
        assert page.locator(".pw-headline .pw-act").count() == 0  # somebody has it: it is quiet
        note = page.get_by_label("Note")
        note.fill("riser of slot 3 looks loose")
        note.press("Enter")
        timeline = page.get_by_role("table", name="Timeline, newest first")
        expect(timeline.locator("tbody tr").first).to_contain_text("riser of slot 3 looks loose")
        expect(page.get_by_label("Note")).to_have_value("")
        page.get_by_role("button", name="Take it").click()
        expect(page.get_by_role("button", name="Take it")).to_have_count(0)
        keep(page, "incident-taken-light")
        assert_no_exception(page)
    asked = [(request.kind, request.parameters) for request in seen]
    assert asked[:2] == [
        ("acknowledge", {"incident_id": told.story}),
        ("note", {"incident_id": told.story, "text": "riser of slot 3 looks loose"}),
    ]
    assert asked[2][0] == "own"
    assert seen[0].author == f"{asked[2][1]['owner']} (page)"


def test_an_incident_is_resolved_with_words_and_opened_again(
    visit: Visit, stage: Stage, told: Told
) -> None:
    with answering(stage.store_url, _worker(stage)) as seen:
        page = visit(f"/incidents?id={told.flapping}")
        page.get_by_text("Flapping: it came back 4 times.").wait_for()
        keep(page, "incident-flapping-light")
        page.get_by_role("button", name="Resolve…").click()
        dialog = page.get_by_role("dialog")
        confirm = dialog.get_by_role("button", name="Resolve the incident")
        confirm.click()
        dialog.get_by_text("Write some words: others will read them.").wait_for()
        assert seen == []
        dialog.get_by_label("What ended it").fill("cable replaced")
        keep(page, "incident-resolve-dialog")
        confirm.click()
        page.get_by_text(re.compile(r"Resolved by .* \(page\): cable replaced")).wait_for()
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.get_by_role("button", name="Reopen…").click()
        dialog.get_by_label("Why it is not over").fill("down again")
        dialog.get_by_label("Why it is not over").press("Enter")
        page.get_by_text("only a person resolves it now").wait_for()
    assert [(request.kind, request.parameters["text"]) for request in seen] == [
        ("resolve", "cable replaced"),
        ("reopen", "down again"),
    ]


def test_a_refusal_is_the_sentence_it_is(visit: Visit, stage: Stage, told: Told) -> None:
    said = "It is still fed by 2 open findings: they must end first."
    refuse = {"state": "refused", "refusal": said, "refusal_code": "conflict"}
    with answering(stage.store_url, lambda request: refuse):
        page = visit(f"/incidents?id={told.story}")
        page.get_by_role("button", name="Resolve…").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("What ended it").fill("done")
        dialog.get_by_role("button", name="Resolve the incident").click()
        dialog.get_by_text(f"Not done: {said}").wait_for()
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        page.get_by_role("button", name="Take it").click()
        page.get_by_text(f"Not done: {said}").wait_for()
        keep(page, "incident-refused-light")


def test_a_worker_that_does_not_answer_a_word_is_said(
    visit: Visit, stage: Stage, told: Told
) -> None:
    page = visit(f"/incidents?id={told.leaf}")
    page.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Acknowledge: no answer yet. Is `pitwall worker` running?").wait_for()


def test_a_shared_domain_names_its_nodes_and_offers_no_drain_of_the_healthy(
    visit: Visit, stage: Stage, told: Told
) -> None:
    page = visit(f"/incidents?id={told.leaf}", dark=True)
    page.get_by_role("table", name="Nodes of this incident").wait_for()
    page.get_by_text("likely (93%)").wait_for()
    page.get_by_text(LEAF, exact=True).wait_for()
    assert page.get_by_role("button", name="Drain").count() == 0
    keep(page, "incident-leaf-dark")
    page.goto(f"{stage.server.url}/incidents?id={told.story}")
    page.get_by_role("region", name="First failure", exact=True).wait_for()
    page.wait_for_timeout(700)
    keep(page, "incident-dark")
    page.goto(f"{stage.server.url}/incidents")
    page.get_by_text("Who is hurt now").wait_for()
    keep(page, "incidents-by-hurt-dark")
    assert_no_exception(page)


def test_the_node_of_an_incident_is_drained_from_its_page(
    visit: Visit, stage: Stage, told: Told
) -> None:
    with answering(stage.store_url, _worker(stage)) as seen:
        page = visit(f"/incidents?id={told.story}")
        page.get_by_role("button", name="Drain the node…").click()
        page.get_by_role("dialog").get_by_text("GPU-hours at stake").wait_for()
    assert seen[0].parameters["nodes"] == [stage.seeded.failing]


def test_what_is_part_of_another_incident_leads_to_it(
    visit: Visit, stage: Stage, told: Told
) -> None:
    page = visit(f"/incidents?id={told.merged}")
    page.get_by_role("link", name="Open that one").click()
    page.wait_for_url(re.compile(told.story))
    page.get_by_role("region", name="First failure", exact=True).wait_for()
    page.goto(f"{stage.server.url}/nodes?name={stage.seeded.failing}")
    page.get_by_role("link", name="Open it").click()
    page.wait_for_url(re.compile(told.story))


def test_why_and_where_to_look_next_stay_open_over_refreshes(
    visit: Visit, stage: Stage, told: Told
) -> None:
    page = visit(f"/nodes?name={stage.seeded.failing}", height=1500)
    reason = page.get_by_text("The GPU no longer answers on the PCIe bus")
    expect(reason).to_be_hidden()
    findings = page.get_by_role("table", name="Findings")
    findings.get_by_text("Why, and where to look next").first.click()
    expect(reason).to_be_visible()
    page.wait_for_timeout(2600)
    expect(reason).to_be_visible()
    expect(findings.get_by_text("Kubernetes", exact=True)).to_be_visible()
    keep(page, "node-findings-light")


def test_hostile_text_of_an_incident_is_text(visit: Visit, stage: Stage, told: Told) -> None:
    engine = open_store(stage.store_url)
    job = {"uid": EVIL, "namespace": EVIL, "name": EVIL, "gpus": 8, "since": None, "until": None, "ranks": [1]}  # fmt: skip
    with write(engine) as connection:
        incident = table_of(Incident)
        connection.execute(
            update(incident)
            .where(incident.c.id == told.story)
            .values(
                title=EVIL, action=EVIL, owner=EVIL, acknowledged_by=EVIL, cause=EVIL, subject=EVIL, certainty=EVIL, held_open_by=EVIL,
                nodes=[EVIL], jobs=[job], first={"node": EVIL, "message": EVIL, "pod": EVIL, "job": EVIL, "gpu_uuid": EVIL, "at": EVIL},
                consequences=[{"message": EVIL, "node": EVIL, "kind": EVIL}], evidence=[{"source": EVIL, "text": EVIL}],
            )
        )  # fmt: skip
        connection.execute(update(table_of(IncidentEvent)).values(message=EVIL, author=EVIL))
        connection.execute(
            update(table_of(Finding)).values(explanation=EVIL, look_next=EVIL, source=EVIL)
        )
    engine.dispose()
    page = visit(f"/incidents?id={told.story}")
    page.get_by_text("First failure").wait_for()
    page.get_by_role("button", name="Resolve…").click()
    page.get_by_role("dialog").get_by_text("What ended it").wait_for()
    assert_no_exception(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".pw img, .pw script, [role=dialog] img, .katex, a[href^=javascript]").count() == 0  # fmt: skip
