"""Requests: one row a key however often and from how many sides it is sent, with its author and an audit row."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from app.errors import RequestRefused
from app.store import requests
from app.store.engine import read
from app.store.records import RequestRecord
from tests.reports import NOW, at


def submit(engine: Engine, **fields: object) -> RequestRecord:
    values: dict = {
        "kind": "drain",
        "parameters": {"nodes": ["n1"], "mode": "now"},
        "author": "ann",
        "reason": "XID 79",
        "idempotency_key": "k1",
        "now": NOW,
    }
    return requests.submit(engine, "c", **(values | fields))


def count(engine: Engine, table: str) -> int:
    with read(engine) as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def test_request_waits_for_the_worker(engine: Engine) -> None:
    written = submit(engine)
    assert (written.kind, written.author, written.state) == ("drain", "ann", "pending")
    assert written.parameters == {"nodes": ["n1"], "mode": "now"}
    assert requests.request(engine, "c", written.id) == written
    assert requests.pending(engine, "c") == [written]
    assert requests.request(engine, "d", written.id) is None


def test_same_key_is_the_same_row(engine: Engine) -> None:
    assert submit(engine) == submit(engine, now=at(60))
    assert (count(engine, "request"), count(engine, "audit_entry")) == (1, 1)


def test_fifty_at_once_with_one_key_are_one_request(engine: Engine) -> None:
    with ThreadPoolExecutor(10) as pool:
        ids = {written.id for written in pool.map(lambda _: submit(engine), range(50))}
    assert len(ids) == 1
    assert (count(engine, "request"), count(engine, "audit_entry")) == (1, 1)


def test_without_a_key_each_is_a_request_of_its_own(engine: Engine) -> None:
    assert submit(engine, idempotency_key="").id != submit(engine, idempotency_key="").id


@pytest.mark.parametrize("other", [{"author": "bob"}, {"kind": "uncordon"}, {"parameters": {}}])
def test_key_of_another_request_is_a_conflict(engine: Engine, other: dict) -> None:
    submit(engine)
    with pytest.raises(RequestRefused, match="another request") as caught:
        submit(engine, **other)
    assert caught.value.code == "conflict"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"kind": "explode"}, "invalid"),
        ({"author": ""}, "forbidden"),
        ({"reason": "x" * 2001}, "invalid"),
        ({"reason": "a\x00b"}, "invalid"),
        ({"idempotency_key": "k" * 201}, "invalid"),
    ],
)
def test_request_that_is_none_is_refused_and_leaves_nothing(
    engine: Engine, wrong: dict, code: str
) -> None:
    with pytest.raises(RequestRefused) as caught:
        submit(engine, **wrong)
    assert caught.value.code == code
    assert (count(engine, "request"), count(engine, "audit_entry")) == (0, 0)


def test_preview_is_audited_as_a_dry_run(engine: Engine) -> None:
    submit(engine, kind="preview", parameters={"action": "drain", "nodes": ["n1", "n2"]})
    with read(engine) as connection:
        row = connection.execute(text("SELECT target, dry_run, actor FROM audit_entry")).one()
    assert (row[0], bool(row[1]), row[2]) == ("preview of drain n1, n2", True, "page")
