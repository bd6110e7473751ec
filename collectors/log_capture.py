"""A kernel log in a file, whole: its XIDs with their times, in the order in which they stand.

The file may be dmesg's, /dev/kmsg's or journald's, of any size, cut, or binary in places. It is
read in chunks, and only lines that may hold an XID are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from collectors.errors import CaptureError
from collectors.folding import Occurrence
from collectors.kernel_log import MAX_LINE_BYTES, NEEDLES, split_record
from collectors.pci import normalise_pci
from collectors.xid import parse_kernel_line

CHUNK_BYTES = 1 << 20
BOOT = datetime(1970, 1, 1, tzinfo=UTC)
"""Times that count from an unknown boot are told from here; `is_since_boot` says so."""

_WANTED = (*NEEDLES, b"NVRM: GPU at PCI:")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\d*(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_DMESG = re.compile(r"\[(\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4})\]", re.ASCII)
_SYSLOG = re.compile(r"^(?:<\d+>)?(\w{3} [ \d]\d \d\d:\d\d:\d\d) ", re.ASCII)
_SECONDS = re.compile(r"\[ *(\d{1,12}\.\d{1,9})\]", re.ASCII)
_NAMED = re.compile(r"NVRM: GPU at PCI:([0-9A-Fa-f:.]+): (GPU-[0-9a-f-]{8,64})")


@dataclass
class LogCapture:
    """What was found. `uuids` are those that the log itself names, by PCI id."""

    occurrences: list[Occurrence] = field(default_factory=list)
    uuids: dict[str, str] = field(default_factory=dict)
    lines: int = 0
    unreadable: int = 0

    @property
    def is_since_boot(self) -> bool:
        """Whether the times count from an unknown boot."""
        return all(one.at.year == BOOT.year for one in self.occurrences)


def read_log(path: Path, *, year: int | None = None) -> LogCapture:
    """Return the XIDs of a log file. `year` is for times without one (syslog's), else 2000.

    Raises CaptureError when the file cannot be read.
    """
    capture = LogCapture()
    at = BOOT
    for raw in _find_lines(path, capture):
        record = split_record(raw)
        if record is not None:
            at = BOOT + timedelta(microseconds=min(max(record[1], 0), 10**15))
            raw = record[2]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            capture.unreadable += 1
            text = raw.decode(errors="replace")
        if record is None:
            at = read_time(text, year=year) or at
        named = _NAMED.search(text)
        if named is not None:
            address = normalise_pci(named[1])
            if address is not None:
                capture.uuids[address] = named[2]
            continue
        told = parse_kernel_line(text)
        if told is None:
            if "Xid" in text:
                capture.unreadable += 1
            continue
        capture.occurrences.append(
            Occurrence(
                at=at,
                code=told.code,
                kind=told.kind,
                source="kernel",
                pci_bus_id=told.pci_bus_id,
                text=told.text,
                recovery_action=told.recovery_action,
                follow_on=told.follow_on,
            )
        )
    return capture


def read_time(line: str, *, year: int | None = None) -> datetime | None:
    """Return the time that stands in a line, in whichever form, None where there is none."""
    try:
        if (found := _DMESG.search(line)) is not None:
            return datetime.strptime(found[1], "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
        if (found := _ISO.search(line)) is not None:
            words, fraction, zone = found.groups()
            offset = "+00:00" if zone in (None, "Z") else zone
            return datetime.fromisoformat(
                f"{words}.{(fraction or '0').ljust(6, '0')}{offset}"
            ).astimezone(UTC)
        if (found := _SECONDS.search(line)) is not None:
            return BOOT + timedelta(seconds=float(found[1]))
        if (found := _SYSLOG.match(line)) is not None:
            words = f"{year or 2000} {found[1]}"
            return datetime.strptime(words, "%Y %b %d %H:%M:%S").replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None
    return None


def _find_lines(path: Path, capture: LogCapture) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            rest = b""
            while chunk := file.read(CHUNK_BYTES):
                capture.lines += chunk.count(b"\n")
                complete, end, tail = (rest + chunk).rpartition(b"\n")
                if end and any(needle in complete for needle in _WANTED):
                    yield from _cut(complete, capture)
                rest = tail if len(tail) <= MAX_LINE_BYTES else tail[:MAX_LINE_BYTES]
            if rest:
                capture.lines += 1
                yield from _cut(rest, capture)
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error


def _cut(data: bytes, capture: LogCapture) -> Iterator[bytes]:
    for raw in data.split(b"\n"):
        if any(needle in raw for needle in _WANTED):
            if len(raw) > MAX_LINE_BYTES:
                capture.unreadable += 1
                raw = raw[:MAX_LINE_BYTES]
            yield raw
