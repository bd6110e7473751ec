"""The lease, claims and requests in the store, on SQLite and PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import count

import msgspec
import pytest
from cluster_builders import NOW, at, job, node, pod, view
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from app.operations import ledger
from app.operations.admission import held_nodes, open_operation
from app.operations.lease import LeaseKeeper, LeaseLost, check, release, take
from app.operations.model import Choice, Memory, Operation, Progress, Step
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.operations import operation
from app.store.records import RequestRecord
from app.store.requests import request, submit
from app.store.tables import AuditEntry, OperationNode, OperationStep
from app.store.tables import Operation as OperationTable

CLUSTER = "test"
STEP = Step("evict", "Pod/team-a/x", "uid-x", "Evicting.")


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def asked(kind: str = "drain") -> RequestRecord:
    return RequestRecord("r1", kind, {}, "ada", "because", "pending", NOW, None, {}, "", "", None)


def opened(engine: Engine, *nodes: str) -> Operation:
    with write(engine) as connection:
        made = open_operation(
            connection, CLUSTER, kind="drain", subject="x", nodes=nodes, request=asked(), now=NOW
        )
    with read(engine) as connection:
        found = ledger.read_operation(connection, CLUSTER, made)
    assert found is not None
    return found


def again(engine: Engine, work: Operation) -> Operation:
    with read(engine) as connection:
        found = ledger.read_operation(connection, CLUSTER, work.id)
    assert found is not None
    return found


def claim(
    engine: Engine, work: Operation, held, *, now: datetime = NOW, memory: Memory | None = None
) -> bool:
    with write(engine) as connection:
        return ledger.claim(
            connection,
            work,
            [STEP],
            memory=memory or work.memory,
            message="m",
            progress=Progress(),
            held=held,
            now=now,
        )


def leased(engine: Engine, holder: str = "w1", *, now: datetime = NOW):
    with write(engine) as connection:
        return take(connection, CLUSTER, holder=holder, now=now)


def test_one_worker_holds_the_lease_and_the_next_gets_a_higher_epoch(engine: Engine) -> None:
    first = leased(engine)
    assert first is not None
    assert leased(engine, "w2", now=at(19)) is None
    renewed = leased(engine, now=at(19))
    assert renewed is not None
    assert renewed.epoch == first.epoch
    assert leased(engine, "w2", now=at(38)) is None
    second = leased(engine, "w2", now=at(39))
    assert second is not None
    assert second.epoch == first.epoch + 1
    assert leased(engine, "w1", now=at(40)) is None


def test_a_lease_that_ended_comes_back_with_a_new_epoch_even_to_its_holder(engine: Engine) -> None:
    first = leased(engine)
    late = leased(engine, now=at(21))
    assert first is not None
    assert late is not None
    assert late.epoch == first.epoch + 1


def test_a_released_lease_is_free_at_once(engine: Engine) -> None:
    first = leased(engine)
    assert first is not None
    with write(engine) as connection:
        release(connection, CLUSTER, held=first, now=at(1))
    assert leased(engine, "w2", now=at(1)) is not None


def test_of_many_workers_that_start_together_one_gets_the_lease(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda number: leased(engine, f"w{number}"), range(8)))
    assert sum(each is not None for each in held) == 1


def test_past_its_renewal_deadline_a_worker_may_not_call(engine: Engine) -> None:
    clock = Clock()
    keeper = LeaseKeeper(engine, CLUSTER, holder="w1", clock=clock)
    with pytest.raises(LeaseLost):
        keeper.require()
    held = keeper.renew()
    assert held is not None
    clock.now = at(9.9)
    assert keeper.require() == held
    clock.now = at(10)
    assert keeper.held() is None
    with write(engine) as connection, pytest.raises(LeaseLost):
        check(connection, CLUSTER, held=held, now=clock.now)


def test_a_claim_is_fenced_by_the_epoch_and_the_deadline(engine: Engine) -> None:
    work, old = opened(engine, "a"), leased(engine)
    new = leased(engine, "w2", now=at(25))
    with pytest.raises(LeaseLost):
        claim(engine, work, old, now=at(26))
    with pytest.raises(LeaseLost):
        claim(engine, work, new, now=at(36))
    assert again(engine, work).steps == {}
    assert claim(engine, work, new, now=at(26))
    assert again(engine, work).steps[("evict", "uid-x")].state == "claimed"


def test_a_step_that_is_claimed_again_stays_one_row_and_counts_its_attempts(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    assert claim(engine, work, held)
    work = again(engine, work)
    assert claim(engine, work, held)
    assert again(engine, work).steps[("evict", "uid-x")].attempts == 2
    with read(engine) as connection:
        rows = connection.execute(select(OperationStep.__table__)).all()
    assert len(rows) == 1
    assert rows[0].epoch == held.epoch


def test_a_step_can_not_have_two_rows(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    assert claim(engine, work, held)
    with pytest.raises(IntegrityError):
        claim(engine, work, held)  # by a look that had not seen the first claim


def test_nothing_is_claimed_of_an_operation_that_was_cancelled_meanwhile(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    table = OperationTable.__table__
    with write(engine) as connection:
        connection.execute(table.update().values(cancel_requested_by="bob"))
    assert claim(engine, work, held) is False
    assert again(engine, work).steps == {}


def test_a_choice_made_while_a_step_is_under_way_is_not_lost(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    assert claim(engine, work, held)
    choice = Choice("retry", "", "bob", at(1))
    table = OperationTable.__table__
    with write(engine) as connection:
        connection.execute(
            table.update().values(memory=msgspec.to_builtins(Memory(choices=(choice,))))
        )
        ledger.store_memory(connection, work, Memory(cordon_seen=("a",)), now=NOW)
    memory = again(engine, work).memory
    assert memory.choices == (choice,)
    assert memory.cordon_seen == ("a",)


def test_a_node_is_held_by_one_open_operation_only(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    with pytest.raises(IntegrityError):
        opened(engine, "a")
    with write(engine) as connection:
        ledger.store_look(
            connection,
            work,
            state="Succeeded",
            message="",
            choices=(),
            memory=Memory(),
            progress=Progress(),
            held=held,
            now=NOW,
            ended=True,
        )
        assert held_nodes(connection, CLUSTER) == {}
    assert opened(engine, "a").nodes == ("a",)


def test_an_answer_leaves_an_audit_row_with_the_person_who_asked(engine: Engine) -> None:
    work, held = opened(engine, "a"), leased(engine)
    assert claim(engine, work, held)
    with write(engine) as connection:
        ledger.store_answer(
            connection, work, STEP, state="done", message="gone", now=NOW, outcome="done"
        )
    with read(engine) as connection:
        row = connection.execute(select(AuditEntry.__table__)).one()
    assert (row.author, row.actor, row.action, row.target_uid) == (
        "ada",
        "worker",
        "evict",
        "uid-x",
    )
    assert row.operation_id == work.id
    shown = operation(engine, CLUSTER, work.id)
    assert shown is not None
    assert [(step.name, step.state) for step in shown.steps] == [("evict", "done")]


def desk(engine: Engine, seen, clock: Clock, **settings) -> RequestDesk:
    keeper = LeaseKeeper(engine, CLUSTER, holder="w1", clock=clock)
    keeper.renew()
    made = Settings(_env_file=None, cluster=CLUSTER, **settings)
    return RequestDesk(
        engine,
        settings=made,
        view=lambda: replace(seen, observed_at=clock.now),
        lease=keeper,
        clock=clock,
    )


_order = count()


def ask(engine: Engine, kind: str, **parameters) -> str:
    """A request, each a little younger than the one before."""
    return submit(
        engine,
        CLUSTER,
        kind=kind,
        parameters=parameters,
        author="ada",
        reason="r",
        idempotency_key="",
        now=at(next(_order) / 1000),
    ).id


def test_concurrent_requests_can_not_pass_the_stock_limit(engine: Engine) -> None:
    clock, seen = Clock(), view(*[node(f"n{i}") for i in range(20)])
    wishes = [ask(engine, "drain", nodes=[f"n{i}"]) for i in range(5)]
    desk(engine, seen, clock, max_drains_per_hour_ratio=1).tick()
    states = [request(engine, CLUSTER, each) for each in wishes]
    assert [each.state for each in states] == ["accepted"] * 2 + ["refused"] * 3
    assert {each.refusal_code for each in states[2:]} == {"limit"}


def test_the_rate_limit_survives_a_restart_and_ends_with_its_hour(engine: Engine) -> None:
    clock, seen = Clock(), view(*[node(f"n{i}") for i in range(100)])
    first = [ask(engine, "drain", nodes=[f"n{i}"]) for i in range(2)]
    desk(engine, seen, clock).tick()
    assert {request(engine, CLUSTER, each).state for each in first} == {"accepted"}
    third = ask(engine, "drain", nodes=["n5"])
    desk(engine, seen, clock).tick()
    assert request(engine, CLUSTER, third).refusal_code == "limit"
    clock.now = at(3601)
    fourth = ask(engine, "drain", nodes=["n5"])
    desk(engine, seen, clock).tick()
    assert request(engine, CLUSTER, fourth).state == "accepted"


def test_two_drains_can_not_count_on_the_same_spare_gpus(engine: Engine) -> None:
    seen = view(
        *[node(name) for name in ("a", "b", "spare")],
        job("one", ranks=1),
        job("two", ranks=1),
        pod("one-0", "a", rank=0, owner="one"),
        pod("two-0", "b", rank=0, owner="two"),
    )
    clock = Clock()
    settings = {
        "max_unavailable_nodes_ratio": 1,
        "max_drains_per_hour_ratio": 1,
        "min_usable_nodes_ratio": 0,
    }
    first, second = ask(engine, "drain", nodes=["a"]), ask(engine, "drain", nodes=["b"])
    desk(engine, seen, clock, **settings).tick()
    assert request(engine, CLUSTER, first).state == "accepted"
    refused = request(engine, CLUSTER, second)
    assert refused.refusal_code == "capacity"
    assert "type its name, two" in refused.refusal
    typed = ask(engine, "drain", nodes=["b"], confirmation="two")
    desk(engine, seen, clock, **settings).tick()
    assert request(engine, CLUSTER, typed).state == "accepted"


def test_the_last_place_taken_after_a_preview_is_refused_as_a_limit(engine: Engine) -> None:
    seen, clock = view(*[node(name) for name in ("a", "b", "c", "d")]), Clock()
    settings = {"max_drains_per_hour_ratio": 1}
    previews = [ask(engine, "preview", action="drain", nodes=[name]) for name in ("a", "b")]
    desk(engine, seen, clock, **settings).tick()
    hashes = [request(engine, CLUSTER, preview).answer["hash"] for preview in previews]
    first = ask(engine, "drain", nodes=["a"], plan_hash=hashes[0])
    second = ask(engine, "drain", nodes=["b"], plan_hash=hashes[1])
    desk(engine, seen, clock, **settings).tick()
    assert request(engine, CLUSTER, first).state == "accepted"
    refused = request(engine, CLUSTER, second)
    assert (refused.state, refused.refusal_code) == ("refused", "limit")
    assert "PITWALL_MAX_UNAVAILABLE_NODES_RATIO" in refused.refusal


def test_a_view_that_has_been_silent_is_no_ground_to_accept_on(engine: Engine) -> None:
    clock, seen = Clock(), view(node("a"))
    keeper = LeaseKeeper(engine, CLUSTER, holder="w1", clock=clock)
    clock.now = at(61)
    keeper.renew()
    made = Settings(_env_file=None, cluster=CLUSTER)
    wish = ask(engine, "drain", nodes=["a"])
    RequestDesk(engine, settings=made, view=lambda: seen, lease=keeper, clock=clock).tick()
    assert request(engine, CLUSTER, wish).refusal_code == "unavailable"


def test_a_request_waits_for_kubernetes_and_is_then_refused(engine: Engine) -> None:
    clock = Clock()
    wish = ask(engine, "drain", nodes=["a"])
    assert desk(engine, view(synced=False), clock).tick() == 0
    clock.now = at(31)
    assert desk(engine, view(synced=False), clock).tick() == 1
    assert request(engine, CLUSTER, wish).refusal_code == "unavailable"


@pytest.mark.parametrize(
    ("kind", "parameters", "code"),
    [
        ("cancel", {"operation_id": "none"}, "not_found"),
        ("choose", {"operation_id": "none", "choice": "resume"}, "not_found"),
        ("uncordon", {"nodes": ["mine"]}, "protected"),
        ("reschedule", {"job": "nothing"}, "not_found"),
        ("preview", {"action": "reboot", "nodes": ["a"]}, "invalid"),
    ],
)
def test_requests_that_can_not_be_done_are_refused_with_a_code(
    engine: Engine, kind: str, parameters: dict, code: str
) -> None:
    wish = ask(engine, kind, **parameters)
    desk(engine, view(node("a"), node("mine", cordoned=True)), Clock()).tick()
    assert request(engine, CLUSTER, wish).refusal_code == code


def test_a_foreign_cordon_is_undone_only_for_who_types_the_nodes_name(engine: Engine) -> None:
    untyped = ask(engine, "uncordon", nodes=["mine"])
    desk(engine, view(node("mine", cordoned=True)), Clock()).tick()
    assert "(--confirm)" in request(engine, CLUSTER, untyped).refusal
    wish = ask(engine, "uncordon", nodes=["mine"], confirmation="mine")
    desk(engine, view(node("mine", cordoned=True)), Clock()).tick()
    assert request(engine, CLUSTER, wish).state == "accepted"
    with read(engine) as connection:
        assert len(connection.execute(select(OperationNode.__table__)).all()) == 1
