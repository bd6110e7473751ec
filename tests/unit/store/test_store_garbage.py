"""What nodes tell wrongly reaches the store as what it is: late, ahead, hostile; it harms no other node."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from app.store.engine import read, write
from app.store.writes.aging import age_nodes
from app.store.writes.reports import store_reports
from collectors.errors import CollectorError
from collectors.report import decode_report
from tests.reports import NOW, at, finding, gpu, report, xid

HOSTILE = ("\x00", "\x1b[2J\x1b]0;x\x07", "'; DROP TABLE node; --", "<script>", "A" * 400, "\u202e")


def health_of(engine: Engine, name: str = "n1") -> tuple[str, str]:
    with read(engine) as connection:
        row = connection.execute(
            text("SELECT health, health_reason FROM node WHERE name = :name"), {"name": name}
        ).one()
    return row[0], row[1]


def store(engine: Engine, *reports: Any, now: float) -> Any:
    with write(engine) as connection:
        return store_reports(connection, "c", reports, at(now))


def test_a_node_whose_clock_is_an_hour_behind_is_unknown_with_its_reason(engine: Engine) -> None:
    late = report(observed_at=NOW - timedelta(hours=1), findings=[])
    store(engine, late, report("n2", 1), now=2)
    assert health_of(engine)[0] == "Unknown"
    assert "no report since" in health_of(engine)[1]
    assert health_of(engine, "n2")[0] == "Healthy"


def test_a_node_whose_clock_is_ahead_is_heard_when_it_is_and_missed_when_it_is_not(
    engine: Engine,
) -> None:
    store(engine, report(observed_at=at(200)), now=2)
    assert health_of(engine)[0] == "Healthy"
    with write(engine) as connection:
        assert age_nodes(connection, "c", at(40)) == []
        assert age_nodes(connection, "c", at(60)) == ["n1"]


def test_hostile_text_is_kept_as_text(sqlite_engine: Engine) -> None:
    found = [
        finding(f"e{place}", message=words, action=words, rule=f"rule-{place}")
        for place, words in enumerate(HOSTILE)
    ]
    store(
        sqlite_engine,
        report(findings=found, xids=[xid(text=words) for words in HOSTILE[:1]]),
        report("n2"),
        now=2,
    )
    with read(sqlite_engine) as connection:
        rows = connection.execute(text("SELECT message FROM finding ORDER BY rule")).scalars().all()
    assert list(rows) == list(HOSTILE)
    assert health_of(sqlite_engine, "n2")[0] == "Healthy"


def test_an_unknown_code_is_an_event_of_its_own(engine: Engine) -> None:
    store(engine, report(xids=[xid("x1", 999), xid("x2", 31)]), now=2)
    with read(engine) as connection:
        rows = connection.execute(
            text("SELECT code, severity FROM health_event WHERE kind = 'xid' ORDER BY code")
        ).all()
    assert [tuple(row) for row in rows] == [("xid-31", "warning"), ("xid-999", "warning")]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**64), 2**64),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(HOSTILE),
    st.text(max_size=30),
)


@given(st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_is_read_as_a_report_can_be_stored(
    sqlite_engine: Engine, data: st.DataObject
) -> None:
    document = msgspec.to_builtins(
        report(gpus=[gpu()], findings=[finding()], xids=[xid()], observed_at=at(1))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        parent, key = data.draw(st.sampled_from(list(walk(document))))
        parent[key] = data.draw(LEAVES)
    try:
        read_back = decode_report(msgspec.json.encode(document), compressed=False)
    except (CollectorError, UnicodeEncodeError, OverflowError):
        return
    with sqlite_engine.connect() as connection, connection.begin() as transaction:
        store_reports(connection, "c", [read_back], at(2))
        transaction.rollback()


def walk(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, dict):
        return [
            *((value, key) for key in value),
            *(place for inner in value.values() for place in walk(inner)),
        ]
    return [place for inner in value for place in walk(inner)] if isinstance(value, list) else []
