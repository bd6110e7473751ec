"""Reports on disk until ingest has taken them: append-only segments and one small state file.

A report is written before it is sent and removed after a 2xx answer, in order. Written means
handed to the kernel, so it outlives this process; reports of a change are also fsynced, so
they outlive the machine. Sequences rise strictly: after a crash of the machine, which may
have lost unsynced reports, the next one comes from a block reserved (and fsynced) before.
A torn record at a segment's end is cut off on opening.
"""

from __future__ import annotations

import errno
import os
import secrets
import struct
import threading
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import structlog

from collectors.errors import SpoolError

log = structlog.get_logger()

_RECORD = struct.Struct("<IIQ")  # length, CRC-32 of sequence and body, sequence
_SEQUENCE = struct.Struct("<Q")
_STATE = struct.Struct("<8s16s40sQQQQ")  # magic, spool id, boot id, acked, reserved, lost, refused
_MAGIC = b"PITWALL1"

RESERVE = 4096
"""Sequences reserved with one fsync: 17 hours of a report each 15 s."""

SEGMENTS = 16
"""A full spool drops a segment, a sixteenth of itself, at a time."""

REJECTED_KEPT = 16
"""Newest rejected reports kept for a person to look at."""


@dataclass
class _Segment:
    path: Path
    size: int
    sequences: deque[tuple[int, int, int]]  # sequence, offset of the body, length


class Spool:
    """Owns one directory. Safe for several threads, not for two processes.

    Raises SpoolError naming the directory when it cannot be read or written.
    """

    def __init__(self, directory: Path, *, max_bytes: int, boot_id: str, sync: bool = True) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = max(max_bytes // SEGMENTS, 4096)
        self._sync = sync
        self._boot_id = boot_id
        self._segments: deque[_Segment] = deque()
        self._acked = self._sequence = self._reserved = 0
        self.dropped_total = self.rejected_total = 0
        self.spool_id = secrets.token_hex(16)
        self._lock = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise self._error("opened", error) from error

    def append(self, body: bytes, *, sequence: int, durable: bool = False) -> None:
        """Write a report under the sequence that `next_sequence` gave for it.

        Drops the oldest segment, and counts its reports, when the spool is over its size.
        """
        with self._lock:
            record = _RECORD.pack(len(body), _checksum(sequence, body), sequence) + body
            try:
                segment = self._segments[-1] if self._segments else None
                if segment is None or segment.size + len(record) > self._segment_bytes:
                    segment = self._begin_segment(sequence)
                self._write_record(segment, record, durable=durable)
                segment.sequences.append((sequence, segment.size + _RECORD.size, len(body)))
                segment.size += len(record)
                self._drop_excess()
            except OSError as error:
                raise self._error("written", error) from error

    def next_sequence(self) -> int:
        """Return a sequence greater than any before, and count it as used."""
        with self._lock:
            self._sequence += 1
            if self._sequence >= self._reserved:
                self._reserved = self._sequence + RESERVE
                try:
                    self._write_state(sync=True)
                except OSError as error:
                    raise self._error("written", error) from error
            return self._sequence

    def oldest(self) -> tuple[int, bytes] | None:
        """Return the oldest report not yet taken as (sequence, body), None when all are."""
        with self._lock:
            while self._segments:
                segment = self._segments[0]
                if not segment.sequences:
                    if len(self._segments) == 1:
                        return None
                    self._remove(self._segments.popleft())
                    continue
                sequence, offset, length = segment.sequences[0]
                try:
                    with segment.path.open("rb") as file:
                        file.seek(offset)
                        body = file.read(length)
                except OSError as error:
                    raise self._error("read", error) from error
                if len(body) == length:
                    return sequence, body
                log.error("a segment of the spool is shorter than it was", path=str(segment.path))
                self.dropped_total += len(segment.sequences)
                self._acked = segment.sequences[-1][0]
                self._remove(self._segments.popleft())
            return None

    def remove(self, sequence: int) -> None:
        """Remove the report after its 2xx answer; one already dropped is passed over."""
        with self._lock:
            if not self._segments or not self._segments[0].sequences:
                return
            segment = self._segments[0]
            if segment.sequences[0][0] != sequence:
                return
            segment.sequences.popleft()
            self._acked = sequence
            try:
                if not segment.sequences and (
                    len(self._segments) > 1 or segment.size > self._segment_bytes // 2
                ):
                    self._remove(self._segments.popleft())
                self._write_state()
            except OSError as error:
                raise self._error("written", error) from error

    def reject(self, sequence: int, body: bytes) -> None:
        """Remove a report that ingest will never take; the newest of them are kept aside."""
        with self._lock:
            bin_directory = self.directory / "rejected"
            try:
                bin_directory.mkdir(exist_ok=True)
                (bin_directory / f"{sequence:020d}.json.gz").write_bytes(body)
                for path in sorted(bin_directory.iterdir())[:-REJECTED_KEPT]:
                    path.unlink()
            except OSError as error:
                raise self._error("written", error) from error
            self.rejected_total += 1
            self.remove(sequence)

    def __len__(self) -> int:
        with self._lock:
            return sum(len(segment.sequences) for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        """Bytes on disk, reports already taken but not yet cut away included."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def _open(self) -> None:
        self._read_state()
        for path in sorted(self.directory.glob("*.segment")):
            segment = self._load(path)
            while segment.sequences and segment.sequences[0][0] <= self._acked:
                segment.sequences.popleft()
            if segment.sequences:
                self._segments.append(segment)
                self._sequence = max(self._sequence, segment.sequences[-1][0])
            else:
                self._remove(segment)
        self._write_state(sync=True)

    def _load(self, path: Path) -> _Segment:
        data = path.read_bytes()
        segment = _Segment(path, 0, deque())
        while segment.size + _RECORD.size <= len(data):
            length, checksum, sequence = _RECORD.unpack_from(data, segment.size)
            start = segment.size + _RECORD.size
            body = data[start : start + length]
            if len(body) < length or _checksum(sequence, body) != checksum:
                break
            segment.sequences.append((sequence, start, length))
            segment.size = start + length
        if segment.size < len(data):
            log.warning(
                "a torn report was cut off the spool",
                path=str(path),
                bytes=len(data) - segment.size,
            )
            with path.open("r+b") as file:
                file.truncate(segment.size)
        return segment

    def _begin_segment(self, sequence: int) -> _Segment:
        segment = _Segment(self.directory / f"{sequence:020d}.segment", 0, deque())
        # An empty segment of an earlier run may have this name; what it held is of no use.
        segment.path.write_bytes(b"")
        if self._sync:
            _sync_directory(self.directory)
        self._segments.append(segment)
        return segment

    def _write_record(self, segment: _Segment, record: bytes, *, durable: bool) -> None:
        descriptor = os.open(segment.path, os.O_WRONLY)
        try:
            written = os.pwrite(descriptor, record, segment.size)
            if written < len(record):
                # A full disk takes a part: the next report overwrites it, at the same place.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable and self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _drop_excess(self) -> None:
        dropped = 0
        while self.size_bytes > self._max_bytes and len(self._segments) > 1:
            oldest = self._segments.popleft()
            dropped += len(oldest.sequences)
            self._remove(oldest)
        if dropped:
            self.dropped_total += dropped
            self._write_state()
            log.warning(
                "the spool is full: the oldest reports were dropped",
                directory=str(self.directory),
                reports=dropped,
            )

    def _remove(self, segment: _Segment) -> None:
        segment.path.unlink(missing_ok=True)

    def _read_state(self) -> None:
        path = self.directory / "spool.state"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        body, check = data[: _STATE.size], data[_STATE.size :]
        if len(body) == _STATE.size and check == zlib.crc32(body).to_bytes(4, "little"):
            fields = _STATE.unpack(body)
            self.spool_id = fields[1].hex()
            same_boot = fields[2].rstrip(b"\0").decode() == self._boot_id
            self._acked, self._reserved, self.dropped_total, self.rejected_total = fields[3:]
            self._sequence = self._acked if same_boot else max(self._acked, self._reserved)
            return
        if data:
            log.error("the spool's state is broken: the spool begins anew", path=str(path))
        # Reports under the old id are of no use: their sequences would mix with the new ones.
        for stale in self.directory.glob("*.segment"):
            self.dropped_total += len(self._load(stale).sequences)
            stale.unlink()

    def _write_state(self, *, sync: bool = False) -> None:
        body = _STATE.pack(
            _MAGIC,
            bytes.fromhex(self.spool_id),
            self._boot_id.encode()[:40],
            self._acked,
            self._reserved,
            self.dropped_total,
            self.rejected_total,
        )
        descriptor = os.open(self.directory / "spool.state", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, body + zlib.crc32(body).to_bytes(4, "little"), 0)
            if sync and self._sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _error(self, attempt: str, error: OSError) -> SpoolError:
        return SpoolError(
            f"the spool {self.directory} cannot be {attempt}: {error.strerror or error}; "
            "check the volume's space and permissions"
        )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(sequence: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_SEQUENCE.pack(sequence)))
