"""The incidents' list and page in each state: open, taken, flapping, of a domain, merged, resolved, of no job, many."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, update

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.records import FindingRecord, IncidentRecord
from app.store.tables import Incident, Node
from app.ui import words
from app.ui.components import findings, incident, incident_story
from tests.browser.seed import Seeded, seed
from tests.browser.seed_incidents import Told, incident_row, seed_incidents
from tests.unit.ui.parts_seen import OpenView, parts_of, said

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


@pytest.fixture
def seeded(store_url: str) -> Seeded:
    return seed(store_url, 64)


@pytest.fixture
def told(store_url: str, seeded: Seeded) -> Told:
    return seed_incidents(store_url, seeded)


def _incident(**changes: Any) -> IncidentRecord:
    row = incident_row("i-1", NOW, **changes)
    fields = {name: row[name] for name in IncidentRecord.__struct_fields__ if name in row}
    return msgspec.structs.replace(IncidentRecord(**fields), gpu_hours_lost=changes.get("hours"))


def _job(name: str, *, gpus: int = 256, until: str | None = None) -> dict[str, Any]:
    since = (NOW - timedelta(hours=1)).isoformat()
    return {"uid": name, "namespace": "train", "name": name, "gpus": gpus, "since": since, "until": until, "ranks": [0, 1, 2]}  # fmt: skip


def _labels(test: Any) -> list[str]:
    """Of all buttons but the form's."""
    return [button.label for button in test.button if button.label != "Add note"]


def test_the_list_leads_with_who_is_hurt_most(open_view: OpenView, told: Told) -> None:
    rows = parts_of(open_view("incidents"))["incidents"]["rows"]
    assert [row["id"] for row in rows] == [told.story, told.leaf, told.owned, told.flapping]
    first, leaf, owned, flapping = (row["cells"] for row in rows)
    assert first["hurt"] == {"text": "1 job, 208 GPUs", "second": "pretrain/llama-70b-pretrain"}
    assert float(first["lost"]) > 10  # 208 GPUs for three minutes
    assert first["severity"] == {"word": "Fatal", "tone": "act"}
    assert leaf["what"]["tags"] == [
        {"text": "likely", "help": "How sure it is that they share this one cause: 93%"}
    ]
    assert owned["severity"] == {"word": "Critical", "tone": "quiet"}
    assert (owned["owner"], owned["hurt"]["second"]) == ("ana", "all well again")
    assert [tag["text"] for tag in flapping["what"]["tags"]] == ["flapping"]
    assert flapping["hurt"]["text"] == "no job"


def test_an_open_incident_tells_what_to_do_whom_it_hurts_and_what_failed_first(
    open_view: OpenView, seeded: Seeded, told: Told
) -> None:
    test = open_view("incidents", id=told.story)
    assert not test.exception
    parts = parts_of(test)
    head = parts["incident-head"]
    assert head["cause"]["text"].startswith("Do first: drain the node and power-cycle it")
    assert head["states"][0]["tone"] == "act"
    figures = {one["label"]: one["value"] for one in parts["incident-figures"]["figures"]}
    assert (figures["Jobs hurt now"], figures["GPUs hurt now"]) == ("1", "208")
    facts = {one["label"]: one["value"] for one in parts["incident-first"]["facts"]}
    assert {"Node": seeded.failing, "GPU": "3", "XID": "79", "Rank": "4", "Pod": "llama-70b-pretrain-4-x7k2p"}.items() <= facts.items()  # fmt: skip
    after = [row["cells"]["after"] for row in parts["incident-followed"]["rows"]]
    assert after == ["+4 s", *(f"+{9 + second} s" for second in range(9))]
    found = parts["incident-findings"]["rows"]
    assert [row["cells"]["on"]["second"] for row in found] == ["GPU 3", "rank 17"]
    assert found[1]["cells"]["what"]["tags"][0]["text"] == "Kubernetes"
    assert [row["cells"]["kind"] for row in parts["incident-timeline"]["rows"]] == [
        "Followed",
        "Hurts",
        "Opened",
    ]
    assert _labels(test) == ["Drain the node…", "Resolve…", "Acknowledge", "Take it"]


def test_what_somebody_has_is_quiet_and_may_be_taken_over(open_view: OpenView, told: Told) -> None:
    test = open_view("incidents", id=told.owned)
    assert "with ana" in said(test)
    head = parts_of(test)["incident-head"]
    assert "act" not in [one["tone"] for one in head["states"]]
    assert "act" not in [one["tone"] for one in parts_of(test)["incident-figures"]["figures"]]
    assert _labels(test) == ["Resolve…", "Take over"]  # the node is held by a drain already


def test_a_shared_domain_is_named_with_its_certainty_and_its_nodes(
    open_view: OpenView, told: Told
) -> None:
    test = open_view("incidents", id=told.leaf)
    parts = parts_of(test)
    assert len(parts["incident-nodes"]["rows"]) == 8
    assert "likely (93%)" in said(test)
    assert "Drain" not in " ".join(_labels(test))  # none of the eight has failed


def test_a_flapping_one_says_how_often_it_came_back(open_view: OpenView, told: Told) -> None:
    test = open_view("incidents", id=told.flapping)
    (note,) = parts_of(test)["incident-notes"]["notes"]
    assert note["text"].startswith("Flapping: it came back 4 times.")
    assert note["tone"] == "quiet"
    assert "it has hurt none so far" in said(test)
    assert "incident-jobs" not in parts_of(test)


def test_a_merged_one_leads_to_what_it_is_part_of_and_offers_nothing(
    open_view: OpenView, told: Told
) -> None:
    test = open_view("incidents", id=told.merged)
    (note,) = parts_of(test)["incident-notes"]["notes"]
    assert note["open"] == {"page": "incidents", "query": {"id": told.story}}
    assert "GPU 3 has fallen off the bus" in note["text"]
    assert parts_of(test)["incident-head"]["states"][0]["word"] == "Merged"
    assert _labels(test) == []


def test_a_resolved_one_tells_who_and_why_and_may_be_opened_again(
    open_view: OpenView, told: Told
) -> None:
    test = open_view("incidents", id=told.resolved)
    assert "Resolved by ana (page): the GPU was replaced" in said(test)
    assert [button.label for button in test.button] == ["Reopen…"]  # and no note: it is over
    lost = parts_of(test)["incident-figures"]["figures"][2]
    assert (lost["label"], lost["value"]) == ("GPU-hours lost", "18.7")


def test_an_incident_that_is_not_known_is_said(open_view: OpenView, seeded: Seeded) -> None:
    assert "No incident gone is known." in said(open_view("incidents", id="gone"))


def test_silent_nodes_of_the_pipeline_are_not_offered_for_a_drain(
    open_view: OpenView, store_url: str, seeded: Seeded, told: Told
) -> None:
    _change(store_url, Incident, "id", told.leaf, scope="pipeline", subject="agents", nodes=seeded.names)  # fmt: skip
    test = open_view("incidents", id=told.leaf)
    assert _labels(test) == ["Resolve…", "Acknowledge", "Take it"]


def test_two_hundred_incidents_are_shown_and_more_are_said(
    open_view: OpenView, store_url: str, seeded: Seeded
) -> None:
    engine = open_store(store_url)
    with write(engine) as connection:
        connection.execute(
            insert(table_of(Incident)),
            [incident_row(f"i-{at:03}", NOW, subject=f"n{at}", title=f"n{at}: broken") for at in range(250)],
        )  # fmt: skip
    engine.dispose()
    sheet = parts_of(open_view("incidents"))["incidents"]
    assert len(sheet["rows"]) == 200
    assert "The first 200 are shown" in sheet["more"]
    overview = parts_of(open_view())["open-incidents"]
    assert (len(overview["rows"]), overview["count"]) == (4, "4 of 254")


def test_the_overview_and_the_node_lead_to_the_incident(
    open_view: OpenView, seeded: Seeded, told: Told
) -> None:
    target = {"page": "incidents", "query": {"id": told.story}}
    row = parts_of(open_view())["open-incidents"]["rows"][0]
    assert row["open"] == target
    assert row["cells"]["what"]["second"] == "1 job, 208 GPUs: pretrain/llama-70b-pretrain"
    notes = parts_of(open_view("nodes", name=seeded.failing))["node-notes"]["notes"]
    assert [note["open"] for note in notes] == [target]


def test_a_node_tells_what_is_planned_and_where_it_hangs(
    open_view: OpenView, store_url: str, seeded: Seeded
) -> None:
    name = seeded.names[0]
    _change(store_url, Node, "name", name, planned="driver upgrade", leaf="leaf-7", power_domain="pdu-2", reported_by="dcgm")  # fmt: skip
    text = said(open_view("nodes", name=name))
    for part in ("Planned: driver upgrade. If it falls silent meanwhile, that is no fault.", "leaf-7", "pdu-2", "dcgm-exporter", "Exporter heard"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("service", "unschedulable", "labels", "words_shown"),
    [
        ("In service", False, ["Drain…"], ""),
        ("Cordoned", True, ["Send to repair…", "Uncordon…", "Drain…"], ""),
        ("Drained", True, ["Send to repair…", "Uncordon…", "Drain…"], ""),
        ("Under repair", True, ["Give back…", "Drain…"], "Under repair: sent by ana: GPU 3"),
        ("Probation", False, ["Give back…", "Drain…"], "Probation: sent by ana: GPU 3"),
    ],
)
def test_a_node_goes_to_repair_and_back_as_its_state_allows(
    open_view: OpenView, store_url: str, seeded: Seeded, service: str, unschedulable: bool, labels: list[str], words_shown: str
) -> None:  # fmt: skip
    name = seeded.names[0]
    _change(store_url, Node, "name", name, service=service, service_reason="sent by ana: GPU 3", unschedulable=unschedulable)  # fmt: skip
    test = open_view("nodes", name=name)
    assert _labels(test) == labels
    assert words_shown in said(test)


def test_hurt_counts_what_is_hurt_now() -> None:
    one = _incident(jobs=[_job("a"), _job("b", until=NOW.isoformat()), _job("c")], gpus_hurt=512)
    assert incident.hurt_cell(one) == {"text": "2 jobs, 512 GPUs", "second": "train/a and train/c"}
    rows = incident.job_rows(one, NOW)
    assert [row["id"] for row in rows] == ["a", "c", "b"]  # what is well again comes last
    assert rows[0]["cells"]["hours"] == "256.0"
    assert rows[0]["cells"]["job"]["second"] == "ranks 0-2, still hurt"


def test_a_job_hurt_since_nobody_knows_when_has_no_hours_and_is_not_zero() -> None:
    one = _incident(jobs=[{"uid": "x", "namespace": "a", "name": "b", "gpus": 8}])
    (row,) = incident.job_rows(one, NOW)
    assert (row["cells"]["since"], row["cells"]["hours"]) == (None, None)
    lost = incident.figures_of(one, findings_open=0)[2]
    assert (lost["value"], lost["note"]) == ("–", "not known since when")


def test_what_followed_is_bounded_and_the_rest_is_counted() -> None:
    followed = [{"at": NOW.isoformat(), "kind": "job", "message": "m", "key": str(at)} for at in range(80)]  # fmt: skip
    one = _incident(consequences=[*followed, {"kind": "more", "count": 500, "message": "and 500 more"}])  # fmt: skip
    assert len(incident_story.consequence_rows(one, {})) == incident_story.MOST_CONSEQUENCES
    assert incident_story.consequences_beyond(one) == 20 + 500


def test_a_closed_finding_is_quiet_and_reasons_are_there_for_who_asks() -> None:
    finding = FindingRecord(
        episode="e", node="", gpu_uuid=None, rule="straggler", severity="fatal", message="m", action="look", xid=None, opened_at=NOW,
        closed_at=NOW, source="training", rank=17, look_next="the clock of rank 17",
    )  # fmt: skip
    cells = findings.row(finding, gpu_index={}, handled=False, with_node=True)["cells"]
    assert cells["severity"] == {"word": "Closed", "tone": "quiet"}
    assert cells["on"] == {"text": "job", "second": "rank 17"}
    assert cells["what"]["more"]["lines"] == [{"label": "Look next:", "text": "The clock of rank 17"}]  # fmt: skip
    assert findings.reasons(msgspec.structs.replace(finding, look_next=None)) is None


def test_times_of_documents_and_differences_read_as_a_person_writes_them() -> None:
    assert words.moment("2026-11-24T03:00:00Z") == NOW
    assert words.moment("2026-11-24T03:00:00") == NOW
    assert words.moment("no time") is None
    assert words.moment(None) is None
    assert words.after(NOW + timedelta(seconds=12), NOW) == "+12 s"
    assert words.after(NOW - timedelta(seconds=3), NOW) == "\N{MINUS SIGN}3 s"
    assert words.after(None, NOW) == ""
    assert (words.hours(0.42), words.hours(131.72), words.hours(12_040.3)) == ("0.4", "131.7", "12,040")  # fmt: skip
    assert words.sentence("drain the node") == "Drain the node"


def _change(store_url: str, model: Any, key: str, value: str, **values: Any) -> None:
    engine, table = open_store(store_url), table_of(model)
    with write(engine) as connection:
        connection.execute(update(table).where(table.c[key] == value).values(**values))
    engine.dispose()
