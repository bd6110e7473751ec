"""Service states in the store: through restarts, people's requests, and nodes made anew."""

import pytest
from cluster_builders import at, node, pod
from sqlalchemy import Engine, select
from state_site import CLUSTER, HOUR, Site, changed

from app.store.engine import read, write
from app.store.reads.status import status
from app.store.tables import AuditEntry


@pytest.fixture
def site(engine: Engine) -> Site:
    return Site(engine)


def test_a_drained_node_that_anybody_uncordons_is_on_probation_and_then_in_service(
    site: Site,
) -> None:
    site.drained()
    assert site.node().service == "Drained"
    site.show(node("a"))
    assert site.node().service == "Probation"
    site.wait(HOUR - 1)
    assert site.node().service == "Probation"
    assert "no spare until 13:00:00" in site.node().service_reason.replace("2026-07-01 ", "")
    site.wait(1)
    assert site.node().service == "In service"
    assert site.row().owes_probation is None


def test_a_worker_that_restarts_goes_on_with_state_debt_and_clock(site: Site) -> None:
    site.drained()
    site.restart()
    site.show(node("a"))
    assert site.node().service == "Probation"
    since = site.row().clean_since
    site.wait(1800)
    site.restart()
    site.sync.tick()
    assert site.row().clean_since == since
    site.wait(1800)
    assert site.node().service == "In service"


def test_a_node_uncordoned_while_no_worker_ran_is_on_probation_all_the_same(site: Site) -> None:
    site.drained()
    site.restart()
    site.now = at(600)
    site.report()
    site.show(node("a"))
    assert site.node().service == "Probation"


def test_a_lease_that_changed_hands_costs_nothing(site: Site) -> None:
    site.drained()
    site.show(node("a"))
    site.sync.forget()
    site.sync.tick()
    assert site.node().service == "Probation"


def test_a_finding_starts_the_clock_again_in_the_store_too(site: Site) -> None:
    site.drained()
    site.show(node("a"))
    site.wait(1800, health="Degraded")
    assert site.row().clean_since is None
    assert "Degraded" in site.node().service_reason
    site.wait(HOUR)
    assert site.node().service == "Probation"
    site.wait(HOUR - 1)
    assert site.node().service == "Probation"
    site.wait(1)
    assert site.node().service == "In service"


def test_an_agent_that_is_silent_at_the_end_of_probation_prolongs_it(site: Site) -> None:
    site.drained()
    site.show(node("a"))
    site.wait(2 * HOUR, heard=False)
    assert site.node().service == "Probation"


def test_a_lost_annotation_leaves_the_drained_node_drained_across_a_restart(site: Site) -> None:
    site.drained()
    site.restart()
    site.show(node("a", cordoned=True))
    assert site.node().service == "Drained"
    site.show(node("a"))
    assert site.node().service == "Probation"


@pytest.mark.parametrize("restarts", [False, True])
def test_a_node_made_anew_under_the_same_name_starts_anew(site: Site, restarts: bool) -> None:
    site.drained()
    assert site.ask("repair", nodes=["a"], text="GPU 3").state == "accepted"
    site.sync.tick()
    assert site.node().service == "Under repair"
    if restarts:
        site.restart()
    site.show(changed(node("a", cordoned=True), uid="another"))
    assert site.node().service == "Cordoned"
    assert site.row().repair_by is None
    site.show(changed(node("a"), uid="another"))
    assert site.node().service == "In service"


def test_a_repair_stays_until_the_node_returns_and_then_it_is_on_probation(site: Site) -> None:
    left = site.drained()
    assert site.ask("repair", nodes=["a"], text="GPU 3 is replaced").state == "accepted"
    site.sync.tick()
    found = site.node()
    assert (found.service, found.service_reason) == (
        "Under repair",
        "sent to repair by ada: GPU 3 is replaced",
    )
    site.restart()
    site.show(left)
    assert site.node().service == "Under repair"
    back = site.ask("return", nodes=["a"])
    assert back.state == "accepted"
    assert back.operation_id is not None
    site.show(node("a"))
    assert site.node().service == "Probation"
    assert (site.row().repair_by, site.row().repair_note) == (None, None)


def test_a_foreign_uncordon_ends_a_repair_and_begins_the_probation(site: Site) -> None:
    site.show(node("a", cordoned=True))
    site.report()
    site.ask("repair", nodes=["a"], text="a fan")
    site.sync.tick()
    assert site.node().service == "Under repair"
    site.show(node("a"))
    assert site.node().service == "Probation"
    assert site.row().repair_by is None


def test_a_person_ends_a_probation_early_and_it_is_audited(site: Site, engine: Engine) -> None:
    site.drained()
    site.show(node("a"))
    back = site.ask("return", nodes=["a"])
    assert (back.state, back.operation_id) == ("accepted", None)
    site.sync.tick()
    assert site.node().service == "In service"
    with read(engine) as connection:
        rows = connection.execute(select(AuditEntry.__table__)).all()
    assert ("ada", "return", "a", "done") in {
        (row.author, row.action, row.target, row.outcome) for row in rows
    }


def test_a_word_that_comes_while_the_worker_writes_is_not_written_over(site: Site) -> None:
    site.drained()
    site.show(node("a"))
    states = site.sync._states
    with read(site.engine) as connection:
        states.read(connection, site.view(), site.now)
    looked = states.look(site.view(), at(30), open_holdings={}, ended_holdings={})
    site.ask("return", nodes=["a"])
    with write(site.engine) as connection:
        states.store(connection, {name: state.standing for name, state in looked.items()})
    site.sync.tick()
    assert site.node().service == "In service"


@pytest.mark.parametrize(
    ("kind", "objects", "code", "said"),
    [
        ("repair", [node("a")], "conflict", "drain it first"),
        ("return", [node("a")], "conflict", "In service"),
        ("return", [node("a", cordoned=True)], "conflict", "Cordoned"),
        ("repair", [node("b")], "not_found", "no node a"),
    ],
)
def test_a_word_that_does_not_suit_the_nodes_state_is_refused_in_a_sentence(
    site: Site, kind: str, objects: list[object], code: str, said: str
) -> None:
    site.show(*objects)
    refused = site.ask(kind, nodes=["a"], text="x")
    assert (refused.state, refused.refusal_code) == ("refused", code)
    assert said in refused.refusal


def test_a_repair_needs_its_reason(site: Site) -> None:
    site.show(node("a", cordoned=True))
    assert site.ask("repair", nodes=["a"]).refusal_code == "invalid"


def test_a_node_that_is_being_drained_is_not_sent_to_repair(site: Site) -> None:
    site.show(*[node(name) for name in "abcdefghijkl"])
    assert site.ask("drain", nodes=["a"]).state == "accepted"
    refused = site.ask("repair", nodes=["a"], text="x")
    assert refused.refusal_code == "conflict"
    assert "held by operation" in refused.refusal


def test_what_stands_against_an_uncordon_stands_against_a_return(site: Site) -> None:
    site.show(node("a", cordoned=True))
    site.ask("repair", nodes=["a"], text="a fan")
    site.sync.tick()
    refused = site.ask("return", nodes=["a"])
    assert refused.refusal_code == "protected"
    assert "somebody else" in refused.refusal
    assert site.ask("return", nodes=["a"], confirmation="a").state == "accepted"


def test_gpus_on_probation_are_free_to_kubernetes_and_counted_apart(site: Site) -> None:
    site.drained()
    site.show(node("a"), node("b"), pod("x", "a", gpus=2))
    site.report()
    site.show(node("a"), node("b"), pod("x", "a", gpus=2), pod("y", "b", gpus=1))
    counts = status(site.engine, CLUSTER, site.now).counts
    assert (counts.gpus_usable, counts.gpus_free, counts.gpus_on_probation) == (16, 13, 6)
