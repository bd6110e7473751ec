"""NVML without a GPU: an object in the place of pynvml.nvmlLib, a handle set a node.

pynvml calls its attributes with raw ctypes arguments, as it would call the C library; a name
that is not here raises AttributeError, which pynvml takes as a missing symbol. Values follow from
what the world says of each GPU (app/simulator/nvml_gpu.py).
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pynvml

from app.simulator.nvml_gpm import gpm_calls
from app.simulator.nvml_gpu import (
    BUSY_MEMORY_BYTES,
    DRIVER_VERSION,
    IDLE_MEMORY_BYTES,
    IDLE_SM_MEGAHERTZ,
    LIMIT_WATTS,
    LINKS,
    MEMORY_BYTES,
    MEMORY_MEGAHERTZ,
    REASON_IDLE,
    REASON_POWER_CAP,
    SLOWDOWN_CELSIUS,
    SM_MEGAHERTZ,
    SimulatedGpu,
    SimulatedNode,
)

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
        # As on a real node a handle is its device's own, whatever index the device has now.
        number = node.number * HANDLES_PER_NODE + node.gpus[index].index + 1
        ctypes.c_void_p.from_buffer(device._obj).value = number
        return _refusal(node.gpus[index])

    def find(self, handle: Any) -> SimulatedGpu:
        """Return the GPU behind a handle."""
        number = (ctypes.c_void_p.from_buffer(handle).value or 1) - 1
        gpus, slot = self._nodes[number // HANDLES_PER_NODE].gpus, number % HANDLES_PER_NODE
        if slot < len(gpus) and gpus[slot].index == slot:
            return gpus[slot]
        return next(gpu for gpu in gpus if gpu.index == slot)


def install(library: SimulatedNvml) -> None:
    """Put the object in the place of the C library, for the whole process."""
    pynvml.nvmlLib = library
    pynvml.nvmlInit()


Getter = Callable[[SimulatedGpu], Any]


def _calls(library: SimulatedNvml) -> Mapping[str, Callable[..., int]]:
    """Return the functions by their names in the C library."""
    find, fine = library.find, pynvml.NVML_SUCCESS
    unsupported = pynvml.NVML_ERROR_NOT_SUPPORTED

    def number(get: Getter) -> Callable[..., int]:
        def call(handle: Any, answer: Any) -> int:
            gpu = find(handle)
            if code := _refusal(gpu):
                return code
            answer._obj.value = int(get(gpu))
            return fine

        return call

    def pair(get: Getter) -> Callable[..., int]:
        def call(handle: Any, first: Any, second: Any) -> int:
            gpu = find(handle)
            if code := _refusal(gpu):
                return code
            first._obj.value = second._obj.value = int(get(gpu))
            return fine

        return call

    def chosen(get: Callable[[SimulatedGpu, int], int | None]) -> Callable[..., int]:
        def call(handle: Any, which: Any, answer: Any) -> int:
            gpu = find(handle)
            if code := _refusal(gpu):
                return code
            value = get(gpu, which if isinstance(which, int) else which.value)
            if value is None:
                return unsupported
            answer._obj.value = value
            return fine

        return call

    def text(get: Getter) -> Callable[..., int]:
        def call(handle: Any, buffer: Any, size: Any) -> int:
            gpu = find(handle)
            if code := _refusal(gpu):
                return code
            buffer.value = str(get(gpu)).encode()[: size.value - 1]
            return fine

        return call

    def structure(fill: Callable[[SimulatedGpu, Any], None]) -> Callable[..., int]:
        def call(handle: Any, answer: Any) -> int:
            gpu = find(handle)
            if code := _refusal(gpu):
                return code
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
        if code := _refusal(gpu):
            return code
        if "ecc_off" in gpu.ailments:
            return unsupported
        corrected = _plain(kind) == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED
        answer._obj.value = gpu.ecc_correctable_total if corrected else gpu.ecc_uncorrectable_total
        return fine

    def get_remapped(handle: Any, *answers: Any) -> int:
        gpu = find(handle)
        if code := _refusal(gpu):
            return code
        remapped = int(gpu.ailments.get("remapped_rows", gpu.remap_pending))
        values = (0, remapped, int(gpu.remap_pending), int(gpu.remap_failure))
        for answer, value in zip(answers, values, strict=True):
            answer._obj.value = value
        return fine

    def get_fields(handle: Any, count: Any, answers: Any) -> int:
        gpu = find(handle)
        if code := _refusal(gpu):
            return code
        _fill_fields(gpu, np.frombuffer(answers._obj, dtype=_FIELD_VALUE))
        return fine

    def get_processes(handle: Any, count: Any, processes: Any) -> int:
        gpu = find(handle)
        if code := _refusal(gpu):
            return code
        pids = _pids(gpu)
        count._obj.value = len(pids)
        if not pids:
            return fine
        if processes is None:
            return int(pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
        for position, pid in enumerate(pids):
            processes[position].pid = pid
            processes[position].usedGpuMemory = BUSY_MEMORY_BYTES
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
        "nvmlDeviceGetPersistenceMode": number(lambda gpu: "persistence_off" not in gpu.ailments),
        "nvmlDeviceGetMigMode": pair(lambda gpu: 0),
        "nvmlDeviceGetEccMode": pair(lambda gpu: "ecc_off" not in gpu.ailments),
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
        "nvmlDeviceGetPcieReplayCounter": number(lambda gpu: gpu.pcie_replays),
        "nvmlDeviceGetCurrPcieLinkGeneration": number(
            lambda gpu: gpu.ailments.get("pcie_generation", 5)
        ),
        "nvmlDeviceGetMaxPcieLinkGeneration": number(lambda gpu: 5),
        "nvmlDeviceGetCurrPcieLinkWidth": number(lambda gpu: gpu.ailments.get("pcie_width", 16)),
        "nvmlDeviceGetMaxPcieLinkWidth": number(lambda gpu: 16),
        "nvmlDeviceGetNvLinkState": chosen(
            lambda gpu, link: (
                int(link >= gpu.ailments.get("links_down", 0)) if link < LINKS else None
            )
        ),
        "nvmlDeviceGetGpuFabricInfoV": structure(_fill_fabric),
        "nvmlDeviceGetFieldValues": get_fields,
        **gpm_calls(library.find, _refusal),
        "nvmlDeviceGetComputeRunningProcesses_v3": get_processes,
    }


def _plain(value: Any) -> int:
    return int(getattr(value, "value", value))


def _clock(gpu: SimulatedGpu, kind: int) -> int:
    if kind == pynvml.NVML_CLOCK_MEM:
        return MEMORY_MEGAHERTZ
    if gpu.activity_ratio <= 0.02:
        return IDLE_SM_MEGAHERTZ
    return int(SM_MEGAHERTZ * gpu.ailments.get("clock_ratio", 1.0))


def _reasons(gpu: SimulatedGpu) -> int:
    sick = int(gpu.ailments.get("reasons", 0))
    if gpu.activity_ratio <= 0.02:
        return REASON_IDLE | sick
    return sick | (REASON_POWER_CAP if gpu.power_watts >= LIMIT_WATTS - 5 else 0)


def _fill_pci(gpu: SimulatedGpu, pci: Any) -> None:
    # NVML writes the domain in eight digits.
    domain, _, rest = gpu.pci_bus_id.partition(":")
    pci.busId = f"{int(domain, 16):08X}:{rest.upper()}".encode()


def _fill_margin(gpu: SimulatedGpu, margin: Any) -> None:
    margin.marginTemperature = round(
        gpu.ailments.get("margin_celsius", SLOWDOWN_CELSIUS - gpu.temperature_celsius)
    )


def _fill_utilization(gpu: SimulatedGpu, rates: Any) -> None:
    rates.gpu = round(100 * gpu.activity_ratio)
    rates.memory = round(60 * gpu.activity_ratio)


def _fill_memory(gpu: SimulatedGpu, memory: Any) -> None:
    used = BUSY_MEMORY_BYTES if gpu.pid is not None else IDLE_MEMORY_BYTES
    memory.total, memory.used, memory.free = MEMORY_BYTES, used, MEMORY_BYTES - used


def _fill_histogram(gpu: SimulatedGpu, banks: Any) -> None:
    banks.low = int(gpu.ailments.get("banks_low", 0))
    banks.none = int(gpu.ailments.get("banks_none", 0))
    banks.max = 2560 - banks.low - banks.none  # banks with all their spare rows, of an H100


def _fill_fabric(gpu: SimulatedGpu, fabric: Any) -> None:
    completed = pynvml.NVML_GPU_FABRIC_STATE_COMPLETED
    fabric.state = int(gpu.ailments.get("fabric_state", completed))
    fabric.status = int(gpu.ailments.get("fabric_status", pynvml.NVML_SUCCESS))


def _refusal(gpu: SimulatedGpu) -> int:
    """NVML's error for a GPU that answers nothing, NVML_SUCCESS for one that does."""
    if gpu.lost:
        return int(pynvml.NVML_ERROR_GPU_IS_LOST)
    return int(gpu.ailments.get("error_code", pynvml.NVML_SUCCESS)) if gpu.ailments else 0


STRAY_PID = 666
"""A process that no pod owns."""


def _pids(gpu: SimulatedGpu) -> list[int]:
    own = [gpu.pid] if gpu.pid is not None and "without_process" not in gpu.ailments else []
    return [*own, STRAY_PID] if "stray_process" in gpu.ailments else own


_LINK_ERRORS: Mapping[int, Getter] = {
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY: lambda gpu: gpu.link_replays,
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY: lambda gpu: gpu.link_recoveries,
    pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC: lambda gpu: gpu.link_crc_errors,
}


def _fill_fields(gpu: SimulatedGpu, answers: Any) -> None:
    values = {
        pynvml.NVML_FI_DEV_MEMORY_TEMP: round(gpu.memory_celsius),
        pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION: gpu.recovery_action,
        pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT: LINKS,
        **dict.fromkeys(_LINK_ERRORS, 0),
    }
    ids = answers["id"]
    if len(ids) > len(values):
        # The per-link counters of all links: zero but for an ailing GPU's, all on its first link.
        known = np.isin(ids, list(values))
        answers["code"] = np.where(known, pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_SUPPORTED)
        answers["value"] = 0
        for number, errors in _LINK_ERRORS.items() if gpu.ailments else ():
            answers["value"][(ids == number) & (answers["scope"] == 0)] = int(errors(gpu))
        return
    for position, number in enumerate(ids.tolist()):
        value = values.get(number)
        answers["code"][position] = (
            pynvml.NVML_ERROR_NOT_SUPPORTED if value is None else pynvml.NVML_SUCCESS
        )
        answers["value"][position] = value or 0
