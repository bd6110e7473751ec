"""In the store: what hit a job is often seen only after the job is back; it is one trouble all the same."""

from dataclasses import replace

from sqlalchemy import Engine

from app.store.engine import write
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import KubernetesChanges
from collectors.kubernetes import PlacementChange
from tests.reports import at
from tests.unit.store.test_store_incident_episodes import Site, interrupted, port
from tests.unit.store.test_store_kubernetes import job, pod


def place(site: Site, kind: str, uid: str, node: str, now: float) -> None:
    change = PlacementChange(kind, uid, node, "", "j1", 0, at(now))  # type: ignore[arg-type]
    with write(site.engine) as connection:
        store_kubernetes(connection, "c", KubernetesChanges(placements=[change]), at(now))


def crash_and_restart(site: Site) -> None:
    """The job crashes at 18 s and is whole again at 60 s, without n1."""
    place(site, "opened", "p0", "n1", 1)
    site.hear(10)
    site.fold("kubernetes", 30, interrupted(18))
    site.show([pod("p1", "n2", 1)], [job(running_pods=1, state="Pending")], 30)
    site.look(31)
    place(site, "closed", "p0", "n1", 60)
    site.show([pod("p0b", "n3", 0), pod("p1b", "n2", 1)], [job()], 60)
    site.hear(60)
    site.look(61)
    assert [one.scope for one in site.open()] == ["job"]


def test_a_job_that_was_back_before_its_cause_was_seen_is_merged_into_it(engine: Engine) -> None:
    site = Site(engine, ("n1", "n2", "n3"))
    crash_and_restart(site)
    # The port went down at 10 s; its rule holds for four minutes.
    site.report("n1", 250, port("e1", 10))
    site.hear(250, but=["n1"])
    site.look(251)
    cause = site.one()
    assert (cause.scope, cause.subject) == ("node", "n1")
    (told,) = [one for one in site.every() if one.scope == "job"]
    assert told.merged_into == cause.id
    assert "merged" in site.kinds(cause.id)
    (hurt,) = cause.jobs
    assert hurt["until"] is not None, "the job is back"


def test_a_node_that_breaks_without_the_job_is_no_cause_of_its_interruption(engine: Engine) -> None:
    site = Site(engine, ("n1", "n2", "n3", "n4"))
    crash_and_restart(site)
    site.report("n4", 250, port("e1", 10))
    site.hear(250, but=["n4"])
    site.look(251)
    assert {(one.scope, one.subject) for one in site.open()} == {("node", "n4"), ("job", "j1")}


def test_a_hang_that_ends_in_a_crash_is_one_incident(engine: Engine) -> None:
    site = Site(engine)
    site.hear(75)
    hang = replace(interrupted(20), rule="collective-hang", severity="critical", message="it hangs")
    site.fold("training", 80, hang)
    site.look(81)
    first = site.one()
    site.hear(615)
    site.fold("training", 620)
    site.look(621)
    site.show([pod("p1", "n2", 1)], [job(running_pods=1, state="Pending")], 622)
    site.fold("kubernetes", 632, interrupted(621))
    site.hear(632)
    site.look(633)
    assert site.one().id == first.id
    assert len(site.every()) == 1


def test_a_domain_of_which_more_is_seen_later_is_told_as_the_wider_one(engine: Engine) -> None:
    names = [f"n{number}" for number in range(1, 13)]
    places = {
        name: {"rack": f"r{number // 3}", "leaf": f"l{number // 6}"}
        for number, name in enumerate(names)
    }
    site = Site(engine, names, **places)
    for name in names[:3]:
        site.report(name, 250, port(f"e-{name}", 10))
    site.hear(250, but=names[:3])
    site.look(251)
    narrow = site.one()
    assert (narrow.scope, narrow.subject) == ("rack", "r0")
    for name in names[3:6]:
        site.report(name, 255, port(f"e-{name}", 12))
    site.look(256)
    wide = site.one()
    assert (wide.scope, wide.subject) == ("leaf", "l0")
    assert {one.id: one.merged_into for one in site.every()} == {narrow.id: wide.id, wide.id: None}
    site.hear(270)
    site.look(271)
    assert site.open() == []
