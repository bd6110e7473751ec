"""Silence makes nodes Unknown; incidents open, change and resolve with their faults."""

from sqlalchemy import Engine, text

from app.store.engine import read, write
from app.store.frames import refresh_frames
from app.store.reads import fleet, incidents, status
from app.store.vectors import unpack
from app.store.writes.aging import age_nodes
from app.store.writes.incidents import IncidentChanges, refresh_incidents
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from collectors.report import Report
from tests.reports import at, finding, gpu, report
from tests.unit.store.test_store_kubernetes import job, node, picture, pod


def store(engine: Engine, *reports: Report, now: float) -> None:
    with write(engine) as connection:
        store_reports(connection, "c", list(reports), at(now))
        refresh_frames(connection, "c", at(now), whole=True)


def age(engine: Engine, now: float) -> list[str]:
    with write(engine) as connection:
        return age_nodes(connection, "c", at(now), 45.0)


def refresh(engine: Engine, now: float) -> IncidentChanges:
    with write(engine) as connection:
        return refresh_incidents(connection, "c", at(now))


def test_node_without_a_report_for_45_seconds_is_unknown(engine: Engine) -> None:
    store(engine, report(sequence=1), report("n2", sequence=30), now=31)
    assert age(engine, 45) == []
    assert age(engine, 47) == ["n1"]
    record = fleet.node(engine, "c", "n1")
    assert record is not None
    assert (record.health, record.health_since) == ("Unknown", at(47))
    assert record.health_reason == "no report since 2026-11-24 12:00:01 UTC"
    assert {one.health for one in fleet.gpus(engine, "c", node="n1")} == {"Unknown"}
    assert [one.name for one in fleet.worst_nodes(engine, "c")] == ["n1"]
    other = fleet.node(engine, "c", "n2")
    assert other is not None
    assert other.health == "Healthy"


def test_silence_is_told_once_and_ends_with_the_next_report(engine: Engine) -> None:
    store(engine, report(sequence=1), now=2)
    assert age(engine, 60) == ["n1"]
    assert age(engine, 61) == []
    store(engine, report(sequence=70), now=71)
    record = fleet.node(engine, "c", "n1")
    assert record is not None
    assert (record.health, record.health_since) == ("Healthy", at(70))
    codes = [event.code for event in fleet.events_of_node(engine, "c", "n1")]
    assert codes == ["Healthy", "Unknown", "Healthy"]


def test_frames_and_counts_follow_the_silence(engine: Engine) -> None:
    store(engine, report(sequence=1), report("n2", sequence=40), now=41)
    age(engine, 50)
    frames = fleet.frames(engine, "c", ["node_state", "gpu_state", "power_watts"])
    assert list(unpack(frames["node_state"].data)) == [3, 0]
    assert list(unpack(frames["gpu_state"].data)[:3]) == [3, 3, 255]
    assert list(unpack(frames["power_watts"].data)[:2]) == [255, 255]
    counts = status.counts(engine, "c")
    assert counts.nodes_by_health == {"Healthy": 1, "Degraded": 0, "Failing": 0, "Unknown": 1}
    assert counts.gpus_by_health == {"Healthy": 2, "Degraded": 0, "Failing": 0, "Unknown": 2}


def test_clock_ahead_does_not_keep_a_dead_node_healthy(engine: Engine) -> None:
    store(engine, report(observed_at=at(200)), now=10)
    assert age(engine, 50) == []
    assert age(engine, 56) == ["n1"]


def test_failing_node_that_falls_silent_keeps_its_findings(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding(severity="fatal")]), now=2)
    age(engine, 60)
    record = fleet.node(engine, "c", "n1")
    assert record is not None
    assert record.health == "Unknown"
    assert record.score > 400
    assert len(fleet.findings_of_node(engine, "c", "n1")) == 1


def test_node_that_never_reported_needs_a_person_only_after_a_while(engine: Engine) -> None:
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, picture()), at(0))
    age(engine, 10)
    assert fleet.worst_nodes(engine, "c") == []
    age(engine, 50)
    assert [record.name for record in fleet.worst_nodes(engine, "c")] == ["n1", "n2"]


def test_incident_opens_with_its_job_and_resolves_with_its_fault(engine: Engine) -> None:
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, picture()), at(0))
    store(engine, report(sequence=1, findings=[finding()]), now=2)
    (incident_id,) = refresh(engine, 3).opened
    (record,) = incidents.incidents(engine, "c")
    assert (record.id, record.subject, record.severity, record.episode) == (
        incident_id,
        "n1",
        "critical",
        1,
    )
    (hurt,) = record.jobs
    assert (hurt["uid"], hurt["gpus"], hurt["until"], hurt["ranks"]) == ("j1", 16, None, [0])
    assert record.gpus_hurt == 16
    assert refresh(engine, 4) == IncidentChanges()
    store(engine, report(sequence=5), now=6)
    assert refresh(engine, 7).resolved == [incident_id]
    assert incidents.incidents(engine, "c") == []
    (resolved,) = incidents.incidents(engine, "c", open_only=False)
    assert resolved.resolved_at == at(7)
    assert (resolved.gpus_hurt, resolved.jobs[0]["until"]) == (0, "2026-11-24T12:00:07Z")
    kinds = [entry.kind for entry in incidents.timeline(engine, "c", incident_id)]
    assert kinds == ["opened", "hurt", "resolved"]


def test_second_fault_joins_the_incident_and_a_later_xid_is_a_new_episode(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding("e1")]), now=2)
    (first,) = refresh(engine, 2).opened
    both = [finding("e1"), finding("e2", severity="fatal", rule="ecc-uncorrected")]
    store(engine, report(sequence=3, findings=both), now=4)
    assert refresh(engine, 4).changed == [first]
    (record,) = incidents.incidents(engine, "c")
    assert record.severity == "fatal"
    store(engine, report(sequence=5), now=6)
    refresh(engine, 6)
    store(engine, report(sequence=7, findings=[finding("e3", rule="xid-79", since=at(7))]), now=8)
    (second,) = refresh(engine, 8).opened
    record = incidents.incident(engine, "c", second)  # type: ignore[assignment]
    assert second != first
    assert record.episode == 2


def test_whom_it_hurt_stays_said_after_the_job_moved_away(engine: Engine) -> None:
    first = picture()
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, first), at(0))
    store(engine, report(sequence=1, findings=[finding()]), now=2)
    refresh(engine, 2)
    moved = picture_of([node("n1"), node("n2", rack="r2")], [pod("p9", "n2", 0)], [job()])
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(first, moved), at(3))
    refresh(engine, 4)
    (record,) = incidents.incidents(engine, "c")
    assert [hurt["name"] for hurt in record.jobs] == ["train"]


def test_mass_silence_is_one_incident_and_ends_as_nodes_return(engine: Engine) -> None:
    names = [f"n{number}" for number in range(20)]
    store(engine, *[report(name, gpus=[gpu(name)]) for name in names], now=2)
    age(engine, 100)
    refresh(engine, 100)
    (record,) = incidents.incidents(engine, "c")
    assert (record.scope, record.cause) == ("pipeline", "mass-silence")
    back = [report(name, sequence=2, observed_at=at(110), gpus=[gpu(name)]) for name in names[1:]]
    store(engine, *back, now=111)
    age(engine, 112)
    refresh(engine, 112)
    (record,) = incidents.incidents(engine, "c")
    assert (record.scope, record.ended_at) == ("pipeline", at(112))
    assert refresh(engine, 114) == IncidentChanges()
    refresh(engine, 173)
    (record,) = incidents.incidents(engine, "c")
    assert (record.scope, record.subject, record.cause) == ("node", "n0", "silent")


def test_incidents_of_a_mass_fault_are_listed_the_gravest_first(engine: Engine) -> None:
    reports = [
        report("n1", findings=[finding("e1", since=at(0))]),
        report("n2", findings=[finding("e2", severity="fatal", since=at(0))]),
        report("n3", findings=[finding("e3", since=at(1))]),
    ]
    store(engine, *reports, now=2)
    refresh(engine, 3)
    listed = [record.subject for record in incidents.incidents(engine, "c")]
    assert listed == ["n2", "n3", "n1"]
    paged, after = [], None
    while True:
        page = incidents.incidents(engine, "c", limit=1, after=after)
        if not page:
            break
        paged.append(page[0].subject)
        after = page[0].id
    assert paged == listed


def test_two_refreshes_never_open_two_incidents_of_one_node(engine: Engine) -> None:
    store(engine, report(findings=[finding()]), now=2)
    refresh(engine, 3)
    refresh(engine, 3)
    with read(engine) as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM incident")).scalar_one() == 1
