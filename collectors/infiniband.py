"""InfiniBand ports from /sys/class/infiniband (or a copy of it): one reading a port.

Reading a counter asks the adapter's firmware, which may take its time, so the agent reads on a
thread of its own and each 15 s. What a file does not say is None with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path

from collectors.errors import SourceError
from collectors.readings import PortReading

_RATE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?) Gb/sec")
_STATE = re.compile(r"^\s*\d+:\s*(\S.*)$")
GIGA = 1_000_000_000
MAX_FILE_BYTES = 4096
MAX_PORTS = 64

COUNTERS = {
    "link_downed_total": "link_downed",
    "symbol_errors_total": "symbol_error",
    "link_recoveries_total": "link_error_recovery",
}


def read_ports(root: Path) -> list[PortReading]:
    """Return every port below `root`, in a stable order; none where there is no such folder.

    Raises SourceError when the folder is there and cannot be listed.
    """
    try:
        devices = sorted(path for path in root.iterdir() if (path / "ports").is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SourceError(
            f"InfiniBand devices cannot be listed at {root}: {error.strerror or error}; "
            "check PITWALL_INFINIBAND_ROOT"
        ) from error
    ports: list[PortReading] = []
    for device in devices:
        for folder in sorted(path for path in (device / "ports").iterdir() if path.is_dir()):
            if folder.name.isdecimal() and len(ports) < MAX_PORTS:
                ports.append(_read_port(device.name, folder))
    return ports


def _read_port(device: str, folder: Path) -> PortReading:
    missing: dict[str, str] = {}

    def text(field: str, name: str) -> str | None:
        try:
            with (folder / name).open("rb") as file:
                words = file.read(MAX_FILE_BYTES).decode(errors="replace").strip()
        except OSError as error:
            missing[field] = error.strerror or str(error)
            return None
        if not words:
            missing[field] = "empty"
        return words or None

    def match(field: str, name: str, pattern: re.Pattern[str]) -> str | None:
        words = text(field, name)
        if words is None:
            return None
        found = pattern.match(words)
        if found is None:
            missing[field] = f"not understood: {words!r:.80}"
        return found[1] if found else None

    def count(field: str, name: str) -> int | None:
        words = text(field, f"counters/{name}")
        if words is None:
            return None
        if not words.isdecimal() or len(words) > 18:
            missing[field] = f"not a count: {words!r:.80}"
            return None
        return int(words)

    rate = match("rate_bits_per_second", "rate", _RATE)
    return PortReading(
        device=device[:64],
        port=int(folder.name[:9]),
        link_layer=text("link_layer", "link_layer"),
        state=match("state", "state", _STATE),
        physical_state=match("physical_state", "phys_state", _STATE),
        rate_bits_per_second=int(float(rate) * GIGA) if rate else None,
        missing=missing,
        **{field: count(field, name) for field, name in COUNTERS.items()},
    )
