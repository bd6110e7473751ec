"""The object store: multi-version, in memory, what etcd and the watch cache are to a real API server.

One revision counts every write over all kinds. Objects are plain dictionaries that nobody may
change once they are stored: a writer stores a new one. Each version keeps its encoded bytes from
the first time that somebody asks, so a list of thousands joins bytes instead of encoding again.
"""

import bisect
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.simulator.clock import Clock

Object = dict[str, Any]
Key = tuple[str, str]  # namespace ("" at cluster scope), name

# etcd's compaction interval under a kube-apiserver is 5 minutes: a continue token lives as long.
SNAPSHOT_LIFE = timedelta(minutes=5)
SNAPSHOTS_KEPT = 64
HISTORY_LENGTH = 16_384

_encode = msgspec.json.encode


class Compacted(Exception):
    """What was asked for lies before the history that is kept."""


class Taken(Exception):
    """An object of that key is there already."""


class Missing(Exception):
    """No object of that key."""


class Stale(Exception):
    """The object has another version than the writer saw."""


class Record:
    """One version of one object."""

    __slots__ = ("_encoded", "key", "object", "revision")

    def __init__(self, key: Key, obj: Object, revision: int) -> None:
        self.key = key
        self.object = obj
        self.revision = revision
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        if self._encoded is None:
            self._encoded = _encode(self.object)
        return self._encoded


class Event:
    """One write: ADDED, MODIFIED or DELETED, with the version before it."""

    __slots__ = ("_line", "kind", "previous", "record", "type")

    def __init__(self, kind: str, type_: str, record: Record, previous: Record | None) -> None:
        self.kind = kind
        self.type = type_
        self.record = record
        self.previous = previous
        self._line: bytes | None = None

    @property
    def line(self) -> bytes:
        """The event as a line of a watch, encoded once for all that watch."""
        if self._line is None:
            self._line = watch_line(self.type, self.record.encoded)
        return self._line


def watch_line(type_: str, encoded: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (type_.encode(), encoded)


class Collection:
    """All objects of one kind, their recent history, and who listens."""

    def __init__(self, kind: str, *, history_length: int = HISTORY_LENGTH) -> None:
        self.kind = kind
        self.records: dict[Key, Record] = {}
        self.last_revision = 0
        self.compacted_revision = 0
        self.history: deque[Event] = deque()
        self.listeners: list[Callable[[Event], None]] = []
        self._history_length = history_length
        self._sorted: list[Record] | None = None
        self._indexes: dict[str, tuple[Callable[[Object], Iterable[str]], dict[str, dict]]] = {}

    def add_index(self, name: str, values_of: Callable[[Object], Iterable[str]]) -> None:
        """Keep records findable by what `values_of` says of an object."""
        buckets: dict[str, dict[Key, Record]] = {}
        for record in self.records.values():
            for value in values_of(record.object):
                buckets.setdefault(value, {})[record.key] = record
        self._indexes[name] = (values_of, buckets)

    def by_index(self, name: str, value: str) -> list[Record]:
        """Records under `value`, in order of their keys."""
        bucket = self._indexes[name][1].get(value)
        return [bucket[key] for key in sorted(bucket)] if bucket else []

    def has_index(self, name: str) -> bool:
        return name in self._indexes

    def in_order(self) -> list[Record]:
        """All records in order of their keys. Not to be changed by the caller."""
        if self._sorted is None:
            self._sorted = [self.records[key] for key in sorted(self.records)]
        return self._sorted

    def commit(self, event: Event) -> None:
        record, previous = event.record, event.previous
        for values_of, buckets in self._indexes.values():
            if previous is not None:
                for value in values_of(previous.object):
                    bucket = buckets[value]
                    bucket.pop(previous.key, None)
                    if not bucket:
                        del buckets[value]
            if event.type != "DELETED":
                for value in values_of(record.object):
                    buckets.setdefault(value, {})[record.key] = record
        self._commit_order(event)
        self.last_revision = record.revision
        self.history.append(event)
        if len(self.history) > self._history_length:
            self.compacted_revision = self.history.popleft().record.revision
        for listener in tuple(self.listeners):
            listener(event)

    def _commit_order(self, event: Event) -> None:
        record = event.record
        if event.type == "DELETED":
            del self.records[record.key]
            self._sorted = None
            return
        self.records[record.key] = record
        if self._sorted is not None:
            # A list already handed out stays as it was: it is somebody's snapshot.
            if event.type == "ADDED":
                self._sorted = None
            else:
                self._sorted = list(self._sorted)
                at = bisect.bisect_left(self._sorted, record.key, key=lambda one: one.key)
                self._sorted[at] = record

    def since(self, revision: int) -> list[Event]:
        """Events after `revision`, oldest first.

        Raises:
            Compacted: the history no longer reaches back to `revision`.
        """
        if revision < self.compacted_revision:
            raise Compacted(f"too old resource version: {revision} ({self.compacted_revision})")
        found: list[Event] = []
        for event in reversed(self.history):
            if event.record.revision <= revision:
                break
            found.append(event)
        found.reverse()
        return found


class Store:
    """Collections under one revision."""

    def __init__(self, clock: Clock, *, history_length: int = HISTORY_LENGTH) -> None:
        self.clock = clock
        self.revision = 1
        self.collections: dict[str, Collection] = {}
        self._history_length = history_length
        self._compacted_revision = 0
        self._snapshots: OrderedDict[tuple[str, int], tuple[datetime, list[Record]]] = OrderedDict()

    def collection(self, kind: str) -> Collection:
        if kind not in self.collections:
            self.collections[kind] = Collection(kind, history_length=self._history_length)
        return self.collections[kind]

    def get(self, kind: str, key: Key) -> Record | None:
        return self.collection(kind).records.get(key)

    def create(self, kind: str, key: Key, obj: Object, *, dry_run: bool = False) -> Record:
        """Store a new object. Raises Taken."""
        if key in self.collection(kind).records:
            raise Taken(key[1])
        return self._write(kind, "ADDED", key, obj, None, dry_run=dry_run)

    def update(
        self,
        kind: str,
        key: Key,
        obj: Object,
        *,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> Record:
        """Store the next version of an object. Raises Missing, Stale."""
        previous = self._expect(kind, key, expected_revision)
        return self._write(kind, "MODIFIED", key, obj, previous, dry_run=dry_run)

    def delete(
        self,
        kind: str,
        key: Key,
        *,
        last: Object | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> Record:
        """Remove an object; `last` is its last version where that differs. Raises Missing, Stale."""
        previous = self._expect(kind, key, expected_revision)
        obj = previous.object if last is None else last
        return self._write(kind, "DELETED", key, obj, previous, dry_run=dry_run)

    def _expect(self, kind: str, key: Key, revision: int | None) -> Record:
        previous = self.get(kind, key)
        if previous is None:
            raise Missing(key[1])
        if revision is not None and previous.revision != revision:
            raise Stale(key[1])
        return previous

    def _write(
        self,
        kind: str,
        type_: str,
        key: Key,
        obj: Object,
        previous: Record | None,
        *,
        dry_run: bool,
    ) -> Record:
        if dry_run:
            return Record(key, obj, previous.revision if previous else 0)
        self.revision += 1
        metadata = {**obj["metadata"], "resourceVersion": str(self.revision)}
        record = Record(key, {**obj, "metadata": metadata}, self.revision)
        self.collection(kind).commit(Event(kind, type_, record, previous))
        return record

    def snapshot(self, kind: str) -> tuple[int, list[Record]]:
        """All records of a kind as they are now, kept so that later pages of a list match it."""
        records = self.collection(kind).in_order()
        now = self.clock.now()
        self._snapshots[(kind, self.revision)] = (now, records)
        while len(self._snapshots) > SNAPSHOTS_KEPT or (
            next(iter(self._snapshots.values()))[0] < now - SNAPSHOT_LIFE
        ):
            self._snapshots.popitem(last=False)
        return self.revision, records

    def at_revision(self, kind: str, revision: int) -> list[Record]:
        """The records as they were at `revision`.

        Raises:
            Compacted: they are no longer known.
        """
        collection = self.collection(kind)
        if revision >= self._compacted_revision:
            kept = self._snapshots.get((kind, revision))
            if kept is not None and kept[0] >= self.clock.now() - SNAPSHOT_LIFE:
                return kept[1]
            if collection.last_revision <= revision <= self.revision and kept is None:
                return collection.in_order()
        raise Compacted(f"revision {revision} has been compacted")

    def compact(self) -> int:
        """Forget all history and every list in progress, as etcd's compaction does."""
        self._snapshots.clear()
        self._compacted_revision = self.revision
        for collection in self.collections.values():
            collection.history.clear()
            collection.compacted_revision = self.revision
        return self.revision


def clone(value: Any) -> Any:
    """A copy that may be changed, of a value made of dictionaries, lists and scalars."""
    if isinstance(value, dict):
        return {key: clone(one) for key, one in value.items()}
    if isinstance(value, list):
        return [clone(one) for one in value]
    return value
