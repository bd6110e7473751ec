"""The NVML calls of a poll, one entry a call, and how their errors are taken.

Units are converted here, at the source. A symbol that the driver lacks
(NVMLError_FunctionNotFound) counts as NOT_SUPPORTED: the fields are None with the reason.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from collectors.pci import normalise_pci
from collectors.readings import GPU_IS_LOST, RESET_REQUIRED, GpuProcess

MEGAHERTZ = 1_000_000
MILLI = 1_000.0
PERCENT = 100.0

LINKS_MAX = 18
"""NVLinks of an H100; a driver that reports more is not asked about the rest."""

FIELD_MEMORY_TEMPERATURE = pynvml.NVML_FI_DEV_MEMORY_TEMP
FIELD_RECOVERY_ACTION = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
FIELD_LINK_COUNT = pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT
LINK_ERROR_FIELDS = {
    "nvlink_replay_errors_total": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,
    "nvlink_recovery_errors_total": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
    "nvlink_crc_errors_total": pynvml.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,
}

NOT_SUPPORTED = "not supported"


@dataclass(frozen=True)
class Probe:
    """One NVML call and the fields it fills, in the order in which it returns them."""

    fields: tuple[str, ...]
    read: Callable[[Any], tuple[Any, ...]]


def _memory(handle: Any) -> tuple[Any, ...]:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
    except pynvml.NVMLError_FunctionNotFound:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return memory.used, memory.total


def _utilization(handle: Any) -> tuple[Any, ...]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu / PERCENT, rates.memory / PERCENT


def _event_reasons(handle: Any) -> tuple[Any, ...]:
    try:
        return (pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle),)
    except pynvml.NVMLError_FunctionNotFound:
        return (pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle),)


def _remapped_rows(handle: Any) -> tuple[Any, ...]:
    correctable, uncorrectable, pending, failure = pynvml.nvmlDeviceGetRemappedRows(handle)
    return correctable, uncorrectable, bool(pending), bool(failure)


def _remap_banks(handle: Any) -> tuple[Any, ...]:
    banks = pynvml.nvmlDeviceGetRowRemapperHistogram(handle)
    return banks.low, banks.none


def _sram_errors(handle: Any) -> tuple[Any, ...]:
    status = pynvml.c_nvmlEccSramErrorStatus_v1_t()
    status.version = pynvml.nvmlEccSramErrorStatus_v1
    pynvml.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status))
    return (status.volatileUncParity + status.volatileUncSecDed,)


def _ecc_total(kind: int) -> Callable[[Any], tuple[Any, ...]]:
    return lambda handle: (
        pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, pynvml.NVML_VOLATILE_ECC),
    )


def _clock(kind: int) -> Callable[[Any], tuple[Any, ...]]:
    return lambda handle: (pynvml.nvmlDeviceGetClockInfo(handle, kind) * MEGAHERTZ,)


def _fabric(handle: Any) -> tuple[Any, ...]:
    try:
        info = pynvml.c_nvmlGpuFabricInfo_v2_t()
        pynvml.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
    except pynvml.NVMLError_FunctionNotFound:
        info = pynvml.c_nvmlGpuFabricInfo_t()
        pynvml.nvmlDeviceGetGpuFabricInfo(handle, ctypes.byref(info))
    return info.state, info.status


FAST_PROBES: tuple[Probe, ...] = (
    Probe(
        ("temperature_celsius",),
        lambda handle: (
            float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        ),
    ),
    Probe(
        ("temperature_margin_celsius",),
        lambda handle: (float(pynvml.nvmlDeviceGetMarginTemperature(handle)),),
    ),
    Probe(("power_watts",), lambda handle: (pynvml.nvmlDeviceGetPowerUsage(handle) / MILLI,)),
    Probe(
        ("energy_joules_total",),
        lambda handle: (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / MILLI,),
    ),
    Probe(("sm_clock_hertz",), _clock(pynvml.NVML_CLOCK_SM)),
    Probe(("memory_clock_hertz",), _clock(pynvml.NVML_CLOCK_MEM)),
    Probe(("clocks_event_reasons",), _event_reasons),
    Probe(("gpu_utilization_ratio", "memory_utilization_ratio"), _utilization),
    Probe(("memory_used_bytes", "memory_total_bytes"), _memory),
    Probe(("ecc_corrected_total",), _ecc_total(pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)),
    Probe(("ecc_uncorrected_total",), _ecc_total(pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)),
    Probe(
        (
            "remapped_correctable",
            "remapped_uncorrectable",
            "remap_pending",
            "remap_failure",
        ),
        _remapped_rows,
    ),
    Probe(("pcie_replay_total",), lambda handle: (pynvml.nvmlDeviceGetPcieReplayCounter(handle),)),
    Probe(
        ("pcie_generation",),
        lambda handle: (pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle),),
    ),
    Probe(("pcie_width",), lambda handle: (pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle),)),
)

SLOW_PROBES: tuple[Probe, ...] = (
    Probe(
        ("persistence_mode",), lambda handle: (bool(pynvml.nvmlDeviceGetPersistenceMode(handle)),)
    ),
    Probe(("mig_mode",), lambda handle: (bool(pynvml.nvmlDeviceGetMigMode(handle)[0]),)),
    Probe(
        ("power_limit_watts",),
        lambda handle: (pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / MILLI,),
    ),
    Probe(
        ("sm_clock_max_hertz",),
        lambda handle: (
            pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM) * MEGAHERTZ,
        ),
    ),
    Probe(("ecc_mode",), lambda handle: (bool(pynvml.nvmlDeviceGetEccMode(handle)[0]),)),
    Probe(("sram_uncorrected_total",), _sram_errors),
    Probe(("remap_banks_low", "remap_banks_none"), _remap_banks),
    Probe(
        ("pcie_generation_max",),
        lambda handle: (pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),),
    ),
    Probe(("pcie_width_max",), lambda handle: (pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle),)),
    Probe(("fabric_state", "fabric_status"), _fabric),
)

IDENTITY_PROBES: tuple[Probe, ...] = (
    Probe(("serial",), lambda handle: (pynvml.nvmlDeviceGetSerial(handle),)),
    Probe(("name",), lambda handle: (pynvml.nvmlDeviceGetName(handle),)),
    Probe(
        ("pci_bus_id",), lambda handle: (normalise_pci(pynvml.nvmlDeviceGetPciInfo(handle).busId),)
    ),
    Probe(("module_id",), lambda handle: (pynvml.nvmlDeviceGetModuleId(handle),)),
    Probe(("minor_number",), lambda handle: (pynvml.nvmlDeviceGetMinorNumber(handle),)),
    Probe(("vbios_version",), lambda handle: (pynvml.nvmlDeviceGetVbiosVersion(handle),)),
)


class GpuUnreachableError(Exception):
    """NVML answers 15 (lost) or 16 (reset required) for this GPU."""

    def __init__(self, code: int) -> None:
        super().__init__(word_error(code))
        self.code = code


def word_error(code: int) -> str:
    """Return NVML's error in words, the same for a missing symbol and a missing feature."""
    if code in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
        return NOT_SUPPORTED
    known = pynvml.NVMLError._errcode_to_string.get(code)
    return known or f"NVML error {code}"


def run_probes(
    probes: tuple[Probe, ...], handle: Any, values: dict[str, Any], missing: dict[str, str]
) -> None:
    """Fill `values` from the probes, and `missing` with the reason of each that failed.

    Raises GpuUnreachableError when the GPU is lost or wants a reset.
    """
    for probe in probes:
        try:
            for name, value in zip(probe.fields, probe.read(handle), strict=True):
                values[name] = value
        except pynvml.NVMLError as error:
            note_error(error.value, probe.fields, missing)
        except UnicodeDecodeError:
            note_error(pynvml.NVML_ERROR_UNKNOWN, probe.fields, missing)


def note_error(code: int, fields: tuple[str, ...], missing: dict[str, str]) -> None:
    """Put NVML's error down for these fields. Raises GpuUnreachableError for 15 and 16."""
    if code in (GPU_IS_LOST, RESET_REQUIRED):
        raise GpuUnreachableError(code)
    reason = word_error(code)
    for name in fields:
        missing[name] = reason


def read_fields(handle: Any, values: dict[str, Any], missing: dict[str, str]) -> None:
    """Fill what only field values hold; the nvmlReturn of each entry is checked."""
    wanted = {
        "memory_temperature_celsius": (FIELD_MEMORY_TEMPERATURE, float),
        "recovery_action": (FIELD_RECOVERY_ACTION, int),
    }
    try:
        answers = pynvml.nvmlDeviceGetFieldValues(handle, [number for number, _ in wanted.values()])
    except pynvml.NVMLError as error:
        note_error(error.value, tuple(wanted), missing)
        return
    for (name, (_, convert)), answer in zip(wanted.items(), answers, strict=True):
        if answer.nvmlReturn != pynvml.NVML_SUCCESS:
            note_error(answer.nvmlReturn, (name,), missing)
        else:
            values[name] = convert(answer.value.uiVal)


def read_links(handle: Any, values: dict[str, Any], missing: dict[str, str]) -> None:
    """Fill the NVLinks' state and error counters, summed over all links.

    A counter that one of the links does not tell is unknown: a sum over fewer links than before
    would fall, and rise again without an error when the link answers again.
    """
    names = ("nvlink_active_links", *LINK_ERROR_FIELDS)
    try:
        answer = pynvml.nvmlDeviceGetFieldValues(handle, [FIELD_LINK_COUNT])[0]
        if answer.nvmlReturn != pynvml.NVML_SUCCESS:
            note_error(answer.nvmlReturn, names, missing)
            return
        count = min(answer.value.uiVal, LINKS_MAX)
        active = links = 0
        for link in range(count):
            try:
                active += pynvml.nvmlDeviceGetNvLinkState(handle, link)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
                break
            links += 1
        if count and not links:
            missing["nvlink_active_links"] = NOT_SUPPORTED
        else:
            values["nvlink_active_links"] = active
        # The field values carry the link in their scope, three counters a link in one call.
        numbers = [(number, link) for number in LINK_ERROR_FIELDS.values() for link in range(count)]
        answers = pynvml.nvmlDeviceGetFieldValues(handle, numbers) if numbers else []
    except pynvml.NVMLError as error:
        note_error(error.value, tuple(name for name in names if name not in values), missing)
        return
    for position, name in enumerate(LINK_ERROR_FIELDS):
        # Links beyond those that there are answer nothing; at least one is asked.
        told = answers[position * count : position * count + max(links, min(count, 1))]
        failed = next((one for one in told if one.nvmlReturn != pynvml.NVML_SUCCESS), None)
        if failed is None:
            values[name] = sum(one.value.ullVal for one in told)
        else:
            note_error(failed.nvmlReturn, (name,), missing)


def read_processes(handle: Any, missing: dict[str, str]) -> tuple[GpuProcess, ...]:
    """Return the processes with a compute context, none of them matched to a pod yet."""
    try:
        running = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    except pynvml.NVMLError as error:
        note_error(error.value, ("processes",), missing)
        return ()
    return tuple(
        GpuProcess(pid=process.pid, memory_bytes=process.usedGpuMemory) for process in running
    )
