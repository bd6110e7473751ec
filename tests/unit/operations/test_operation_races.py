"""Requests and steps that meet each other in the store, on SQLite and PostgreSQL."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cluster_builders import NOW, at, job, node, pod, view
from desk_site import CLUSTER, Site
from sqlalchemy import Engine, select

from app.errors import RequestRefused
from app.operations.admission import accept
from app.operations.lease import LeaseKeeper
from app.operations.model import Options, Wish
from app.operations.reconciler import Reconciler
from app.operations.wishes import Parameters
from app.settings import Settings
from app.store.engine import read, write
from app.store.records import RequestRecord
from app.store.tables import Operation as OperationTable
from app.store.tables import OperationStep, Reservation
from k8s.client import Connection

OPEN_WIDE = {
    "max_unavailable_nodes_ratio": 1.0,
    "max_drains_per_hour_ratio": 1.0,
    "max_drains_per_hour": 1000,
    "min_usable_nodes_ratio": 0.0,
    "max_unavailable_block_nodes_ratio": 1.0,
}


def race(engine: Engine, seen, wishes: list[Wish], **settings) -> list[str]:
    """Accepts wishes from as many threads at once, each in a transaction of its own; what came of each."""
    made = Settings(_env_file=None, cluster=CLUSTER, **{**OPEN_WIDE, **settings})

    def one(wish: Wish) -> str:
        asked = RequestRecord("r", "drain", {}, "ada", "", "pending", NOW, None, {}, "", "", None)
        try:
            with write(engine) as connection:
                return accept(
                    connection,
                    CLUSTER,
                    wish,
                    request=asked,
                    parameters=Parameters(),
                    view=seen,
                    settings=made,
                    now=NOW,
                )
        except RequestRefused as refused:
            return refused.code

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, wishes))


def drains(*names: str) -> list[Wish]:
    return [Wish("drain", (name,), Options()) for name in names]


def accepted(came: list[str]) -> int:
    return sum(len(each) == 12 for each in came)


def test_concurrent_drains_spend_spare_gpus_once(engine: Engine) -> None:
    names = [f"n{number}" for number in range(8)]
    spares = ["s0", "s1", "s2"]
    seen = view(
        *[node(name) for name in names + spares],
        *[job(f"j{name}", ranks=1) for name in names],
        *[pod(f"j{name}-0", name, rank=0, owner=f"j{name}") for name in names],
    )
    came = race(engine, seen, drains(*names))
    assert accepted(came) == 3
    assert Counter(came)["capacity"] == 5
    with read(engine) as connection:
        rows = connection.execute(select(Reservation.__table__)).all()
    assert sorted(row.node for row in rows) == spares
    assert {row.gpus for row in rows} == {8}


def test_50_concurrent_drains_of_one_node_open_one_operation(engine: Engine) -> None:
    came = race(engine, view(*[node(name) for name in "abc"]), drains(*["a"] * 50))
    assert accepted(came) == 1
    assert Counter(came)["conflict"] == 49


def test_concurrent_drains_can_not_pass_stock_or_rate_together(engine: Engine) -> None:
    names = [f"n{number}" for number in range(40)]
    seen = view(*[node(name) for name in names])
    came = race(engine, seen, drains(*names[:20]), max_unavailable_nodes_ratio=0.1)
    assert accepted(came) == 4
    more = race(engine, seen, drains(*names[20:]), max_drains_per_hour=7)
    assert accepted(more) == 3


class Refusing(Connection):
    """A connection on which no call may be made."""

    def __init__(self) -> None:
        pass

    def request(self, method: str, path: str, **options: object) -> object:
        raise AssertionError(f"{method} {path} was called")


@pytest.mark.parametrize("cancelled", [False, True])
def test_no_step_is_claimed_once_a_pause_is_in(engine: Engine, cancelled: bool) -> None:
    site = Site(engine, view(node("a"), node("b")), dict(OPEN_WIDE))
    made = site.get("drain", nodes=["a"]).operation_id
    site.get("pause", text="storm")
    if cancelled:
        site.get("cancel", operation_id=made)
    keeper = LeaseKeeper(engine, CLUSTER, holder="w1", clock=lambda: site.now)
    keeper.renew()
    reconciler = Reconciler(
        engine,
        CLUSTER,
        connection=Refusing(),
        view=lambda: replace(site.seen, observed_at=site.now),
        lease=keeper,
        clock=lambda: site.now,
        calls_at_once=1,
    )
    assert reconciler.tick() == 1
    with read(engine) as connection:
        row = connection.execute(select(OperationTable.__table__)).one()
        assert connection.execute(select(OperationStep.__table__)).all() == []
    if cancelled:
        assert row.state == "Cancelled"
    else:
        assert (row.state, row.message.startswith("Paused by ada")) == ("Waiting", True)


def test_a_pause_between_a_decision_and_its_claim_holds(engine: Engine) -> None:
    site = Site(engine, view(node("a"), node("b")), dict(OPEN_WIDE))
    site.get("drain", nodes=["a"])
    keeper = LeaseKeeper(engine, CLUSTER, holder="w1", clock=lambda: site.now)
    keeper.renew()
    looked = []

    def seen():
        # The tick has read that nothing is paused; the pause comes before it claims.
        if looked == [1]:
            site.get("pause", text="storm")
        looked.append(1)
        return replace(site.seen, observed_at=site.now)

    reconciler = Reconciler(
        engine,
        CLUSTER,
        connection=Refusing(),
        view=seen,
        lease=keeper,
        clock=lambda: site.now,
        calls_at_once=1,
    )
    reconciler.tick()
    assert len(looked) == 2
    with read(engine) as connection:
        assert connection.execute(select(OperationStep.__table__)).all() == []
    assert site.now < at(1)
