"""One spelling of PCI addresses: "0000:65:00.0", lower case, the domain in four digits."""

from __future__ import annotations

import re

_ADDRESS = re.compile(
    r"^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([0-9a-f]{2})(?:\.([0-7]))?$", re.IGNORECASE
)


def normalise_pci(address: str) -> str | None:
    """Return the address as domain:bus:device.function, or None when it is not one.

    NVML writes an eight-digit domain, the kernel log leaves the function out (taken as 0).
    """
    match = _ADDRESS.match(address.strip())
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    short_domain = f"{int(domain or '0', 16):04x}"
    return f"{short_domain}:{bus.lower()}:{device.lower()}.{function or '0'}"
