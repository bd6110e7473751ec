"""What the readings of a whole cluster say over time: collectors/trends.py over columns.

The same windows and the same arithmetic as on a node. A counter that stands still costs nothing
but its last value: only rises are kept, and what left the window is taken off the sum again.
Needs numpy, which the agent does not have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.column_judgement import Column, find_places, take_places
from collectors.trends import (
    MINUTE_SECONDS,
    MINUTES_KEPT,
    REASON_MINUTES,
    RISES,
    Rise,
    find_rise,
    pass_minutes,
    scale_rise,
)

_MINUTES = np.array([bits.bit_count() for bits in range(MINUTES_KEPT + 1)], dtype=np.float64)

Places = npt.NDArray[np.intp]


class _Counters:
    """One counter of every GPU: last values, and the rises within the window by time."""

    def __init__(self, rise: Rise) -> None:
        self.rise = rise
        self._last: Column = np.zeros(0)
        self._last_at: Column = np.zeros(0)
        self._risen: Column = np.zeros(0)
        self._steps: deque[tuple[float, Places, Column]] = deque()

    def observe(self, values: Column, *, at: float) -> Column:
        """Return what the rules read, NaN where there is nothing to compare with."""
        before = self._last
        known = ~np.isnan(values)
        self._last = np.where(known, values, before)
        with np.errstate(invalid="ignore"):
            rises = find_rise(before, values)
        places = np.flatnonzero(rises > 0)
        if places.size:
            amounts = self._thin(rises[places], at - self._last_at[places])
            self._steps.append((at, places, amounts))
            self._risen[places] += amounts
        self._last_at = np.where(known, at, self._last_at)
        while self._steps and self._steps[0][0] <= at - self.rise.window_seconds:
            _, gone, fallen = self._steps.popleft()
            self._risen[gone] -= fallen
        return np.where(np.isnan(rises), np.nan, scale_rise(self.rise, self._risen))

    def _thin(self, rises: Column, gaps: Column) -> Column:
        """Leave of rises over a longer time than the window what may lie in it (share_in_window)."""
        window = self.rise.window_seconds
        if not (gaps > window).any():
            return rises
        return np.ceil(rises * (window / np.maximum(gaps, window)))

    def move(self, places: Places, new_places: Places) -> None:
        """Follow GPUs to other places: `places` are the old ones, `new_places` their new ones."""
        self._last = take_places(self._last, places, np.nan)
        self._last_at = take_places(self._last_at, places, 0.0)
        self._risen = take_places(self._risen, places, 0.0)
        moved: deque[tuple[float, Places, Column]] = deque()
        for at, old, amounts in self._steps:
            now = new_places[old]
            if (now >= 0).any():
                moved.append((at, now[now >= 0], amounts[now >= 0]))
        self._steps = moved


class ColumnTrends:
    """The trends of GPUs by key, from one poll of the cluster to the next. Not for two threads."""

    def __init__(self) -> None:
        self._keys: tuple[str, ...] = ()
        self._counters = tuple(_Counters(rise) for rise in RISES)
        self._bits = {name: np.zeros(0, dtype=np.int64) for name in REASON_MINUTES}
        self._minute = 0

    def observe(
        self, keys: Sequence[str], columns: Mapping[str, Any], *, at_seconds: float
    ) -> dict[str, Column]:
        """Return by name what the rules may read beside the columns themselves. Time goes forward only.

        A counter without a column adds nothing. What is not known in this poll, or was never known
        before, is NaN.
        """
        self._keep(tuple(keys))
        added: dict[str, Column] = {}
        for counters in self._counters:
            values = columns.get(counters.rise.counter)
            if values is not None:
                added[counters.rise.adds] = counters.observe(values, at=at_seconds)
        reasons = columns.get("clocks_event_reasons")
        if reasons is not None:
            added |= self._observe_reasons(reasons, at_seconds)
        return added

    def _observe_reasons(self, reasons: Column, at_seconds: float) -> dict[str, Column]:
        minute = int(at_seconds // MINUTE_SECONDS)
        passed, self._minute = minute - self._minute, minute
        known = ~np.isnan(reasons)
        whole = np.where(known, reasons, 0.0).astype(np.int64)
        added = {}
        for name, bit in REASON_MINUTES.items():
            bits = pass_minutes(self._bits[name], passed) | ((whole & bit) != 0)
            self._bits[name] = bits
            added[name] = np.where(known, _MINUTES[bits], np.nan)
        return added

    def _keep(self, keys: tuple[str, ...]) -> None:
        if keys == self._keys:
            return
        places = find_places(self._keys, keys)
        known = places >= 0
        new_places = np.full(len(self._keys), -1, dtype=np.intp)
        new_places[places[known]] = np.flatnonzero(known)
        for counters in self._counters:
            counters.move(places, new_places)
        self._bits = {name: take_places(bits, places, 0) for name, bits in self._bits.items()}
        self._keys = keys
