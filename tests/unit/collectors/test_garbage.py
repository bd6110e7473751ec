"""Garbage from a node's kernel, driver and clock: nothing is raised, nothing is opened wrongly, and it is counted."""

from __future__ import annotations

import os
import time
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.agent import Agent
from collectors.desk import Desk, Identity
from collectors.errors import CollectorError
from collectors.folding import Occurrence
from collectors.inspection import inspect_all
from collectors.kernel_log import KernelLog, Line, Place
from collectors.memory import Memory
from collectors.readings import GpuReading, Poll
from collectors.report import AgentCounters, NvmlState, Report, decode_report, encode_report
from collectors.settings import AgentSettings
from collectors.xid import parse_kernel_line
from tests.reports import NOW, gpu, report

XID = b"NVRM: Xid (PCI:0000:10:00): 79, pid=1, GPU has fallen off the bus.\n"
CUT = b"NVRM: Xid (PCI:0000:10:0\n"
NOISE = b"[ 1.0] IPv6: ADDRCONF(NETDEV_CHANGE): eth0: link becomes ready\n"
MEGABYTE = 1 << 20
WHOLE_FILE = Place(inode=-1)


def make_log(path: Path, size_bytes: int) -> None:
    """A log of so many bytes: noise, a hole that reads as zeros, binary, cut lines, and an XID at each end."""
    with path.open("wb") as file:
        file.write(XID)
        file.write(NOISE * (4 * MEGABYTE // len(NOISE)))
        file.write(os.urandom(MEGABYTE) + b"\nXid \xff\xfe\n" + CUT * 3)
        file.seek(size_bytes - MEGABYTE)
        file.write(b"\n" + NOISE * 100 + XID.replace(b"79", b"119"))


def follow(path: Path, until: int) -> tuple[KernelLog, list[Line]]:
    """Read a log as the agent does, from its start, until so many lines came."""
    log = KernelLog(path, boot_id="boot", place=WHOLE_FILE)
    lines: list[Line] = []
    deadline = time.monotonic() + 120
    log.follow(
        lambda line: lines.append(line) if line.text else None,
        stopped=lambda: (
            len([line for line in lines if parse_kernel_line(line.text)]) >= until
            or time.monotonic() > deadline
        ),
    )
    return log, lines


@pytest.mark.parametrize(
    "size_bytes",
    [
        pytest.param(50 * MEGABYTE, id="50-MB"),
        pytest.param(1024 * MEGABYTE, id="1-GB", marks=pytest.mark.acceptance),
    ],
)
def test_a_huge_log_is_read_in_little_memory_and_its_xids_are_found(
    tmp_path: Path, size_bytes: int
) -> None:
    path = tmp_path / "kern.log"
    make_log(path, size_bytes)
    assert path.stat().st_size > size_bytes - MEGABYTE
    tracemalloc.start()
    log, lines = follow(path, until=2)
    (found,) = inspect_all([path], now=NOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = [parsed.code for line in lines if (parsed := parse_kernel_line(line.text))]
    assert told == [79, 119]
    assert log.unreadable_total >= 2, "the binary line and the endless one"
    assert [event.xid for event in found.events] == [79, 119]
    assert "lines cannot be read" in found.summary
    assert peak < 32 * MEGABYTE


def test_cut_lines_of_the_kernel_are_counted_by_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    agent = Agent(
        AgentSettings(node="n1", cluster="c", kmsg_path=path, spool_dir=tmp_path / "spool")
    )
    assert agent._kernel_log is not None
    before = agent._kernel_log.unreadable_total
    for text in (CUT.decode(), "NVRM: Xid (PCI:0000:10:00): ", "Xid: 79", ""):
        agent._hear_kernel(Line(NOW, text.strip(), Place()))
    assert agent._kernel_log.unreadable_total == before + 3
    assert agent._desk.ledger.findings == []


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_line_of_bytes_upsets_the_parser(raw: bytes) -> None:
    for line in (raw, b"NVRM: Xid (PCI:" + raw, XID[:-1] + raw, XID[: len(raw)] + raw):
        parsed = parse_kernel_line(line.decode(errors="replace"))
        assert parsed is None or 0 <= parsed.code < 1_000_000


@pytest.mark.parametrize("code", [0, 1, 62, 155, 999, 99_999])
def test_an_xid_that_nobody_knows_is_kept_as_a_warning(code: int) -> None:
    desk = make_desk()
    told = parse_kernel_line(f"NVRM: Xid (PCI:0000:10:00): {code}, what is this")
    assert told is not None
    desk.take_xid(
        Occurrence(NOW, told.code, "xid", "kernel", pci_bus_id=told.pci_bus_id, text=told.text),
        now=NOW,
    )
    (finding,) = desk.ledger.findings
    assert finding.rule == f"xid-{code}"
    assert finding.severity == ("critical" if code == 62 else "warning")
    assert finding.action


ABSURD = [
    float("nan"),
    float("inf"),
    -float("inf"),
    -1.0,
    -1e30,
    1e300,
]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize(
    "name",
    [
        "temperature_celsius",
        "memory_temperature_celsius",
        "power_watts",
        "energy_joules_total",
        "gpu_utilization_ratio",
    ],
)
def test_an_absurd_measurement_opens_nothing_and_still_travels(name: str, value: float) -> None:
    desk = make_desk()
    for second in range(0, 700, 50):
        poll(desk, second, **{name: value})
    assert desk.ledger.findings == []
    sent = compose(desk, 700)
    refusal = name
    try:
        decode_report(encode_report(sent))
    except CollectorError as error:
        refusal = str(error)
    assert name in refusal, "a refusal names the field"


COUNTERS = (
    "pcie_replay_total",
    "nvlink_crc_errors_total",
    "nvlink_replay_errors_total",
    "nvlink_recovery_errors_total",
)


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_that_begin_anew_or_go_below_zero_open_nothing(name: str) -> None:
    desk = make_desk()
    for second, value in enumerate([174, 174, 0, 0, -5, -5, 0, None, 0, 174 - 174]):
        poll(desk, 5 * second, **{name: value})
        assert desk.ledger.findings == [], value


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_an_hour_opens_nothing_and_ends_nothing(hours: int) -> None:
    desk = make_desk()
    poll(desk, 0, remap_failure=True)
    (before,) = desk.ledger.findings
    for second in range(0, 120, 5):
        poll(desk, hours * 3600 + second, remap_failure=True, pcie_replay_total=100)
    assert [one.episode for one in desk.ledger.findings] == [before.episode]
    poll(desk, 130, remap_failure=True)
    assert [one.episode for one in desk.ledger.findings] == [before.episode]
    poll(desk, 140, remap_failure=False)
    assert desk.ledger.findings == []


def test_an_applications_xid_ends_though_the_clock_was_put_back() -> None:
    desk = make_desk()
    late = NOW + timedelta(hours=1)
    desk.take_xid(Occurrence(late, 31, "xid", "kernel", gpu_uuid="GPU-n1-0"), now=late)
    poll(desk, 0)
    assert [one.rule for one in desk.ledger.findings] == ["xid-31"]
    poll(desk, 601)
    assert desk.ledger.findings == []


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(
        ["\x00", "\x1b[2J", "'; DROP TABLE node; --", "\ud800", "<script>", "A" * 9000]
    ),
    st.lists(st.integers(), max_size=2),
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_report_with_any_field_broken_is_refused_or_read_and_nothing_else(
    data: st.DataObject,
) -> None:
    document = msgspec.to_builtins(report(gpus=[gpu()]))
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(walk(document))
        parent, key = data.draw(st.sampled_from(places))
        parent[key] = data.draw(LEAVES)
    try:
        body = msgspec.json.encode(document)
    except (UnicodeEncodeError, OverflowError):
        return  # this cannot even be written as JSON
    try:
        read: Report | str = decode_report(body, compressed=False)
    except CollectorError as error:
        read = str(error)
    assert read


def walk(value: object) -> Iterator[tuple[dict[object, object], object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def make_desk() -> Desk:
    numbers = iter(range(1_000_000))
    return Desk(
        Identity("c", "n1", "boot-1", "1"),
        Memory(),
        push_interval_seconds=15,
        xid_window_seconds=5,
        find_pod=lambda pid: None,
        new_id=lambda: f"id-{next(numbers)}",
    )


def poll(desk: Desk, second: float, **fields: object) -> None:
    at = NOW + timedelta(seconds=second)
    readings: tuple[GpuReading, ...] = (gpu("n1", 0, **fields), gpu("n1", 1))
    desk.take_poll(
        Poll(at=at, driver_version="580", gpu_count=2, gpus=readings),
        nvml=NvmlState(answering=True),
        now=at,
    )


def compose(desk: Desk, second: float) -> Report:
    return desk.compose(
        "interval",
        spool_id="spool",
        sequence=1,
        counters=AgentCounters(),
        now=NOW + timedelta(seconds=second),
        at=second,
    )
