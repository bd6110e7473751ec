"""What readings say over time: rises of counters, minutes of slowdown, who holds a GPU."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from collectors.readings import GpuProcess, GpuReading, PodReference
from collectors.trends import Counter, Trends

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
QUIET = GpuReading(
    uuid="GPU-0",
    pcie_replay_total=100,
    nvlink_crc_errors_total=0,
    nvlink_replay_errors_total=0,
    nvlink_recovery_errors_total=0,
    clocks_event_reasons=0,
)


class Watch:
    def __init__(self) -> None:
        self.trends = Trends()
        self.now = START

    def see(self, seconds: float = 5, *, kubelet: bool = False, **values: object) -> dict:
        self.now += timedelta(seconds=seconds)
        reading = msgspec.structs.replace(QUIET, **values)
        return self.trends.observe([reading], now=self.now, allocations_known=kubelet)["GPU-0"]


def test_a_rise_is_known_from_the_second_poll_and_forgotten_after_its_window() -> None:
    watch = Watch()
    assert watch.see()["pcie_replays_per_minute"] is None
    assert watch.see()["pcie_replays_per_minute"] == 0
    assert watch.see(pcie_replay_total=120)["pcie_replays_per_minute"] == 20
    assert watch.see(pcie_replay_total=135)["pcie_replays_per_minute"] == 35
    assert watch.see(54, pcie_replay_total=135)["pcie_replays_per_minute"] == 35
    assert watch.see(2, pcie_replay_total=135)["pcie_replays_per_minute"] == 15
    assert watch.see(60, pcie_replay_total=135)["pcie_replays_per_minute"] == 0


def test_a_high_count_of_long_ago_is_no_rise() -> None:
    watch = Watch()
    watch.see(pcie_replay_total=174)
    assert watch.see(pcie_replay_total=174)["pcie_replays_per_minute"] == 0


def test_a_reset_and_a_gap_make_no_rise() -> None:
    watch = Watch()
    watch.see(nvlink_replay_errors_total=50)
    assert watch.see(nvlink_replay_errors_total=None)["nvlink_replays_in_ten_minutes"] is None
    assert watch.see(nvlink_replay_errors_total=2)["nvlink_replays_in_ten_minutes"] == 0
    assert watch.see(nvlink_replay_errors_total=3)["nvlink_replays_in_ten_minutes"] == 1


def test_what_rose_while_nobody_looked_is_no_rise_of_a_minute() -> None:
    watch = Watch()
    watch.see(pcie_replay_total=100)
    # NVML hung for an hour, in which 4 replays a minute came together.
    assert watch.see(3600, pcie_replay_total=340)["pcie_replays_per_minute"] == 4
    assert watch.see(5, pcie_replay_total=380)["pcie_replays_per_minute"] == 44
    watch.see(nvlink_replay_errors_total=0)
    seen = watch.see(36_000, nvlink_replay_errors_total=1)
    assert seen["nvlink_replays_in_ten_minutes"] == 1, "any rise is told, if only once"


def test_crc_errors_are_counted_by_the_second() -> None:
    watch = Watch()
    watch.see()
    assert watch.see(nvlink_crc_errors_total=9_000)["nvlink_crc_errors_per_second"] == 150


def test_slowdowns_are_counted_by_distinct_minutes_of_the_last_ten() -> None:
    watch = Watch()
    for _ in range(5):
        watch.see(10, clocks_event_reasons=0x48)
    assert watch.see(5, clocks_event_reasons=0x48)["slowdown_minutes"] == 1
    for _ in range(5):
        seen = watch.see(60, clocks_event_reasons=0x48)
    assert (seen["slowdown_minutes"], seen["thermal_slowdown_minutes"]) == (6, 6)
    assert seen["power_brake_minutes"] == 0
    assert watch.see(300, clocks_event_reasons=0)["slowdown_minutes"] == 5
    assert watch.see(3600, clocks_event_reasons=0)["slowdown_minutes"] == 0
    assert watch.see(-7200, clocks_event_reasons=0x8)["slowdown_minutes"] == 1


def test_who_holds_a_gpu_is_known_only_from_the_kubelet() -> None:
    watch = Watch()
    process = GpuProcess(pid=7)
    assert watch.see(processes=(process,))["stray_processes"] is None
    held = (PodReference("training", "rank-0"),)
    seen = watch.see(kubelet=True, allocated_to=held)
    assert (seen["holders"], seen["process_count"]) == (1, 0)
    # No process leads to a pod: the way to the pods may be missing, so nobody is accused.
    assert watch.see(kubelet=True, processes=(process,))["stray_processes"] is None
    both = (process, GpuProcess(pid=8, pod_uid="pod"))
    seen = watch.see(kubelet=True, processes=both, pod_uids=("pod",))
    assert seen["stray_processes"] == 1


@given(st.lists(st.one_of(st.none(), st.integers(0, 1000)), max_size=40))
def test_a_counter_never_shows_more_than_it_rose(values: list[int | None]) -> None:
    counter = Counter()
    rises = 0
    last: int | None = None
    for second, value in enumerate(values):
        risen = counter.observe(value, at=float(second), window_seconds=1000)
        if value is not None:
            rises += max(value - last, 0) if last is not None else 0
            assert risen is None if last is None else risen == rises
            last = value
