"""Ailments: what a fault changes in what a GPU or a node says, where it breaks nothing else.

A fault kind of the same name as a rule of health (collectors/health.py) makes that rule open; a
test holds the two together. The values are what SimulatedGpu (app/simulator/nvml.py) and the
simulated ports (app/simulator/ports.py) answer from.
"""

from collections.abc import Mapping

Ailments = dict[str, float]
"""By the name of what is off; see the tables."""

GPU_AILMENTS: Mapping[str, Mapping[str, float]] = {
    "gpu-reset-required": {"error_code": 16},
    "gpu-unreadable": {"error_code": 999},
    "gpu-count": {"gone": 1},
    "recovery-reset": {"recovery_action": 1},
    "recovery-reboot": {"recovery_action": 2},
    "recovery-software": {"recovery_action": 3},
    "temperature-margin-low": {"margin_celsius": 3},
    "temperature-margin-gone": {"margin_celsius": -2},
    "slowdown-hardware": {"reasons": 0x8},
    "slowdown-thermal": {"reasons": 0x40},
    "power-brake": {"reasons": 0x80},
    "slowdown-software-thermal": {"reasons": 0x20},
    "clock-locked-low": {"clock_ratio": 0.5},
    "ecc-off": {"ecc_off": 1},
    "remap-pending": {"remap_pending": 1},
    "remap-failure": {"remap_failure": 1},
    "remapped-rows": {"remapped_rows": 512},
    "remap-bank-low": {"banks_low": 1},
    "remap-bank-empty": {"banks_none": 1},
    "nvlink-down": {"links_down": 1},
    "nvlink-replay": {"link_replays_per_second": 0.2},
    "nvlink-recovery": {"link_recoveries_per_second": 0.1},
    "nvlink-crc": {"link_crc_errors_per_second": 400},
    "pcie-replay": {"pcie_replays_per_second": 2},
    "pcie-generation-low": {"pcie_generation": 3},
    "pcie-width-low": {"pcie_width": 8},
    "fabric-incomplete": {"fabric_state": 2},
    "fabric-failed": {"fabric_status": 999},
    "persistence-off": {"persistence_off": 1},
    "gpu-held-idle": {"without_process": 1},
    "gpu-process-stray": {"stray_process": 1},
}

JOB_AILMENTS: Mapping[str, Mapping[str, float]] = {
    # Above what `clock-locked-low` asks for: only its peers show that it is slow.
    "straggler": {"clock_ratio": 0.75, "power_share": 0.6},
}
"""Of one GPU too, but found by comparing it with its job's others."""

NODE_AILMENTS: Mapping[str, Mapping[str, float]] = {
    "infiniband-port-down": {"port_down": 1},
    "infiniband-port-flaps": {"port_flaps": 1},
    "infiniband-counter-full": {"port_counter_full": 1},
}
