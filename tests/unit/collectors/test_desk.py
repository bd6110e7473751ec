"""When a report is due and what it says; what is known of GPUs that do not answer."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from collectors.desk import CHANGE_GAP_SECONDS, Desk, Identity
from collectors.folding import Occurrence
from collectors.inventory import GpuIdentity, Inventory, name_unopened, update_inventory
from collectors.kernel_log import Place
from collectors.memory import Memory, load_memory, save_memory
from collectors.readings import GpuReading, PodReference, Poll
from collectors.report import AgentCounters, NvmlState, Report

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ANSWERING = NvmlState(answering=True, since=START)


def gpu(index: int, **values: object) -> GpuReading:
    reading = GpuReading(
        uuid=f"GPU-{index}", index=index, pci_bus_id=f"0000:{index:02x}:00.0", remap_pending=False
    )
    return msgspec.structs.replace(reading, **values)


class Table:
    """A desk with a clock."""

    def __init__(self, memory: Memory | None = None) -> None:
        self.at = 1000.0
        numbers = itertools.count(1)
        self.desk = Desk(
            Identity("c", "n", "boot-1", "0.1"),
            memory or Memory(),
            push_interval_seconds=15,
            xid_window_seconds=5,
            find_pod=lambda pid: f"pod-{pid}",
            new_id=lambda: f"id-{next(numbers)}",
        )
        self.sequence = 0

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.at - 1000)

    def poll(self, *gpus: GpuReading, count: int | None = None) -> None:
        gpus = gpus or (gpu(0), gpu(1))
        self.desk.take_poll(
            Poll(
                at=self.now,
                driver_version="580",
                gpu_count=len(gpus) if count is None else count,
                gpus=gpus,
            ),
            nvml=ANSWERING,
            now=self.now,
        )

    def xid(self, code: int, index: int = 0) -> None:
        self.desk.take_xid(
            Occurrence(
                at=self.now,
                code=code,
                kind="xid",
                source="kernel",
                pci_bus_id=f"0000:{index:02x}:00.0",
            ),
            now=self.now,
            place=Place(inode=1, offset=10),
        )

    def report(self) -> Report | None:
        trigger = self.desk.due(at=self.at)
        if trigger is None:
            return None
        self.sequence += 1
        return self.desk.compose(
            trigger,
            spool_id="s",
            sequence=self.sequence,
            counters=AgentCounters(),
            now=self.now,
            at=self.at,
        )


def test_nothing_is_reported_before_anything_is_known() -> None:
    assert Table().report() is None


def test_a_report_comes_at_the_start_each_interval_and_at_once_on_a_change() -> None:
    table = Table()
    table.poll()
    first = table.report()
    assert first is not None
    assert (first.trigger, first.expected_gpus, len(first.gpus)) == ("start", 2, 2)
    table.at += 5
    table.poll()
    assert table.report() is None
    table.at += 5
    table.poll(gpu(0, remap_pending=True), gpu(1))
    changed = table.report()
    assert changed is not None
    assert changed.trigger == "change"
    table.at += 14.9
    assert table.report() is None
    table.at += 0.1
    later = table.report()
    assert later is not None
    assert (later.trigger, later.findings) == ("interval", changed.findings)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.xid(13),
        lambda table: table.poll(gpu(0), count=2),
        lambda table: table.poll(gpu(0, error_code=15), gpu(1)),
        lambda table: table.desk.take_silence(
            NvmlState(answering=False, since=START, message="NVML does not answer for 15 s"),
            now=table.now,
        ),
    ],
)
def test_each_kind_of_change_is_reported_at_once(change: object) -> None:
    table = Table()
    table.poll()
    table.report()
    table.at += 1
    change(table)  # type: ignore[operator]
    report = table.report()
    assert report is not None
    assert report.trigger == "change"


def test_a_storm_of_changes_is_no_flood() -> None:
    table = Table()
    table.poll()
    table.report()
    reports = []
    table.at += 10
    for code in range(100, 150):
        table.at += 0.02
        table.xid(code)
        reports.append(table.report())
    sent = [report for report in reports if report is not None]
    assert len(sent) <= 1 / CHANGE_GAP_SECONDS + 2
    table.at = table.desk.next_due_at(at=table.at)
    last = table.report()
    assert last is not None
    assert sum(len(report.xids) for report in (*sent, last)) == 50


def test_an_xid_gets_its_gpus_uuid_by_the_address() -> None:
    table = Table()
    table.poll()
    table.xid(79, index=1)
    report = table.report()
    assert report is not None
    assert report.xids[0].gpu_uuid == "GPU-1"
    assert report.findings[0].gpu_uuid == "GPU-1"


def test_an_xid_before_the_first_poll_is_not_held_back() -> None:
    table = Table()
    table.xid(79)
    report = table.report()
    assert report is not None
    assert not report.nvml.answering
    assert report.xids[0].pci_bus_id == "0000:00:00.0"


def test_a_silent_nvml_sends_no_old_readings() -> None:
    table = Table()
    table.poll()
    table.report()
    table.at += 20
    table.desk.take_silence(NvmlState(answering=False, since=START, message="m"), now=table.now)
    report = table.report()
    assert report is not None
    assert report.gpus == []
    assert report.polled_at == START


def test_the_kubelets_word_stands_beside_the_processes(tmp_path: Path) -> None:
    table = Table()
    table.desk.take_allocations({"GPU-0": (PodReference("training", "rank-0"),)})
    table.poll()
    assert [reading.allocated_to for reading in table.desk.gpus] == [
        (PodReference("training", "rank-0"),),
        (),
    ]


def test_a_person_lowers_the_expected_count_and_a_poll_does_not() -> None:
    table = Table()
    table.poll()
    table.poll(gpu(0))
    assert [finding.rule for finding in table.desk.ledger.findings] == ["gpu-count"]
    assert table.desk.inventory.expected_gpus == 2
    table.desk.take_decision(expected_gpus=1)
    table.poll(gpu(0))
    assert table.desk.ledger.findings == []
    table.desk.take_decision(expected_gpus=8)
    assert table.desk.inventory.expected_gpus == 1, "lowered only"


def test_a_restart_from_disk_keeps_episodes_and_events(tmp_path: Path) -> None:
    table = Table()
    table.poll(gpu(0, remap_pending=True), gpu(1))
    table.xid(79)
    report = table.report()
    assert report is not None
    save_memory(tmp_path, table.desk.memory)
    again = Table(load_memory(tmp_path))
    again.sequence = 10
    again.desk._new_id = iter(["fresh"] * 9).__next__  # a new episode would show
    again.poll(gpu(0, remap_pending=True), gpu(1))
    later = again.report()
    assert later is not None
    assert {finding.episode for finding in later.findings} == {
        finding.episode for finding in report.findings
    }
    assert {event.event_id for event in later.xids} <= {event.event_id for event in report.xids}
    assert again.desk.memory.place == Place(inode=1, offset=10)


def test_a_broken_memory_is_put_aside(tmp_path: Path) -> None:
    assert load_memory(tmp_path) == Memory()
    (tmp_path / "memory.json").write_bytes(b'{"ledger": 5}')
    assert load_memory(tmp_path) == Memory()
    assert (tmp_path / "memory.broken").exists()


def test_gpus_that_cannot_be_opened_are_named_by_who_is_not_there() -> None:
    known = Inventory(tuple(GpuIdentity(uuid=f"GPU-{index}", index=index) for index in range(4)), 4)
    assert name_unopened({2: 15}, ["GPU-0", "GPU-1", "GPU-3"], known) == [(known.gpus[2], 15)]
    # Index order is unstable: what is left is who is not there.
    assert name_unopened({0: 15}, ["GPU-0", "GPU-1", "GPU-3"], known) == [(known.gpus[2], 15)]
    both = name_unopened({1: 15, 2: 16}, ["GPU-0", "GPU-3"], known)
    assert sorted((gpu.uuid, code) for gpu, code in both) == [("GPU-1", 15), ("GPU-2", 16)]
    nameless = name_unopened({0: 15}, [], Inventory())
    assert nameless[0][0].uuid == "unknown-index-0"


def test_the_inventory_grows_and_forgets_only_what_was_replaced() -> None:
    inventory = update_inventory(Inventory(), [gpu(0), gpu(1)], gpu_count=2)
    assert inventory.expected_gpus == 2
    assert update_inventory(inventory, [gpu(0), gpu(1)], gpu_count=2) is inventory
    fewer = update_inventory(inventory, [gpu(0)], gpu_count=1)
    assert [known.uuid for known in fewer.gpus] == ["GPU-0", "GPU-1"]
    replaced = update_inventory(fewer, [gpu(0), gpu(5)], gpu_count=2)
    assert [known.uuid for known in replaced.gpus] == ["GPU-0", "GPU-5"]
