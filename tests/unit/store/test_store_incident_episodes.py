"""In the store: one cause is one incident, a fault that flaps is the same one, a new boot is not; merges and plans."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, text

from app.store.engine import read, write
from app.store.reads import incidents
from app.store.records import IncidentRecord
from app.store.writes.aging import age_nodes
from app.store.writes.central import fold_central
from app.store.writes.incidents import IncidentChanges, refresh_incidents
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from collectors.central import CentralFinding
from collectors.report import Finding
from tests.reports import at, finding, gpu, report
from tests.unit.store.test_store_kubernetes import job, node, pod

PORT = "infiniband-port-down"


class Site:
    """A store to which agents and Kubernetes speak; a refresh is the worker's look."""

    def __init__(self, engine: Engine, names: Sequence[str] = ("n1", "n2"), **places: Any) -> None:
        self.engine = engine
        self.names = list(names)
        self.sequences = dict.fromkeys(names, 0)
        self.picture = picture_of(
            [node(name, **(places.get(name, {}))) for name in names],
            [pod("p0", "n1", 0), pod("p1", "n2", 1)] if "n2" in names else [],
            [job()] if "n2" in names else [],
        )
        with write(engine) as connection:
            store_kubernetes(connection, "c", changes_between(None, self.picture), at(0))

    def report(self, name: str, now: float, *findings: Finding, boot: str = "boot-1") -> None:
        self.sequences[name] += 1
        told = report(
            name,
            self.sequences[name],
            observed_at=at(now),
            boot_id=boot,
            findings=list(findings),
            gpus=[gpu(name)],
        )
        with write(self.engine) as connection:
            store_reports(connection, "c", [told], at(now))

    def hear(self, now: float, *, but: Sequence[str] = ()) -> None:
        for name in self.names:
            if name not in but:
                self.report(name, now)

    def show(self, pods: list[Any], jobs: list[Any], now: float, nodes: Any = None) -> None:
        shown = picture_of(
            nodes if nodes is not None else [node(name) for name in self.names], pods, jobs
        )
        with write(self.engine) as connection:
            store_kubernetes(connection, "c", changes_between(self.picture, shown), at(now))
        self.picture = shown

    def fold(self, source: str, now: float, *findings: CentralFinding) -> None:
        with write(self.engine) as connection:
            fold_central(connection, "c", source, findings, at(now))  # type: ignore[arg-type]

    def look(self, now: float) -> IncidentChanges:
        with write(self.engine) as connection:
            age_nodes(connection, "c", at(now), 45.0)
            return refresh_incidents(connection, "c", at(now))

    def open(self) -> list[IncidentRecord]:
        return incidents.incidents(self.engine, "c")

    def one(self) -> IncidentRecord:
        (found,) = self.open()
        return found

    def every(self) -> list[IncidentRecord]:
        return incidents.incidents(self.engine, "c", open_only=False)

    def kinds(self, incident_id: str) -> list[str]:
        return [entry.kind for entry in incidents.timeline(self.engine, "c", incident_id)]


def port(episode: str, since: float) -> Finding:
    return finding(episode, rule=PORT, message="mlx5_0 is down", since=at(since))


def lost(episode: str, since: float, **fields: Any) -> Finding:
    values = {"rule": "xid-79", "severity": "fatal", "xid": 79, "gpu_uuid": "GPU-n1-0"}
    words = {"message": "XID 79 on GPU 0", "action": "restart the node"}
    return finding(episode, since=at(since), **(values | words | fields))


def interrupted(since: float, node_name: str = "n2") -> CentralFinding:
    return CentralFinding(
        rule="job-interrupted",
        node=node_name,
        severity="warning",
        message="2 of 2 ranks of ml/train ended; the first was rank 1",
        action="read the first rank's log",
        since=at(since),
        subject="j1",
        job_uid="j1",
        rank=1,
        changes_health=False,
    )


def not_ready(name: str, since: float) -> CentralFinding:
    return CentralFinding(
        rule="node-not-ready",
        node=name,
        severity="critical",
        message="Kubernetes calls the node not ready",
        action="look at the kubelet",
        since=at(since),
        subject="Ready",
    )


def test_port_that_flaps_is_one_incident_that_says_so_and_ends_after_ten_quiet_minutes(
    engine: Engine,
) -> None:
    site = Site(engine)
    site.report("n1", 1, port("e1", 0))
    (incident_id,) = site.look(2).opened
    site.report("n1", 60)
    assert site.look(62).resolved == [incident_id]
    site.report("n1", 120, port("e2", 119))
    assert site.look(122).changed == [incident_id]
    again = site.one()
    assert (again.id, again.episode, again.flaps, again.flapping) == (incident_id, 1, 1, False)
    assert (again.resolved_at, again.ended_at, again.gpus_hurt) == (None, None, 16)
    site.report("n1", 180)
    site.look(182)
    site.report("n1", 240, port("e3", 239))
    site.look(242)
    assert (site.one().flaps, site.one().flapping) == (2, True)
    site.report("n1", 300)
    assert site.look(302).changed == [incident_id]
    assert (site.one().ended_at, site.one().gpus_hurt) == (at(302), 0)
    assert site.look(304) == IncidentChanges()
    site.report("n1", 900)
    assert site.look(902).resolved == [incident_id]
    assert len(site.every()) == 1
    assert site.kinds(incident_id).count("flapping") == 2


def test_flapping_one_that_comes_back_while_it_is_waited_for_is_still_the_same(
    engine: Engine,
) -> None:
    site = Site(engine)
    for number in range(5):
        site.report("n1", 1 + 100 * number, port(f"e{number}", 100 * number))
        site.look(2 + 100 * number)
        site.report("n1", 50 + 100 * number)
        site.look(51 + 100 * number)
    assert (site.one().flaps, len(site.every())) == (4, 1)


def test_fault_that_went_and_came_between_two_looks_is_a_return_too(engine: Engine) -> None:
    site = Site(engine)
    site.report("n1", 1, port("e1", 0))
    (incident_id,) = site.look(2).opened
    site.report("n1", 3)
    site.report("n1", 6, port("e2", 5))
    site.look(7)
    assert (site.one().id, site.one().flaps) == (incident_id, 1)


def test_level_fault_after_a_new_boot_is_a_new_episode(engine: Engine) -> None:
    site = Site(engine)
    site.report("n1", 1, port("e1", 0))
    (first,) = site.look(2).opened
    site.report("n1", 60, boot="boot-2")
    site.look(62)
    site.report("n1", 120, port("e2", 119), boot="boot-2")
    (second,) = site.look(122).opened
    assert second != first
    assert site.one().episode == 2


def test_repaired_and_newly_failed_node_is_two_incidents_even_between_two_looks(
    engine: Engine,
) -> None:
    site = Site(engine)
    site.report("n1", 1, lost("e1", 0))
    (first,) = site.look(2).opened
    site.report("n1", 300, boot="boot-2")
    site.report("n1", 301, lost("e2", 300.5), boot="boot-2")
    changes = site.look(302)
    assert (changes.resolved, len(changes.opened)) == ([first], 1)
    assert (site.one().episode, site.one().first["boot_id"]) == (2, "boot-2")


def test_first_failure_and_what_followed_are_told_apart(engine: Engine) -> None:
    site = Site(engine)
    site.report("n1", 1, lost("e1", 0))
    site.look(2)
    after = finding("e2", rule="xid-45", severity="warning", message="XID 45", since=at(3), changes_health=False)  # fmt: skip
    site.report("n1", 4, lost("e1", 0), after)
    site.fold("kubernetes", 20, interrupted(2))
    site.look(21)
    found = site.one()
    assert (found.cause, found.first["xid"], found.first["gpu_index"]) == ("xid-79", 79, 0)
    assert (found.first["job"], found.first["rank"], found.first["pod"]) == (
        "ml/train",
        0,
        "train-0",
    )
    assert [one["kind"] for one in found.consequences] == ["job", "application"]
    assert found.nodes == ["n1"]
    assert found.gpu_hours_lost is not None
    at_hour = incidents.incident(site.engine, "c", found.id, now=at(3600))
    assert at_hour is not None
    assert at_hour.gpu_hours_lost == 16 * 3599 / 3600, "since the pod began, a second after NOW"
    assert [record.id for record in incidents.incidents_of_node(engine, "c", "n1")] == [found.id]
    assert incidents.incidents_of_node(engine, "c", "n2") == []


def test_crash_that_was_told_before_its_cause_is_merged_into_the_gpus_incident(
    engine: Engine,
) -> None:
    site = Site(engine)
    site.hear(1)
    site.fold("kubernetes", 10, interrupted(0))
    (crash,) = site.look(11).opened
    assert (site.one().scope, site.one().subject) == ("job", "j1")
    site.report("n1", 12, lost("e1", 3))
    changes = site.look(13)
    assert (len(changes.opened), changes.resolved) == (1, [crash])
    found = site.one()
    assert (found.scope, found.cause) == ("node", "xid-79")
    assert [one["rank"] for one in found.consequences] == [1]
    merged = incidents.incident(engine, "c", crash)
    assert merged is not None
    assert (merged.merged_into, merged.resolved_at) == (found.id, at(13))
    assert [one["since"] for one in found.jobs] == ["2026-11-24T12:00:00Z"]
    told = [entry.message for entry in incidents.timeline(engine, "c", found.id)]
    assert any(message.startswith(f"{crash}: 2 of 2 ranks") for message in told)
    assert site.look(14) == IncidentChanges()


def test_hang_and_crash_of_one_job_are_one_incident(engine: Engine) -> None:
    site = Site(engine)
    site.hear(1)
    hang = CentralFinding(
        rule="collective-hang",
        node="",
        severity="critical",
        message="all ranks wait",
        action="restart the job",
        since=at(0),
        subject="j1",
        job_uid="j1",
        changes_health=False,
    )
    site.fold("training", 5, hang)
    site.look(6)
    site.fold("kubernetes", 30, interrupted(20))
    site.look(31)
    found = site.one()
    assert (found.scope, found.cause, found.severity) == ("job", "collective-hang", "critical")
    assert len(found.consequences) == 1


def test_node_incidents_of_a_leaf_become_the_leafs_when_the_third_is_hit(engine: Engine) -> None:
    names = [f"n{number}" for number in range(1, 13)]
    places = {name: {"leaf": "l1" if number < 4 else "l2"} for number, name in enumerate(names)}
    site = Site(engine, names, **places)
    for number, name in enumerate(names[:4]):
        site.report(name, 10 * number + 1, port(f"e{number}", 10 * number))
        site.look(10 * number + 2)
    found = site.one()
    assert (found.scope, found.subject, found.nodes) == ("leaf", "l1", names[:4])
    assert (found.certainty, found.certainty_ratio) == ("certain", 1.0)
    assert found.evidence[0]["text"] == "4 of 4 nodes of leaf l1, 0 of 8 elsewhere"
    assert [one.merged_into for one in site.every() if one.resolved_at] == [found.id] * 2
    assert [one.id for one in incidents.incidents_of_node(engine, "c", "n2")] == [found.id]
    for number, name in enumerate(names[:4]):
        site.report(name, 100 + number)
    assert site.look(110).resolved == [found.id]


def test_planned_absence_opens_none_and_a_drained_node_keeps_the_one_it_had(
    engine: Engine,
) -> None:
    site = Site(engine)
    site.hear(1)
    with write(engine) as connection:
        connection.execute(text("UPDATE node SET planned = 'upgrade' WHERE name = 'n2'"))
    (opened,) = site.look(100).opened
    assert site.one().subject == "n1"
    site.show([], [job(state="Suspended", running_pods=0)], 200)
    site.look(201)
    with write(engine) as connection:
        connection.execute(
            text("UPDATE node SET service = 'Drained', service_since = :at WHERE name = 'n1'"),
            {"at": "2026-11-24 12:05:00.000000+00:00" if engine.dialect.name == "postgresql" else "2026-11-24 12:05:00.000000"},
        )  # fmt: skip
    assert site.look(310) == IncidentChanges()
    site.report("n1", 400)
    assert site.look(401).resolved == [opened]


def test_job_counts_as_hurt_until_it_runs_whole_on_other_nodes(engine: Engine) -> None:
    site = Site(engine, ["n1", "n2", "n3"])
    site.hear(1)
    site.report("n1", 2, lost("e1", 1))
    site.look(3)
    assert site.one().gpus_hurt == 16
    site.show([], [job(state="Suspended", running_pods=0)], 30)
    assert site.look(31) == IncidentChanges()
    site.hear(110, but=["n1"])
    site.report("n1", 110, lost("e1", 1))
    site.show([pod("q0", "n2", 0), pod("q1", "n3", 1)], [job()], 120)
    site.look(121)
    found = site.one()
    assert (found.gpus_hurt, found.jobs[0]["until"]) == (0, "2026-11-24T12:02:01Z")
    assert found.gpu_hours_lost is not None
    assert abs(found.gpu_hours_lost - 16 * 120 / 3600) < 1e-6
    assert site.kinds(found.id) == ["opened", "hurt", "recovered"]


def test_nodes_missed_by_agents_and_kubelets_are_one_incident_of_the_pipeline(
    engine: Engine,
) -> None:
    names = [f"n{number}" for number in range(1, 21)]
    site = Site(engine, names, **{name: {"leaf": name, "rack": name, "power_domain": name} for name in names})  # fmt: skip
    site.hear(1)
    site.hear(30, but=names[:6])
    site.look(60)
    assert site.one().cause == "mass-silence"
    site.fold("kubernetes", 62, *[not_ready(name, 50) for name in names[:6]])
    site.look(63)
    assert (site.one().subject, site.one().nodes) == ("agents", sorted(names[:6]))


def test_nothing_is_written_where_nothing_changed(engine: Engine) -> None:
    site = Site(engine)
    site.report("n1", 1, lost("e1", 0), port("e2", 0))
    site.fold("kubernetes", 5, interrupted(2))
    site.look(6)
    before = site.every()
    for now in (8, 10, 12):
        assert site.look(now) == IncidentChanges()
    with read(engine) as connection:
        rows = connection.execute(text("SELECT updated_at FROM incident")).all()
    assert len(rows) == 1
    after = site.every()
    assert [one.updated_at for one in after] == [one.updated_at for one in before]


def test_worst_incident_is_the_one_that_hurts_most(engine: Engine) -> None:
    site = Site(engine, ["n1", "n2", "n3"])
    site.report("n3", 1, lost("e3", 0, gpu_uuid="GPU-n3-0"))
    site.report("n1", 2, port("e1", 1))
    site.look(3)
    assert [one.subject for one in site.open()] == ["n1", "n3"], "16 GPUs before a graver fault"
