"""Each view in its states: nothing yet, well, stale, broken, unknown subjects."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.store.engine import migrate
from app.ui import navigation
from tests.browser.seed import Seeded, seed, seed_history
from tests.unit.ui.parts_seen import OpenView, parts_of, said

VIEWS = tuple(view.path for view in navigation.VIEWS)


@pytest.fixture
def seeded(store_url: str) -> Seeded:
    return seed(store_url, 64)


@pytest.mark.parametrize(
    ("view", "words"),
    [("overview", "No node is known yet. Start `pitwall agent`"), ("nodes", "No node is known yet."), ("jobs", "No job is known."),
     ("incidents", "No incident is open."), ("operations", "Nothing has been asked for yet."),
     ("capacity", "No node is known yet."), ("audit", "Nothing was asked for or written yet."), ("sources", "No source has spoken yet."), ("automatic", "Automatic mode is off"), ("alerts", "Nothing is told to anybody now.")],
)  # fmt: skip
def test_an_empty_store_says_what_to_do(
    open_view: OpenView, store_url: str, view: str, words: str
) -> None:
    migrate(store_url)
    test = open_view(view)
    assert not test.exception
    assert words in said(test)
    assert "No data yet" in said(test)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_paints_a_living_fleet(open_view: OpenView, seeded: Seeded, view: str) -> None:
    test = open_view(view)
    assert not test.exception
    assert {part["now"] for part in parts_of(test).values()}


def test_the_overview_leads_with_whom_it_hurts(open_view: OpenView, seeded: Seeded) -> None:
    figures = parts_of(open_view())["figures"]["figures"]
    assert [(figure["label"], figure["value"], figure["tone"]) for figure in figures[:4]] == [
        ("Jobs at risk", "1", "act"), ("Open incidents", "4", "watch"), ("Failing nodes", "3", "act"), ("Unknown nodes", "1", "blank"),
    ]  # fmt: skip
    worst = parts_of(open_view())["worst"]["rows"]
    assert worst[0]["id"] == seeded.failing
    assert worst[0]["cells"]["node"]["second"] == "XID 79: GPU has fallen off the bus (GPU 3)"
    assert worst[0]["cells"]["age"] is not None


def test_the_worst_list_keeps_its_order_between_looks(open_view: OpenView, seeded: Seeded) -> None:
    first, second = (
        [row["id"] for row in parts_of(open_view())["worst"]["rows"]] for _ in range(2)
    )
    assert first == second


def test_sources_gone_silent_are_told_and_the_datas_age_turns(
    open_view: OpenView, store_url: str
) -> None:
    seed(store_url, 64, now=datetime.now(UTC) - timedelta(minutes=5))
    test = open_view()
    pulse = parts_of(test)["pulse-part"]
    assert pulse["tone"] == "act"
    assert {source["state"] for source in pulse["sources"]} == {"blind"}
    assert "Kubernetes is not heard" in said(test)
    assert "No worker is at work" in said(test)


@pytest.mark.parametrize("view", VIEWS)
def test_a_store_that_is_not_there_is_one_sentence(
    open_view: OpenView, store_url: str, tmp_path: Path, view: str
) -> None:
    (tmp_path / "store.db").write_bytes(b"this is no store" * 100)
    test = open_view(view)
    assert not test.exception
    assert "it is not a SQLite store or it is damaged" in said(test)
    assert parts_of(test)["pulse-part"]["label"] == "Store can't be read"


@pytest.mark.parametrize(
    ("view", "query", "words"),
    [("nodes", {"name": "gone"}, "No node of this name is known."), ("jobs", {"uid": "gone"}, "No job with this address is known"),
     ("operations", {"id": "gone"}, "No operation gone is known.")],
)  # fmt: skip
def test_a_subject_that_is_not_known_is_said(
    open_view: OpenView, seeded: Seeded, view: str, query: dict[str, str], words: str
) -> None:
    test = open_view(view, **query)
    assert not test.exception
    assert words in said(test)


def test_a_nodes_page_tells_cause_age_gpus_and_pods(open_view: OpenView, seeded: Seeded) -> None:
    test = open_view("nodes", name=seeded.failing)
    parts = parts_of(test)
    head = parts["node-head"]
    assert (head["states"][0]["word"], head["states"][0]["tone"]) == ("Failing", "act")
    assert head["states"][0]["at"] is not None
    assert head["cause"]["text"] == "XID 79: GPU has fallen off the bus (GPU 3)"
    cards = parts["node-gpus"]["gpus"]
    assert [card["index"] for card in cards] == list(range(8))
    lost = cards[3]
    assert lost["readings"]["temperature"] == {"value": None, "help": "NVML answers: GPU is lost"}
    assert lost["pod"]["text"] == "llama-70b-pretrain, rank 4"
    assert [button.label for button in test.button] == ["Drain…"]


def test_a_node_held_by_an_operation_can_not_be_drained_twice(
    open_view: OpenView, seeded: Seeded
) -> None:
    test = open_view("nodes", name=seeded.draining)
    assert {button.label: button.disabled for button in test.button} == {
        "Uncordon…": True,
        "Drain…": True,
    }
    assert "Drain by ana (page), Running" in said(test)


def test_a_drained_node_is_quiet_and_can_come_back(open_view: OpenView, seeded: Seeded) -> None:
    test = open_view("nodes", name=seeded.drained)
    tones = [state["tone"] for state in parts_of(test)["node-head"]["states"]]
    assert "act" not in tones
    assert "act" not in [card["tone"] for card in parts_of(test)["node-gpus"]["gpus"]]
    assert not test.button(key="uncordon").disabled


def test_a_job_shows_its_troubled_ranks_first(open_view: OpenView, seeded: Seeded) -> None:
    rows = parts_of(open_view("jobs", uid=seeded.job_uid))["ranks"]["rows"]
    assert rows[0]["cells"]["node"]["text"] == seeded.failing
    assert rows[0]["cells"]["health"] == {"word": "Failing", "tone": "act"}


def test_a_blocked_operation_offers_its_choices(open_view: OpenView, seeded: Seeded) -> None:
    test = open_view("operations", id=seeded.operations["blocked"])
    assert [button.label for button in test.button] == [
        "Cancel…",
        "The node is powered off…",
        "Resume the job without it…",
    ]


def test_an_ended_operation_offers_nothing(open_view: OpenView, seeded: Seeded) -> None:
    test = open_view("operations", id=seeded.operations["done"])
    assert not test.button
    assert parts_of(test)["operation-head"]["states"] == [{"word": "Succeeded", "tone": "calm"}]


def test_filters_of_the_node_list_come_from_the_address(
    open_view: OpenView, seeded: Seeded
) -> None:
    rows = parts_of(open_view("nodes", health="Unknown"))["nodes"]["rows"]
    assert [row["id"] for row in rows] == [seeded.unknown]


def test_a_nodes_history_is_drawn_with_what_is_amiss_on_top_and_is_inert(
    open_view: OpenView, store_url: str, seeded: Seeded
) -> None:
    evil = "<b>x</b><a href='javascript:1'>"
    seed_history(store_url, seeded.failing, words=evil)
    test = open_view("nodes", name=seeded.failing)
    assert not test.exception
    (chart,) = test.get("plotly_chart")
    drawn = json.loads(chart.proto.spec)
    lines = [trace for trace in drawn["data"] if str(trace.get("name", "")).startswith("GPU")]
    assert len(lines) == 8
    assert lines[-1]["name"] == "GPU 3"
    assert "<b>" not in chart.proto.spec.replace("\\u003c", "<").replace("<extra>", "")
    assert evil in said(test), "the repair's note is shown as it was written"


def test_a_node_without_history_says_so(open_view: OpenView, seeded: Seeded) -> None:
    test = open_view("nodes", name=seeded.drained)
    assert not test.exception
    assert any("No reading of this time is kept" in text.value for text in test.text)
