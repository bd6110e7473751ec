"""The rules over one GPU's reading and what trends add to it (collectors/trends.py).

Thresholds marked "judgement" are ours and no source's. Hold times keep a value that passes
through for a moment (a driver that starts, a clock that steps) from being a fault.
"""

from __future__ import annotations

from collectors.actions import (
    COOL,
    RESET_GPU,
    RESET_WHEN_IDLE,
    RESTART_NODE,
    SEND_IN,
)
from collectors.conditions import Condition, Field
from collectors.readings import GPU_IS_LOST, RESET_REQUIRED
from collectors.rule import Rule

MINUTE = 60.0

HARDWARE_SLOWDOWN_BIT = 0x8
SOFTWARE_THERMAL_BIT = 0x20
HARDWARE_THERMAL_BIT = 0x40
POWER_BRAKE_BIT = 0x80
"""Bits of NVML's clock event reasons (nvml.h)."""

UNHEALTHY_MINUTES = 6
"""Distinct minutes of the last ten with a reason set (gpud)."""

GPU_RULES: tuple[Rule, ...] = (
    Rule(
        name="gpu-lost",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("error_code", "==", GPU_IS_LOST, absent=0),),
        message="GPU {index} ({pci_bus_id}) is lost: NVML answers error 15 for it.",
        action=RESTART_NODE,
        source="NVML_ERROR_GPU_IS_LOST, nvml.h",
        fires={"error_code": 15},
        quiet={"error_code": None},
    ),
    Rule(
        name="gpu-reset-required",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("error_code", "==", RESET_REQUIRED, absent=0),),
        message="GPU {index} ({pci_bus_id}) works again only after a reset: NVML error 16.",
        action=RESET_GPU,
        source="NVML_ERROR_RESET_REQUIRED, nvml.h",
        fires={"error_code": 16},
        quiet={"error_code": None},
    ),
    Rule(
        name="gpu-unreadable",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("error_code", ">", 0, absent=0),
            Condition("error_code", "!=", GPU_IS_LOST, absent=0),
            Condition("error_code", "!=", RESET_REQUIRED, absent=0),
        ),
        message="GPU {index} ({pci_bus_id}) cannot be read: NVML error {error_code}.",
        action=RESTART_NODE,
        source="judgement: a GPU that answers nothing is not usable",
        fires={"error_code": 999},
        quiet={"error_code": 15},
    ),
    Rule(
        name="recovery-reset",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("recovery_action", ">", 0),
            Condition("recovery_action", "!=", 2),
            Condition("recovery_action", "!=", 3),
            Condition("recovery_action", "!=", 5),
            Condition("recovery_action", "!=", 7),
        ),
        message="The driver asks for a reset of GPU {index}: recovery action {recovery_action}.",
        action=RESET_GPU,
        source="NVML field 230: 1 GPU reset, 4 drain and reset, 6 bus reset",
        fires={"recovery_action": 1},
        quiet={"recovery_action": 0},
        # The XID that caused it carries the driver's action where there is one; it comes first.
        hold_seconds=10.0,
    ),
    Rule(
        name="recovery-reboot",
        scope="gpu",
        severity="fatal",
        conditions=(
            Condition("recovery_action", ">=", 2),
            Condition("recovery_action", "!=", 3),
            Condition("recovery_action", "!=", 4),
            Condition("recovery_action", "!=", 5),
            Condition("recovery_action", "!=", 6),
        ),
        message="The driver asks for a restart of the machine for GPU {index}: recovery action "
        "{recovery_action}.",
        action=RESTART_NODE,
        source="NVML field 230: 2 reboot, 7 system reboot",
        fires={"recovery_action": 2},
        quiet={"recovery_action": 1},
        hold_seconds=10.0,
    ),
    Rule(
        name="recovery-software",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("recovery_action", ">=", 3),
            Condition("recovery_action", "<=", 5),
            Condition("recovery_action", "!=", 4),
        ),
        message="The driver asks for peer work to be drained or IMEX restarted for GPU {index}: "
        "recovery action {recovery_action}.",
        action="Drain the work that uses the GPU with its peers, restart IMEX, then look again.",
        source="NVML field 230: 3 drain P2P, 5 IMEX; severity: judgement",
        fires={"recovery_action": 3},
        quiet={"recovery_action": 0},
        hold_seconds=10.0,
    ),
    Rule(
        name="temperature-margin-low",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("temperature_margin_celsius", "<=", 5, knob="margin_celsius"),
            Condition("temperature_margin_celsius", ">", 0),
        ),
        message="GPU {index} is {temperature_margin_celsius} C below its slowdown temperature.",
        action=COOL,
        source="judgement: 5 C above the slowdown",
        fires={"temperature_margin_celsius": 4.0},
        quiet={"temperature_margin_celsius": 12.0},
        hold_seconds=30.0,
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="temperature-margin-gone",
        scope="gpu",
        severity="critical",
        conditions=(Condition("temperature_margin_celsius", "<=", 0),),
        message="GPU {index} is at or over its slowdown temperature: margin "
        "{temperature_margin_celsius} C.",
        action=COOL,
        source="judgement: the margin to the slowdown is used up",
        fires={"temperature_margin_celsius": -1.0},
        quiet={"temperature_margin_celsius": 3.0},
        hold_seconds=10.0,
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="slowdown-hardware",
        scope="gpu",
        severity="critical",
        conditions=(Condition("slowdown_minutes", ">=", UNHEALTHY_MINUTES, knob="minutes_of_ten"),),
        message="GPU {index} was slowed down by its hardware in {slowdown_minutes} of the last "
        "10 minutes.",
        action="Drain the node and check its power and cooling.",
        source="gpud: hardware slowdown in 6 distinct minutes of 10",
        fires={"slowdown_minutes": 6},
        quiet={"slowdown_minutes": 5},
    ),
    Rule(
        name="slowdown-thermal",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("thermal_slowdown_minutes", ">=", UNHEALTHY_MINUTES, knob="minutes_of_ten"),
        ),
        message="GPU {index} was slowed down by its temperature in {thermal_slowdown_minutes} of "
        "the last 10 minutes.",
        action=COOL,
        source="gpud: hardware thermal slowdown in 6 distinct minutes of 10",
        fires={"thermal_slowdown_minutes": 6},
        quiet={"thermal_slowdown_minutes": 5},
    ),
    Rule(
        name="power-brake",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("power_brake_minutes", ">=", UNHEALTHY_MINUTES, knob="minutes_of_ten"),
        ),
        message="GPU {index} was braked by the machine's power supply in {power_brake_minutes} of "
        "the last 10 minutes.",
        action="Drain the node and check its power supplies and the rack's power.",
        source="gpud: power brake in 6 distinct minutes of 10",
        fires={"power_brake_minutes": 6},
        quiet={"power_brake_minutes": 5},
    ),
    Rule(
        name="slowdown-software-thermal",
        scope="gpu",
        severity="warning",
        conditions=(Condition("clocks_event_reasons", "has bit", SOFTWARE_THERMAL_BIT),),
        message="The driver lowers the clocks of GPU {index} for its temperature "
        "({temperature_celsius} C).",
        action=COOL,
        source="clock event reason 0x20: warning; the hold time is a judgement",
        fires={"clocks_event_reasons": 0x24},
        quiet={"clocks_event_reasons": 0x4},
        hold_seconds=MINUTE,
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="clock-locked-low",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("clocks_event_reasons", "==", 0),
            Condition("gpu_utilization_ratio", ">", 0.9, knob="utilization_ratio"),
            Condition("sm_clock_hertz", "<", Field("sm_clock_max_hertz", 0.7), knob="clock_ratio"),
        ),
        message="GPU {index} is busy at {sm_clock_hertz} Hz of {sm_clock_max_hertz} Hz and gives "
        "no reason: its clocks may be locked.",
        action="Look for locked clocks (nvidia-smi -q -d CLOCK) and release them (nvidia-smi -rgc).",
        source="judgement: under 70 % of the maximum, over 90 % busy, no reason, for 5 minutes",
        fires={
            "clocks_event_reasons": 0,
            "gpu_utilization_ratio": 0.97,
            "sm_clock_hertz": 1_200_000_000,
            "sm_clock_max_hertz": 1_980_000_000,
        },
        quiet={
            "clocks_event_reasons": 0x4,
            "gpu_utilization_ratio": 0.97,
            "sm_clock_hertz": 1_200_000_000,
            "sm_clock_max_hertz": 1_980_000_000,
        },
        hold_seconds=5 * MINUTE,
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="ecc-uncorrected",
        scope="gpu",
        severity="critical",
        conditions=(Condition("ecc_uncorrected_total", ">", 0),),
        message="GPU {index} counts uncorrectable ECC errors since its last reset: "
        "{ecc_uncorrected_total}.",
        action=RESET_GPU,
        source="any volatile uncorrectable ECC error: critical (NVIDIA GPU memory error management)",
        fires={"ecc_uncorrected_total": 1},
        quiet={"ecc_uncorrected_total": 0},
    ),
    Rule(
        name="ecc-off",
        scope="gpu",
        severity="critical",
        conditions=(Condition("ecc_mode", "==", False),),
        message="ECC is off on GPU {index}: memory errors go unseen into the work on it.",
        action="Drain the node, turn ECC on (nvidia-smi -e 1) and reset the GPU.",
        source="judgement: training without ECC corrupts silently",
        fires={"ecc_mode": False},
        quiet={"ecc_mode": True},
    ),
    Rule(
        name="remap-failure",
        scope="gpu",
        severity="fatal",
        conditions=(Condition("remap_failure", "==", True),),
        message="GPU {index} could not remap a failing memory row: its spare rows are used up.",
        action="Drain the node and send the board in: row remapping failed.",
        source="row remap failure: RMA (NVIDIA GPU memory error management)",
        fires={"remap_failure": True},
        quiet={"remap_failure": False},
    ),
    Rule(
        name="remap-pending",
        scope="gpu",
        severity="warning",
        conditions=(Condition("remap_pending", "==", True),),
        message="GPU {index} waits for a reset to remap a failing memory row.",
        action=RESET_WHEN_IDLE,
        source="row remap pending: reset at idle (NVIDIA GPU memory error management)",
        fires={"remap_pending": True},
        quiet={"remap_pending": False},
    ),
    Rule(
        name="remapped-rows",
        scope="gpu",
        severity="critical",
        conditions=(Condition("remapped_uncorrectable", ">=", 512, knob="rows"),),
        message="GPU {index} has remapped {remapped_uncorrectable} rows for uncorrectable errors.",
        action=SEND_IN,
        source="DCGM: 512 uncorrectable remaps are bad; severity: judgement",
        fires={"remapped_uncorrectable": 512},
        quiet={"remapped_uncorrectable": 8},
    ),
    Rule(
        name="remap-bank-low",
        scope="gpu",
        severity="warning",
        conditions=(Condition("remap_banks_low", ">", 0, knob="banks"),),
        message="GPU {index} has memory banks with few spare rows left: {remap_banks_low}.",
        action="Plan to send the board in; nothing is lost yet.",
        source="judgement: row remapper histogram, banks with low availability",
        fires={"remap_banks_low": 1},
        quiet={"remap_banks_low": 0},
    ),
    Rule(
        name="remap-bank-empty",
        scope="gpu",
        severity="warning",
        conditions=(Condition("remap_banks_none", ">", 0, knob="banks"),),
        message="GPU {index} has memory banks without a spare row: {remap_banks_none}. The next "
        "failing row there cannot be remapped.",
        action=SEND_IN,
        source="judgement: row remapper histogram, banks with no availability",
        fires={"remap_banks_none": 1},
        quiet={"remap_banks_none": 0},
    ),
    Rule(
        name="persistence-off",
        scope="gpu",
        severity="advice",
        conditions=(Condition("persistence_mode", "==", False),),
        message="Persistence mode is off on GPU {index}: the driver unloads between jobs.",
        action="Run nvidia-persistenced, or nvidia-smi -pm 1.",
        source="persistence off: advice",
        fires={"persistence_mode": False},
        quiet={"persistence_mode": True},
    ),
)
