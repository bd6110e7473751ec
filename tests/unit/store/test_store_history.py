"""Minute history: what is folded, appended, packed by hour, read back and dropped by day."""

from datetime import timedelta

import numpy
import pytest
from sqlalchemy import Engine, text

from app.store.chunks import Chunk, merge_chunks, pack_chunk, unpack_chunk
from app.store.engine import read, write
from app.store.history import HistoryBuffer, pack_hours
from app.store.reads.history import node_hours, node_minutes
from app.store.retention import drop_old
from app.store.writes.incidents import refresh_incidents
from app.store.writes.reports import store_reports
from tests.reports import NOW, at, finding, gpu, report

DAY = timedelta(days=1)


def count(engine: Engine, table: str) -> int:
    with read(engine) as connection:
        return int(connection.execute(text(f"SELECT COUNT(*) FROM {table}")).scalar_one())


def mean(chunk: Chunk | None, metric: str, *, gpu_uuid: str = "GPU-n1-0") -> list[float]:
    assert chunk is not None
    column, place = chunk.gpus.index(gpu_uuid), chunk.metrics.index(metric)
    return [round(float(value), 3) for value in chunk.mean[:, column, place]]


def powers(*values: float | None, start: float = 0, step: float = 15) -> list:
    return [
        report(
            sequence=number + 1,
            observed_at=at(start + number * step),
            gpus=[gpu(power_watts=value)],
        )
        for number, value in enumerate(values)
    ]


def test_minute_has_mean_minimum_and_maximum(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(100, 200, 600, None, 50))
    buffer.flush(engine, at(200))
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(120))
    assert mean(chunk, "power_watts") == [300.0, 50.0]
    assert chunk is not None
    place = chunk.metrics.index("power_watts")
    assert (chunk.low[0, 0, place], chunk.high[0, 0, place]) == (100.0, 600.0)
    assert list(chunk.counts[:, 0]) == [4, 1]


def test_value_that_was_never_known_stays_unknown(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(None, None))
    buffer.flush(engine, at(200))
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(60))
    assert numpy.isnan(mean(chunk, "power_watts")[0])


def test_running_minute_is_held_until_it_is_over(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(100, 200))
    assert not buffer.is_due(at(65))
    assert buffer.flush(engine, at(65)) == 0
    assert buffer.is_due(at(71))
    assert buffer.flush(engine, at(71)) == 1
    assert buffer.flush(engine, at(300)) == 0


def test_end_of_the_process_appends_the_running_minute(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(100))
    assert buffer.flush(engine, at(1), final=True) == 1


def test_store_that_fails_loses_nothing_held(sqlite_engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(100))
    with write(sqlite_engine) as connection:
        connection.execute(text("ALTER TABLE gpu_minute RENAME TO away"))
    with pytest.raises(Exception, match="migrate"):
        buffer.flush(sqlite_engine, at(100))
    with write(sqlite_engine) as connection:
        connection.execute(text("ALTER TABLE away RENAME TO gpu_minute"))
    assert buffer.flush(sqlite_engine, at(100)) == 1


def test_parts_of_a_minute_from_two_processes_are_weighed(engine: Engine) -> None:
    first, second = HistoryBuffer("c"), HistoryBuffer("c")
    first.fold(powers(100, 100, 100))
    second.fold(powers(500, start=50))
    first.flush(engine, at(100))
    second.flush(engine, at(100))
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(60))
    assert mean(chunk, "power_watts") == [200.0]


def test_part_that_came_late_joins_its_minute_even_after_the_hour_was_packed(
    engine: Engine,
) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(100))
    buffer.flush(engine, at(100))
    assert pack_hours(engine, "c", NOW + timedelta(hours=2)) == 1
    buffer.fold(powers(300, start=30))
    buffer.flush(engine, NOW + timedelta(hours=2))
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(60))
    assert mean(chunk, "power_watts") == [200.0]
    assert pack_hours(engine, "c", NOW + timedelta(hours=2)) == 1
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(60))
    assert mean(chunk, "power_watts") == [200.0]
    assert count(engine, "gpu_history") == 1


def test_packing_an_hour_changes_no_value_and_rolls_it_up(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(*range(100, 340)))
    buffer.flush(engine, NOW + timedelta(hours=1, seconds=10))
    until = NOW + timedelta(hours=1)
    before = node_minutes(engine, "c", "n1", since=NOW, until=until)
    assert pack_hours(engine, "c", NOW + timedelta(minutes=64)) == 0
    assert pack_hours(engine, "c", NOW + timedelta(minutes=66)) == 1
    assert (count(engine, "gpu_minute"), count(engine, "gpu_history")) == (0, 1)
    after = node_minutes(engine, "c", "n1", since=NOW, until=until)
    assert mean(after, "power_watts") == mean(before, "power_watts")
    assert len(mean(after, "power_watts")) == 60
    hours = node_hours(engine, "c", "n1", since=NOW, until=until)
    assert mean(hours, "power_watts") == [219.5]


def test_only_what_was_asked_for_is_read(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(powers(*range(0, 240, 4), step=60))
    buffer.flush(engine, NOW + timedelta(hours=2))
    chunk = node_minutes(engine, "c", "n1", since=at(600), until=at(720))
    assert mean(chunk, "power_watts") == [40.0, 44.0]
    assert node_minutes(engine, "c", "n2", since=NOW, until=at(720)) is None


def test_gpu_that_was_replaced_has_a_history_of_its_own(engine: Engine) -> None:
    buffer = HistoryBuffer("c")
    buffer.fold(
        [report(gpus=[gpu(power_watts=100.0)]),
         report(sequence=2, gpus=[gpu(uuid="GPU-new", power_watts=300.0)])]
    )  # fmt: skip
    buffer.flush(engine, at(100))
    chunk = node_minutes(engine, "c", "n1", since=NOW, until=at(60))
    assert mean(chunk, "power_watts") == [100.0]
    assert mean(chunk, "power_watts", gpu_uuid="GPU-new") == [300.0]


def test_chunk_survives_packing() -> None:
    values = numpy.array([[[1.5, numpy.nan]]], dtype=numpy.float32)
    chunk = Chunk(
        (7,), ("g",), ("a", "b"), numpy.array([[3]], numpy.uint16), values, values, values
    )
    again = unpack_chunk(pack_chunk(chunk))
    assert (again.minutes, again.gpus, again.metrics) == ((7,), ("g",), ("a", "b"))
    numpy.testing.assert_array_equal(again.mean, values)
    numpy.testing.assert_array_equal(merge_chunks([chunk]).mean, values)


def test_chunk_of_a_version_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        unpack_chunk(b"\x09rest")


def test_retention_drops_by_day_and_keeps_what_is_open(engine: Engine) -> None:
    for day in range(4):
        now = NOW + day * DAY
        closing = report(
            sequence=2 * day + 1, observed_at=now, findings=[finding(f"old{day}", since=now)]
        )
        after = report(sequence=2 * day + 2, observed_at=now + timedelta(seconds=5), findings=[])
        with write(engine) as connection:
            store_reports(connection, "c", [closing], now)
            refresh_incidents(connection, "c", now)
            store_reports(connection, "c", [after], now + timedelta(seconds=6))
            refresh_incidents(connection, "c", now + timedelta(seconds=6))
        buffer = HistoryBuffer("c")
        buffer.fold([closing])
        buffer.flush(engine, now, final=True)
    still_open = report(
        "n2", observed_at=NOW, findings=[finding("open", gpu_uuid="GPU-n2-0")], gpus=[gpu("n2")]
    )
    with write(engine) as connection:
        store_reports(connection, "c", [still_open], NOW)
        refresh_incidents(connection, "c", NOW + 3 * DAY)
    now = NOW + 4 * DAY
    drop_old(engine, "c", event_days=2, history_days=1, now=now)
    with read(engine) as connection:
        oldest = connection.execute(text("SELECT MIN(at) FROM health_event")).scalar_one()
        findings = set(connection.execute(text("SELECT episode FROM finding")).scalars())
        subjects = connection.execute(
            text("SELECT subject FROM incident ORDER BY subject")
        ).scalars()
        assert str(oldest).startswith("2026-11-26")
        assert findings == {"old2", "old3", "open"}
        assert list(subjects) == ["n1", "n1", "n2"]
    assert count(engine, "gpu_history") == 1
    assert count(engine, "gpu_hour") == 4
    assert count(engine, "event_day") == 5
    assert drop_old(engine, "c", event_days=2, history_days=1, now=now) == {}


def test_retention_of_one_cluster_leaves_another_alone(engine: Engine) -> None:
    with write(engine) as connection:
        for cluster in ("c", "d"):
            store_reports(connection, cluster, [report(findings=[finding()])], at(2))
    drop_old(engine, "c", event_days=1, history_days=1, now=NOW + 30 * DAY)
    with read(engine) as connection:
        left = connection.execute(text("SELECT DISTINCT cluster FROM health_event")).scalars()
        assert list(left) == ["d"]
