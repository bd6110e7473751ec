"""The one thread that writes: a transaction a tick for all reports that came, answered after its commit.

A batch that the store refuses is stored report by report, so that one that can't be stored harms no other.
Frames and summaries follow in a transaction of their own at most each second, minute history each
minute. A crash loses no report that was answered; it loses the minute history not flushed yet (at most
the running minute and the one before) and leaves frames a second old until their nodes report again.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Engine

from app.errors import StoreError
from app.ingest.errors import Refusal, unavailable
from app.ingest.metrics import IngestMetrics
from app.store.engine import write
from app.store.failures import StoreRefused
from app.store.frame_buffer import FrameBuffer
from app.store.history import HistoryBuffer
from app.store.sources import note_agents, note_source
from app.store.writes.reports import Stored, store_reports
from app.store.writes.streams import Outcome
from collectors.report import Report

log = structlog.get_logger()

LONGEST_PAUSE_SECONDS = 0.25
"""After a transaction the writer rests as long as it took, at most this: reports gather meanwhile, other
writers get their turn, and a single report on an idle store is answered at once."""

FRAMES_SECONDS = 1.0
SOURCES_SECONDS = 5.0
MOST_WAITING = 20_000
"""Reports held while the store is slow: of 8 GPUs each about 200 MB. More are answered 503."""

LARGEST_BATCH = 10_000


@dataclass(frozen=True)
class Receipt:
    """What became of a report. `closed_episodes`: those it carries that are closed here."""

    outcome: Outcome
    closed_episodes: Sequence[str] = ()


@dataclass
class _Waiting:
    report: Report
    answer: "Future[Receipt]" = field(default_factory=Future)


class ReportWriter:
    """Owns the writing thread. `submit` from any thread; `stop` stores what waits."""

    def __init__(
        self,
        engine: Engine,
        cluster: str,
        *,
        metrics: IngestMetrics,
        silence_seconds: float,
        now: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._cluster = cluster
        self._metrics = metrics
        self._silence_seconds = silence_seconds
        self._now = now
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(MOST_WAITING)
        self._history = HistoryBuffer(cluster)
        self._frames = FrameBuffer()
        self._frames_at = 0.0
        self._sources_at = 0.0
        self._troubled: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="report-writer", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def trouble(self) -> bool:
        """Whether the last transaction of reports failed for the store's sake."""
        return "reports" in self._troubled

    def submit(self, report: Report) -> "Future[Receipt]":
        """The future of the report's receipt, done once it is committed.

        Raises Refusal (503) when too many wait already or the writer is stopping.
        """
        if self._stopping or not self.alive:
            raise unavailable("ingest is stopping: send the report again")
        waiting = _Waiting(report)
        try:
            self._queue.put_nowait(waiting)
        except queue.Full:
            raise unavailable(
                f"{MOST_WAITING} reports wait for the store already: send the report again"
            ) from None
        self._metrics.waiting.set(self._queue.qsize())
        return waiting.answer

    def stop(self, timeout_seconds: float = 20.0) -> None:
        """Store what waits, flush the history, and end the thread."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while True:
            batch, last = self._take()
            begun = time.monotonic()
            if batch:
                self._metrics.waiting.set(self._queue.qsize())
                self._store(batch)
            self._follow_up(final=last)
            if last:
                return
            if batch:
                time.sleep(min(time.monotonic() - begun, LONGEST_PAUSE_SECONDS))

    def _take(self) -> tuple[list[_Waiting], bool]:
        """What waits now, at least one unless something else is due; and whether it is the last."""
        batch: list[_Waiting] = []
        try:
            first = self._queue.get(timeout=self._due_in())
            while True:
                if first is None:
                    return batch, True
                batch.append(first)
                if len(batch) >= LARGEST_BATCH:
                    return batch, False
                first = self._queue.get_nowait()
        except queue.Empty:
            return batch, False

    def _due_in(self) -> float:
        now = time.monotonic()
        due = self._sources_at + SOURCES_SECONDS
        if self._frames.waits:
            due = min(due, self._frames_at + FRAMES_SECONDS)
        return max(0.001, due - now)

    def _store(self, batch: list[_Waiting]) -> None:
        begun = time.perf_counter()
        try:
            stored = self._commit([waiting.report for waiting in batch])
        except Exception as error:  # noqa: BLE001  whatever it is, each caller must have an answer
            self._answer_failure(batch, error)
            return
        self._metrics.batch_seconds.observe(time.perf_counter() - begun)
        self._metrics.batch_reports.observe(len(batch))
        self._recovered("reports")
        self._keep(stored)
        for waiting, outcome in zip(batch, stored.outcomes, strict=True):
            self._metrics.reports.labels(outcome).inc()
            closed = stored.closed_episodes.get(waiting.report.node, ())
            waiting.answer.set_result(Receipt(outcome, closed if outcome == "stored" else ()))

    def _commit(self, reports: list[Report]) -> Stored:
        with write(self._engine) as connection:
            return store_reports(
                connection,
                self._cluster,
                reports,
                self._now(),
                silence_seconds=self._silence_seconds,
            )

    def _answer_failure(self, batch: list[_Waiting], error: Exception) -> None:
        if isinstance(error, StoreError) and not isinstance(error, StoreRefused):
            self._metrics.store_failures.labels("reports").inc()
            self._failed("reports", error)
            for waiting in batch:
                waiting.answer.set_exception(unavailable(str(error)))
            return
        if len(batch) > 1:
            for waiting in batch:
                self._store([waiting])
            return
        (waiting,) = batch
        report = waiting.report
        log.error(
            "a report can't be stored and is refused",
            node=report.node,
            spool_id=report.spool_id,
            sequence=report.sequence,
            error=f"{type(error).__name__}: {error}",
        )
        if isinstance(error, StoreRefused | OverflowError):
            refusal = Refusal(400, "unstorable", f"the report can't be stored: {error}")
        else:
            # Ingest's own fault: the agent keeps the report and sends it to a mended ingest.
            refusal = Refusal(500, "internal", "Ingest failed at this report; its log says why.")
        waiting.answer.set_exception(refusal)

    def _keep(self, stored: Stored) -> None:
        """Hold what frames and history need until they are due."""
        self._metrics.gpus.inc(len(stored.gpu_rows.rows))
        self._frames.keep(stored)
        self._history.fold(stored.accepted)

    def _follow_up(self, *, final: bool) -> None:
        now = time.monotonic()
        if self._frames.waits and (final or now - self._frames_at >= FRAMES_SECONDS):
            self._frames_at = now
            self._try(
                "frames", lambda: self._frames.flush(self._engine, self._cluster, self._now())
            )
        if final or now - self._sources_at >= SOURCES_SECONDS:
            self._sources_at = now
            self._try("sources", self._write_sources)
        if self._history.is_due(self._now()) or final:
            self._try(
                "history", lambda: self._history.flush(self._engine, self._now(), final=final)
            )

    def _write_sources(self) -> None:
        now = self._now()
        with write(self._engine) as connection:
            note_source(connection, self._cluster, "ingest", state="ok", now=now)
            note_agents(connection, self._cluster, now)

    def _try(self, what: str, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001  what follows a stored report must never cost one
            self._metrics.store_failures.labels(what).inc()
            self._failed(what, error)
            return
        self._recovered(what)

    def _failed(self, what: str, error: Exception) -> None:
        if what not in self._troubled:
            self._troubled.add(what)
            log.error("the store does not take what ingest writes", what=what, error=str(error))

    def _recovered(self, what: str) -> None:
        if what in self._troubled:
            self._troubled.discard(what)
            log.info("the store takes again what ingest writes", what=what)
