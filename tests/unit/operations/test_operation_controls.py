"""Pause, limits that trip, typed words, protection, a second person's yes, bulk and undo: in the store, on both."""

from datetime import timedelta

import pytest
from cluster_builders import job, namespace, node, pod, view
from desk_site import CLUSTER, Site
from sqlalchemy import Engine, select, update

from app.store.engine import read, write
from app.store.reads.status import status
from app.store.tables import Operation as OperationTable
from app.store.tables import OperationNode

OPEN_WIDE = {
    "max_unavailable_nodes_ratio": 1,
    "max_drains_per_hour_ratio": 1,
    "max_drains_per_hour": 1000,
    "min_usable_nodes_ratio": 0,
    "max_unavailable_block_nodes_ratio": 1,
}


def fleet(engine: Engine, size: int = 20, **settings) -> Site:
    return Site(engine, view(*[node(f"n{number}") for number in range(size)]), settings)


def gang(engine: Engine, **settings) -> Site:
    """A gang of two ranks on a and b, and room on c and d."""
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    seen = view(*[node(name) for name in "abcd"], job(), *pods)
    return Site(engine, seen, {**OPEN_WIDE, **settings})


def held(site: Site) -> set[str]:
    table = OperationNode.__table__
    with read(site.engine) as connection:
        return {row.node for row in connection.execute(select(table.c.node).where(table.c.open))}


def test_a_pause_stops_what_begins_and_lets_what_takes_back_go_on(engine: Engine) -> None:
    site = fleet(engine, max_drains_per_hour_ratio=1)
    running = site.get("drain", nodes=["n1"]).operation_id
    assert site.get("pause", author="bob", text="a storm of XIDs").state == "accepted"
    refused = site.get("drain", nodes=["n2"])
    assert (refused.state, refused.refusal_code) == ("refused", "paused")
    assert "Paused by bob" in refused.refusal
    assert "a storm of XIDs" in refused.refusal
    assert site.get("preview", action="drain", nodes=["n2"]).state == "answered"
    assert site.get("cancel", operation_id=running).state == "accepted"
    assert site.get("uncordon", nodes=["n5"]).state == "accepted"
    told = status(engine, CLUSTER, site.now).pause
    assert told is not None
    assert (told.paused_by, told.reason) == ("bob", "a storm of XIDs")
    assert site.get("unpause", author="cem", text="over").state == "accepted"
    assert site.get("drain", nodes=["n2"]).state == "accepted"
    assert status(engine, CLUSTER, site.now).pause is None
    assert site.audited("pause") == [("bob", "done", "a storm of XIDs: Paused.")]
    assert site.audited("unpause") == [("cem", "done", "over: Taken up again.")]


@pytest.mark.parametrize("kind", ["pause", "unpause"])
def test_a_pause_and_its_end_need_a_reason(engine: Engine, kind: str) -> None:
    site = fleet(engine)
    refused = site.get(kind, reason=" ")
    assert (refused.state, refused.refusal_code) == ("refused", "invalid")
    assert "Say why" in refused.refusal


def test_a_second_pause_and_an_end_without_one_are_conflicts(engine: Engine) -> None:
    site = fleet(engine)
    assert site.get("unpause", text="x").refusal_code == "conflict"
    site.get("pause", author="bob", text="first")
    again = site.get("pause", text="second")
    assert again.refusal_code == "conflict"
    assert "first" in again.refusal


def test_force_passes_no_limit_and_its_typed_name_does(engine: Engine) -> None:
    site = fleet(engine, max_drains_per_hour_ratio=1)
    nodes = ["n1", "n2", "n3"]
    forced = site.get(
        "drain", nodes=nodes, force=True, confirmation="stock", accept_protected="stock"
    )
    assert forced.refusal_code == "limit"
    assert "type stock (--past-limits)" in forced.refusal
    wrong = site.get("drain", nodes=nodes, past_limits=["rate"])
    assert wrong.refusal_code == "limit"
    typed = site.get("drain", nodes=nodes, past_limits=["stock"])
    assert typed.state == "accepted"
    lines = _plan(site, typed.operation_id)["limits"]["lines"]
    assert [line["name"] for line in lines if line["passed"]] == ["stock"]


def test_a_typed_limit_does_not_void_the_plan_that_was_read(engine: Engine) -> None:
    site = fleet(engine, max_drains_per_hour_ratio=1)
    nodes = ["n1", "n2", "n3"]
    plan = site.get("preview", action="drain", nodes=nodes).answer
    assert plan["limits"]["verdict"] == "refused"
    typed = site.get("drain", nodes=nodes, past_limits="stock", plan_hash=plan["hash"])
    assert typed.state == "accepted"


def test_the_floor_is_passed_by_no_word(engine: Engine) -> None:
    site = fleet(engine, 10, max_drains_per_hour_ratio=1)
    nodes = [f"n{number}" for number in range(6)]
    refused = site.get("drain", nodes=nodes, past_limits=["stock", "floor", "rate"], force=True)
    assert refused.refusal_code == "limit"
    assert "4 of 10 GPU nodes would stay usable" in refused.refusal
    assert "--past-limits" not in refused.refusal


def test_a_person_may_cordon_past_every_limit_where_nothing_is_evicted(engine: Engine) -> None:
    site = fleet(engine, 10)
    nodes = [f"n{number}" for number in range(8)]
    assert site.get("drain", nodes=nodes).refusal_code == "limit"
    automatic = site.get("drain", nodes=nodes, mode="complete", automatic=True)
    assert automatic.refusal_code == "limit"
    plan = site.get("preview", action="drain", nodes=nodes, mode="complete").answer
    assert "It goes past the limit floor" in " ".join(plan["warnings"])
    assert site.get("drain", nodes=nodes, mode="complete").state == "accepted"


def test_a_limit_that_refuses_automation_trips_until_a_person_resets_it(engine: Engine) -> None:
    site = fleet(engine, 100)
    for name in ("n1", "n2"):
        assert site.get("drain", nodes=[name], author="auto", automatic=True).state == "accepted"
    assert site.get("drain", nodes=["n3"], author="auto", automatic=True).refusal_code == "limit"
    mark = status(engine, CLUSTER, site.now).limits[0]
    assert (mark.name, mark.tripped_at) == ("rate", site.now)
    # Even when its hour is over: a trip is a person's matter.
    site.now += timedelta(hours=2)
    still = site.get("drain", nodes=["n3"], author="auto", automatic=True)
    assert still.refusal_code == "limit"
    assert "pitwall reset-limit rate" in still.refusal
    assert site.get("uncordon", nodes=["n9"]).state == "accepted"
    assert site.get("preview", action="drain", nodes=["n3"]).state == "answered"
    assert site.get("reset_limit", limit="rate", reason="").refusal_code == "invalid"
    assert site.get("reset_limit", limit="speed", text="x").refusal_code == "invalid"
    done = site.get("reset_limit", author="bob", limit="rate", text="false alarm, sensors replaced")
    assert done.state == "accepted"
    assert site.audited("reset_limit")[-1] == (
        "bob",
        "done",
        "false alarm, sensors replaced: The rate is counted anew.",
    )
    assert site.get("drain", nodes=["n3"], author="auto", automatic=True).state == "accepted"


def test_a_person_is_not_held_by_a_trip_and_trips_none(engine: Engine) -> None:
    site = fleet(engine, 100)
    for name in ("n1", "n2"):
        site.get("drain", nodes=[name])
    assert site.get("drain", nodes=["n3"]).refusal_code == "limit"
    assert status(engine, CLUSTER, site.now).limits == []
    assert site.get("reset_limit", limit="stock", text="x").refusal_code == "conflict"


def test_a_reset_begins_the_count_of_the_rate_anew(engine: Engine) -> None:
    site = fleet(engine, 100)
    for name in ("n1", "n2"):
        assert site.get("drain", nodes=[name]).state == "accepted"
    assert site.get("drain", nodes=["n3"]).refusal_code == "limit"
    assert site.get("reset_limit", limit="rate", text="a planned window").state == "accepted"
    for name in ("n3", "n4"):
        assert site.get("drain", nodes=[name]).state == "accepted"
    assert site.get("drain", nodes=["n5"]).refusal_code == "limit"


@pytest.mark.parametrize(
    "typed",
    [
        {"force": True},
        {"past_limits": ["stock"]},
        {"accept_protected": ["n1"]},
        {"confirmation": "llm"},
    ],
)
def test_what_a_person_must_type_can_not_come_from_automation(engine: Engine, typed: dict) -> None:
    site = fleet(engine)
    refused = site.get("drain", nodes=["n1"], author="auto", automatic=True, **typed)
    assert (refused.state, refused.refusal_code) == ("refused", "invalid")


def test_what_is_protected_wants_a_word_apart_from_all_others(engine: Engine) -> None:
    label = {"pitwall.dev/protected": "true"}
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    seen = view(*[node(name) for name in "abcd"], job(labels=label), *pods)
    site = Site(engine, seen, dict(OPEN_WIDE))
    refused = site.get("drain", nodes=["a"], force=True, confirmation="llm", past_limits="llm")
    assert refused.refusal_code == "protected"
    assert "--confirm-protected" in refused.refusal
    plan = site.get("preview", action="drain", nodes=["a"]).answer
    assert plan["protected"] == [{"kind": "Job", "name": "team-a/llm", "accepted": False}]
    assert site.get("drain", nodes=["a"], accept_protected=["llm"]).state == "accepted"


def test_a_protected_namespace_and_node_are_named_each(engine: Engine) -> None:
    label = {"pitwall.dev/protected": "true"}
    seen = view(
        node("a", labels=label),
        node("b"),
        namespace("team-a", labels=label),
        job(gang=False, ranks=1),
        pod("llm-0", "a"),
    )
    site = Site(engine, seen, dict(OPEN_WIDE))
    assert site.get("drain", nodes=["a"], accept_protected="a").refusal_code == "protected"
    assert site.get("drain", nodes=["a"], accept_protected="team-a").refusal_code == "protected"
    assert site.get("drain", nodes=["a"], accept_protected="a, team-a").state == "accepted"


def _plan(site: Site, operation_id: str | None) -> dict:
    table = OperationTable.__table__
    with read(site.engine) as connection:
        return connection.execute(
            select(table.c.plan).where(table.c.id == operation_id)
        ).scalar_one()


def waiting(site: Site) -> tuple[str, str]:
    """A drain that waits for a second person: its id and its plan's hash."""
    asked = site.get("drain", nodes=["a"])
    assert asked.state == "awaiting_approval"
    return asked.id, asked.answer["approval"]["plan_hash"]


def test_above_the_sites_size_a_second_person_must_approve(engine: Engine) -> None:
    site = gang(engine, approval_gpus=15)
    asked, plan_hash = waiting(site)
    assert held(site) == set()
    told = status(engine, CLUSTER, site.now).approvals
    assert [(each.request_id, each.gpus, each.asked_by) for each in told] == [(asked, 16, "ada")]
    own = site.get("approve", author="ada", request_id=asked, plan_hash=plan_hash)
    assert own.refusal_code == "forbidden"
    other = site.get("approve", author="bob", request_id=asked, plan_hash="0" * 16)
    assert other.refusal_code == "plan_changed"
    done = site.get("approve", author="bob", request_id=asked, plan_hash=plan_hash)
    assert done.state == "accepted"
    first = site.answer(asked)
    assert (first.state, first.operation_id) == ("accepted", done.operation_id)
    assert held(site) == {"a"}
    assert _plan(site, done.operation_id)["approval"]["by"] == "bob"
    assert ("ada", "done", "Approved by bob.") in site.audited("drain")
    assert site.audited("approve")[-1][:2] == ("bob", "done")
    again = site.get("approve", author="cem", request_id=asked, plan_hash=plan_hash)
    assert again.refusal_code == "conflict"


def test_at_the_sites_size_nobody_else_is_asked(engine: Engine) -> None:
    assert gang(engine, approval_gpus=16).get("drain", nodes=["a"]).state == "accepted"


def test_what_runs_to_its_end_stops_no_gpu(engine: Engine) -> None:
    site = gang(engine, approval_gpus=0)
    assert site.get("drain", nodes=["a"], mode="complete").state == "accepted"
    assert site.get("drain", nodes=["b"]).state == "awaiting_approval"


def test_automation_above_the_size_is_refused(engine: Engine) -> None:
    refused = gang(engine, approval_gpus=15).get("drain", nodes=["a"], automatic=True)
    assert refused.refusal_code == "approval_needed"


def test_an_approval_is_void_when_the_plan_has_moved_and_says_why(engine: Engine) -> None:
    site = gang(engine, approval_gpus=15)
    asked, plan_hash = waiting(site)
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    site.seen = view(*[node(name) for name in "abcd"], job(generation=2), *pods)
    void = site.get("approve", author="bob", request_id=asked, plan_hash=plan_hash)
    assert void.refusal_code == "plan_changed"
    assert "job team-a/llm was edited" in void.refusal
    first = site.answer(asked)
    assert (first.state, first.refusal) == ("refused", void.refusal)
    assert site.audited("drain")[-1][1] == "refused"
    assert held(site) == set()


def test_without_a_yes_it_expires(engine: Engine) -> None:
    site = gang(engine, approval_gpus=15, approval_valid_seconds=600)
    asked, plan_hash = waiting(site)
    site.now += timedelta(seconds=601)
    late = site.get("approve", author="bob", request_id=asked, plan_hash=plan_hash)
    assert late.state == "refused"
    first = site.answer(asked)
    assert (first.state, first.refusal_code) == ("refused", "approval_expired")
    assert status(engine, CLUSTER, site.now).approvals == []


def test_an_approval_meets_the_limits_as_they_are_then(engine: Engine) -> None:
    site = gang(engine, approval_gpus=15, max_unavailable_nodes_ratio=0.25)
    asked, plan_hash = waiting(site)
    other = site.get("drain", nodes=["d"]).operation_id
    refused = site.get("approve", author="bob", request_id=asked, plan_hash=plan_hash)
    assert refused.refusal_code == "limit"
    assert held(site) == {"d"}
    assert site.answer(asked).state == "awaiting_approval"
    _end(site)
    assert other is not None
    done = site.get("approve", author="bob", request_id=asked, plan_hash=plan_hash)
    assert done.state == "accepted"


def test_a_rack_a_block_and_an_incident_name_their_nodes(engine: Engine) -> None:
    site = Site(engine, view(*[node(f"n{i}") for i in range(9)]), dict(OPEN_WIDE))
    for number in range(6):
        site.known(f"n{number}", rack=f"r{number // 2}", block=f"b{number // 4}")
    site.incident("i1", ["n4", "n8", "gone"])

    def nodes_of(**named) -> list[str]:
        answer = site.get("preview", action="drain", **named)
        assert answer.state == "answered", answer.refusal
        return [each["name"] for each in answer.answer["nodes"]]

    assert nodes_of(racks=["r1"]) == ["n2", "n3"]
    assert nodes_of(blocks=["b0"]) == ["n0", "n1", "n2", "n3"]
    assert nodes_of(incident="i1") == ["n4", "n8"]
    assert nodes_of(nodes=["n7"], racks=["r0"]) == ["n0", "n1", "n7"]
    assert site.get("drain", racks=["r0"]).state == "accepted"
    assert held(site) == {"n0", "n1"}
    for named in ({"racks": ["r9"]}, {"blocks": ["b9"]}, {"incident": "i9"}):
        assert site.get("preview", action="drain", **named).refusal_code == "not_found"


def test_an_approved_rack_that_gained_a_node_is_void(engine: Engine) -> None:
    site = Site(engine, view(*[node(f"n{i}") for i in range(4)]), dict(OPEN_WIDE))
    for number in range(2):
        site.known(f"n{number}", rack="r0")
    plan = site.get("preview", action="drain", racks=["r0"]).answer
    site.known("n2", rack="r0")
    refused = site.get("drain", racks=["r0"], plan_hash=plan["hash"])
    assert refused.refusal_code == "plan_changed"
    assert "node n2 is new" in refused.refusal


def _end(site: Site) -> None:
    with write(site.engine) as connection:
        connection.execute(
            update(OperationTable.__table__).values(state="Succeeded", ended_at=site.now)
        )
        connection.execute(update(OperationNode.__table__).values(open=False))


def test_undo_cancels_what_runs_and_gives_back_only_what_the_drain_cordoned(engine: Engine) -> None:
    site = Site(engine, view(node("ours"), node("theirs", cordoned=True), node("x")), OPEN_WIDE)
    made = site.get("drain", nodes=["ours", "theirs"]).operation_id
    assert site.get("undo", operation_id=made).operation_id == made
    _end(site)
    hold = '{{"operation": "{}", "was_unschedulable": {}}}'
    site.seen = view(
        node("ours", cordoned=True, hold=hold.format(made, "false")),
        node("theirs", cordoned=True, hold=hold.format(made, "true")),
        node("x"),
    )
    undone = site.get("undo", operation_id=made)
    assert undone.state == "accepted"
    assert undone.operation_id != made
    assert held(site) == {"ours"}
    _end(site)
    site.seen = view(node("ours"), node("theirs", cordoned=True), node("x"))
    assert site.get("undo", operation_id=made).refusal_code == "conflict"
    assert site.get("undo", operation_id="none").refusal_code == "not_found"


def test_undo_leaves_a_node_that_another_operation_holds_by_now(engine: Engine) -> None:
    site = Site(engine, view(node("a"), node("x")), OPEN_WIDE)
    made = site.get("drain", nodes=["a"]).operation_id
    _end(site)
    later = '{"operation": "later", "was_unschedulable": false}'
    site.seen = view(node("a", cordoned=True, hold=later), node("x"))
    assert site.get("undo", operation_id=made).refusal_code == "conflict"
