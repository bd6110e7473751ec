"""Keeps up with one kind: lists in pages, watches with bookmarks, lists again when told 410.

It outlives an API server's restart, a watch that falls silent, an expired version or continue token,
and objects it can not read. A relist compares with what is known and tells what vanished meanwhile.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import structlog

from k8s.client import PASSING_STATUSES, Connection, Stream
from k8s.errors import ApiError, KubernetesError, MalformedAnswerError
from k8s.listing import PAGE_OBJECTS, list_objects, object_decoder, read_malformed
from k8s.objects import Narrow
from k8s.resources import Resource as Resource

log = structlog.get_logger()

# The server ends the watch after this long, and we open it again: a cluster where nothing changes is
# still heard from, so a source older than 45 s is blind (design: Unknown after 45 s). Bookmarks alone
# come once a minute.
WATCH_SECONDS = 30
# Silence beyond the server's own end means that the connection is dead on the way.
SILENCE_MARGIN_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 10.0
# A kind that is not installed (its CRD was removed) is looked for again this often.
ABSENT_PAUSE_SECONDS = 60.0

ChangeKind = Literal["added", "modified", "deleted"]


@dataclass(frozen=True)
class Change:
    """One object that came, changed or went. `object` is the last known one for a deletion."""

    resource: Resource
    kind: ChangeKind
    uid: str
    object: Any


class _Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _VersionMeta(Narrow, frozen=True):
    resource_version: str = ""


class _Versioned(Narrow, frozen=True):
    metadata: _VersionMeta = _VersionMeta()


class _Status(msgspec.Struct, frozen=True):
    code: int = 0
    reason: str = ""
    message: str = ""


class _StaleError(KubernetesError):
    """The version is too old to watch from: list again."""


_event_decoder = msgspec.json.Decoder(_Event)
_version_decoder = msgspec.json.Decoder(_Versioned)
_status_decoder = msgspec.json.Decoder(_Status)


class Reflector:
    """Tells `on_change` of every object of a kind, in the order that the API server does.

    on_change is called from the thread that runs `run`. synced is set after the first whole list;
    last_contact_at (aware UTC) is when the API server last answered; failing_since is None while all
    is well; malformed_total counts objects that could not be read.
    """

    def __init__(
        self,
        connection: Connection,
        resource: Resource,
        on_change: Callable[[Change], None],
        *,
        watch_seconds: int = WATCH_SECONDS,
        silence_margin_seconds: float = SILENCE_MARGIN_SECONDS,
        page_objects: int = PAGE_OBJECTS,
        absent_pause_seconds: float = ABSENT_PAUSE_SECONDS,
        on_synced: Callable[[], None] = lambda: None,
    ) -> None:
        self.resource = resource
        self.synced = threading.Event()
        self.last_contact_at: datetime | None = None
        self.failing_since: datetime | None = None
        self.last_error = ""
        self.malformed_total = 0
        self.lists_total = 0
        self._connection = connection
        self._on_change = on_change
        self._on_synced = on_synced
        self._watch_seconds = watch_seconds
        self._silence_margin_seconds = silence_margin_seconds
        self._page_objects = page_objects
        self._absent_pause_seconds = absent_pause_seconds
        self._decoder = object_decoder(resource.struct)
        self._known: dict[str, Any] = {}
        self._complained_of: set[str] = set()
        self._stream: Stream | None = None
        self._stop = threading.Event()

    def run(self, stop_event: threading.Event) -> None:
        """Lists and watches until stop_event is set (and `interrupt` called, to be quick about it)."""
        self._stop = stop_event
        version: str | None = None
        pause_seconds = FIRST_PAUSE_SECONDS
        while not stop_event.is_set():
            try:
                if version is None:
                    version = self._relist()
                heard = self._watch(version)
                version, lively = heard
                if lively:
                    pause_seconds = FIRST_PAUSE_SECONDS
                else:  # A proxy that ends each watch at once must not be hammered.
                    stop_event.wait(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
            except _StaleError:
                version = None
            except KubernetesError as error:
                version = self._version
                self._fail(error)
                wait_seconds = self._pause(error, pause_seconds)
                pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
                stop_event.wait(wait_seconds)
            except Exception as error:
                # The poller's edge: a source must not fall blind for good over one surprise. What was
                # told may be incomplete, so everything is listed again.
                log.exception("kubernetes source met a surprise", kind=self.resource.kind)
                version = None
                self.last_error = repr(error)
                self.failing_since = self.failing_since or datetime.now(UTC)
                stop_event.wait(LONGEST_PAUSE_SECONDS)

    def known_uids(self) -> tuple[str, ...]:
        """UIDs of the objects that it has told of and that have not gone."""
        return tuple(self._known)

    def interrupt(self) -> None:
        """Ends a watch that is blocked in a read, from another thread."""
        if (stream := self._stream) is not None:
            stream.interrupt()

    # --- list ---------------------------------------------------------------------------------

    _version: str | None = None

    def _relist(self) -> str:
        self._version = None
        try:
            listing = list_objects(self._connection, self.resource, page_objects=self._page_objects)
        except ApiError as error:
            if error.status == 404:  # The kind is not installed (any more): nothing of it exists.
                self.last_contact_at = datetime.now(UTC)
                for uid in list(self._known):
                    self._tell("deleted", uid, self._known[uid])
                self._set_synced()
            raise
        self.lists_total += 1
        unreadable = {broken.uid for broken in listing.malformed}
        present = {item.metadata.uid: item for item in listing.items}
        # Deletions first, so that a successor of the same name is not taken for its predecessor.
        for uid in [uid for uid in self._known if uid not in present and uid not in unreadable]:
            self._tell("deleted", uid, self._known[uid])
        for uid, item in present.items():
            before = self._known.get(uid)
            if before is None:
                self._tell("added", uid, item)
            elif before.metadata.resource_version != item.metadata.resource_version:
                self._tell("modified", uid, item)
        for broken in listing.malformed:
            self._complain(broken.uid, broken.name, broken.error)
        self._contact()
        self._version = listing.resource_version
        self._set_synced()
        return listing.resource_version

    # --- watch --------------------------------------------------------------------------------

    def _watch(self, version: str) -> tuple[str, bool]:
        """Watches from version to the stream's end; returns the last version and whether it lived."""
        try:
            stream = self._connection.stream(
                self.resource.path(),
                {
                    "watch": "true",
                    "allowWatchBookmarks": "true",
                    "resourceVersion": version,
                    "timeoutSeconds": self._watch_seconds,
                },
                read_timeout_seconds=self._watch_seconds + self._silence_margin_seconds,
            )
        except ApiError as error:
            if error.status == 410:
                self._contact()
                raise _StaleError(str(error)) from error
            raise
        self._stream = stream
        if self._stop.is_set():  # set between the check and the assignment: interrupt saw no stream
            stream.close()
            return version, True
        self._contact()
        opened_at = self.last_contact_at
        heard = False
        try:
            for line in stream:
                heard = True
                self._take(line)
                self._contact()
        finally:
            self._stream = None
            stream.close()
        if not self._stop.is_set():
            self._contact()
        lasted = (self.last_contact_at or datetime.now(UTC)) - (opened_at or datetime.now(UTC))
        return self._version or version, heard or lasted.total_seconds() > 1.0

    def _take(self, line: bytes) -> None:
        try:
            event = _event_decoder.decode(line)
        except msgspec.DecodeError as error:
            raise MalformedAnswerError(
                f"watch of {self.resource.plural}: a line is no event ({error}): {line[:120]!r}"
            ) from error
        if event.type == "ERROR":
            self._take_error(event.object)
            return
        if event.type == "BOOKMARK":
            self._version = self._read_version(event.object) or self._version
            return
        try:
            item = self._decoder.decode(event.object)
            uid = item.metadata.uid
            version = item.metadata.resource_version
        except msgspec.DecodeError as error:
            version = self._read_version(event.object)
            broken = read_malformed(event.object, error)
            if event.type == "DELETED" and broken.uid in self._known:
                self._tell("deleted", broken.uid, self._known[broken.uid])
            self._complain(broken.uid, broken.name, broken.error)
        else:
            if event.type == "DELETED":
                self._tell("deleted", uid, item)
            else:
                self._tell("modified" if uid in self._known else "added", uid, item)
        self._version = version or self._version

    def _take_error(self, raw: msgspec.Raw) -> None:
        try:
            status = _status_decoder.decode(raw)
        except msgspec.DecodeError as error:
            raise MalformedAnswerError(f"watch of {self.resource.plural}: {error}") from error
        if status.code == 410:
            raise _StaleError(status.message)
        raise ApiError(
            status.code,
            status.reason,
            status.message,
            request=f"watch of {self.resource.plural}",
        )

    def _read_version(self, raw: msgspec.Raw) -> str:
        try:
            return _version_decoder.decode(raw).metadata.resource_version
        except msgspec.DecodeError:
            return ""

    # --- bookkeeping --------------------------------------------------------------------------

    def _tell(self, kind: ChangeKind, uid: str, item: Any) -> None:
        if kind == "deleted":
            if self._known.pop(uid, None) is None:
                return
            self._complained_of.discard(uid)
        else:
            self._known[uid] = item
        self._on_change(Change(self.resource, kind, uid, item))

    def _complain(self, uid: str, name: str, error: str) -> None:
        self.malformed_total += 1
        if (key := uid or name) not in self._complained_of:
            self._complained_of.add(key)
            log.warning(
                "object can not be read and is left out",
                kind=self.resource.kind,
                name=name,
                uid=uid,
                error=error,
            )

    def _set_synced(self) -> None:
        if not self.synced.is_set():
            self.synced.set()
            self._on_synced()

    def _contact(self) -> None:
        self.last_contact_at = datetime.now(UTC)
        if self.failing_since is not None:
            log.info(
                "kubernetes source answers again",
                kind=self.resource.kind,
                failing_since=self.failing_since.isoformat(),
            )
            self.failing_since = None
            self.last_error = ""

    def _fail(self, error: KubernetesError) -> None:
        self.last_error = str(error)
        if self.failing_since is None:
            self.failing_since = datetime.now(UTC)
            log.warning("kubernetes source fails", kind=self.resource.kind, error=str(error))

    def _pause(self, error: KubernetesError, pause_seconds: float) -> float:
        if isinstance(error, ApiError):
            if error.retry_after_seconds is not None and error.status in PASSING_STATUSES:
                return min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS)
            if error.status == 404:
                return self._absent_pause_seconds
        return random.uniform(pause_seconds / 2, pause_seconds)
