"""When each source was last heard: the rows by which the page knows what is blind."""

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Engine, select

from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.sources import SourceState, note_source
from app.store.tables import SourceStatus
from k8s.view import ClusterWatcher

_source = table_of(SourceStatus)

MESSAGE_LENGTH = 500  # characters

BLIND_SECONDS = 45.0
"""A source that was not heard for so long is blind (design: Unknown after 45 s)."""

REFRESH_SECONDS = 10.0
"""A row that says the same is written again after so long, so that its age stays true."""


class Source(msgspec.Struct, frozen=True):
    """One source as it is now. state: ok, late, blind."""

    name: str
    state: SourceState
    message: str
    last_ok_at: datetime | None


def kubernetes_source(watcher: ClusterWatcher, now: datetime) -> Source:
    """What the watches say of themselves: blind before the first whole list, and after 45 s of silence."""
    heard_at, failures = watcher.observed_at, watcher.failures()
    said = "; ".join(f"{kind}: {error}" for kind, (_, error) in sorted(failures.items()))
    if not watcher.synced or heard_at is None:
        return Source("kubernetes", "blind", said or "not listed yet", heard_at)
    silent_seconds = (now - heard_at).total_seconds()
    if silent_seconds > BLIND_SECONDS:
        return Source("kubernetes", "blind", said or f"silent for {silent_seconds:.0f} s", heard_at)
    return Source("kubernetes", "late" if failures else "ok", said, heard_at)


def answering_source(
    name: str, answers: bool, *, before: datetime | None, now: datetime, message: str
) -> Source:
    """A source that is asked: ok while it answers, late for 45 s after it last did, then blind."""
    if answers:
        return Source(name, "ok", message, now)
    lately = before is not None and (now - before).total_seconds() <= BLIND_SECONDS
    return Source(name, "late" if lately else "blind", message, before)


class SourceBoard:
    """Writes source rows: at once when a state changes, else every REFRESH_SECONDS."""

    def __init__(self, engine: Engine, cluster: str, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._cluster = cluster
        self._clock = clock
        self._written: dict[str, tuple[Source, datetime]] = {}

    def last_ok_at(self, name: str) -> datetime | None:
        """When the source was last heard, as this worker or one before it wrote."""
        if name in self._written:
            return self._written[name][0].last_ok_at
        with read(self._engine) as connection:
            row = connection.execute(
                select(_source.c.last_ok_at).where(
                    _source.c.cluster == self._cluster, _source.c.source == name
                )
            ).first()
        return row.last_ok_at if row is not None else None

    def show(self, sources: Iterable[Source]) -> None:
        """Writes the rows that have something new to say. Raises StoreError."""
        now = self._clock()
        due = [source for source in sources if self._is_due(source, now)]
        if not due:
            return
        with write(self._engine) as connection:
            for source in due:
                note_source(
                    connection,
                    self._cluster,
                    source.name,
                    state=source.state,
                    now=now,
                    message=source.message[:MESSAGE_LENGTH],
                    last_ok_at=source.last_ok_at,
                )
        self._written.update({source.name: (source, now) for source in due})

    def _is_due(self, source: Source, now: datetime) -> bool:
        if source.name not in self._written:
            return True
        before, at = self._written[source.name]
        same = (before.state, before.message) == (source.state, source.message)
        return not same or (now - at).total_seconds() >= REFRESH_SECONDS
