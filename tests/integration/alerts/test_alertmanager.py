"""Against real Alertmanagers: firing, grouping, inhibition, silences both ways, resolve, restarts, one of two down."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alertmanagers import Alertmanager, alertmanagers
from office import CLUSTER, Office, until
from receiving import HttpReceiver, http_receiver
from sqlalchemy import insert, select, update

from app.notifications.alertmanager import Peer, PeerError
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import Alert, Silence, SourceStatus
from app.worker_alertmanager import AlertmanagerSync


class Stage:
    """Alertmanagers, what they tell, and our side of it."""

    def __init__(self, office: Office, running: list[Alertmanager], hook: HttpReceiver) -> None:
        self.office, self.running, self.hook = office, running, hook
        self.sync = self.new_sync()

    def new_sync(self) -> AlertmanagerSync:
        return AlertmanagerSync(
            self.office.engine,
            [Peer(one.url) for one in self.running],
            cluster=CLUSTER,
            lease=self.office.lease,
            clock=self.office.clock,
        )

    def told(self, status: str) -> list[dict[str, Any]]:
        """Alerts of that status in each notification so far, one list a notification."""
        return [
            one.document
            for one in self.hook.heard
            if one.document and one.document["status"] == status
        ]

    def names(self, status: str = "firing") -> set[str]:
        return {
            alert["labels"].get("node", alert["labels"]["alertname"])
            for document in self.told(status)
            for alert in document["alerts"]
            if alert["status"] == status
        }


@pytest.fixture
def stage(office: Office, tmp_path: Path) -> Iterator[Stage]:
    with http_receiver() as hook, alertmanagers(tmp_path, f"http://{hook.url}/am") as running:
        found = Stage(office, running, hook)
        yield found
        found.sync.close()


def test_what_fires_is_told_in_groups_and_resolved_when_it_ends(stage: Stage) -> None:
    first = stage.office.alert("NodeIncident", node="n1", rack="r1", scope="node")
    stage.office.alert("NodeIncident", node="n2", rack="r1", scope="node")
    assert stage.sync.tick() == 1
    until(lambda: stage.names() == {"n1", "n2"}, "both are told")
    assert len(stage.told("firing")) == 1, "one group, one message"
    (alert, *_) = stage.running[0].alerts()
    assert alert["generatorURL"].endswith("/incidents?id=i1")
    assert alert["endsAt"] > (stage.office.clock() + timedelta(minutes=14)).isoformat()
    stage.office.end(first)
    assert stage.sync.tick() == 1, "a change goes at once"
    until(lambda: "n1" in {a["labels"]["node"] for d in stage.hook.heard[1:] for a in d.document["alerts"] if a["status"] == "resolved"}, "n1 is resolved")  # fmt: skip
    assert [one["labels"]["node"] for one in stage.running[0].alerts()] == ["n2"]


def test_they_are_sent_again_each_half_minute_and_not_at_every_turn(stage: Stage) -> None:
    stage.office.alert("NodeIncident", node="n1")
    assert [stage.sync.tick() for _ in range(4)] == [1, 0, 0, 0]
    stage.office.pass_time(seconds=31)
    assert stage.sync.tick() == 1


@pytest.mark.parametrize("ended_id", ["a", "z"], ids=["sorts first", "sorts last"])
def test_what_fires_again_is_not_ended_by_its_last_end(stage: Stage, ended_id: str) -> None:
    now, table = stage.office.clock(), table_of(Alert)
    open_id = stage.office.alert("SourceBlind", subject="agents")
    with write(stage.office.engine) as connection:
        row = dict(
            connection.execute(select(table).where(table.c.id == open_id)).mappings().one()
        ) | {
            "id": ended_id,
            "state": "resolved",
            "started_at": now - timedelta(minutes=8),
            "ended_at": now - timedelta(minutes=5),
        }
        connection.execute(insert(table).values(**row))
        connection.execute(update(table).where(table.c.id == open_id).values(id="m"))
    stage.sync.tick()
    until(lambda: len(stage.running[0].alerts()) == 1, "it fires there")


def test_a_silence_that_is_refused_holds_up_no_other(stage: Stage) -> None:
    now = stage.office.clock()
    with write(stage.office.engine) as connection:
        for name, op, value in (("s1", "=~", ".*"), ("s2", "=", "n1")):
            silence = {
                "cluster": CLUSTER, "id": name, "kind": "silence", "author": "ana", "reason": "cables", "created_at": now,
                "matchers": [{"label": "node", "op": op, "value": value}], "starts_at": now,
                "ends_at": now + timedelta(hours=2), "origin": "pitwall",
            }  # fmt: skip
            connection.execute(insert(table_of(Silence)).values(**silence))
    foreign = {
        "matchers": [{"name": "rack", "value": "r1", "isRegex": False, "isEqual": True}],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "bo",
        "comment": "c",
    }
    httpx.post(stage.running[0].url + "/api/v2/silences", json=foreign).raise_for_status()
    stage.sync.tick()
    assert {one["createdBy"] for one in stage.running[0].silences()} == {"ana", "bo"}
    with read(stage.office.engine) as connection:
        rows = connection.execute(select(table_of(Silence))).all()
    assert {row.author: bool(row.alertmanager_id) for row in rows if row.id != "s1"} == {
        "ana": True,
        "bo": True,
    }


def test_a_racks_alert_mutes_its_nodes_and_no_other(stage: Stage) -> None:
    stage.office.alert("RackIncident", rack="r1", scope="rack")
    stage.office.alert("NodeIncident", node="n1", rack="r1", scope="node")
    stage.office.alert("NodeIncident", node="n9", rack="r9", scope="node")
    stage.sync.tick()
    until(lambda: {"RackIncident", "n9"} <= stage.names(), "what is not muted is told")
    assert "n1" not in stage.names()
    states = {
        one["labels"].get("node"): one["status"]["state"] for one in stage.running[0].alerts()
    }
    assert states["n1"] == "suppressed"


def test_a_silence_made_here_holds_there_and_its_end_too(stage: Stage) -> None:
    now = stage.office.clock()
    silence = {
        "cluster": CLUSTER, "id": "s1", "kind": "silence", "author": "ana", "reason": "cables", "created_at": now,
        "matchers": [{"label": "node", "op": "=~", "value": "n1|n2"}], "starts_at": now, "ends_at": now + timedelta(hours=2),
        "origin": "pitwall",
    }  # fmt: skip
    with write(stage.office.engine) as connection:
        connection.execute(insert(table_of(Silence)).values(**silence))
    stage.sync.tick()
    (there,) = stage.running[0].silences()
    assert (there["createdBy"], there["status"]["state"]) == ("ana", "active")
    assert there["matchers"][0] | {"isEqual": True} == {"name": "node", "value": "n1|n2", "isRegex": True, "isEqual": True}  # fmt: skip
    stage.office.alert("NodeIncident", node="n1")
    stage.sync.tick()
    until(lambda: stage.running[0].alerts(), "the alert is there")
    assert stage.running[0].alerts()[0]["status"]["state"] == "suppressed"
    stage.office.pass_time(seconds=11)
    stage.sync.tick()
    assert len(stage.running[0].silences()) == 1, "it is written once"
    with write(stage.office.engine) as connection:
        table = table_of(Silence)
        ended = {"ended_by": "ana", "ends_at": stage.office.clock()}
        connection.execute(update(table).where(table.c.id == "s1").values(**ended))
    stage.office.pass_time(seconds=11)
    stage.sync.tick()
    assert stage.running[0].silences()[0]["status"]["state"] == "expired"


def test_a_silence_made_there_is_seen_here_until_its_end(stage: Stage) -> None:
    now = stage.office.clock()
    document = {
        "matchers": [{"name": "rack", "value": "r1", "isRegex": False, "isEqual": False}],
        "startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=1)).isoformat(),
        "createdBy": "bo", "comment": "by amtool",
    }  # fmt: skip
    made = httpx.post(f"{stage.running[0].url}/api/v2/silences", json=document)
    made.raise_for_status()
    stage.sync.tick()
    (row,) = _silences(stage)
    assert (row.origin, row.author, row.reason) == ("alertmanager", "bo", "by amtool")
    assert row.matchers == [{"label": "rack", "op": "!=", "value": "r1"}]
    httpx.delete(
        f"{stage.running[0].url}/api/v2/silence/{made.json()['silenceID']}"
    ).raise_for_status()
    stage.office.pass_time(seconds=11)
    stage.sync.tick()
    (row,) = _silences(stage)
    assert row.ends_at <= stage.office.clock()


def test_an_alertmanager_that_was_restarted_is_told_again(stage: Stage) -> None:
    stage.office.alert("NodeIncident", node="n1")
    stage.sync.tick()
    until(lambda: stage.names() == {"n1"}, "it is told")
    stage.running[0].stop()
    stage.office.pass_time(seconds=31)
    stage.sync.tick()
    assert _source(stage, 0).state == "late"
    assert "does not answer" in _source(stage, 0).message
    stage.running[0].start()
    stage.office.pass_time(seconds=31)
    stage.sync.tick()
    until(lambda: [one["labels"]["node"] for one in stage.running[0].alerts()] == ["n1"], "it is there again")  # fmt: skip
    stage.office.pass_time(seconds=16)
    stage.sync.tick()
    assert _source(stage, 0).state == "ok"
    assert "version" in _source(stage, 0).message


def test_a_worker_that_was_restarted_resolves_nothing(stage: Stage) -> None:
    stage.office.alert("NodeIncident", node="n1")
    stage.sync.tick()
    until(lambda: stage.names() == {"n1"}, "it is told")
    stage.sync.close()
    stage.sync = stage.new_sync()
    stage.sync.tick()
    assert [one["labels"]["node"] for one in stage.running[0].alerts()] == ["n1"]
    assert stage.told("resolved") == []


def test_of_two_peers_one_may_be_down_and_hears_the_end_once_it_is_back(
    office: Office, tmp_path: Path
) -> None:
    with (
        http_receiver() as hook,
        alertmanagers(tmp_path, f"http://{hook.url}/am", count=2) as running,
    ):
        stage = Stage(office, running, hook)
        alert = office.alert("NodeIncident", node="n1")
        assert stage.sync.tick() == 2, "every peer is told"
        until(lambda: all(one.alerts() for one in running), "both have it")
        running[1].stop()
        office.end(alert)
        stage.sync.tick()
        until(lambda: not running[0].alerts(), "the one that is up has heard the end")
        until(lambda: stage.told("resolved"), "and tells it")
        running[1].start()
        office.pass_time(seconds=6)
        stage.sync.tick()
        until(lambda: not running[1].alerts(), "the other has heard it late")
        stage.sync.close()


def test_a_peer_says_what_it_was_asked_and_did_not_do(stage: Stage) -> None:
    peer = Peer(stage.running[0].url)
    bad = {"matchers": [], "startsAt": "x", "endsAt": "y"}
    with pytest.raises(PeerError, match="asked to write a silence"):
        peer._call("POST", "/api/v2/silences", "write a silence", json=bad)
    peer.end_silence("11111111-2222-3333-4444-555555555555")
    stage.running[0].stop()
    with pytest.raises(PeerError, match="does not answer"):
        peer.status()
    peer.close()


def _silences(stage: Stage) -> list[Any]:
    with read(stage.office.engine) as connection:
        return list(connection.execute(select(table_of(Silence))))


def _source(stage: Stage, number: int) -> Any:
    table = table_of(SourceStatus)
    name = f"alertmanager:127.0.0.1:{stage.running[number].port}"
    with read(stage.office.engine) as connection:
        return connection.execute(select(table).where(table.c.source == name)).one()
