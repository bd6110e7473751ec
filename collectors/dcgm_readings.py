"""Readings of GPUs out of dcgm-exporter's columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_labels import read_identity
from collectors.dcgm_series import BY_FIELD
from collectors.readings import MEASURED_FIELDS, GpuReading, PodReference

_IDENTITY = frozenset({"index", "pci_bus_id", "name", "minor_number"})
_MEASURED = tuple(name for name in MEASURED_FIELDS if name not in _IDENTITY)
_CASTS: dict[str, Callable[[float], Any]] = {
    "memory_total_bytes": int,
    **{
        name: {"int": int, "bool": bool, "float": float}[one.kind] for name, one in BY_FIELD.items()
    },
}

FindPod = Callable[[PodReference], str | None]
"""Returns a pod's UID by its namespace and name."""


def make_readings(
    table: DcgmTable, places: Sequence[int], *, find_pod: FindPod | None = None
) -> list[GpuReading]:
    """Return the readings of GPUs, each with the reason of every field that is not known.

    `find_pod` gives the UIDs of the pods that hold them, where the exporter does not tell them.
    """
    told = [
        (name, _CASTS[name], table.columns[name][list(places)].tolist())
        for name in _MEASURED
        if name in table.columns
    ]
    # One dict for all GPUs that lack no more than what nobody scrapes: writers compare it.
    usual: dict[str, str] | None = None
    readings = []
    for number, place in enumerate(places):
        sliced = bool(table.is_sliced[place])
        values: dict[str, Any] = read_identity(table.labels[place])
        lacking = []
        for name, cast, column in told:
            value = column[number]
            if value == value:
                values[name] = cast(value)
            else:
                lacking.append(name)
        if lacking or sliced or usual is None:
            missing = {
                name: reason
                for name in _MEASURED
                if (reason := table.explain(name, place)) is not None
            }
            if sliced:
                values["mig_mode"] = True
                missing.pop("mig_mode", None)
            elif not lacking:
                usual = missing
        else:
            missing = usual
        owners, uids = table.owners[place], table.pod_uids[place]
        if owners and not uids and find_pod is not None:
            uids = tuple(sorted(uid for owner in owners if (uid := find_pod(owner)) is not None))
        readings.append(GpuReading(**values, allocated_to=owners, pod_uids=uids, missing=missing))
    return readings
