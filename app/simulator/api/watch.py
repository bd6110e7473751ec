"""Watches: events of one kind from a revision on, as lines of JSON, with bookmarks."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from app.simulator.api import failures
from app.simulator.resources import Resource
from app.simulator.store import Collection, Compacted, Event, Object, Record, Store, watch_line

# A kube-apiserver sends a bookmark about once a minute.
BOOKMARK_INTERVAL_SECONDS = 60.0
# A client that reads slower than this many events behind is cut off, as a real server does.
LONGEST_BACKLOG = 20_000

Encode = Callable[[Object], bytes]


class Watch:
    """One client's watch. Lines gather in `pending`; `ready` says that there are some."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        *,
        passes: Callable[[Object], bool] | None,
        encode: Encode | None,
        bookmarks: bool,
        timeout_seconds: float,
    ) -> None:
        self.store = store
        self.resource = resource
        self.bookmarks = bookmarks
        self.timeout_seconds = timeout_seconds
        self.pending: deque[bytes] = deque()
        self.ready = asyncio.Event()
        self.closed = False
        self.content_type = "application/json"
        self.on_close: Callable[[], None] = lambda: None
        self._passes = passes
        self._encode = encode

    @property
    def _collection(self) -> Collection:
        return self.store.collection(self.resource.plural)

    def begin(self, revision: int | None, *, initial: bool, initial_end: bool = False) -> None:
        """Start after `revision`, or with all objects as ADDED first when `initial`."""
        if initial:
            for record in self._collection.in_order():
                if self._passes is None or self._passes(record.object):
                    self._put("ADDED", record)
            if initial_end:
                self._put_bookmark({"k8s.io/initial-events-end": "true"})
        else:
            try:
                events = self._collection.since(revision or 0)
            except Compacted as error:
                status = failures.expired(str(error)).status
                self.pending.append(watch_line("ERROR", msgspec.json.encode(status)))
                self.close()
                return
            for event in events:
                self._take(event)
        self._collection.listeners.append(self._take)
        if self.pending:
            self.ready.set()

    def close(self) -> None:
        """End the stream after what is pending."""
        if not self.closed:
            self.closed = True
            if self._take in self._collection.listeners:
                self._collection.listeners.remove(self._take)
            self.on_close()
        self.ready.set()

    def bookmark(self) -> None:
        """Queue a bookmark of the present revision: everything before it has been queued."""
        if self.bookmarks and not self.closed:
            self._put_bookmark({})

    def _put_bookmark(self, annotations: dict[str, str]) -> None:
        metadata: dict[str, Any] = {
            "resourceVersion": str(self.store.revision),
            "creationTimestamp": None,
        }
        if annotations:
            metadata["annotations"] = annotations
        obj: Object = {
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version,
            "metadata": metadata,
        }
        encoded = self._encode(obj) if self._encode else msgspec.json.encode(obj)
        self.pending.append(watch_line("BOOKMARK", encoded))
        self.ready.set()

    def _take(self, event: Event) -> None:
        if self._passes is None:
            if self._encode is None:
                self.pending.append(event.line)
            else:
                self._put(event.type, event.record)
        else:
            self._take_selected(event)
        if len(self.pending) > LONGEST_BACKLOG:
            self.pending.clear()
            self.close()
        elif self.pending:
            self.ready.set()

    def _take_selected(self, event: Event) -> None:
        passes = self._passes
        assert passes is not None
        before = event.previous is not None and passes(event.previous.object)
        after = event.type != "DELETED" and passes(event.record.object)
        if after:
            self._put("MODIFIED" if before else "ADDED", event.record)
        elif before and event.type == "DELETED":
            self._put("DELETED", event.record)
        elif before and event.previous is not None:
            # It left the selection: the client sees it go, at this event's revision.
            last = event.previous.object
            metadata = {**last["metadata"], "resourceVersion": str(event.record.revision)}
            gone = Record(event.record.key, {**last, "metadata": metadata}, event.record.revision)
            self._put("DELETED", gone)

    def _put(self, type_: str, record: Record) -> None:
        encoded = self._encode(record.object) if self._encode else record.encoded
        self.pending.append(watch_line(type_, encoded))
