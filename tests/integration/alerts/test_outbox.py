"""The outbox: at least once, in order, with backoff, over crashes and an hour without the receiver; dead letters."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from office import CLUSTER, Office
from receiving import HttpReceiver, http_receiver

from app.alerts.config import AlertConfig, Receiver
from app.errors import RequestRefused
from app.notifications.sending import Sent
from app.store.engine import write
from app.store.writes.alert_deliveries import Delivery, claim_due, drop, send_again
from app.worker_deliveries import LONGEST_SECONDS, Deliveries, next_try


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with http_receiver() as found:
        yield found


@pytest.fixture
def deliveries(office: Office, receiver: HttpReceiver, tmp_path: Path) -> Iterator[Deliveries]:
    made = new_deliveries(office, receiver, tmp_path)
    yield made
    made.close()


def new_deliveries(office: Office, receiver: HttpReceiver, folder: Path) -> Deliveries:
    address = folder / "hook-address"
    address.write_text(f"json://{receiver.url}/hook")
    config = AlertConfig(receiver=(Receiver(name="hook", url_file=address), Receiver(name="nowhere", url_file=folder / "none")))  # fmt: skip
    return Deliveries(
        office.engine, config, settings=office.settings, lease=office.lease, clock=office.clock
    )


def events(receiver: HttpReceiver) -> list[tuple[str, str]]:
    return [(heard.document["key"], heard.document["event"]) for heard in receiver.heard]


def test_what_is_due_is_sent_once_and_noted(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    sent = office.deliver("hook")
    assert deliveries.tick() == 1
    assert deliveries.tick() == 0
    assert len(receiver.heard) == 1
    assert office.rows()[sent].state == "sent"


def test_a_resolve_never_overtakes_its_trigger(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    office.deliver("hook", event="trigger", number=1)
    office.deliver("hook", event="resolve", number=2)
    office.deliver("hook", key="k2", event="trigger", number=1)
    receiver.always = (503, {})
    deliveries.tick()
    receiver.always = (200, {})
    for _ in range(4):
        office.pass_time(seconds=20)
        deliveries.tick()
    mine = [event for key, event in events(receiver) if key == "k1"]
    assert mine == ["trigger", "trigger", "resolve"]


def test_a_resolve_of_what_never_arrived_is_dropped_with_the_reason(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    trigger = office.deliver("hook", event="trigger", number=1)
    resolve = office.deliver("hook", event="resolve", number=2)
    receiver.always = (400, {})
    deliveries.tick()
    deliveries.tick()
    assert office.rows()[trigger].state == "dead"
    assert (office.rows()[resolve].state, len(receiver.heard)) == ("dropped", 1)
    assert "never arrived" in office.rows()[resolve].last_error


def test_a_worker_that_dies_between_sending_and_noting_sends_again_under_the_same_id(
    office: Office, receiver: HttpReceiver, tmp_path: Path
) -> None:
    office.deliver("hook")
    with write(office.engine) as connection:
        (claimed,) = claim_due(connection, CLUSTER, now=office.clock())
    first = new_deliveries(office, receiver, tmp_path)
    first._send(claimed, first._receivers()["hook"])  # taken outside, and the worker dies
    first.close()
    heir = new_deliveries(office, receiver, tmp_path)
    assert heir.tick() == 0, "its claim holds for a minute"
    office.pass_time(seconds=61)
    assert heir.tick() == 1
    heir.close()
    assert len({heard.headers["Idempotency-Key"] for heard in receiver.heard}) == 1
    assert [row.state for row in office.rows().values()] == ["sent"]


def test_two_workers_never_send_the_same_row_at_once(office: Office) -> None:
    for number in range(40):
        office.deliver("hook", key=f"k{number}")
    claimed: list[str] = []

    def claim() -> None:
        with write(office.engine) as connection:
            claimed.extend(
                one.id for one in claim_due(connection, CLUSTER, now=office.clock(), limit=10)
            )

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 40


def test_an_hour_without_the_receiver_loses_nothing_and_doubles_nothing(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    receiver.always = (503, {})
    for number in range(60):  # a minute apart, an hour in all
        office.deliver("hook", key=f"k{number}", number=1)
        if number % 3 == 0:
            office.deliver("hook", key=f"k{number}", event="resolve", number=2)
        deliveries.tick()
        office.pass_time(minutes=1)
    tries = len(receiver.heard)
    assert tries < 60 * 12, "doubling pauses"
    receiver.heard.clear()
    receiver.always = (200, {})
    for _ in range(60):
        deliveries.tick()
        office.pass_time(seconds=60)
    assert {row.state for row in office.rows().values()} == {"sent"}
    told = events(receiver)
    assert len(told) == len(set(told)) == 80
    for number in range(0, 60, 3):
        mine = [event for key, event in told if key == f"k{number}"]
        assert mine == ["trigger", "resolve"]


def test_a_receiver_that_is_down_holds_up_no_other(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    lost = office.deliver("nowhere", key="k9")
    sent = office.deliver("hook")
    deliveries.tick()
    assert office.rows()[sent].state == "sent"
    assert office.rows()[lost].state == "pending"
    assert "can't be read" in office.rows()[lost].last_error


def test_what_was_given_up_can_be_sent_again_or_dropped_by_a_person(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    first, second = office.deliver("hook", key="a"), office.deliver("hook", key="b")
    receiver.always = (404, {})
    deliveries.tick()
    receiver.always = (200, {})
    with write(office.engine) as connection:
        send_again(connection, CLUSTER, first, now=office.clock())
        drop(connection, CLUSTER, second)
        for refused, name in (
            (lambda: drop(connection, CLUSTER, first), "is pending"),
            (lambda: drop(connection, CLUSTER, "x"), "no delivery x"),
        ):
            _refuses(refused, name)
    deliveries.tick()
    assert (office.rows()[first].state, office.rows()[second].state) == ("sent", "dropped")


def test_what_is_sent_again_brings_back_the_resolve_that_was_dropped_with_it(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    trigger = office.deliver("hook", event="trigger", number=1)
    office.deliver("hook", event="resolve", number=2)
    receiver.always = (400, {})
    for _ in range(2):
        deliveries.tick()
    receiver.heard.clear()
    receiver.always = (200, {})
    with write(office.engine) as connection:
        send_again(connection, CLUSTER, trigger, now=office.clock())
    for _ in range(2):
        deliveries.tick()
    assert [event for _, event in events(receiver)] == ["trigger", "resolve"]


def test_of_a_receiver_that_fails_one_message_is_tried_at_a_time_until_it_takes_one(
    office: Office, deliveries: Deliveries, receiver: HttpReceiver
) -> None:
    receiver.always = (503, {})
    for number in range(20):
        office.deliver("hook", key=f"k{number}")
    assert deliveries.tick() == 20, "nobody knew yet"
    office.pass_time(minutes=20)
    assert [deliveries.tick() for _ in range(2)] == [1, 1]
    receiver.always = (200, {})
    assert [deliveries.tick() for _ in range(3)] == [1, 17, 0]
    office.pass_time(minutes=20)
    deliveries.tick()
    assert {row.state for row in office.rows().values()} == {"sent"}


def _refuses(call: Callable[[], None], said: str) -> None:
    with pytest.raises(RequestRefused, match=said):
        call()


def test_pauses_double_to_a_quarter_of_an_hour_and_end_after_a_day(office: Office) -> None:
    now = office.clock()

    def pause(attempts: int, **how: object) -> float:
        delivery = Delivery("d", "hook", "trigger", "k", {}, attempts, now)
        at = next_try(delivery, Sent("later", **how), now)  # type: ignore[arg-type]
        assert at is not None
        return (at - now).total_seconds()

    assert 4 <= pause(1) <= 6
    assert 8 <= pause(2) <= 12
    assert pause(20) <= LONGEST_SECONDS * 1.2
    assert pause(1, wait=timedelta(minutes=10)) == 600
    old = Delivery("d", "hook", "trigger", "k", {}, 50, now - timedelta(hours=25))
    assert next_try(old, Sent("later"), now) is None
    assert next_try(Delivery("d", "h", "t", "k", {}, 1, now), Sent("refused"), now) is None


def test_a_receiver_that_is_gone_from_the_file_is_a_dead_letter(
    office: Office, deliveries: Deliveries
) -> None:
    lost = office.deliver("once-there")
    deliveries.tick()
    assert office.rows()[lost].state == "dead"
    assert "no receiver once-there" in office.rows()[lost].last_error
