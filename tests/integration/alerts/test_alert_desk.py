"""From what happens to what a person is told, through the real store: each rule of what alerting must not get wrong."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from house import House
from office import CLUSTER, Office, exposition
from receiving import HttpReceiver
from sqlalchemy import insert, select, update

from app.store.engine import read, write
from app.store.reads import alerts as reads
from app.store.reads.rows import table_of
from app.store.requests import submit
from app.store.sources import note_source
from app.store.tables import Alert, AlertDelivery, Silence
from app.store.writes.incident_words import acknowledge


@pytest.fixture
def house(office: Office, tmp_path: Path, hook: HttpReceiver) -> House:
    made = House(office, tmp_path, hook)
    made.say("n1", "n2")
    made.turn()
    return made


def test_a_fault_is_told_once_with_all_that_one_needs_and_its_end_under_the_same_key(
    house: House, hook: HttpReceiver
) -> None:
    house.fail("n1")
    house.turn()
    assert house.told() == [], "group_wait"
    house.turn(31, "n1")
    ((event, title),) = house.told()
    assert event == "trigger"
    assert title.startswith("[FATAL] n1: ")
    assert len(title) <= 100
    body = hook.heard[0].document["body"]
    for part in (
        "Where: node n1",
        "Since: ",
        "Hurts: no job",
        "Do: restart the node",
        "See: http://127.0.0.1:8501/incidents?id=",
    ):
        assert part in body, body
    house.turn(60, "n1")
    assert len(house.told()) == 1
    house.mend("n1")
    for _ in range(8):
        house.turn(60, "n1")
    assert house.events() == ["trigger", "resolve"]
    assert len({h.document["key"] for h in hook.heard}) == 1
    assert house.open() == []


def test_no_data_is_not_resolved_it_is_unknown(house: House) -> None:
    house.fail("n1")
    house.turn(31, "n1")
    for _ in range(2):
        house.office.pass_time(minutes=10)
        house.desk.tick()  # nobody has spoken: every source is blind
        while house.deliveries.tick():
            pass
    assert "resolve" not in house.events()
    (alert,) = [one for one in house.open() if one.labels["alertname"] == "NodeIncident"]
    assert alert.state == "unknown"
    assert any(one.labels["alertname"] == "SourceBlind" for one in house.open())


def test_a_source_that_was_not_heard_yet_at_a_start_pages_nobody(
    office: Office, tmp_path: Path, hook: HttpReceiver
) -> None:
    house = House(office, tmp_path, hook, "group_wait_seconds = 0")
    with write(office.engine) as connection:
        note_source(
            connection, CLUSTER, "agents", state="blind", now=office.clock(), message="none yet"
        )
    for _ in range(3):
        office.pass_time(seconds=15)
        house.desk.tick()
    assert [one for one in house.open() if one.labels["alertname"] == "SourceBlind"] == []
    house.turn(1)
    assert house.told() == []
    for _ in range(3):
        office.pass_time(seconds=50)
        house.desk.tick()
    assert [
        one.labels["subject"] for one in house.open() if one.labels["alertname"] == "SourceBlind"
    ]


def test_an_acknowledgement_goes_to_who_was_told_and_stops_the_repeats(house: House) -> None:
    house.fail("n1")
    house.turn(31, "n1")
    with write(house.office.engine) as connection:
        acknowledge(
            connection, CLUSTER, house.incident().id, author="ana", now=house.office.clock()
        )
    house.turn(10, "n1")
    assert house.events() == ["trigger", "acknowledge"]
    house.turn(5 * 3600, "n1")
    assert house.events() == ["trigger", "acknowledge"]


def test_what_nobody_takes_up_is_repeated_after_four_hours(house: House) -> None:
    house.fail("n1")
    house.turn(31, "n1")
    house.turn(3.9 * 3600, "n1")
    assert house.events() == ["trigger"]
    house.turn(0.2 * 3600, "n1")
    assert house.events() == ["trigger", "trigger"]


def test_a_silence_hides_and_what_it_hides_stays_visible_and_counted(house: House) -> None:
    now = house.office.clock()
    with write(house.office.engine) as connection:
        connection.execute(
            insert(table_of(Silence)).values(
                cluster=CLUSTER, id="s1", kind="silence", author="ana", reason="cables", created_at=now, origin="pitwall",
                matchers=[{"label": "node", "op": "=", "value": "n1"}], starts_at=now, ends_at=now + timedelta(hours=2),
            )
        )  # fmt: skip
    house.fail("n1", "n2")
    house.turn(31, "n1", "n2")
    ((_, title),) = house.told()
    assert "n2" in title
    assert {one.labels.get("node"): one.silenced_by for one in house.open()} == {
        "n1": ["s1"],
        "n2": [],
    }
    (silence,) = reads.silences(house.office.engine, CLUSTER, now=house.office.clock())
    assert silence.hides == 1
    house.turn(2 * 3600, "n1", "n2")
    house.turn(301, "n1", "n2")
    told = {
        one["labels"].get("node") for heard in house.hook.heard for one in heard.document["alerts"]
    }
    assert told == {"n1", "n2"}, "it is told once the silence is over"


def test_each_episode_is_its_own_and_a_new_fault_is_told_anew(house: House) -> None:
    house.fail("n1", episode="old")
    house.turn(31, "n1")
    house.mend("n1")
    for _ in range(10):
        house.turn(120, "n1")
    house.fail("n1", episode="new")
    house.turn(31, "n1")
    house.turn(301, "n1")
    assert house.events().count("trigger") == 2


def test_what_nobody_acknowledges_goes_on_to_the_next(
    office: Office, tmp_path: Path, hook: HttpReceiver
) -> None:
    more = '[[escalation]]\nname = "lead"\nreceivers = ["chat"]\nafter_seconds = 600\n'
    house = House(office, tmp_path, hook, more)
    house.say("n1")
    house.fail("n1")
    house.turn(31, "n1")
    house.turn(500, "n1")
    assert house.events("chat") == []
    house.turn(120, "n1")
    house.turn(5, "n1")
    assert house.events("chat") == ["trigger"]
    assert house.open()[0].escalated_at is not None


def test_quiet_hours_hold_what_can_wait(office: Office, tmp_path: Path, hook: HttpReceiver) -> None:
    more = '[[quiet_hours]]\nname = "night"\nstart = "00:00"\nend = "23:59"\nmatch = ["severity=~\\"info|warning|critical|fatal\\""]\n'
    house = House(office, tmp_path, hook, more)
    house.say("n1")
    house.fail("n1")
    house.turn(31, "n1")
    assert house.told() == []
    assert house.open(), "and yet it is open and shown"


def test_with_an_alertmanager_people_are_told_by_it(
    office: Office, tmp_path: Path, hook: HttpReceiver
) -> None:
    house = House(office, tmp_path, hook, alertmanager_urls=("http://127.0.0.1:9",))
    house.say("n1")
    house.fail("n1")
    house.turn(31, "n1")
    assert house.told() == []
    both = '[[route]]\nmatch = ["severity=\\"fatal\\""]\nreceivers = ["chat"]\nalso_with_alertmanager = true\n'
    house = House(office, tmp_path, hook, both, alertmanager_urls=("http://127.0.0.1:9",))
    house.sequence["n1"] = 50
    house.faults["n1"] = ("e-n1",)
    house.turn(31, "n1")
    assert house.events("chat") == ["trigger"]


def test_a_worker_that_is_another_at_each_turn_tells_nothing_twice(house: House) -> None:
    house.fail("n1", "n2")
    for _ in range(12):
        house.restart()
        house.turn(20, "n1", "n2")
    house.mend("n1", "n2")
    for _ in range(12):
        house.restart()
        house.turn(60, "n1", "n2")
    with read(house.office.engine) as connection:
        sent = connection.execute(select(table_of(AlertDelivery))).all()
    assert len({row.id for row in sent}) == len(sent) == len(house.hook.heard)
    assert house.events().count("trigger") == 1
    assert house.events()[-1] == "resolve"


def test_the_watchdog_always_fires_and_is_told_to_nobody_by_itself(house: House) -> None:
    with read(house.office.engine) as connection:
        names = [row.labels["alertname"] for row in connection.execute(select(table_of(Alert)))]
    assert names == ["Watchdog"]
    house.turn(31)
    assert house.told() == []


def test_a_drains_start_stuck_failed_and_done_are_told_once_each(house: House) -> None:
    from app.store.tables import Operation, OperationNode

    now = house.office.clock()
    table = table_of(Operation)
    made = Operation(cluster=CLUSTER, id="op1", kind="drain", subject="n1", author="ana", state="Running", created_at=now, updated_at=now)  # fmt: skip
    with write(house.office.engine) as connection:
        connection.execute(insert(table).values(**made.model_dump()))
        connection.execute(
            insert(table_of(OperationNode)).values(
                operation_id="op1", cluster=CLUSTER, node="n1", open=True
            )
        )

    def becomes(**values: Any) -> None:
        with write(house.office.engine) as connection:
            connection.execute(
                update(table)
                .where(table.c.id == "op1")
                .values(updated_at=house.office.clock(), **values)
            )

    house.turn(31)
    becomes(state="Blocked", message="waits for a choice")
    house.turn(31)
    house.turn(31)
    becomes(state="Running", message="goes on")
    house.turn(400)
    becomes(state="Succeeded", ended_at=house.office.clock())
    house.turn(31)
    house.turn(400)
    titles = [title for event, title in house.told() if event == "trigger"]
    assert sum("began" in title for title in titles) == 1, titles
    assert sum("is stuck" in title for title in titles) == 1, titles
    assert sum("is done" in title for title in titles) == 1, titles


def test_requests_about_alerts_are_kinds_of_requests(house: House) -> None:
    made = submit(
        house.office.engine, CLUSTER, kind="silence", parameters={"on": "all", "seconds": 60}, author="ana", reason="x",
        idempotency_key="", now=house.office.clock(),
    )  # fmt: skip
    assert made.state == "pending"


@pytest.mark.postgresql
def test_the_whole_way_on_postgresql(
    postgresql_office: Office, tmp_path: Path, hook: HttpReceiver
) -> None:
    house = House(postgresql_office, tmp_path, hook)
    house.say("n1")
    house.fail("n1")
    house.turn(31, "n1")
    with write(house.office.engine) as connection:
        acknowledge(
            connection, CLUSTER, house.incident().id, author="ana", now=house.office.clock()
        )
    house.turn(10, "n1")
    house.mend("n1")
    for _ in range(8):
        house.turn(60, "n1")
    assert house.events() == ["trigger", "acknowledge", "resolve"]
    assert reads.receivers(house.office.engine, CLUSTER)[0].last_sent_at is not None
    assert reads.silences(house.office.engine, CLUSTER, now=house.office.clock(), over=True) == []
    assert "pitwall_deliveries" in exposition(house.office)
