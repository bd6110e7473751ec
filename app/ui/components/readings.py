"""A GPU's latest reading as words, each with its unit; what is not known says why."""

from app.store.records import GpuRecord
from app.ui import words

HOT_CELSIUS = 85.0
"""H100's slowdown begins at about 87 C (facts/gpu-health.md): a reading from here is worth the eye."""

EXPECTED_LINKS = 18  # NVLink 4 of an H100 SXM


def readings_of(gpu: GpuRecord) -> dict[str, dict[str, object]]:
    """Each reading as {"value", "help"} and, where it has one, a ratio of its limit and a tone."""
    missing = gpu.missing or {}
    hot = (gpu.temperature_celsius or 0) >= HOT_CELSIUS
    return {
        "temperature": _reading(
            gpu.temperature_celsius,
            "{:.0f} °C",
            missing.get("temperature_celsius"),
            tone="watch" if hot else None,
        ),
        "power": _reading(
            gpu.power_watts,
            "{:.0f} W",
            missing.get("power_watts"),
            ratio=_ratio(gpu.power_watts, gpu.power_limit_watts),
        ),
        "utilization": _reading(
            _percent(gpu.gpu_utilization_ratio),
            "{:.0f} %",
            missing.get("gpu_utilization_ratio"),
            ratio=gpu.gpu_utilization_ratio,
        ),
        "memory": _reading(
            _gigabytes(gpu.memory_used_bytes),
            "{:.0f} GB",
            missing.get("memory_used_bytes"),
            ratio=_ratio(gpu.memory_used_bytes, gpu.memory_total_bytes),
        ),
        "clock": _reading(
            None if gpu.sm_clock_hertz is None else gpu.sm_clock_hertz / 1e6,
            "{:.0f} MHz",
            missing.get("sm_clock_hertz"),
        ),
        "ecc": _reading(
            gpu.ecc_uncorrected_total,
            "{:.0f}",
            missing.get("ecc_uncorrected_total"),
            tone="watch" if gpu.ecc_uncorrected_total else None,
            help="Uncorrected ECC errors since the driver loaded",
        ),
        "remap": {
            "value": _remap(gpu),
            "help": missing.get("remap_pending") or "Row remapping of the memory",
            **({"tone": "watch"} if gpu.remap_pending or gpu.remap_failure else {}),
        },
        "links": _reading(
            gpu.nvlink_active_links,
            "{:.0f} links",
            missing.get("nvlink_active_links"),
            tone="watch"
            if gpu.nvlink_active_links is not None and gpu.nvlink_active_links < EXPECTED_LINKS
            else None,
        ),
        "pcie": {
            "value": None
            if gpu.pcie_generation is None
            else f"Gen{gpu.pcie_generation} x{gpu.pcie_width}",
            "help": missing.get("pcie_generation"),
            **({"tone": "watch"} if gpu.pcie_width is not None and gpu.pcie_width < 16 else {}),
        },
        "xid": {
            "value": "none" if gpu.last_xid is None else str(gpu.last_xid),
            "at": words.milliseconds(gpu.last_xid_at),
        },
    }


def _reading(
    value: float | None,
    form: str,
    why: str | None,
    *,
    ratio: float | None = None,
    tone: str | None = None,
    help: str | None = None,
) -> dict[str, object]:
    reading: dict[str, object] = {
        "value": None if value is None else form.format(value),
        "help": (why or "not reported") if value is None else help,
    }
    if ratio is not None:
        reading["ratio"] = ratio
    if tone is not None:
        reading["tone"] = tone
    return reading


def _ratio(value: float | None, limit: float | None) -> float | None:
    return None if value is None or not limit else value / limit


def _percent(ratio: float | None) -> float | None:
    return None if ratio is None else 100 * ratio


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e9


def _remap(gpu: GpuRecord) -> str | None:
    if gpu.remap_failure is None and gpu.remap_pending is None:
        return None
    return "failed" if gpu.remap_failure else "pending" if gpu.remap_pending else "none"
