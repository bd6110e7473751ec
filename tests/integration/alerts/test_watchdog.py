"""The dead man's switch: told each minute while alerts work, and silent as soon as something of that does not."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from office import CLUSTER, Office
from receiving import HttpReceiver, http_receiver
from sqlalchemy import select

from app.errors import PitwallError
from app.notifications.watchdog import Watchdog
from app.store.engine import read
from app.store.reads.rows import table_of
from app.store.tables import SourceStatus


@pytest.fixture
def outside() -> Iterator[HttpReceiver]:
    with http_receiver() as found:
        yield found


class Kennel:
    def __init__(self, office: Office, outside: HttpReceiver, folder: Path) -> None:
        (folder / "dog").write_text(f"http://{outside.url}/secret-token\n")
        self.office, self.outside = office, outside
        self.looked_at: datetime | None = office.clock()
        self.dog = Watchdog(
            office.engine, folder / "dog", cluster=CLUSTER, lease=office.lease, looked_at=lambda: self.looked_at, clock=office.clock
        )  # fmt: skip

    def source(self) -> SourceStatus:
        table = table_of(SourceStatus)
        with read(self.office.engine) as connection:
            return connection.execute(select(table).where(table.c.source == "watchdog")).one()  # type: ignore[return-value]


@pytest.fixture
def kennel(office: Office, outside: HttpReceiver, tmp_path: Path) -> Kennel:
    return Kennel(office, outside, tmp_path)


def test_it_is_told_each_minute_and_no_more(kennel: Kennel) -> None:
    assert kennel.dog.tick()
    assert not kennel.dog.tick()
    for _ in range(3):
        kennel.office.pass_time(seconds=61)
        kennel.looked_at = kennel.office.clock()
        assert kennel.dog.tick()
    assert len(kennel.outside.heard) == 4
    assert kennel.source().state == "ok"


def test_it_is_not_told_when_alerts_have_not_been_looked_at(kennel: Kennel) -> None:
    kennel.office.pass_time(seconds=61)
    assert not kennel.dog.tick()
    assert kennel.outside.heard == []
    assert kennel.source().state == "blind"


def test_it_is_not_told_by_a_worker_that_is_not_active(kennel: Kennel) -> None:
    kennel.office.lease.give_back()
    assert not kennel.dog.tick()
    assert kennel.outside.heard == []


def test_it_is_not_told_when_the_store_takes_nothing(kennel: Kennel, tmp_path: Path) -> None:
    with read(kennel.office.engine) as connection:
        connection.exec_driver_sql("DROP TABLE source_status")
    with pytest.raises(PitwallError):
        kennel.dog.tick()
    assert kennel.outside.heard == []


def test_a_receiver_that_does_not_take_it_is_shown_and_its_address_is_not(kennel: Kennel) -> None:
    kennel.outside.always = (500, {})
    assert not kennel.dog.tick()
    row = kennel.source()
    assert row.state == "late"
    assert "500" in row.message
    assert "secret-token" not in row.message
