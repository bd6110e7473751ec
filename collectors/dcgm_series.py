"""dcgm-exporter's series: which field of a reading each fills, and how its unit is converted.

Names and meanings are those of dcgm_fields.h. What a site's exporter does not export is simply
not there: nothing is taken to be 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from collectors.readings import MAX_COUNT

Kind = Literal["float", "int", "bool"]

MEBIBYTE = 1 << 20
MEGAHERTZ = 1_000_000
BLANK_FROM = 2_147_483_632
"""DCGM_INT32_BLANK (dcgm_structs.h): it and the values above it mean "no value"."""

BLANK_WIDE_FROM = 9_223_372_036_854_775_792
"""DCGM_INT64_BLANK, for counters that pass 32 bits. A float holds it to 1024."""

XID_METRIC = "DCGM_FI_DEV_XID_ERRORS"
FB_USED, FB_FREE, FB_RESERVED = (
    "DCGM_FI_DEV_FB_USED",
    "DCGM_FI_DEV_FB_FREE",
    "DCGM_FI_DEV_FB_RESERVED",
)

_SMALL = 2.0**31 - 1
_COUNT = float(MAX_COUNT)


@dataclass(frozen=True)
class Series:
    """One metric: `field` gets value * `factor` / `divisor`, which must lie from `low` to `high`.

    `wide` counters pass 32 bits. A value that does not lie there is dropped as implausible.
    """

    metric: str
    field: str
    kind: Kind = "float"
    factor: float = 1.0
    divisor: float = 1.0
    low: float = 0.0
    high: float = 1e18
    wide: bool = False


def _celsius(metric: str, field: str) -> Series:
    return Series(metric, field, low=-273.15, high=1000.0)


def _ratio(metric: str, field: str, *, divisor: float = 1.0) -> Series:
    return Series(metric, field, divisor=divisor, high=1.0)


def _hertz(metric: str, field: str) -> Series:
    return Series(metric, field, "int", factor=MEGAHERTZ, high=_COUNT)


def _counter(metric: str, field: str) -> Series:
    return Series(metric, field, "int", high=_COUNT, wide=True)


def _small(metric: str, field: str) -> Series:
    return Series(metric, field, "int", high=_SMALL)


def _flag(metric: str, field: str) -> Series:
    return Series(metric, field, "bool")


DEFAULT_SERIES: tuple[Series, ...] = (
    _celsius("DCGM_FI_DEV_GPU_TEMP", "temperature_celsius"),
    _celsius("DCGM_FI_DEV_MEMORY_TEMP", "memory_temperature_celsius"),
    Series("DCGM_FI_DEV_POWER_USAGE", "power_watts"),
    Series(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "energy_joules_total", divisor=1000.0, wide=True
    ),
    _hertz("DCGM_FI_DEV_SM_CLOCK", "sm_clock_hertz"),
    _hertz("DCGM_FI_DEV_MEM_CLOCK", "memory_clock_hertz"),
    _ratio("DCGM_FI_DEV_GPU_UTIL", "gpu_utilization_ratio", divisor=100.0),
    _ratio("DCGM_FI_DEV_MEM_COPY_UTIL", "memory_utilization_ratio", divisor=100.0),
    Series(FB_USED, "memory_used_bytes", "int", factor=MEBIBYTE, high=_COUNT),
    _counter("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "pcie_replay_total"),
    _small("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "remapped_correctable"),
    _small("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "remapped_uncorrectable"),
    _flag("DCGM_FI_DEV_ROW_REMAP_FAILURE", "remap_failure"),
    _ratio("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "tensor_activity_ratio"),
    _ratio("DCGM_FI_PROF_DRAM_ACTIVE", "dram_activity_ratio"),
)
"""What dcgm-exporter exports where a site changes nothing, as far as a reading has a field for it."""

ADDED_SERIES: tuple[Series, ...] = (
    _flag("DCGM_FI_DEV_ROW_REMAP_PENDING", "remap_pending"),
    _counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "ecc_corrected_total"),
    _counter("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "ecc_uncorrected_total"),
    _flag("DCGM_FI_DEV_ECC_CURRENT", "ecc_mode"),
    _celsius("DCGM_FI_DEV_GPU_TEMP_LIMIT", "temperature_margin_celsius"),
    # One field by its new and its old name; the bits are NVML's.
    _small("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "clocks_event_reasons"),
    _small("DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "clocks_event_reasons"),
    _hertz("DCGM_FI_DEV_MAX_SM_CLOCK", "sm_clock_max_hertz"),
    Series("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "power_limit_watts"),
    _small("DCGM_FI_DEV_PCIE_LINK_GEN", "pcie_generation"),
    _small("DCGM_FI_DEV_PCIE_MAX_LINK_GEN", "pcie_generation_max"),
    _small("DCGM_FI_DEV_PCIE_LINK_WIDTH", "pcie_width"),
    _small("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", "pcie_width_max"),
    _small("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_LOW", "remap_banks_low"),
    _small("DCGM_FI_DEV_BANKS_REMAP_ROWS_AVAIL_NONE", "remap_banks_none"),
    _flag("DCGM_FI_DEV_PERSISTENCE_MODE", "persistence_mode"),
    _counter("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "nvlink_crc_errors_total"),
    _counter("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "nvlink_replay_errors_total"),
    _counter("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "nvlink_recovery_errors_total"),
)
"""What sites add in the exporter's list of counters."""

SERIES: tuple[Series, ...] = (*DEFAULT_SERIES, *ADDED_SERIES)

SILENT_AT_ZERO: tuple[str, ...] = (
    "nvlink_crc_errors_total",
    "nvlink_replay_errors_total",
    "nvlink_recovery_errors_total",
)
"""DCGM sums these from the driver's old totals, which answer 0 on Hopper whatever happens
(NVML fields 32-59): a 0 says nothing, a number above it does."""

METRICS: tuple[str, ...] = (*(series.metric for series in SERIES), FB_FREE, FB_RESERVED, XID_METRIC)
"""All that is asked of Prometheus."""

BY_METRIC = {series.metric: series for series in SERIES}
BY_FIELD = {series.field: series for series in reversed(SERIES)}
