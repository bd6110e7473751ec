"""Storing one poll of 350,000 GPUs: the real path of state, frames, summaries and events against the bare database.

The bare database writes the very same rows into the very same table and does nothing else. The path reads what
is known, sorts the reports, judges nodes, writes streams, nodes and GPUs over what is there, opens and closes
findings, appends events and keeps the map's frames, in one transaction.
"""

import os
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy
import psycopg
import pytest
from sqlalchemy import Engine, event, make_url, text

from app.store.engine import migrate, open_store, read, write
from app.store.frames import update_frames
from app.store.history import HistoryBuffer
from app.store.reads import fleet, status
from app.store.vectors import values_of
from app.store.writes import gpus
from app.store.writes.bulk import Row, insert
from app.store.writes.reports import store_reports
from collectors.garbage import collector_paused
from collectors.readings import GpuReading
from collectors.report import Finding, NvmlState, Report, XidEvent
from tests.benchmarks.figures import Figures, medians, seconds_of
from tests.databases import Postgresql, PostgresqlMissing, postgresql_server
from tests.reports import NOW

NODES = int(os.environ.get("BENCH_NODES", "43750"))
ROUNDS = 3
FAULTY_RATIO = 0.01
"""Nodes with an open finding at any time; a tenth of them change in a poll."""

AT_MOST_BINARY = 3.0
"""State by COPY and update, to COPY (facts/store.md, Gates)."""

CLUSTER = "bench"
NAMES = ", ".join(f'"{column}"' for column in gpus.COLUMNS)
PLAIN_INSERT = f"INSERT INTO gpu ({NAMES}) VALUES ({', '.join('?' * len(gpus.COLUMNS))})"


class Fleet:
    """Makes the polls of a fleet whose GPUs all change their readings from one to the next."""

    def __init__(self) -> None:
        random.seed(1)
        self._uuids = [
            [f"GPU-{uuid.UUID(int=random.getrandbits(128))}" for _ in range(8)]
            for _ in range(NODES)
        ]
        self.sequence = 0

    def poll(self) -> list[Report]:
        """The next report of every node."""
        self.sequence += 1
        return [self._report(number) for number in range(NODES)]

    def _report(self, number: int) -> Report:
        observed_at = NOW + timedelta(seconds=15 * self.sequence, milliseconds=number % 5000)
        faulty = random.Random(number).random() < FAULTY_RATIO
        episode = f"e{number}-{(self.sequence + number) // 10}"
        findings = [
            Finding(
                episode=episode,
                rule="xid",
                severity="critical",
                message="XID 48 on GPU 0",
                action="reset the GPU",
                since=observed_at,
                gpu_uuid=self._uuids[number][0],
                xid=48,
            )
        ]
        xids = [
            XidEvent(event_id=episode, at=observed_at, last_at=observed_at, xid=48,
                     gpu_uuid=self._uuids[number][0])
        ]  # fmt: skip
        return Report(
            schema_version=1,
            cluster=CLUSTER,
            node=f"h100-{number // 1000:02d}-{number:05d}",
            spool_id=f"spool-{number}",
            sequence=self.sequence,
            observed_at=observed_at,
            boot_id="boot",
            agent_version="1",
            driver_version="570.86.15",
            nvml=NvmlState(answering=True),
            expected_gpus=8,
            gpus=[self._gpu(number, index) for index in range(8)],
            findings=findings if faulty else [],
            xids=xids if faulty else [],
        )

    def _gpu(self, number: int, index: int) -> GpuReading:
        drawn = random.random()
        return GpuReading(
            uuid=self._uuids[number][index],
            index=index,
            pci_bus_id=f"00000000:{index:02X}:00.0",
            serial=f"16{number:06d}{index}",
            name="NVIDIA H100 80GB HBM3",
            temperature_celsius=30 + 50 * drawn,
            memory_temperature_celsius=35 + 50 * drawn,
            temperature_margin_celsius=20.0,
            power_watts=700 * drawn,
            power_limit_watts=700.0,
            energy_joules_total=1e9 * drawn,
            sm_clock_hertz=1_980_000_000,
            memory_clock_hertz=2_619_000_000,
            clocks_event_reasons=4,
            gpu_utilization_ratio=drawn,
            memory_utilization_ratio=drawn,
            memory_used_bytes=int(80e9 * drawn),
            memory_total_bytes=85_520_809_984,
            ecc_corrected_total=0,
            ecc_uncorrected_total=0,
            remapped_correctable=0,
            remapped_uncorrectable=0,
            remap_pending=False,
            remap_failure=False,
            pcie_generation=5,
            pcie_width=16,
            pcie_replay_total=3,
            nvlink_active_links=18,
            fabric_state=3,
            recovery_action=0,
            pod_uids=(f"pod-{number}",),
            missing={"nvlink_crc_errors_total": "not supported"},
        )


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """No garbage collection: it would walk over the reports held here in whatever is measured."""
    with collector_paused():
        yield


class StorePath:
    """The store's path, a poll a call, and how many transactions it took."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fleet = Fleet()
        self.reports: list[Report] = []
        self.rows: list[Row] = []
        self.transactions = self._commits = 0
        event.listen(engine, "commit", self._count)

    def _count(self, _connection: object) -> None:
        self._commits += 1

    def seconds(self) -> float:
        """Store the next poll; making it is not measured."""
        self.reports = self._fleet.poll()
        before = self._commits
        now = max(report.observed_at for report in self.reports)
        taken = seconds_of(lambda: self._store(now))
        self.transactions = self._commits - before
        return taken

    def _store(self, now: datetime) -> None:
        with write(self._engine) as connection:
            stored = store_reports(connection, CLUSTER, self.reports, now)
            update_frames(
                connection,
                CLUSTER,
                now,
                health=dict(stored.health),
                gpu_rows=[stored.gpu_rows],
            )
        self.rows = stored.gpu_rows.rows


def compare(
    figures: Figures,
    path: StorePath,
    *,
    bare: Callable[[list[Row]], float],
    through: Callable[[list[Row]], float],
    name: str,
    at_most: float,
) -> float:
    """The path's next poll, the bare write of its rows, and that on SQLAlchemy's connection, in turns; the path's least seconds."""
    figures.add("first poll by the store, every row new", path.seconds(), "s")
    times: list[tuple[float, float, float]] = []
    for turn in range(ROUNDS):
        stored = path.seconds()
        # In changing order: what comes second meets the pages that the first has yet to write out.
        if turn % 2:
            again = through(path.rows)
            times.append((stored, bare(path.rows), again))
        else:
            times.append((stored, bare(path.rows), through(path.rows)))
    # The least of each: other work of the machine only ever adds.
    stored, plain, same = (min(column) for column in zip(*times, strict=True))
    figures.add(f"{name} of {NODES * 8:,} rows", plain, "s")
    figures.add("poll by the store", stored, "s")
    figures.add(f"poll by the store to {name}", stored / plain, "x", at_most=at_most)
    figures.add(f"{name} through SQLAlchemy to plain", same / plain, "x", at_most=1.2)
    figures.add("transactions a poll", path.transactions, "", at_most=1)
    return stored


def measure_reads(figures: Figures, engine: Engine) -> None:
    """One metric of every GPU: from its frame, and from the rows."""

    def by_frame() -> None:
        frame = fleet.frame(engine, CLUSTER, "power_watts")
        assert frame is not None
        assert values_of(frame.data, frame.encoding).size >= NODES * 8

    def by_rows() -> None:
        with read(engine) as connection:
            rows = connection.execute(
                text("SELECT power_watts FROM gpu WHERE cluster = :cluster"), {"cluster": CLUSTER}
            ).all()
        assert numpy.array([row[0] for row in rows], dtype=float).size == NODES * 8

    frame_seconds, rows_seconds = medians(5, by_frame, by_rows)
    figures.add("a metric of every GPU by its frame", frame_seconds, "s")
    figures.add("a metric of every GPU by rows", rows_seconds, "s")
    figures.add("rows to frame", rows_seconds / frame_seconds, "x", at_least=20)
    (counted,) = medians(5, lambda: status.counts(engine, CLUSTER))
    figures.add("counts of the fleet", counted, "s")


def measure_history(figures: Figures, engine: Engine, reports: list[Report]) -> None:
    """Minute history, beside the poll: folding one, and appending a minute of it."""
    buffer = HistoryBuffer(CLUSTER)
    figures.add("folding a poll into its minute", seconds_of(lambda: buffer.fold(reports)), "s")
    appended = seconds_of(lambda: buffer.flush(engine, reports[0].observed_at, final=True))
    figures.add("appending a minute of history", appended, "s")


@pytest.mark.timeout(900)
def test_poll_on_sqlite(tmp_path: Path) -> None:
    """At most twice plain executemany of the same rows."""
    url = f"sqlite:///{tmp_path / 'pitwall.db'}"
    migrate(url)
    engine = open_store(url)
    same = open_store(f"sqlite:///{tmp_path / 'same.db'}")
    bare = sqlite3.connect(tmp_path / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = NORMAL")
    bare.execute("PRAGMA cache_size = -65536")
    with read(engine) as connection:
        made = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE tbl_name = 'gpu' AND sql IS NOT NULL")
        ).scalars()
        statements = list(made)
    with write(same) as connection:
        for statement in statements:
            bare.execute(statement)
            connection.execute(text(statement))

    def write_bare(rows: list[Row]) -> None:
        bare.execute("BEGIN IMMEDIATE")
        bare.executemany(PLAIN_INSERT, rows)
        bare.execute("COMMIT")

    def write_through(rows: list[Row]) -> None:
        with write(same) as connection:
            insert(connection, "gpu", gpus.COLUMNS, rows)

    def bare_seconds(rows: list[Row]) -> float:
        bare.execute("DELETE FROM gpu")
        return seconds_of(lambda: write_bare(rows))

    def through_seconds(rows: list[Row]) -> float:
        with write(same) as connection:
            connection.execute(text("DELETE FROM gpu"))
        return seconds_of(lambda: write_through(rows))

    figures = Figures(f"storing a poll of {NODES * 8:,} GPUs on SQLite")
    path = StorePath(engine)
    compare(
        figures,
        path,
        bare=bare_seconds,
        through=through_seconds,
        name="plain executemany",
        at_most=2.0,
    )
    measure_reads(figures, engine)
    measure_history(figures, engine, path.reports)
    bare.close()
    same.dispose()
    engine.dispose()
    figures.check()


@pytest.fixture
def durable_server() -> Iterator[Postgresql]:
    """A server as one in use."""
    try:
        with postgresql_server(durable=True) as running:
            yield running
    except PostgresqlMissing as error:
        pytest.skip(f"PostgreSQL can't run here: {error}")


@pytest.mark.timeout(900)
@pytest.mark.postgresql
def test_poll_on_postgresql(durable_server: Postgresql) -> None:
    """At most twice plain COPY as text, at most three times COPY in binary, into an empty table.

    The store's own COPY is binary, which is the faster by far here; text is what programs use that do not
    say otherwise.
    """
    url = durable_server.database()
    engine = open_store(url)
    names = make_url(url)
    bare = psycopg.connect(
        host=str(names.query["host"]), user=names.username, dbname=names.database, autocommit=True
    )
    bare.execute("CREATE TABLE bare_gpu (LIKE gpu INCLUDING ALL)")
    type_of = dict(
        bare.execute(
            "SELECT column_name, udt_name FROM information_schema.columns WHERE table_name = 'gpu'"
        ).fetchall()
    )
    types = [type_of[column] for column in gpus.COLUMNS]
    same = open_store(durable_server.database())

    def write_bare(rows: list[Row], form: str) -> None:
        statement = f"COPY bare_gpu ({NAMES}) FROM STDIN (FORMAT {form})"
        with bare.transaction(), bare.cursor().copy(statement.encode()) as copy:
            if form == "BINARY":
                copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def bare_seconds(rows: list[Row], form: str = "BINARY") -> float:
        bare.execute("TRUNCATE bare_gpu")
        return seconds_of(lambda: write_bare(rows, form))

    def write_through(rows: list[Row]) -> None:
        with write(same) as connection:
            insert(connection, "gpu", gpus.COLUMNS, rows)

    def through_seconds(rows: list[Row]) -> float:
        with write(same) as connection:
            connection.execute(text("TRUNCATE gpu"))
        return seconds_of(lambda: write_through(rows))

    figures = Figures(f"storing a poll of {NODES * 8:,} GPUs on PostgreSQL")
    path = StorePath(engine)
    stored = compare(
        figures,
        path,
        bare=bare_seconds,
        through=through_seconds,
        name="plain binary COPY",
        at_most=AT_MOST_BINARY,
    )
    as_text = min(bare_seconds(path.rows, "TEXT") for _ in range(ROUNDS))
    figures.add(f"plain COPY as text of {NODES * 8:,} rows", as_text, "s")
    figures.add("poll by the store to plain COPY as text", stored / as_text, "x", at_most=2.0)
    measure_reads(figures, engine)
    measure_history(figures, engine, path.reports)
    bare.close()
    same.dispose()
    engine.dispose()
    figures.check()
