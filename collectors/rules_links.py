"""The rules over a GPU's links (NVLink, fabric, PCIe) and over who says that it is in use.

Thresholds marked "judgement" are ours and no source's.
"""

from __future__ import annotations

from collectors.actions import NVLINK_WORKFLOW, RESTART_APPLICATION
from collectors.conditions import Condition, Field
from collectors.rule import Rule

MINUTE = 60.0

LINKS = 18
"""NVLinks of an H100 SXM."""

LINK_RULES: tuple[Rule, ...] = (
    Rule(
        name="nvlink-down",
        scope="gpu",
        severity="critical",
        conditions=(Condition("nvlink_active_links", "<", LINKS, knob="links"),),
        message="GPU {index} has {nvlink_active_links} active NVLinks, not all of them.",
        action=NVLINK_WORKFLOW,
        source="an H100 SXM has 18 links",
        fires={"nvlink_active_links": 17},
        quiet={"nvlink_active_links": 18},
        # Links train while the fabric manager starts; they are read each 15 s.
        hold_seconds=15.0,
    ),
    Rule(
        name="nvlink-replay",
        scope="gpu",
        severity="warning",
        conditions=(Condition("nvlink_replays_in_ten_minutes", ">", 0, knob="replays"),),
        message="NVLinks of GPU {index} replayed {nvlink_replays_in_ten_minutes} times in 10 "
        "minutes.",
        action="Watch the link; when it goes on, drain the node and check its NVLinks.",
        source="any increase in a window: warning",
        fires={"nvlink_replays_in_ten_minutes": 1},
        quiet={"nvlink_replays_in_ten_minutes": 0},
    ),
    Rule(
        name="nvlink-recovery",
        scope="gpu",
        severity="warning",
        conditions=(Condition("nvlink_recoveries_in_ten_minutes", ">", 0, knob="recoveries"),),
        message="NVLinks of GPU {index} recovered {nvlink_recoveries_in_ten_minutes} times in 10 "
        "minutes.",
        action="Watch the link; when it goes on, drain the node and check its NVLinks.",
        source="any increase in a window: warning",
        fires={"nvlink_recoveries_in_ten_minutes": 2},
        quiet={"nvlink_recoveries_in_ten_minutes": 0},
    ),
    Rule(
        name="nvlink-crc",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("nvlink_crc_errors_per_second", ">=", 100, knob="errors_per_second"),
        ),
        message="NVLinks of GPU {index} count {nvlink_crc_errors_per_second:.0f} CRC errors a "
        "second.",
        action=NVLINK_WORKFLOW,
        source="100 CRC errors a second: critical",
        fires={"nvlink_crc_errors_per_second": 250.0},
        quiet={"nvlink_crc_errors_per_second": 3.0},
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="pcie-replay",
        scope="gpu",
        severity="warning",
        conditions=(Condition("pcie_replays_per_minute", ">", 31, knob="replays_per_minute"),),
        message="PCIe of GPU {index} replayed {pcie_replays_per_minute} times in a minute.",
        action="When it goes on, drain the node and check the riser and the GPU's seating.",
        source="over 31 a minute on gen5 x16: warning",
        fires={"pcie_replays_per_minute": 32},
        quiet={"pcie_replays_per_minute": 31},
        keep_firing_seconds=MINUTE,
    ),
    Rule(
        name="pcie-generation-low",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("pcie_generation", "<", Field("pcie_generation_max")),
            Condition("gpu_utilization_ratio", ">", 0.5, knob="utilization_ratio"),
        ),
        message="PCIe of GPU {index} runs at generation {pcie_generation} of "
        "{pcie_generation_max} under load.",
        action="Drain the node, restart it, and check the GPU's seating when it stays so.",
        source="judgement: below the maximum of link and platform, under load for a minute",
        fires={"pcie_generation": 3, "pcie_generation_max": 5, "gpu_utilization_ratio": 0.9},
        quiet={"pcie_generation": 4, "pcie_generation_max": 4, "gpu_utilization_ratio": 0.9},
        hold_seconds=MINUTE,
    ),
    Rule(
        name="pcie-width-low",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("pcie_width", "<", Field("pcie_width_max")),
            Condition("gpu_utilization_ratio", ">", 0.5, knob="utilization_ratio"),
        ),
        message="PCIe of GPU {index} runs on {pcie_width} of {pcie_width_max} lanes under load.",
        action="Drain the node, restart it, and check the GPU's seating when it stays so.",
        source="judgement: below the maximum of link and platform, under load for a minute",
        fires={"pcie_width": 8, "pcie_width_max": 16, "gpu_utilization_ratio": 0.9},
        quiet={"pcie_width": 8, "pcie_width_max": 16, "gpu_utilization_ratio": 0.0},
        hold_seconds=MINUTE,
    ),
    Rule(
        name="fabric-incomplete",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("fabric_state", ">=", 1),
            Condition("fabric_state", "!=", 3),
        ),
        message="GPU {index} has not joined the NVLink fabric: state {fabric_state}.",
        action="Restart the fabric manager; drain the node when the GPU still does not join.",
        source="fabric state 3 (completed) is wanted; the hold time is a judgement",
        fires={"fabric_state": 2},
        quiet={"fabric_state": 3},
        # A machine that boots is in progress for as long as its fabric manager starts.
        hold_seconds=2 * MINUTE,
    ),
    Rule(
        name="fabric-failed",
        scope="gpu",
        severity="critical",
        conditions=(
            Condition("fabric_state", "==", 3),
            Condition("fabric_status", "!=", 0),
        ),
        message="GPU {index} failed to join the NVLink fabric: status {fabric_status}.",
        action="Restart the fabric manager; drain the node when the GPU still does not join.",
        source="fabric status 0 is wanted",
        fires={"fabric_state": 3, "fabric_status": 999},
        quiet={"fabric_state": 3, "fabric_status": 0},
        hold_seconds=15.0,
    ),
)

USE_RULES: tuple[Rule, ...] = (
    Rule(
        name="gpu-held-idle",
        scope="gpu",
        severity="warning",
        conditions=(
            Condition("holders", ">", 0),
            Condition("process_count", "==", 0),
            Condition("error_code", "==", 0, absent=0),
        ),
        message="GPU {index} is given to a pod that has no process on it.",
        action=RESTART_APPLICATION,
        source="judgement: the kubelet and NVML disagree for 10 minutes",
        fires={"holders": 1, "process_count": 0},
        quiet={"holders": 1, "process_count": 1},
        hold_seconds=10 * MINUTE,
        changes_health=False,
    ),
    Rule(
        name="gpu-process-stray",
        scope="gpu",
        severity="warning",
        conditions=(Condition("stray_processes", ">", 0),),
        message="GPU {index} runs processes that belong to no pod: {stray_processes}.",
        action="Find the process on the node (nvidia-smi) and end it, or ask whose it is.",
        source="judgement: NVML and the kubelet disagree for 2 minutes",
        fires={"stray_processes": 1},
        quiet={"stray_processes": 0},
        hold_seconds=2 * MINUTE,
        changes_health=False,
    ),
)
