"""One poll of a node's GPUs through pynvml, in base units.

Every call may hang, so this runs in a child process (collectors/poller.py) and nowhere else.
What rarely changes (modes, maxima, links, fabric) is read each `slow_interval_seconds`, the
rest at each poll.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pynvml

from collectors.errors import NvmlUnavailableError
from collectors.inventory import (
    IDENTITY_FIELDS,
    GpuIdentity,
    Inventory,
    name_unopened,
    update_inventory,
)
from collectors.nvml_gpm import GpmReader, GpmSamples
from collectors.nvml_mig import read_mig_devices
from collectors.nvml_probes import (
    FAST_PROBES,
    IDENTITY_PROBES,
    SLOW_PROBES,
    GpuUnreachableError,
    read_fields,
    read_links,
    read_processes,
    run_probes,
    word_error,
)
from collectors.readings import GpuReading, MigDevice, Poll, assemble_reading


@dataclass
class _Known:
    """What is cached of an opened GPU between polls."""

    identity: dict[str, Any]
    missing: dict[str, str]
    slow: dict[str, Any] = field(default_factory=dict)
    slow_missing: dict[str, str] = field(default_factory=dict)
    slow_read_at: datetime | None = None
    link_count: int = 0
    gpm: GpmSamples = field(default_factory=GpmSamples)
    mig_devices: tuple[MigDevice, ...] = ()


class NodePoller:
    """Polls all GPUs of one node; owns the cache of identities and slow values.

    `inventory` names GPUs seen before this process began. Not for use by two threads.
    """

    def __init__(
        self, inventory: Inventory | None = None, *, slow_interval_seconds: float = 15.0
    ) -> None:
        self.inventory = inventory or Inventory()
        self._slow_interval_seconds = slow_interval_seconds
        self._known: dict[int, _Known] = {}
        self._driver_version: str | None = None
        self._seen: object = None
        self._gpm = GpmReader()

    def poll(self, now: datetime) -> Poll:
        """Read every GPU once. Raises NvmlUnavailableError when NVML as a whole fails."""
        try:
            if self._driver_version is None:
                self._driver_version = _driver_version()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise NvmlUnavailableError(
                f"NVML cannot count the GPUs: {word_error(error.value)}"
            ) from error
        readings: list[GpuReading] = []
        unopened: dict[int, int] = {}
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                known = self._identify(handle)
            except GpuUnreachableError as error:
                unopened[index] = error.code
                continue
            except pynvml.NVMLError as error:
                unopened[index] = error.value
                continue
            readings.append(self._read(handle, index, known, now))
        if unopened:
            seen = [reading.uuid for reading in readings]
            for identity, code in name_unopened(unopened, seen, self.inventory):
                readings.append(_unreachable(identity, code))
        seen_now = tuple((reading.uuid, reading.index) for reading in readings)
        if seen_now != self._seen:
            self._seen = seen_now
            self.inventory = update_inventory(self.inventory, readings, gpu_count=count)
        return Poll(
            at=now,
            driver_version=self._driver_version,
            gpu_count=count,
            gpus=tuple(readings),
        )

    def handles(self) -> Iterator[tuple[Any, str, str | None]]:
        """Yield (handle, uuid, PCI id) of the GPUs that could be opened in the last poll."""
        for address, known in self._known.items():
            pointer = ctypes.cast(address, pynvml.c_nvmlDevice_t)
            yield pointer, known.identity["uuid"], known.identity.get("pci_bus_id")

    def _identify(self, handle: Any) -> _Known:
        address = address_of(handle)
        known = self._known.get(address)
        if known is None:
            missing: dict[str, str] = {}
            try:
                identity: dict[str, Any] = {"uuid": pynvml.nvmlDeviceGetUUID(handle)}
            except pynvml.NVMLError as error:
                raise GpuUnreachableError(error.value) from error
            run_probes(IDENTITY_PROBES, handle, identity, missing)
            known = self._known[address] = _Known(identity, missing)
        return known

    def _read(self, handle: Any, index: int, known: _Known, now: datetime) -> GpuReading:
        values: dict[str, Any] = {}
        missing: dict[str, str] = {}
        try:
            run_probes(FAST_PROBES, handle, values, missing)
            if self._slow_is_due(known, now):
                slow: dict[str, Any] = {}
                slow_missing: dict[str, str] = {}
                run_probes(SLOW_PROBES, handle, slow, slow_missing)
                known.slow, known.slow_missing, known.slow_read_at = slow, slow_missing, now
                read_links(handle, slow, slow_missing)
                known.mig_devices = (
                    read_mig_devices(handle, slow_missing) if slow.get("mig_mode") else ()
                )
            read_fields(handle, values, missing)
            processes = read_processes(handle, missing)
            self._gpm.read(handle, known.gpm, values, missing, mig_mode=known.slow.get("mig_mode"))
        except GpuUnreachableError as error:
            # Whatever was cached is of a GPU that may come back as another.
            known.slow_read_at = None
            known.gpm.filled = False
            identity = GpuIdentity(**known.identity, index=index)
            return _unreachable(identity, error.code)
        return assemble_reading(
            {**known.identity, "index": index, **known.slow, **values},
            {**known.missing, **known.slow_missing, **missing},
            processes,
            known.mig_devices,
        )

    def _slow_is_due(self, known: _Known, now: datetime) -> bool:
        read_at = known.slow_read_at
        return read_at is None or not (
            0 <= (now - read_at).total_seconds() < self._slow_interval_seconds
        )


def start() -> None:
    """Load and initialise NVML. Raises NvmlUnavailableError with NVML's own reason."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlUnavailableError(
            f"NVML cannot be initialised: {word_error(error.value)}; "
            "check that the driver is loaded and libnvidia-ml.so.1 is in the library path"
        ) from error


def address_of(handle: Any) -> int:
    """Return the number behind a device handle, the same for the same GPU in one process."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _driver_version() -> str | None:
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None


def _unreachable(identity: GpuIdentity, code: int) -> GpuReading:
    return GpuReading(
        **{name: getattr(identity, name) for name in IDENTITY_FIELDS},
        error_code=code,
        missing={"*": word_error(code)},
    )
