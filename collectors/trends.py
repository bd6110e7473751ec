"""What a GPU's readings say over time: how fast its counters rise, how often it was slowed down.

Kept in memory by who polls, a few numbers a GPU: a counter that stands still costs two numbers.
After a restart nothing is known until the second poll, and what is not known is not judged. A
counter that falls began anew (a reset, a driver's reload): nothing is made of the fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any

from collectors.readings import GpuReading
from collectors.rules_gpu import HARDWARE_SLOWDOWN_BIT, HARDWARE_THERMAL_BIT, POWER_BRAKE_BIT

MINUTE_SECONDS = 60.0
TEN_MINUTES_SECONDS = 600.0
MINUTES_KEPT = (1 << 10) - 1
"""Ten minutes, a bit each."""


@dataclass(frozen=True)
class Rise:
    """A counter and what of its rise a rule looks at: the rise in `window_seconds` by `per`."""

    counter: str
    adds: str
    window_seconds: float
    per_seconds: float


RISES: tuple[Rise, ...] = (
    Rise("pcie_replay_total", "pcie_replays_per_minute", MINUTE_SECONDS, MINUTE_SECONDS),
    Rise("nvlink_crc_errors_total", "nvlink_crc_errors_per_second", MINUTE_SECONDS, 1.0),
    Rise(
        "nvlink_replay_errors_total",
        "nvlink_replays_in_ten_minutes",
        TEN_MINUTES_SECONDS,
        TEN_MINUTES_SECONDS,
    ),
    Rise(
        "nvlink_recovery_errors_total",
        "nvlink_recoveries_in_ten_minutes",
        TEN_MINUTES_SECONDS,
        TEN_MINUTES_SECONDS,
    ),
)

REASON_MINUTES = {
    "slowdown_minutes": HARDWARE_SLOWDOWN_BIT,
    "thermal_slowdown_minutes": HARDWARE_THERMAL_BIT,
    "power_brake_minutes": POWER_BRAKE_BIT,
}

ADDED_FIELDS: tuple[str, ...] = (
    *(rise.adds for rise in RISES),
    *REASON_MINUTES,
    "holders",
    "process_count",
    "stray_processes",
)
"""The fields that rules may read beside those of a reading."""

WHY_UNKNOWN = {
    name: "needs the kubelet's word"
    if name in ("holders", "process_count", "stray_processes")
    else "needs a second reading"
    for name in ADDED_FIELDS
}
"""Why each of them is not known of a reading that stands alone."""


def find_rise(before: Any, value: Any) -> Any:
    """Return by how much a counter rose, 0 where it fell: it began anew. What is below zero is no count.

    One number, or arrays of them (collectors/column_trends.py), in which NaN stays NaN.
    """
    return (value - before) * (value > before) * (before >= 0)


def share_in_window(gap_seconds: float, window_seconds: float) -> float:
    """Return which share of a rise since the last look may lie within the window: 1 but after a long gap.

    Who was away for an hour sees an hour's rise at once, and it is no minute's.
    """
    return window_seconds / max(gap_seconds, window_seconds)


def scale_rise(rise: Rise, risen: Any) -> Any:
    """Return what the rules read of a rise within its window: one number, or an array."""
    share = rise.per_seconds / rise.window_seconds
    return risen if share == 1 else risen * share


def pass_minutes(bits: Any, passed: int) -> Any:
    """Return the last ten minutes' bits once `passed` more are over, or the clock was put back."""
    return (bits << passed) & MINUTES_KEPT if 0 <= passed <= 10 else bits & 0


class Counter:
    """One counter: its last value and when it rose by how much, within the window."""

    __slots__ = ("last", "last_at", "steps")

    def __init__(self) -> None:
        self.last: int | None = None
        self.last_at = 0.0
        self.steps: list[tuple[float, int]] = []

    def observe(self, value: int | None, *, at: float, window_seconds: float) -> int | None:
        """Return the rise within the window, None when there is nothing to compare with."""
        before, before_at = self.last, self.last_at
        if value is None:
            return None
        self.last, self.last_at = value, at
        if before is None:
            return None
        risen = find_rise(before, value)
        if risen:
            risen = ceil(risen * share_in_window(at - before_at, window_seconds))
            self.steps.append((at, risen))
        if not self.steps:
            return 0
        # A clock that was put back leaves steps of the future: they are not within the window.
        self.steps = [step for step in self.steps if at - window_seconds < step[0] <= at]
        return sum(rise for _, rise in self.steps)


class Minutes:
    """In which of the last ten minutes something was seen: a bit a minute, this one the lowest."""

    __slots__ = ("_bits", "_minute")

    def __init__(self) -> None:
        self._minute = 0
        self._bits = 0

    def observe(self, seen: bool, *, at: float) -> int:
        """Return the number of distinct minutes of the last ten in which it was seen."""
        minute = int(at // MINUTE_SECONDS)
        if minute != self._minute:
            self._bits = pass_minutes(self._bits, minute - self._minute)
            self._minute = minute
        if seen:
            self._bits |= 1
        return self._bits.bit_count()


@dataclass
class _Trend:
    counters: tuple[Counter, ...] = field(default_factory=lambda: tuple(Counter() for _ in RISES))
    minutes: tuple[Minutes, ...] = field(
        default_factory=lambda: tuple(Minutes() for _ in REASON_MINUTES)
    )


class Trends:
    """The trends of a node's GPUs by UUID; what is no longer polled is forgotten."""

    def __init__(self) -> None:
        self._by_uuid: dict[str, _Trend] = {}

    def observe(
        self, gpus: Sequence[GpuReading], *, now: datetime, allocations_known: bool = False
    ) -> dict[str, dict[str, float | int | None]]:
        """Return by UUID what the rules may read beside the reading itself.

        `allocations_known` says that the kubelet has told which pod holds which GPU: only then
        can a GPU without a holder, or a process without a pod, mean anything.
        """
        at = now.timestamp()
        # Where no process at all leads to a pod, it is the way to the pods that is missing.
        pods_found = allocations_known and any(gpu.pod_uids for gpu in gpus)
        kept: dict[str, _Trend] = {}
        added: dict[str, dict[str, float | int | None]] = {}
        for gpu in gpus:
            trend = kept[gpu.uuid] = self._by_uuid.get(gpu.uuid) or _Trend()
            values = added[gpu.uuid] = _observe_one(trend, gpu, at)
            if "processes" in gpu.missing or gpu.error_code is not None:
                continue
            values["process_count"] = len(gpu.processes)
            if allocations_known:
                values["holders"] = len(gpu.allocated_to)
            if pods_found:
                values["stray_processes"] = sum(
                    process.pod_uid is None for process in gpu.processes
                )
        self._by_uuid = kept
        return added


def _observe_one(trend: _Trend, gpu: GpuReading, at: float) -> dict[str, float | int | None]:
    values: dict[str, float | int | None] = dict.fromkeys(ADDED_FIELDS)
    for rise, counter in zip(RISES, trend.counters, strict=True):
        risen = counter.observe(
            getattr(gpu, rise.counter), at=at, window_seconds=rise.window_seconds
        )
        if risen is not None:
            values[rise.adds] = scale_rise(rise, risen)
    reasons = gpu.clocks_event_reasons
    if reasons is not None:
        for (name, bit), minutes in zip(REASON_MINUTES.items(), trend.minutes, strict=True):
            values[name] = minutes.observe(bool(reasons & bit), at=at)
    return values
