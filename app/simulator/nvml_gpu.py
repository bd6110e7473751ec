"""One GPU as the simulated world says it is, and the readings that follow from it.

Values are those of an H100 SXM: idle about 70 W and 35 C, busy 550 to 700 W and 60 to 75 C, the
memory a bit hotter.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    ailments: Mapping[str, float] = field(default_factory=dict)
    """What is off with it (app/simulator/ailments.py)."""

    power_ratio: float | None = None
    """Share of the busy power drawn, where it does not follow from the activity: it spins."""

    power_watts: float = IDLE_WATTS
    temperature_celsius: float = INLET_CELSIUS + 2
    memory_celsius: float = INLET_CELSIUS + 6
    energy_joules: float = 0.0
    pcie_replays: float = 0.0
    link_replays: float = 0.0
    link_recoveries: float = 0.0
    link_crc_errors: float = 0.0

    def settle(self, *, seconds: float, noise: random.Random) -> None:
        """Let `seconds` pass: power follows the work, heat follows the power."""
        work = self.activity_ratio
        if work <= 0.02:
            watts = IDLE_WATTS + noise.gauss(0, 1.5)
        else:
            share = work if self.power_ratio is None else self.power_ratio
            share *= self.ailments.get("power_share", 1.0)
            watts = IDLE_WATTS + share * (BUSY_WATTS + 80 * noise.random() - IDLE_WATTS)
        self.power_watts = min(max(watts, 45.0), LIMIT_WATTS)
        target = INLET_CELSIUS + CELSIUS_PER_WATT * (self.power_watts - IDLE_WATTS / 2)
        nearness = 1 - math.exp(-seconds / SETTLE_SECONDS)
        self.temperature_celsius += (target - self.temperature_celsius) * nearness
        self.temperature_celsius += noise.gauss(0, 0.3)
        hotter = 4.0 + 6.0 * work
        self.memory_celsius = self.temperature_celsius + hotter
        self.energy_joules += self.power_watts * seconds
        if self.ailments:
            self._suffer(seconds)

    def _suffer(self, seconds: float) -> None:
        told = self.ailments.get
        self.pcie_replays += seconds * told("pcie_replays_per_second", 0.0)
        self.link_replays += seconds * told("link_replays_per_second", 0.0)
        self.link_recoveries += seconds * told("link_recoveries_per_second", 0.0)
        self.link_crc_errors += seconds * told("link_crc_errors_per_second", 0.0)


@dataclass
class SimulatedNode:
    """The GPUs of a node, and the fault that keeps NVML from answering at all."""

    number: int
    name: str
    boot_id: str
    gpus: list[SimulatedGpu] = field(default_factory=list)
    nvml_hang: bool = False
    settled_at: float | None = None
