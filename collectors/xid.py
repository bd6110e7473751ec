"""XIDs and SXids: looked up by code, and read from kernel log lines.

The tables are collectors/xid_catalogue.py and collectors/sxid_catalogue.py. An unknown code is
kept; the driver's own word (XID 154, NVML field 230) goes before the tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from collectors.actions import LOOK_UP, RESET_GPU, RESTART_NODE
from collectors.pci import normalise_pci
from collectors.report import Severity
from collectors.sxid_catalogue import SWITCH_CATALOGUE
from collectors.xid_catalogue import CATALOGUE
from collectors.xid_entry import ClearedBy, XidClass, XidEntry

__all__ = [
    "APPLICATION_CLOSES_AFTER_SECONDS",
    "CATALOGUE",
    "RECOVERY_ACTIONS",
    "SWITCH_CATALOGUE",
    "ClearedBy",
    "KernelXid",
    "RecoveryAction",
    "XidClass",
    "XidEntry",
    "find_entry",
    "parse_kernel_line",
]

APPLICATION_CLOSES_AFTER_SECONDS = 600.0
"""An application-class XID closes this long after its last occurrence (the cluster's rule)."""

_BY_CODE = {entry.code: entry for entry in CATALOGUE}
_SWITCH_BY_CODE = {entry.code: entry for entry in SWITCH_CATALOGUE}


@dataclass(frozen=True)
class RecoveryAction:
    """What the driver asks for in XID 154 and in NVML's field 230."""

    code: int
    name: str
    severity: Severity
    action: str
    cleared_by: ClearedBy = "reset"


RECOVERY_ACTIONS: dict[int, RecoveryAction] = {
    action.code: action
    for action in (
        RecoveryAction(0, "none", "info", "Nothing to do.", "time"),
        RecoveryAction(1, "GPU reset", "critical", RESET_GPU),
        RecoveryAction(2, "reboot", "fatal", RESTART_NODE, "boot"),
        RecoveryAction(
            3, "drain P2P", "warning", "Drain the work that uses P2P on the GPU, then look again."
        ),
        RecoveryAction(4, "drain and reset", "critical", RESET_GPU),
        RecoveryAction(5, "IMEX", "warning", "Restart IMEX on the node."),
        RecoveryAction(6, "bus reset", "critical", "Drain the node and reset the GPU's PCI bus."),
        RecoveryAction(7, "system reboot", "fatal", RESTART_NODE, "boot"),
    )
}
"""Severities are our judgement: what needs a reboot is fatal, a reset critical."""


def find_entry(
    code: int, *, kind: str = "xid", text: str = "", recovery: int | None = None
) -> XidEntry:
    """Return the entry of a code; an unknown one is kept as a warning to be looked up.

    For XID 154 the driver's own `recovery` action decides; for an unknown SXid the word
    Fatal in its `text` does.
    """
    if kind == "sxid":
        return _SWITCH_BY_CODE.get(code) or _unknown_switch(code, text)
    if code == 154 and recovery is not None:
        return _recovery_entry(recovery)
    return _BY_CODE.get(code) or XidEntry(
        code,
        "unknown code",
        "other",
        "warning",
        LOOK_UP,
        "The driver raised a code that this release does not know. It is kept as it came, so that "
        "a newer driver's fault is not lost.",
        "The lines around it in the kernel log, and what the GPU did since.",
    )


def _recovery_entry(recovery: int) -> XidEntry:
    told = _BY_CODE[154]
    wanted = RECOVERY_ACTIONS.get(recovery)
    if wanted is None:
        return replace(told, name=f"recovery action {recovery:#x}", action=LOOK_UP)
    return replace(
        told,
        name=f"the driver asks for: {wanted.name}",
        severity=wanted.severity,
        action=wanted.action,
        cleared_by=wanted.cleared_by,
        changes_health=recovery != 0,
    )


def _unknown_switch(code: int, text: str) -> XidEntry:
    fatal = ", Fatal" in text or text.startswith("Fatal")
    return XidEntry(
        code,
        "unknown switch error",
        "nvlink",
        "critical" if fatal else "warning",
        LOOK_UP,
        "A switch raised a code that this release does not know. The line itself says whether the "
        "switch took it for fatal.",
        "The fabric manager's log at the same second.",
        cleared_by="boot",
    )


@dataclass(frozen=True)
class KernelXid:
    """What one line of the kernel log says. `follow_on` lines add to the one before."""

    code: int
    kind: Literal["xid", "sxid"]
    pci_bus_id: str | None
    text: str
    recovery_action: int | None = None
    follow_on: bool = False


_XID = re.compile(r"NVRM: Xid \(PCI:([0-9A-Fa-f:.]+)(?:\s[^)]*)?\): (\d{1,5})\b(?:, ?(.*))?")
_SXID = re.compile(r"nvidia-nvswitch\d+: SXid \(PCI:([0-9A-Fa-f:.]+)\): (\d{1,6})\b(?:, ?(.*))?")
_OFF_BUS = re.compile(r"NVRM: GPU (?:at PCI:)?([0-9A-Fa-f:.]+):? GPU has fallen off the bus")
_TO_HEX = re.compile(r"\bto 0x([0-9A-Fa-f]{1,4})\b")
_FOLLOW_ON = re.compile(r"^(?:Severity \d|Data \{)")
MAX_TEXT = 512
"""Characters kept of a line: longer ones are register dumps."""


def parse_kernel_line(line: str) -> KernelXid | None:
    """Return the XID or SXid in a kernel log line, in whatever prefix, or None."""
    if "Xid" not in line and "fallen off" not in line:
        return None
    match = _XID.search(line)
    if match is not None:
        address, code, text = match.groups()
        recovery = _read_recovery(text or "") if code == "154" else None
        return KernelXid(
            int(code), "xid", normalise_pci(address), (text or "").strip()[:MAX_TEXT], recovery
        )
    match = _SXID.search(line)
    if match is not None:
        address, code, text = match.groups()
        words = (text or "").strip()
        return KernelXid(
            int(code),
            "sxid",
            normalise_pci(address),
            words[:MAX_TEXT],
            follow_on=_FOLLOW_ON.match(words) is not None,
        )
    match = _OFF_BUS.search(line)
    if match is not None:
        address = match[1].rstrip(":")
        return KernelXid(79, "xid", normalise_pci(address), "GPU has fallen off the bus.")
    return None


def _read_recovery(text: str) -> int | None:
    match = _TO_HEX.search(text)
    if match is not None:
        return int(match[1], 16)
    # Some drivers write the label alone; labels vary, so only the plain words are taken.
    words = text.lower()
    if "reboot required" in words:
        return 2
    return 1 if "reset required" in words else None
