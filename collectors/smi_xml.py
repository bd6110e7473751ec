"""What `nvidia-smi -q -x` wrote, as readings of GPUs.

Nothing is taken to be 0: a field that says N/A, or that this release of nvidia-smi does not
write, is None with its reason. `pcie_generation_max` is what link and platform can do together
(max_link_gen), not what the device alone could: a platform of generation 4 is not a fault.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collectors.errors import CaptureError
from collectors.pci import normalise_pci
from collectors.readings import (
    GPU_IS_LOST,
    MEASURED_FIELDS,
    RESET_REQUIRED,
    GpuProcess,
    GpuReading,
    assemble_reading,
)

MAX_BYTES = 64 * 1024 * 1024
MEBIBYTE = 1 << 20
MEGAHERTZ = 1_000_000
_NUMBER = re.compile(r"^-?\d+(?:\.\d+)?")
_WORDLESS = ("", "N/A", "[N/A]", "Requested functionality has been deprecated", "Unknown Error")
NOT_WRITTEN = "not in this file"


@dataclass(frozen=True)
class SmiLog:
    """One host as nvidia-smi saw it. `attached_gpus` is its own count of GPUs."""

    driver_version: str | None
    attached_gpus: int | None
    gpus: tuple[GpuReading, ...]


class _NotSaid(Exception):
    """The field has no value; the text says why."""


def _number(text: str) -> float:
    match = _NUMBER.match(text)
    if match is None:
        raise _NotSaid(f"not understood: {text!r:.80}")
    return float(match[0])


def _scaled(factor: float) -> Callable[[str], int]:
    return lambda text: int(_number(text) * factor)


def _ratio(text: str) -> float:
    return _number(text) / 100


def _word(words: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text.lower() not in words:
            raise _NotSaid(f"not understood: {text!r:.80}")
        return words[text.lower()]

    return read


_SWITCH = _word({"enabled": True, "disabled": False, "yes": True, "no": False})
_WHOLE = _scaled(1)

RECOVERY_WORDS = {
    **{"none": 0, "reset": 1, "gpu reset": 1, "reboot": 2, "node reboot": 2},
    **{"drain p2p": 3, "drain and reset": 4, "drain & reset": 4},
}
FABRIC_STATES = {"not started": 1, "in progress": 2, "completed": 3}

FIELDS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "serial": ("serial", str),
    "name": ("product_name", str),
    "module_id": ("platformInfo/module_id", _WHOLE),
    "minor_number": ("minor_number", _WHOLE),
    "vbios_version": ("vbios_version", str),
    "persistence_mode": ("persistence_mode", _SWITCH),
    "mig_mode": ("mig_mode/current_mig", _SWITCH),
    "temperature_celsius": ("temperature/gpu_temp", _number),
    "memory_temperature_celsius": ("temperature/memory_temp", _number),
    "temperature_margin_celsius": ("temperature/gpu_temp_tlimit", _number),
    "power_watts": ("gpu_power_readings/power_draw|gpu_power_readings/instant_power_draw", _number),
    "power_limit_watts": ("gpu_power_readings/current_power_limit", _number),
    "sm_clock_hertz": ("clocks/sm_clock", _scaled(MEGAHERTZ)),
    "memory_clock_hertz": ("clocks/mem_clock", _scaled(MEGAHERTZ)),
    "sm_clock_max_hertz": ("max_clocks/sm_clock", _scaled(MEGAHERTZ)),
    "gpu_utilization_ratio": ("utilization/gpu_util", _ratio),
    "memory_utilization_ratio": ("utilization/memory_util", _ratio),
    "memory_used_bytes": ("fb_memory_usage/used", _scaled(MEBIBYTE)),
    "memory_total_bytes": ("fb_memory_usage/total", _scaled(MEBIBYTE)),
    "ecc_mode": ("ecc_mode/current_ecc", _SWITCH),
    "remapped_correctable": ("remapped_rows/remapped_row_corr", _WHOLE),
    "remapped_uncorrectable": ("remapped_rows/remapped_row_unc", _WHOLE),
    "remap_pending": ("remapped_rows/remapped_row_pending", _SWITCH),
    "remap_failure": ("remapped_rows/remapped_row_failure", _SWITCH),
    "remap_banks_low": (
        "remapped_rows/row_remapper_histogram/row_remapper_histogram_low",
        _WHOLE,
    ),
    "remap_banks_none": (
        "remapped_rows/row_remapper_histogram/row_remapper_histogram_none",
        _WHOLE,
    ),
    "pcie_generation": ("pci/pci_gpu_link_info/pcie_gen/current_link_gen", _WHOLE),
    "pcie_generation_max": ("pci/pci_gpu_link_info/pcie_gen/max_link_gen", _WHOLE),
    "pcie_width": ("pci/pci_gpu_link_info/link_widths/current_link_width", _WHOLE),
    "pcie_width_max": ("pci/pci_gpu_link_info/link_widths/max_link_width", _WHOLE),
    "pcie_replay_total": ("pci/replay_counter", _WHOLE),
    "fabric_state": ("fabric/state", _word(FABRIC_STATES)),
    # Any word but Success is a failure; which one, its message does not need to say.
    "fabric_status": ("fabric/status", lambda text: 0 if text == "Success" else 999),
    "recovery_action": ("gpu_recovery_action", _word(RECOVERY_WORDS)),
}

REASONS = {
    **{"gpu_idle": 0x1, "applications_clocks_setting": 0x2, "sw_power_cap": 0x4},
    **{"hw_slowdown": 0x8, "sync_boost": 0x10, "sw_thermal_slowdown": 0x20},
    **{"hw_thermal_slowdown": 0x40, "hw_power_brake_slowdown": 0x80},
    "display_clocks_setting": 0x100,
}

ECC_SUMS: Mapping[str, tuple[str, ...]] = {
    "ecc_corrected_total": ("sram_correctable", "dram_correctable"),
    "ecc_uncorrected_total": (
        *("sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded"),
        "dram_uncorrectable",
    ),
    "sram_uncorrected_total": (
        *("sram_uncorrectable", "sram_uncorrectable_parity", "sram_uncorrectable_secded"),
    ),
}


def read_smi_log(path: Path) -> SmiLog:
    """Return the host in the file. Raises CaptureError when it is not nvidia-smi's XML."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CaptureError(f"{path} is over {MAX_BYTES >> 20} MiB: not one nvidia-smi -q -x")
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise CaptureError(
            f"{path} is not whole XML: {error}; write it again with nvidia-smi -q -x"
        ) from error
    if root.tag != "nvidia_smi_log":
        raise CaptureError(f"{path} holds <{root.tag}> and not nvidia-smi's <nvidia_smi_log>")
    attached = (root.findtext("attached_gpus") or "").strip()
    return SmiLog(
        driver_version=(root.findtext("driver_version") or "").strip()[:256] or None,
        attached_gpus=int(attached) if attached.isdecimal() and len(attached) < 6 else None,
        gpus=tuple(_read_gpu(gpu, index) for index, gpu in enumerate(root.findall("gpu"))),
    )


def _read_gpu(gpu: ElementTree.Element, index: int) -> GpuReading:
    pci = normalise_pci(gpu.get("id") or "")
    values: dict[str, Any] = {
        "uuid": _text(gpu, "uuid") or f"unknown-{pci or index}",
        "index": index,
        "pci_bus_id": pci,
    }
    whole = " ".join(gpu.itertext())
    code = (
        GPU_IS_LOST
        if "GPU is lost" in whole
        else RESET_REQUIRED
        if "GPU requires reset" in whole
        else None
    )
    if code is not None:
        words = "GPU is lost" if code == GPU_IS_LOST else "GPU requires reset"
        return assemble_reading({**values, "error_code": code}, {"*": words})
    missing: dict[str, str] = {}
    for field, (paths, convert) in FIELDS.items():
        text = next((said for p in paths.split("|") if (said := _text(gpu, p)) is not None), None)
        _put(field, text, convert, values, missing)
    _read_reasons(gpu, values, missing)
    for field, names in ECC_SUMS.items():
        told = [_text(gpu, f"ecc_errors/volatile/{name}") for name in names]
        counts = [word for word in told if word is not None and word.isdecimal()]
        if counts:
            values[field] = sum(map(int, counts))
        else:
            missing[field] = next((word for word in told if word), NOT_WRITTEN)
    missing.update(
        dict.fromkeys(
            (n for n in MEASURED_FIELDS if values.get(n) is None and n not in missing), NOT_WRITTEN
        )
    )
    return assemble_reading(values, missing, _read_processes(gpu))


def _text(gpu: ElementTree.Element, path: str) -> str | None:
    text = gpu.findtext(path)
    return None if text is None else text.strip()


def _put(
    field: str,
    text: str | None,
    convert: Callable[[str], Any],
    values: dict[str, Any],
    missing: dict[str, str],
) -> None:
    if text is None or text in _WORDLESS:
        missing[field] = text[:80] or "empty" if text is not None else NOT_WRITTEN
        return
    try:
        values[field] = convert(text)
    except _NotSaid as error:
        missing[field] = str(error)


def _read_reasons(
    gpu: ElementTree.Element, values: dict[str, Any], missing: dict[str, str]
) -> None:
    for group, prefix in (
        ("clocks_event_reasons", "clocks_event_reason_"),
        ("clocks_throttle_reasons", "clocks_throttle_reason_"),
    ):
        said = {name: _text(gpu, f"{group}/{prefix}{name}") for name in REASONS}
        if any(text in ("Active", "Not Active") for text in said.values()):
            values["clocks_event_reasons"] = sum(
                bit for name, bit in REASONS.items() if said[name] == "Active"
            )
            return
    missing["clocks_event_reasons"] = NOT_WRITTEN


def _read_processes(gpu: ElementTree.Element) -> tuple[GpuProcess, ...]:
    found = []
    for process in gpu.findall("processes/process_info"):
        pid, kind = _text(process, "pid"), _text(process, "type")
        if pid is not None and pid.isdecimal() and len(pid) < 12 and kind != "G":
            used = _NUMBER.match(_text(process, "used_memory") or "")
            memory = int(float(used[0]) * MEBIBYTE) if used and float(used[0]) >= 0 else None
            found.append(GpuProcess(pid=int(pid), memory_bytes=memory))
    return tuple(found[:1024])
