"""The kernel log read as it grows, from real files and a real pipe."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from collectors.kernel_log import NEEDLES, KernelLog, Line, Place, split_record

XID = b"NVRM: Xid (PCI:0000:10:00): %d, pid=1, name=python\n"


class Reader:
    """A log followed on a thread of its own."""

    def __init__(
        self, path: Path, place: Place | None = None, *, needles: tuple[bytes, ...] = NEEDLES
    ) -> None:
        self.log = KernelLog(path, boot_id="boot", place=place, needles=needles)
        self.lines: list[Line] = []
        self.arrived = threading.Condition()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        self.log.follow(self.take, stopped=self.stopped.is_set)

    def take(self, line: Line) -> None:
        with self.arrived:
            self.lines.append(line)
            self.arrived.notify_all()

    @property
    def texts(self) -> list[str]:
        return [line.text for line in self.lines if line.text]

    def wait(self, wanted: Callable[[Reader], bool], seconds: float = 10) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: wanted(self), seconds), self.texts

    def stop(self) -> Place:
        self.stopped.set()
        self.thread.join(5)
        return self.lines[-1].place if self.lines else Place()


def test_an_old_log_is_begun_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.write_bytes(XID % 13)
    reader = Reader(path)
    reader.wait(lambda reader: bool(reader.lines))
    with path.open("ab") as file:
        file.write(XID % 79)
    reader.wait(lambda reader: bool(reader.texts))
    assert ["79" in text for text in reader.texts] == [True]
    reader.stop()


def test_a_log_that_appears_later_is_read_from_its_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectors.kernel_log.RETRY_SECONDS", 0.1)
    path = tmp_path / "kern.log"
    reader = Reader(path)
    deadline = time.monotonic() + 5
    while reader.log.problem is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert str(path) in str(reader.log.problem)
    path.write_bytes(XID % 79)
    reader.wait(lambda reader: bool(reader.texts))
    assert reader.log.problem is None
    reader.stop()


def test_a_place_that_was_kept_goes_on_after_its_line(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    first = Reader(path)
    first.wait(lambda reader: bool(reader.lines))
    with path.open("ab") as file:
        file.write(XID % 13 + b"noise\n" * 100 + XID % 31)
    first.wait(lambda reader: len(reader.texts) == 2)
    first.stop()
    second = Reader(path, first.lines[1].place)
    with path.open("ab") as file:
        file.write(XID % 79)
    second.wait(lambda reader: len(reader.texts) == 2)
    assert [text.split("): ")[1].split(",")[0] for text in second.texts] == ["31", "79"]
    second.stop()


def test_rotation_while_nobody_read_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    first = Reader(path)
    first.wait(lambda reader: bool(reader.lines))
    place = first.stop()
    os.replace(path, tmp_path / "kern.log.1")
    path.write_bytes(XID % 79)
    second = Reader(path, place)
    second.wait(lambda reader: bool(reader.texts))
    second.stop()


def test_a_huge_log_of_noise_is_passed_over_quickly(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    reader = Reader(path)
    reader.wait(lambda reader: bool(reader.lines))
    noise = (b"x" * 200 + b"\n") * 5_000
    began = time.process_time()
    with path.open("ab") as file:
        for _ in range(40):
            file.write(noise)
        file.write(b"y" * 3_000_000 + b"\n" + XID % 79)
    reader.wait(lambda reader: bool(reader.texts))
    assert reader.log.unreadable_total >= 1, "the endless line"
    assert time.process_time() - began < 5
    reader.stop()


def test_binary_garbage_is_counted_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    reader = Reader(path)
    reader.wait(lambda reader: bool(reader.lines))
    with path.open("ab") as file:
        file.write(os.urandom(100_000) + b"\nXid \xff\xfe\n" + XID % 79)
    reader.wait(lambda reader: any("79" in text for text in reader.texts))
    assert reader.log.unreadable_total >= 1
    reader.stop()


def test_records_of_kmsg_are_split() -> None:
    record = b"6,3964,206764307,-;NVRM: Xid (PCI:0000:10:00): 79\n SUBSYSTEM=pci\n"
    assert split_record(record) == (3964, 206764307, b"NVRM: Xid (PCI:0000:10:00): 79")
    for other in (b"", b"plain text", b"6;short", b"a,b,c;words", b"6,x,1,-;text"):
        assert split_record(other) is None


def test_the_real_device_is_read_from_its_start_and_then_from_its_place() -> None:
    device = Path("/dev/kmsg")
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        pytest.skip(f"/dev/kmsg cannot be read here: {error}")
    # Every line is taken here: a test must not write an XID into the machine's own log.
    reader = Reader(device, needles=(b"",))
    try:
        reader.wait(lambda reader: len(reader.lines) >= 10)
    except AssertionError:
        pytest.skip(f"/dev/kmsg holds only {len(reader.lines)} lines here")
    reader.stop()
    sequences = [line.place.sequence for line in reader.lines]
    assert sequences == sorted(set(sequences))
    assert all(line.at <= datetime.now(UTC) for line in reader.lines)
    middle = reader.lines[5].place
    again = Reader(device, middle, needles=(b"",))
    again.wait(lambda reader: len(reader.lines) >= 4)
    again.stop()
    assert again.lines[0].place.sequence == sequences[6]
    # Sequences of another boot say nothing about this one.
    anew = Reader(device, Place(boot_id="another", sequence=10**9), needles=(b"",))
    anew.wait(lambda reader: len(reader.lines) >= 4)
    anew.stop()
    assert anew.lines[0].place.sequence == sequences[0]
