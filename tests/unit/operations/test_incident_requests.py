"""A person's word on an incident: asked for, answered by the worker, told in the timeline, audited, or refused."""

from typing import Any

import pytest
from cluster_builders import NOW as CLUSTER_NOW
from sqlalchemy import Engine, text

from app.operations.lease import LeaseKeeper
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads import fleet, incidents
from app.store.reads.incidents import TimelineRecord
from app.store.records import IncidentRecord, RequestRecord
from app.store.requests import request, submit
from app.store.writes.incidents import refresh_incidents
from app.store.writes.reports import Stored, store_reports
from collectors.report import Finding
from k8s.view import ClusterView
from tests.reports import at, finding, gpu, report

LONG = "x" * 2001


class Person:
    """Asks, and sees what the worker answers; agents report beside."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = at(0)
        self.sequence = 0
        self.lease = LeaseKeeper(engine, "c", holder="w1", clock=lambda: self.now)
        settings = Settings(_env_file=None, cluster="c")
        # Kubernetes has not been heard at all: a word on an incident needs none of it.
        blind = ClusterView(nodes={}, pods={}, jobs={}, budgets={}, workloads={}, observed_at=CLUSTER_NOW, synced=False)  # fmt: skip
        self.desk = RequestDesk(
            engine, settings=settings, view=lambda: blind, lease=self.lease, clock=lambda: self.now
        )

    def report(self, *findings: Finding, node: str = "n1") -> Stored:
        self.sequence += 1
        told = report(
            node,
            self.sequence,
            observed_at=self.now,
            findings=list(findings),
            gpus=[gpu(node, 0)],
        )
        with write(self.engine) as connection:
            return store_reports(connection, "c", [told], self.now)

    def look(self, seconds: float) -> None:
        self.now = at(seconds)
        with write(self.engine) as connection:
            refresh_incidents(connection, "c", self.now)

    def ask(self, kind: str, incident_id: str, **parameters: Any) -> RequestRecord:
        made = submit(
            self.engine,
            "c",
            kind=kind,
            parameters={"incident_id": incident_id, **parameters},
            author="ada",
            reason="",
            idempotency_key="",
            now=self.now,
        )
        self.lease.renew()
        assert self.desk.tick() == 1
        found = request(self.engine, "c", made.id)
        assert found is not None
        return found

    def incident(self, incident_id: str) -> IncidentRecord:
        found = incidents.incident(self.engine, "c", incident_id)
        assert found is not None
        return found

    def told(self, incident_id: str, kind: str) -> list[TimelineRecord]:
        return [
            one for one in incidents.timeline(self.engine, "c", incident_id) if one.kind == kind
        ]

    def audits(self, outcome: str) -> list[Any]:
        with read(self.engine) as connection:
            return list(
                connection.execute(
                    text(
                        "SELECT author, action, target, message FROM audit_entry "
                        "WHERE actor = 'worker' AND outcome = :outcome ORDER BY id"
                    ),
                    {"outcome": outcome},
                )
            )


@pytest.fixture
def person(engine: Engine) -> Person:
    return Person(engine)


def xid(episode: str = "e1", **fields: Any) -> Finding:
    values: dict[str, Any] = {"rule": "xid-79", "severity": "fatal", "xid": 79}
    return finding(episode, **(values | {"gpu_uuid": "GPU-n1-0"} | fields))


def opened(person: Person, *findings: Finding) -> str:
    person.report(*findings)
    person.look(2)
    (found,) = incidents.incidents(person.engine, "c")
    return found.id


def test_incident_is_acknowledged_owned_and_noted_with_names_in_its_timeline(
    person: Person,
) -> None:
    incident_id = opened(person, xid())
    assert person.ask("acknowledge", incident_id).state == "accepted"
    assert person.ask("own", incident_id).state == "accepted"
    assert person.ask("own", incident_id, owner="fabric team").state == "accepted"
    assert person.ask("note", incident_id, text=" the cable was seated ").state == "accepted"
    found = person.incident(incident_id)
    assert (found.acknowledged_by, found.acknowledged_at, found.owner) == (
        "ada",
        at(2),
        "fabric team",
    )
    assert [one.message for one in person.told(incident_id, "owned")] == ["ada", "fabric team"]
    (note,) = person.told(incident_id, "note")
    assert (note.author, note.message) == ("ada", "the cable was seated")
    audits = person.audits("done")
    assert [row.action for row in audits] == ["acknowledge", "own", "own", "note"]
    assert {(row.author, row.target) for row in audits} == {("ada", incident_id)}
    assert "the cable was seated" in audits[-1].message


def test_resolved_xid_is_closed_for_the_agent_too_and_the_node_is_judged_anew(
    person: Person,
) -> None:
    incident_id = opened(person, xid())
    answered = person.ask("resolve", incident_id, text="the GPU was reset by hand")
    assert (answered.state, answered.answer["nodes"]) == ("accepted", ["n1"])
    found = person.incident(incident_id)
    assert (found.resolved_by, found.resolution, found.resolved_at) == (
        "ada",
        "the GPU was reset by hand",
        at(2),
    )
    node = fleet.node(person.engine, "c", "n1")
    assert node is not None
    assert (node.health, node.health_reason) == ("Healthy", "no open finding")
    assert fleet.findings_of_node(person.engine, "c", "n1") == []
    events = fleet.events_of_node(person.engine, "c", "n1")
    assert [(one.kind, one.code) for one in events if one.at == at(2)] == [
        ("node_health", "Healthy"),
        ("finding_closed", "xid-79"),
    ]
    person.now = at(20)
    assert person.report(xid()).closed_episodes == {"n1": ["e1"]}
    person.look(21)
    assert incidents.incidents(person.engine, "c") == []


def test_resolving_what_still_holds_is_refused_and_says_what_holds(person: Person) -> None:
    lost = finding("e2", message="GPU 3 fell off the bus")
    incident_id = opened(person, xid(), lost)
    refused = person.ask("resolve", incident_id, text="done")
    assert (refused.state, refused.refusal_code) == ("refused", "conflict")
    assert refused.refusal == (
        "n1: GPU 3 fell off the bus, and that is still so: drain or repair what fails; "
        "the incident resolves by itself."
    )
    assert len(fleet.findings_of_node(person.engine, "c", "n1")) == 2, "nothing was closed"
    assert person.incident(incident_id).resolved_at is None
    assert [row.action for row in person.audits("refused")] == ["resolve"]


def test_reopened_incident_stays_open_until_a_person_resolves_it(person: Person) -> None:
    incident_id = opened(person, finding())
    person.report()
    person.look(10)
    assert person.incident(incident_id).resolved_at == at(10)
    assert person.ask("reopen", incident_id, text="it will come back").state == "accepted"
    person.look(2000)
    person.report()
    person.look(2001)
    found = person.incident(incident_id)
    assert (found.resolved_at, found.held_open_by) == (None, "ada")
    assert person.ask("resolve", incident_id, text="it did not").state == "accepted"
    assert person.incident(incident_id).held_open_by is None
    assert [one.message for one in person.told(incident_id, "reopened")] == ["it will come back"]


def test_what_comes_while_a_person_holds_it_open_joins_it(person: Person) -> None:
    incident_id = opened(person, finding())
    person.report()
    person.look(10)
    person.ask("reopen", incident_id, text="wait")
    person.now = at(2000)
    person.report(xid("e9", since=at(1999)))
    person.look(2001)
    (found,) = incidents.incidents(person.engine, "c")
    assert (found.id, found.severity, found.ended_at) == (incident_id, "fatal", None)


def test_reopening_beside_an_open_one_names_that_one(person: Person) -> None:
    first = opened(person, xid())
    person.report()
    person.look(10)
    person.report(xid("e2", since=at(10)))
    person.look(12)
    (second,) = incidents.incidents(person.engine, "c")
    refused = person.ask("reopen", first, text="not over")
    assert (refused.state, refused.refusal_code) == ("refused", "conflict")
    assert second.id in refused.refusal
    assert person.ask("reopen", second.id, text="not over").refusal.endswith("is open already.")


@pytest.mark.parametrize("kind", ["acknowledge", "own", "note", "resolve"])
def test_resolved_and_unknown_incidents_take_no_words(person: Person, kind: str) -> None:
    incident_id = opened(person, xid())
    person.ask("resolve", incident_id, text="done")
    refused = person.ask(kind, incident_id, text="words")
    assert (refused.state, refused.refusal_code) == ("refused", "conflict")
    assert "reopen it" in refused.refusal
    unknown = person.ask(kind, "nosuch", text="words")
    assert unknown.refusal == "There is no incident nosuch: see `pitwall incidents`."
    assert unknown.refusal_code == "not_found"


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        ("note", {"text": " "}),
        ("note", {"text": LONG}),
        ("note", {"text": 7}),
        ("resolve", {"text": ""}),
        ("resolve", {"text": LONG}),
        ("own", {"owner": LONG}),
        ("note", {"text": "a\x00b"}),
    ],
    ids=["empty", "long", "a number", "no resolution", "long resolution", "long owner", "NUL"],
)
def test_words_that_cannot_stand_are_refused_in_one_sentence(
    person: Person, kind: str, parameters: dict[str, Any]
) -> None:
    incident_id = opened(person, xid())
    refused = person.ask(kind, incident_id, **parameters)
    assert (refused.state, refused.refusal_code) == ("refused", "invalid")
    assert refused.refusal.count(". ") == 0
    assert person.incident(incident_id).resolved_at is None


def test_merged_incident_points_to_the_one_that_tells_of_it(person: Person) -> None:
    incident_id = opened(person, xid())
    with write(person.engine) as connection:
        connection.execute(
            text("UPDATE incident SET merged_into = 'other', resolved_at = opened_at")
        )
    for kind in ("note", "reopen"):
        refused = person.ask(kind, incident_id, text="words")
        assert "consequence of other" in refused.refusal
