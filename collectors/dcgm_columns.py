"""dcgm-exporter's series as columns: an array of floats a field, a place a GPU, NaN for unknown.

Straight from instant vectors as prometheus-api-client gives them, without a reading a GPU. Traps
that are handled here: both spellings of the host's label, workload labels prefixed exported_, an
idle GPU that carries the exporter's own pod, MIG instances under their GPU's UUID, DCGM's blank
values, text that is no number, and the time of a sample, which an instant vector does not tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.dcgm_labels import Labels, find_host, find_owner, find_owner_uid
from collectors.dcgm_series import (
    BLANK_FROM,
    BLANK_WIDE_FROM,
    BY_METRIC,
    FB_FREE,
    FB_RESERVED,
    FB_USED,
    MEBIBYTE,
    XID_METRIC,
    Series,
)
from collectors.readings import PodReference

Column = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Vector = Iterable[Mapping[str, Any]]
"""An instant vector as Prometheus answers it: [{"metric": labels, "value": [time, text]}]."""

NOT_SCRAPED = "not scraped"
NO_SERIES = "no series for this GPU"
NO_VALUE = "DCGM has no value"
NOT_A_NUMBER = "not a number"
SLICED = "cut by MIG: its values are those of its instances"


@dataclass(frozen=True)
class DcgmTable:
    """One poll of all GPUs, a place each in all of its parts.

    `keys` are UUIDs; one that two hosts claim has the second as "UUID on HOST". `places` are those
    of each host. `is_there` is False for a GPU of which only the XID gauge is left. `ages_seconds`
    are those of the samples when Prometheus was asked (`asked_at_seconds`, its own clock), NaN
    where nobody asked. `exceptions` has reasons by field and place, where it is not the field's.
    """

    keys: tuple[str, ...]
    hosts: tuple[str, ...]
    places: Mapping[str, tuple[int, ...]]
    labels: tuple[Labels, ...]
    owners: tuple[tuple[PodReference, ...], ...]
    pod_uids: tuple[tuple[str, ...], ...]
    columns: Mapping[str, Column]
    xids: Column
    is_there: Mask
    is_sliced: Mask
    ages_seconds: Column
    asked_at_seconds: float
    exceptions: Mapping[str, Mapping[int, str]]

    def explain(self, field: str, place: int) -> str | None:
        """Return why a field of a GPU is not known, None when it is."""
        column = self.columns.get(field)
        if column is None:
            return SLICED if self.is_sliced[place] else NOT_SCRAPED
        if not np.isnan(column[place]):
            return None
        reason = self.exceptions.get(field, {}).get(place)
        return reason or (SLICED if self.is_sliced[place] else NO_SERIES)

    def age_of(self, host: str) -> float | None:
        """Return the age in seconds of a host's newest sample, None where it is not known."""
        ages = self.ages_seconds[list(self.places[host])]
        known = ages[~np.isnan(ages)]
        return float(known.min()) if known.size else None


class TableBuilder:
    """Takes one metric's vector after the other, so that no two need be held at once."""

    def __init__(self) -> None:
        self._place_of: dict[str, int] = {}
        self._keys: list[str] = []
        self._hosts: list[str] = []
        self._labels: list[Labels] = []
        self._owners: list[dict[PodReference, None]] = []
        self._pod_uids: list[dict[str, None]] = []
        self._sliced: list[bool] = []
        self._columns: dict[str, Column] = {}
        self._memory: dict[str, Column] = {}
        self._heard: dict[str, Mask] = {}
        self._xids = np.zeros(0)
        self._ages = np.zeros(0)
        self._asked_at_seconds = 0.0
        self._exceptions: dict[str, dict[int, str]] = {}
        self._nameless: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Whether no GPU is known yet."""
        return not self._keys

    def add(self, metric: str, vector: Vector, *, named: bool = False) -> None:
        """Take what a metric says of each GPU. One that is not among METRICS names its GPUs only.

        `named`: the GPUs' other labels were told by a metric before, and these series have only
        those that find the GPU. One that has not been seen before wants a name then.
        """
        series, before = BY_METRIC.get(metric), len(self._keys)
        raw, unreadable = self._read(vector)
        if named:
            self._nameless.update(range(before, len(self._keys)))
        if not (raw == raw).any() and not unreadable:
            return
        self._heard[metric] = raw == raw
        blank = BLANK_WIDE_FROM if series is not None and series.wide else BLANK_FROM
        without = np.isinf(raw) | (raw >= blank)
        values = np.where(without, np.nan, raw)
        if series is not None:
            reasons = self._exceptions.setdefault(series.field, {})
            reasons.update(dict.fromkeys(unreadable, NOT_A_NUMBER))
            reasons.update(dict.fromkeys(np.flatnonzero(without).tolist(), NO_VALUE))
            self._put(series, values, reasons)
        if metric in (FB_USED, FB_FREE, FB_RESERVED):
            self._memory[metric] = values
        elif metric == XID_METRIC:
            self._xids = values

    def next_name(self) -> str | None:
        """Return the metric that names most of the GPUs without a name, None when there is none."""
        without = np.zeros(len(self._keys), dtype=bool)
        without[list(self._nameless)] = True
        return self._most_heard(without)

    def add_names(self, vector: Vector) -> None:
        """Take the other labels of GPUs that have no name yet, from series with all of theirs."""
        found = set()
        for sample in vector:
            labels = sample.get("metric")
            place = self._find(labels) if isinstance(labels, Mapping) else None
            if labels is not None and place is not None and place in self._nameless:
                self._labels[place] = labels
                self._own(place, labels)
                found.add(place)
        self._nameless -= found

    def add_times(self, vector: Vector) -> None:
        """Take the answer of timestamp(METRIC): when each GPU's sample was scraped."""
        raw, _ = self._read(vector)
        ages = self._asked_at_seconds - np.where(np.isinf(raw), np.nan, raw)
        self._ages = np.fmin(_pad(self._ages, len(ages)), np.maximum(ages, 0.0))

    def next_clock(self) -> str | None:
        """Return the metric whose times tell most about hosts without any, None when there is none."""
        ages = _pad(self._ages, len(self._keys))
        timed = {host for host, age in zip(self._hosts, ages, strict=True) if age == age}
        without = np.array([host not in timed for host in self._hosts], dtype=bool)
        return self._most_heard(without)

    def _most_heard(self, of: Mask) -> str | None:
        best, most = None, 0
        for metric, heard in self._heard.items():
            count = int(np.count_nonzero(heard & of[: len(heard)]))
            if count > most:
                best, most = metric, count
        return best

    def build(self) -> DcgmTable:
        """Return the table."""
        size = len(self._keys)
        places: dict[str, list[int]] = {}
        for place, host in enumerate(self._hosts):
            places.setdefault(host, []).append(place)
        columns = {field: _pad(column, size) for field, column in self._columns.items()}
        if FB_USED in self._memory and FB_FREE in self._memory:
            used, free, reserved = (
                _pad(self._memory.get(name, np.zeros(0)), size)
                for name in (FB_USED, FB_FREE, FB_RESERVED)
            )
            total = used + free + np.where(np.isnan(reserved), 0.0, reserved)
            columns["memory_total_bytes"] = total * MEBIBYTE
        sliced = np.array(self._sliced, dtype=bool)
        there = sliced.copy()
        for metric, heard in self._heard.items():
            if metric != XID_METRIC:
                there[: len(heard)] |= heard
        return DcgmTable(
            keys=tuple(self._keys),
            hosts=tuple(self._hosts),
            places={host: tuple(found) for host, found in places.items()},
            labels=tuple(self._labels),
            owners=tuple(
                tuple(sorted(found, key=lambda pod: (pod.namespace, pod.name))) if found else ()
                for found in self._owners
            ),
            pod_uids=tuple(tuple(sorted(found)) if found else () for found in self._pod_uids),
            columns=columns,
            xids=_pad(self._xids, size),
            is_there=there,
            is_sliced=sliced,
            ages_seconds=_pad(self._ages, size),
            asked_at_seconds=self._asked_at_seconds,
            exceptions={field: found for field, found in self._exceptions.items() if found},
        )

    def _read(self, vector: Vector) -> tuple[Column, list[int]]:
        """Return the values by place, infinite where a sample holds no finite one, and the places
        of samples that hold no number."""
        place_of, hosts = self._place_of, self._hosts
        values = [math.nan] * len(self._keys)
        unreadable: list[int] = []
        at = None
        for sample in vector:
            labels = sample.get("metric")
            if not isinstance(labels, Mapping):
                continue
            place = place_of.get(labels.get("UUID", ""))
            if (
                place is None
                or "GPU_I_ID" in labels
                or hosts[place] != (labels.get("Hostname") or labels.get("hostname"))
            ):
                place = self._find(labels)
                while len(values) < len(hosts):
                    values.append(math.nan)
                if place is None:
                    continue
            if values[place] == values[place]:
                # A GPU that several pods share has a series for each of them.
                self._own(place, labels)
            try:
                at, text = sample["value"]
                value = float(text)
            except (KeyError, TypeError, ValueError):
                unreadable.append(place)
                continue
            values[place] = value if value == value else math.inf
        if isinstance(at, int | float):
            self._asked_at_seconds = max(self._asked_at_seconds, float(at))
        return np.array(values, dtype=np.float64), unreadable

    def _find(self, labels: Labels) -> int | None:
        """Return the place of a series' GPU, a new one where it was not known, or None where the
        series is of no whole GPU."""
        host, uuid = find_host(labels), labels.get("UUID")
        if not host or not uuid:
            return None
        key = uuid
        place = self._place_of.get(key)
        if place is not None and self._hosts[place] != host:
            key = f"{uuid} on {host}"
            place = self._place_of.get(key)
        # A MIG instance has the UUID of its GPU: its values are a part's, not the GPU's.
        sliced = bool(labels.get("GPU_I_ID"))
        if place is None:
            place = self._place_of[key] = len(self._keys)
            self._keys.append(key)
            self._hosts.append(host)
            self._labels.append(labels)
            self._owners.append({})
            self._pod_uids.append({})
            self._sliced.append(sliced)
            self._own(place, labels)
        if sliced:
            self._own(place, labels)
            return None
        return place

    def _own(self, place: int, labels: Labels) -> None:
        owner = find_owner(labels)
        if owner is not None:
            self._owners[place][owner] = None
            uid = find_owner_uid(labels)
            if uid is not None:
                self._pod_uids[place][uid] = None

    def _put(self, series: Series, values: Column, reasons: dict[int, str]) -> None:
        if series.kind == "bool":
            converted = np.where(np.isnan(values), np.nan, values != 0)
        else:
            converted = values * series.factor / series.divisor
        implausible = (converted < series.low) | (converted > series.high)
        for place in np.flatnonzero(implausible).tolist():
            reasons[place] = f"implausible: {values[place]:g}"
        converted[implausible] = np.nan
        before = self._columns.get(series.field)
        if before is not None:
            padded = _pad(before, len(converted))
            converted = np.where(np.isnan(padded), converted, padded)
        self._columns[series.field] = converted


def read_table(vectors: Mapping[str, Vector]) -> DcgmTable:
    """Return the table of instant vectors by metric."""
    builder = TableBuilder()
    for metric, vector in vectors.items():
        builder.add(metric, vector)
    return builder.build()


def _pad(column: Column, size: int) -> Column:
    if len(column) == size:
        return column
    return np.concatenate([column, np.full(size - len(column), np.nan)])
