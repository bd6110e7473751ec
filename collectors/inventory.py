"""The GPUs ever seen on a node: so that a lost one keeps its name, and a missing one is missed."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from collectors.readings import GpuReading

NAMELESS = "unknown-index-"
"""Stands in for the UUID of a GPU that could not be opened and was never seen before."""


class GpuIdentity(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What stays true of a GPU. The key is `uuid`; `index` is where it was seen last."""

    uuid: str
    index: int | None = None
    pci_bus_id: str | None = None
    serial: str | None = None
    name: str | None = None
    module_id: int | None = None
    minor_number: int | None = None
    vbios_version: str | None = None


IDENTITY_FIELDS = GpuIdentity.__struct_fields__


class Inventory(msgspec.Struct, frozen=True, omit_defaults=True):
    """GPUs by UUID and the highest count ever seen, lowered by a person only."""

    gpus: tuple[GpuIdentity, ...] = ()
    expected_gpus: int = 0


def identify(reading: GpuReading) -> GpuIdentity:
    """Return the identity part of a reading."""
    return GpuIdentity(**{name: getattr(reading, name) for name in IDENTITY_FIELDS})


def update_inventory(
    inventory: Inventory, readings: Iterable[GpuReading], *, gpu_count: int
) -> Inventory:
    """Return the inventory after a poll; the same object when nothing is new.

    When as many GPUs as ever answer, those not among them were replaced and are forgotten.
    """
    expected = max(inventory.expected_gpus, gpu_count)
    present = {
        reading.uuid: identify(reading)
        for reading in readings
        if not reading.uuid.startswith(NAMELESS)
    }
    kept = {known.uuid: known for known in inventory.gpus}
    if len(present) >= expected:
        kept = present
    else:
        kept.update(present)
    gpus = tuple(sorted(kept.values(), key=lambda gpu: (gpu.pci_bus_id or "", gpu.uuid)))
    if gpus == inventory.gpus and expected == inventory.expected_gpus:
        return inventory
    return Inventory(gpus=gpus, expected_gpus=expected)


def name_unopened(
    unopened: dict[int, int], seen: Iterable[str], inventory: Inventory
) -> list[tuple[GpuIdentity, int]]:
    """Return (identity, NVML error) of GPUs that could not be opened, by index.

    NVML names none of them: each is one of the known GPUs not seen in this poll, the one last
    seen at its index if there is one. A GPU never seen before is named by its index.
    """
    present = set(seen)
    absent = {gpu.uuid: gpu for gpu in inventory.gpus if gpu.uuid not in present}
    named: list[tuple[GpuIdentity, int]] = []
    waiting: list[tuple[int, int]] = []
    for index, code in unopened.items():
        match = next((gpu for gpu in absent.values() if gpu.index == index), None)
        if match is None:
            waiting.append((index, code))
        else:
            named.append((absent.pop(match.uuid), code))
    for index, code in waiting:
        if absent:
            named.append((absent.pop(next(iter(absent))), code))
        else:
            named.append((GpuIdentity(uuid=f"{NAMELESS}{index}", index=index), code))
    return named
