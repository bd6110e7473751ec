"""What a GPU's sensors say, as a pure function of the GPU, how busy it is, and the time.

Figures of a real H100 SXM (facts/gpu-health.md): 700 W, 1,980 MHz SM, 2,619 MHz memory,
81,559 MiB, 18 links of 26,562 MB/s.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.simulator.hosts import Gpu

POWER_LIMIT_WATTS, IDLE_WATTS = 700.0, 72.0
SM_CLOCK_MAX_MHZ, SM_CLOCK_IDLE_MHZ, MEMORY_CLOCK_MHZ = 1980.0, 345.0, 2619.0
SLOWDOWN_CELSIUS = 89.0
REASON_IDLE = 1.0
MEMORY_TOTAL_MIB, MEMORY_RESERVED_MIB = 81_559.0, 560.0


@dataclass(frozen=True)
class Moment:
    """A GPU at a time. `noise` is this GPU's own place from 0 to 1, `wave` goes from -1 to 1."""

    gpu: Gpu
    seconds: float
    noise: float
    wave: float

    @property
    def busy(self) -> float:
        return self.gpu.activity_ratio

    @property
    def working(self) -> float:
        """How busy its arithmetic is: a collective that spins keeps a GPU busy with nothing."""
        return 0.0 if self.gpu.power_ratio is not None else self.gpu.activity_ratio


def moment_of(gpu: Gpu, seconds: float) -> Moment:
    """`seconds` since the epoch."""
    noise = int(gpu.serial) % 997 / 997.0
    return Moment(gpu, seconds, noise, math.sin(seconds / 47.0 + noise * 40.0))


def _power_watts(at: Moment) -> float:
    told = at.gpu.power_ratio
    share = (at.busy if told is None else told) * at.gpu.ailments.get("power_share", 1.0)
    return IDLE_WATTS + share * (POWER_LIMIT_WATTS - IDLE_WATTS) * (0.9 + 0.06 * at.wave)


def _temperature_celsius(at: Moment) -> float:
    margin = at.gpu.ailments.get("margin_celsius")
    if margin is not None:
        return SLOWDOWN_CELSIUS - margin
    return round(29.0 + 4.0 * at.noise + at.busy * (31.0 + 6.0 * at.noise) + at.wave)


def _memory_used_mib(at: Moment) -> float:
    return round(74_000.0 - 1500.0 * at.noise) if at.gpu.pod is not None else 4.0


def _sm_clock_mhz(at: Moment) -> float:
    return (
        SM_CLOCK_MAX_MHZ * at.gpu.ailments.get("clock_ratio", 1.0) if at.busy else SM_CLOCK_IDLE_MHZ
    )


def _replays(at: Moment) -> float:
    """A healthy link has counted some since it was trained; those of a bad one go on."""
    rate = at.gpu.ailments.get("pcie_replays_per_second", 0.0)
    return round(150 * at.noise) + int(rate * max(at.seconds - at.gpu.ailing_since, 0.0))


def _energy_millijoules(at: Moment) -> float:
    return round(at.seconds % 31_536_000.0 * 1000.0 * (IDLE_WATTS + 400.0 * at.noise))


# dcgm-exporter's metrics that are on by default (facts/gpu-health.md), in its units.
METRICS: Mapping[str, Callable[[Moment], float]] = {
    "DCGM_FI_DEV_SM_CLOCK": _sm_clock_mhz,
    "DCGM_FI_DEV_MEM_CLOCK": lambda at: MEMORY_CLOCK_MHZ,
    "DCGM_FI_DEV_GPU_TEMP": _temperature_celsius,
    "DCGM_FI_DEV_MEMORY_TEMP": lambda at: _temperature_celsius(at) + 8.0,
    "DCGM_FI_DEV_POWER_USAGE": lambda at: round(_power_watts(at), 3),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": _energy_millijoules,
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": _replays,
    "DCGM_FI_DEV_GPU_UTIL": lambda at: round(100.0 * min(1.0, at.busy * 1.04)),
    "DCGM_FI_DEV_MEM_COPY_UTIL": lambda at: round(at.working * (42.0 + 5.0 * at.wave)),
    "DCGM_FI_DEV_XID_ERRORS": lambda at: float(at.gpu.last_xid),
    "DCGM_FI_DEV_FB_FREE": lambda at: MEMORY_TOTAL_MIB - MEMORY_RESERVED_MIB - _memory_used_mib(at),
    "DCGM_FI_DEV_FB_USED": _memory_used_mib,
    "DCGM_FI_DEV_FB_RESERVED": lambda at: MEMORY_RESERVED_MIB,
    "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": lambda at: round(at.working * (310_000 + 9000 * at.wave)),
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": lambda at: at.gpu.ailments.get("remapped_rows", 0.0),
    "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": lambda at: 0.0,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": lambda at: float(at.gpu.remap_failure),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": lambda at: round(at.busy, 4),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": lambda at: round(at.working * (0.52 + 0.04 * at.wave), 4),
    "DCGM_FI_PROF_DRAM_ACTIVE": lambda at: round(at.working * (0.44 + 0.03 * at.wave), 4),
    "DCGM_FI_PROF_PCIE_TX_BYTES": lambda at: round(at.working * 2.1e9),
    "DCGM_FI_PROF_PCIE_RX_BYTES": lambda at: round(at.working * 1.7e9),
    # Not on by default, but asked for by many sites.
    "DCGM_FI_DEV_ROW_REMAP_PENDING": lambda at: float(at.gpu.remap_pending),
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": lambda at: 0.0,
    "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": lambda at: float(at.gpu.ecc_uncorrectable_total),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": lambda at: at.gpu.ailments.get(
        "reasons", 0.0 if at.busy else REASON_IDLE
    ),
    "DCGM_FI_DEV_MAX_SM_CLOCK": lambda at: SM_CLOCK_MAX_MHZ,
}
