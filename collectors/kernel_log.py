"""The kernel log as it grows: /dev/kmsg, or the file that syslog or journald writes.

A place in the log is kept on disk by the agent, so that a restart neither tells a line twice
nor misses one. What the log holds is never trusted: lines may be binary, cut, or endless.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

MAX_LINE_BYTES = 16 * 1024
"""A longer line is cut and counted; the kernel's own records end at 8 kB."""

CHUNK_BYTES = 256 * 1024
FILE_INTERVAL_SECONDS = 0.25
"""How often a file is looked at; the device wakes us itself."""

RETRY_SECONDS = 5.0
NEEDLES = (b"Xid", b"fallen off")
"""A chunk of a file with none of these holds nothing of ours, and is not cut into lines."""


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where reading goes on: a kmsg sequence within a boot, or an offset within a file."""

    boot_id: str = ""
    sequence: int = -1
    inode: int = 0
    offset: int = 0


class Line(msgspec.Struct, frozen=True):
    """One line of the log, when it was written, and the place after it."""

    at: datetime
    text: str
    place: Place


def split_record(record: bytes) -> tuple[int, int, bytes] | None:
    """Return (sequence, microseconds, text) of a /dev/kmsg record, None for anything else."""
    head, mark, rest = record.partition(b";")
    parts = head.split(b",")
    if not mark or len(parts) < 3:
        return None
    try:
        return int(parts[1]), int(parts[2]), rest.partition(b"\n")[0]
    except ValueError:
        return None


class KernelLog:
    """Reads one log on the thread that calls `follow`. Counts what could not be read."""

    def __init__(
        self,
        path: Path,
        *,
        boot_id: str,
        place: Place | None = None,
        needles: tuple[bytes, ...] = NEEDLES,
    ) -> None:
        self.path = path
        self._needles = needles
        self.place = place or Place()
        self.unreadable_total = 0
        self.problem: str | None = None
        self._boot_id = boot_id

    def follow(self, on_line: Callable[[Line], None], *, stopped: Callable[[], bool]) -> None:
        """Hand every new line that may hold an XID to `on_line` until `stopped()`.

        A log that is not there, or not ours to read, is tried again each RETRY_SECONDS;
        `problem` says so meanwhile.
        """
        while not stopped():
            try:
                device = stat.S_ISCHR(self.path.stat().st_mode)
                lines = self._device_lines(stopped) if device else self._file_lines(stopped)
                self.problem = None
                for line in lines:
                    on_line(line)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and self.place.inode == 0:
                    # A file that appears later is new: all of it counts.
                    self.place = msgspec.structs.replace(self.place, inode=-1)
                self.problem = f"{self.path} cannot be read: {error.strerror or error}"
                _sleep(RETRY_SECONDS, stopped)

    def _device_lines(self, stopped: Callable[[], bool]) -> Iterator[Line]:
        # The ring is read from its start: what was logged before the agent came counts too.
        seen = self.place.sequence if self.place.boot_id == self._boot_id else -1
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        try:
            while not stopped():
                try:
                    record = os.read(descriptor, MAX_LINE_BYTES)
                except BlockingIOError:
                    poller.poll(1_000)
                    continue
                except OSError as error:
                    if error.errno != errno.EPIPE:
                        raise
                    # Records were overwritten before they were read; the next read goes on.
                    self.unreadable_total += 1
                    continue
                parts = split_record(record)
                if parts is None:
                    self.unreadable_total += 1
                    continue
                sequence, microseconds, text = parts
                if sequence <= seen:
                    continue
                self.place = Place(boot_id=self._boot_id, sequence=sequence)
                if any(needle in text for needle in self._needles):
                    yield Line(_kernel_time(microseconds), self._decode(text), self.place)
        finally:
            os.close(descriptor)

    def _file_lines(self, stopped: Callable[[], bool]) -> Iterator[Line]:
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            status = os.fstat(descriptor)
            inode = status.st_ino
            if inode == self.place.inode and self.place.offset <= status.st_size:
                offset = self.place.offset
            elif self.place.inode == 0:
                # A log of unknown age: its old lines may be of another boot.
                offset = status.st_size
            else:
                offset = 0
            self.place = Place(inode=inode, offset=offset)
            # A line without text: the place is worth keeping before the first XID comes.
            yield Line(datetime.now(UTC), "", self.place)
            rest = b""
            while not stopped():
                chunk = os.pread(descriptor, CHUNK_BYTES, offset)
                if chunk:
                    offset += len(chunk)
                    rest = yield from self._cut(rest + chunk, inode=inode, offset=offset)
                    continue
                replaced, shrunk = self._look(inode, offset)
                if shrunk:
                    offset, rest = 0, b""
                    self.place = Place(inode=inode, offset=0)
                elif replaced:
                    # The old file is read to its end by now; a last line without its end too.
                    if rest:
                        yield from self._cut(rest + b"\n", inode=inode, offset=offset + 1)
                    self.place = Place(inode=-1)
                    return
                else:
                    _sleep(FILE_INTERVAL_SECONDS, stopped)
        finally:
            os.close(descriptor)

    def _look(self, inode: int, offset: int) -> tuple[bool, bool]:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return False, False  # between the two steps of a rotation
        if status.st_ino != inode:
            return True, False
        return False, status.st_size < offset

    def _cut(self, data: bytes, *, inode: int, offset: int) -> Generator[Line, None, bytes]:
        """Yield the lines that may hold an XID; return what comes after the last line end."""
        complete, end, rest = data.rpartition(b"\n")
        if end and any(needle in complete for needle in self._needles):
            start = offset - len(data)
            for raw in complete.split(b"\n"):
                start += len(raw) + 1
                if any(needle in raw for needle in self._needles):
                    parts = split_record(raw)
                    text = self._decode(parts[2] if parts else raw)
                    place = Place(inode=inode, offset=start)
                    yield Line(datetime.now(UTC), text, place)
        if len(rest) > MAX_LINE_BYTES:
            self.unreadable_total += 1
            rest = rest[-MAX_LINE_BYTES:]
        self.place = Place(inode=inode, offset=offset - len(rest))
        return rest

    def _decode(self, raw: bytes) -> str:
        if len(raw) > MAX_LINE_BYTES:
            self.unreadable_total += 1
            raw = raw[:MAX_LINE_BYTES]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.unreadable_total += 1
            return raw.decode(errors="replace")


def _kernel_time(microseconds: int) -> datetime:
    """Return the wall time of a kernel time stamp, which counts from boot (CLOCK_MONOTONIC)."""
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - microseconds / 1e6
    return datetime.now(UTC) - timedelta(seconds=max(age, 0.0))


def _sleep(seconds: float, stopped: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stopped() and (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, FILE_INTERVAL_SECONDS))
