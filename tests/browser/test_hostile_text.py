"""Text from the cluster and from people is shown as it is written, wherever it is shown."""

from typing import Any

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.tables import Finding, Gpu, Incident, Job, Node, Operation, OperationStep, Pod, Rank
from tests.browser.answering import answering, drain_plan
from tests.browser.pages import assert_no_exception, needs_chromium, open_page, serving
from tests.browser.seed import beat, seed, seed_alerts, seed_audit, seed_automatic, seed_history

pytestmark = [needs_chromium, pytest.mark.browser]

EVIL = (
    '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> ![p](http://evil.example/p.png) '
    "[go](javascript:window.hacked=1) :red[red] :material/delete: :smile: $x^2$ `code` **bold** https://evil.example"
)


def test_hostile_text_is_text_everywhere(browser: Any, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    seeded = seed(url, 64)
    job = _poison(url)
    seed_audit(url, EVIL, words=EVIL)
    seed_automatic(url, seeded.failing, words=EVIL)
    seed_history(url, seeded.failing, words=EVIL)
    seed_alerts(url, seeded.failing, words=EVIL)
    blocked = seeded.operations["blocked"]
    with serving(url, log=tmp_path / "page.log") as server:
        beat(url)
        page = open_page(browser, server.url)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        node = f"/nodes?name={seeded.failing}"
        for address in (
            "/",
            "/nodes",
            node,
            "/jobs?show=all",
            f"/jobs?uid={job}",
            "/incidents",
            "/operations",
            "/capacity",
            "/audit",
            "/automatic",
            "/alerts",
            f"/operations?id={blocked}",
        ):
            page.goto(server.url + address)
            page.locator(".pw").get_by_text(EVIL, exact=False).first.wait_for()
            _assert_unharmed(page, asked, server.url)
        expect(
            page.get_by_role("button", name=EVIL[:40])
        ).to_be_visible()  # a choice's label is Markdown to Streamlit
        page.get_by_role("button", name=EVIL[:40]).click()
        page.get_by_role("dialog").get_by_text(EVIL, exact=False).first.wait_for()
        heading = page.get_by_role("dialog").get_by_text("Choose for Drain")
        expect(heading).to_contain_text(":red[red] :material/delete: :smile: $x^2$ `code` **bold**")
        _assert_unharmed(page, asked, server.url)
        plan = drain_plan(seeded.failing, warnings=[EVIL])
        plan["jobs"][0] |= {"name": EVIL, "refusal": EVIL}
        plan["pods"][0] |= {"name": EVIL, "reasons": [EVIL]}
        with answering(url, lambda request: {"state": "answered", "answer": plan}):
            page.goto(server.url + node)
            page.get_by_role("button", name="Drain…").click()
            page.get_by_role("dialog").get_by_text("GPU-hours at stake").wait_for()
            _assert_unharmed(page, asked, server.url)
        page.context.close()


def _assert_unharmed(page: Any, asked: list[str], url: str) -> None:
    assert_no_exception(page)
    assert page.evaluate("window.hacked") is None
    assert (
        page.locator(".pw img, .pw script, [role=dialog] img, [data-testid=stMarkdown] img").count()
        == 0
    )
    assert page.locator("a[href^=javascript]").count() == 0
    assert page.locator(".katex").count() == 0
    assert not [address for address in asked if not address.startswith((url, "data:", "blob:"))]


def _poison(url: str) -> str:
    """Puts the text wherever the cluster or a person may put one; returns a job's UID."""
    engine = open_store(url)
    texts: dict[Any, tuple[str, ...]] = {
        Node: ("health_reason", "service_reason", "driver_version", "kind"), Gpu: ("health_reason",), Finding: ("message", "action"),
        Incident: ("title", "action", "owner"), Job: ("name", "team", "queue", "reason"),
        Pod: ("name", "owner"), Rank: ("pod_name",), Operation: ("subject", "message", "reason", "author"),
    }  # fmt: skip
    with write(engine) as connection:
        for model, columns in texts.items():
            connection.execute(update(table_of(model)).values(**dict.fromkeys(columns, EVIL)))
        operation, step, job = table_of(Operation), table_of(OperationStep), table_of(Job)
        connection.execute(update(step).values(message=EVIL))
        choice = [{"name": "retry", "label": EVIL, "warning": EVIL, "confirmation": EVIL}]
        connection.execute(
            update(operation)
            .where(operation.c.state == "Blocked")
            .values(choices=choice, subject=EVIL)
        )
        found = connection.execute(
            job.select().where(job.c.state == "Running").order_by(job.c.gpus.desc())
        ).first()
    engine.dispose()
    assert found is not None
    return str(found.uid)
