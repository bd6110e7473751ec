"""NVML without a GPU: an object in the place of pynvml.nvmlLib, a handle set a node.

pynvml calls its attributes with raw ctypes arguments, as it would call the C library; a name
that is not here raises AttributeError, which pynvml takes as a missing symbol. Values are those
of an H100 SXM and follow from what the world says of each GPU: idle about 70 W and 35 C, busy
550 to 700 W and 60 to 75 C, the memory a bit hotter.
"""

from __future__ import annotations

import ctypes
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pynvml

IDLE_WATTS = 70.0
BUSY_WATTS = 555.0
"""Power of a GPU with work that keeps it half busy in its arithmetic; full work adds to it."""

LIMIT_WATTS = 700.0
INLET_CELSIUS = 33.0
CELSIUS_PER_WATT = 0.055
"""A heat sink that holds 700 W at about 70 C."""

SETTLE_SECONDS = 20.0
SLOWDOWN_CELSIUS = 89.0
MEMORY_BYTES = 81_559 << 20
IDLE_MEMORY_BYTES = 4 << 20
BUSY_MEMORY_BYTES = 71_000 << 20
SM_MEGAHERTZ = 1980
IDLE_SM_MEGAHERTZ = 345
MEMORY_MEGAHERTZ = 2619
LINKS = 18
DRIVER_VERSION = "580.105.08"

REASON_IDLE = 0x1
REASON_POWER_CAP = 0x4

HANDLES_PER_NODE = 64

_FIELD_VALUE = np.dtype(
    [
        ("id", "<u4"),
        ("scope", "<u4"),
        ("timestamp", "<i8"),
        ("latency", "<i8"),
        ("type", "<u4"),
        ("code", "<u4"),
        ("value", "<u8"),
    ]
)


@dataclass
class SimulatedGpu:
    """One GPU as the world says it is, and the readings that follow from it."""

    uuid: str
    index: int
    pci_bus_id: str
    serial: str
    activity_ratio: float = 0.0
    pid: int | None = None
    lost: bool = False
    ecc_uncorrectable_total: int = 0
    ecc_correctable_total: int = 0
    remap_pending: bool = False
    remap_failure: bool = False
    recovery_action: int = 0
    links_active: int = LINKS
    power_ratio: float | None = None
    """Share of the busy power drawn, where it does not follow from the activity (a hang)."""

    power_watts: float = IDLE_WATTS
    temperature_celsius: float = INLET_CELSIUS + 2
    memory_celsius: float = INLET_CELSIUS + 6
    energy_joules: float = 0.0

    def settle(self, *, seconds: float, noise: random.Random) -> None:
        """Let `seconds` pass: power follows the work, heat follows the power."""
        work = self.activity_ratio
        if work <= 0.02:
            watts = IDLE_WATTS + noise.gauss(0, 1.5)
        else:
            share = work if self.power_ratio is None else self.power_ratio
            watts = IDLE_WATTS + share * (BUSY_WATTS + 80 * noise.random() - IDLE_WATTS)
        self.power_watts = min(max(watts, 45.0), LIMIT_WATTS)
        target = INLET_CELSIUS + CELSIUS_PER_WATT * (self.power_watts - IDLE_WATTS / 2)
        nearness = 1 - math.exp(-seconds / SETTLE_SECONDS)
        self.temperature_celsius += (target - self.temperature_celsius) * nearness
        self.temperature_celsius += noise.gauss(0, 0.3)
        hotter = 4.0 + 6.0 * work
        self.memory_celsius = self.temperature_celsius + hotter
        self.energy_joules += self.power_watts * seconds


@dataclass
class SimulatedNode:
    """The GPUs of a node, and the fault that keeps NVML from answering at all."""

    number: int
    name: str
    boot_id: str
    gpus: list[SimulatedGpu] = field(default_factory=list)
    nvml_hang: bool = False
    settled_at: float | None = None


class SimulatedNvml:
    """What pynvml takes for its C library. One node is selected at a time."""

    def __init__(self, *, seed: int = 1) -> None:
        self._nodes: list[SimulatedNode] = []
        self._selected: SimulatedNode | None = None
        self._noise = random.Random(seed)
        self._table = _calls(self)

    def __getattr__(self, name: str) -> Callable[..., int]:
        try:
            call: Callable[..., int] = self.__dict__["_table"][name]
        except KeyError:
            raise AttributeError(name) from None
        return call

    def add_node(self, name: str, *, boot_id: str) -> SimulatedNode:
        """Add a node without GPUs and return it."""
        node = SimulatedNode(len(self._nodes), name, boot_id)
        self._nodes.append(node)
        return node

    @contextmanager
    def select(self, node: SimulatedNode, *, at: float) -> Iterator[None]:
        """Make calls answer for this node; its readings move on to `at` (monotonic seconds)."""
        seconds = 60.0 if node.settled_at is None else max(at - node.settled_at, 0.0)
        node.settled_at = at
        for gpu in node.gpus:
            gpu.settle(seconds=seconds, noise=self._noise)
        self._selected = node
        try:
            yield
        finally:
            self._selected = None

    def count(self) -> int:
        """GPUs of the selected node."""
        return len(self._selected.gpus) if self._selected else 0

    def open(self, index: int, device: Any) -> int:
        """Write the handle of the selected node's GPU `index`."""
        node = self._selected
        if node is None or index >= len(node.gpus):
            return int(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        number = node.number * HANDLES_PER_NODE + index + 1
        ctypes.c_void_p.from_buffer(device._obj).value = number
        return int(pynvml.NVML_ERROR_GPU_IS_LOST if node.gpus[index].lost else pynvml.NVML_SUCCESS)

    def find(self, handle: Any) -> SimulatedGpu:
        """Return the GPU behind a handle."""
        number = (ctypes.c_void_p.from_buffer(handle).value or 1) - 1
        return self._nodes[number // HANDLES_PER_NODE].gpus[number % HANDLES_PER_NODE]


def install(library: SimulatedNvml) -> None:
    """Put the object in the place of the C library, for the whole process."""
    pynvml.nvmlLib = library
    pynvml.nvmlInit()


Getter = Callable[[SimulatedGpu], Any]


def _calls(library: SimulatedNvml) -> Mapping[str, Callable[..., int]]:
    """Return the functions by their names in the C library."""
    find, lost, fine = library.find, pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_SUCCESS
    unsupported = pynvml.NVML_ERROR_NOT_SUPPORTED

    def number(get: Getter) -> Callable[..., int]:
        def call(handle: Any, answer: Any) -> int:
            gpu = find(handle)
            if gpu.lost:
                return lost
            answer._obj.value = int(get(gpu))
            return fine

        return call

    def pair(get: Getter) -> Callable[..., int]:
        def call(handle: Any, first: Any, second: Any) -> int:
            gpu = find(handle)
            if gpu.lost:
                return lost
            first._obj.value = second._obj.value = int(get(gpu))
            return fine

        return call

    def chosen(get: Callable[[SimulatedGpu, int], int | None]) -> Callable[..., int]:
        def call(handle: Any, which: Any, answer: Any) -> int:
            gpu = find(handle)
            if gpu.lost:
                return lost
            value = get(gpu, which if isinstance(which, int) else which.value)
            if value is None:
                return unsupported
            answer._obj.value = value
            return fine

        return call

    def text(get: Getter) -> Callable[..., int]:
        def call(handle: Any, buffer: Any, size: Any) -> int:
            gpu = find(handle)
            if gpu.lost:
                return lost
            buffer.value = str(get(gpu)).encode()[: size.value - 1]
            return fine

        return call

    def structure(fill: Callable[[SimulatedGpu, Any], None]) -> Callable[..., int]:
        def call(handle: Any, answer: Any) -> int:
            gpu = find(handle)
            if gpu.lost:
                return lost
            fill(gpu, answer._obj)
            return fine

        return call

    def get_count(count: Any) -> int:
        count._obj.value = library.count()
        return fine

    def get_driver(buffer: Any, size: Any) -> int:
        buffer.value = DRIVER_VERSION.encode()
        return fine

    def get_ecc_errors(handle: Any, kind: Any, counter: Any, answer: Any) -> int:
        gpu = find(handle)
        if gpu.lost:
            return lost
        corrected = _plain(kind) == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        answer._obj.value = gpu.ecc_correctable_total if corrected else gpu.ecc_uncorrectable_total
        return fine

    def get_remapped(handle: Any, *answers: Any) -> int:
        gpu = find(handle)
        if gpu.lost:
            return lost
        values = (0, int(gpu.remap_pending), int(gpu.remap_pending), int(gpu.remap_failure))
        for answer, value in zip(answers, values, strict=True):
            answer._obj.value = value
        return fine

    def get_fields(handle: Any, count: Any, answers: Any) -> int:
        gpu = find(handle)
        if gpu.lost:
            return lost
        _fill_fields(gpu, np.frombuffer(answers._obj, dtype=_FIELD_VALUE))
        return fine

    def get_processes(handle: Any, count: Any, processes: Any) -> int:
        gpu = find(handle)
        if gpu.lost:
            return lost
        count._obj.value = 0 if gpu.pid is None else 1
        if gpu.pid is None:
            return fine
        if processes is None:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        processes[0].pid, processes[0].usedGpuMemory = gpu.pid, BUSY_MEMORY_BYTES
        return fine

    return {
        "nvmlInitWithFlags": lambda flags: fine,
        "nvmlShutdown": lambda: fine,
        "nvmlSystemGetDriverVersion": get_driver,
        "nvmlDeviceGetCount_v2": get_count,
        "nvmlDeviceGetHandleByIndex_v2": lambda index, device: library.open(index.value, device),
        "nvmlDeviceGetUUID": text(lambda gpu: gpu.uuid),
        "nvmlDeviceGetSerial": text(lambda gpu: gpu.serial),
        "nvmlDeviceGetName": text(lambda gpu: "NVIDIA H100 80GB HBM3"),
        "nvmlDeviceGetVbiosVersion": text(lambda gpu: "96.00.BC.00.01"),
        "nvmlDeviceGetPciInfo_v3": structure(_fill_pci),
        "nvmlDeviceGetModuleId": number(lambda gpu: gpu.index + 1),
        "nvmlDeviceGetMinorNumber": number(lambda gpu: gpu.index),
        "nvmlDeviceGetPersistenceMode": number(lambda gpu: 1),
        "nvmlDeviceGetMigMode": pair(lambda gpu: 0),
        "nvmlDeviceGetEccMode": pair(lambda gpu: 1),
        "nvmlDeviceGetTemperature": chosen(lambda gpu, sensor: round(gpu.temperature_celsius)),
        "nvmlDeviceGetMarginTemperature": structure(_fill_margin),
        "nvmlDeviceGetPowerUsage": number(lambda gpu: gpu.power_watts * 1000),
        "nvmlDeviceGetEnforcedPowerLimit": number(lambda gpu: LIMIT_WATTS * 1000),
        "nvmlDeviceGetTotalEnergyConsumption": number(lambda gpu: gpu.energy_joules * 1000),
        "nvmlDeviceGetClockInfo": chosen(_clock),
        "nvmlDeviceGetMaxClockInfo": chosen(
            lambda gpu, kind: MEMORY_MEGAHERTZ if kind == pynvml.NVML_CLOCK_MEM else SM_MEGAHERTZ
        ),
        "nvmlDeviceGetCurrentClocksEventReasons": number(_reasons),
        "nvmlDeviceGetUtilizationRates": structure(_fill_utilization),
        "nvmlDeviceGetMemoryInfo_v2": structure(_fill_memory),
        "nvmlDeviceGetTotalEccErrors": get_ecc_errors,
        "nvmlDeviceGetSramEccErrorStatus": structure(lambda gpu, status: None),
        "nvmlDeviceGetRemappedRows": get_remapped,
        "nvmlDeviceGetRowRemapperHistogram": structure(_fill_histogram),
        "nvmlDeviceGetPcieReplayCounter": number(lambda gpu: 0),
        "nvmlDeviceGetCurrPcieLinkGeneration": number(lambda gpu: 5),
        "nvmlDeviceGetMaxPcieLinkGeneration": number(lambda gpu: 5),
        "nvmlDeviceGetCurrPcieLinkWidth": number(lambda gpu: 16),
        "nvmlDeviceGetMaxPcieLinkWidth": number(lambda gpu: 16),
        "nvmlDeviceGetNvLinkState": chosen(
            lambda gpu, link: int(link < gpu.links_active) if link < LINKS else None
        ),
        "nvmlDeviceGetGpuFabricInfoV": structure(_fill_fabric),
        "nvmlDeviceGetFieldValues": get_fields,
        "nvmlDeviceGetComputeRunningProcesses_v3": get_processes,
    }


def _plain(value: Any) -> int:
    return int(getattr(value, "value", value))


def _clock(gpu: SimulatedGpu, kind: int) -> int:
    if kind == pynvml.NVML_CLOCK_MEM:
        return MEMORY_MEGAHERTZ
    return SM_MEGAHERTZ if gpu.activity_ratio > 0.02 else IDLE_SM_MEGAHERTZ


def _reasons(gpu: SimulatedGpu) -> int:
    if gpu.activity_ratio <= 0.02:
        return REASON_IDLE
    return REASON_POWER_CAP if gpu.power_watts >= LIMIT_WATTS - 5 else 0


def _fill_pci(gpu: SimulatedGpu, pci: Any) -> None:
    # NVML writes the domain in eight digits.
    domain, _, rest = gpu.pci_bus_id.partition(":")
    pci.busId = f"{int(domain, 16):08X}:{rest.upper()}".encode()


def _fill_margin(gpu: SimulatedGpu, margin: Any) -> None:
    margin.marginTemperature = round(SLOWDOWN_CELSIUS - gpu.temperature_celsius)


def _fill_utilization(gpu: SimulatedGpu, rates: Any) -> None:
    rates.gpu = round(100 * gpu.activity_ratio)
    rates.memory = round(60 * gpu.activity_ratio)


def _fill_memory(gpu: SimulatedGpu, memory: Any) -> None:
    used = BUSY_MEMORY_BYTES if gpu.pid is not None else IDLE_MEMORY_BYTES
    memory.total, memory.used, memory.free = MEMORY_BYTES, used, MEMORY_BYTES - used


def _fill_histogram(gpu: SimulatedGpu, banks: Any) -> None:
    banks.max = 2560  # banks with all their spare rows, of an H100


def _fill_fabric(gpu: SimulatedGpu, fabric: Any) -> None:
    fabric.state, fabric.status = pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, pynvml.NVML_SUCCESS


_LINK_ERRORS: Sequence[int] = (
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,
)


def _fill_fields(gpu: SimulatedGpu, answers: Any) -> None:
    values = {
        pynvml.NVML_FI_DEV_MEMORY_TEMP: round(gpu.memory_celsius),
        pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: gpu.recovery_action,
        pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT: LINKS,
        **dict.fromkeys(_LINK_ERRORS, 0),
    }
    ids = answers["id"]
    if len(ids) > len(values):
        # The per-link counters of all links: one known field or three, always zero here.
        known = np.isin(ids, list(values))
        answers["code"] = np.where(known, pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_SUPPORTED)
        answers["value"] = 0
        return
    for position, number in enumerate(ids.tolist()):
        value = values.get(number)
        answers["code"][position] = (
            pynvml.NVML_ERROR_NOT_SUPPORTED if value is None else pynvml.NVML_SUCCESS
        )
        answers["value"][position] = value or 0
