"""The XIDs and SXids of an H100 node: class, severity, action; and kernel lines read into them.

Source: NVIDIA's XID catalogue as of 2026 and the SXid table of its fabric manager. Where a
severity is our judgement and not a source's the entry is marked "judgement".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from collectors.actions import (
    CONTACT_SUPPORT,
    LOOK_UP,
    NVLINK_WORKFLOW,
    RESET_GPU,
    RESET_THEN_SUPPORT,
    RESET_WHEN_IDLE,
    RESTART_APPLICATION,
    RESTART_NODE,
)
from collectors.pci import normalise_pci
from collectors.report import Severity

ClearedBy = Literal["time", "pod", "reset", "boot"]
"""What ends a finding: time passing, its pods gone, a GPU reset (or boot), only a boot."""

XidClass = Literal[
    "application", "driver", "memory", "hardware", "firmware", "nvlink", "security", "other"
]

APPLICATION_CLOSES_AFTER_SECONDS = 600.0
"""An application-class XID closes this long after its last occurrence (the cluster's rule)."""


@dataclass(frozen=True)
class XidEntry:
    """One code: its name and class, how bad it is, what to do, and what ends the finding."""

    code: int
    name: str
    group: XidClass
    severity: Severity
    action: str
    cleared_by: ClearedBy = "reset"
    changes_health: bool = True


def _application(code: int, name: str, severity: Severity, action: str) -> XidEntry:
    return XidEntry(
        code, name, "application", severity, action, cleared_by="time", changes_health=False
    )


_UNUSED = "no longer used by the driver"

CATALOGUE: tuple[XidEntry, ...] = (
    _application(8, "GPU idle time-out", "warning", RESTART_APPLICATION),
    _application(11, "invalid push buffer", "warning", RESTART_APPLICATION),
    _application(13, "graphics engine exception", "warning", RESTART_APPLICATION),
    _application(31, "memory page fault", "warning", RESTART_APPLICATION),
    _application(32, "PBDMA error", "warning", RESTART_APPLICATION),
    _application(43, "channel reset", "info", "Nothing to do for the GPU; the application ended."),
    XidEntry(44, "context-switch fault", "driver", "warning", CONTACT_SUPPORT),
    _application(45, "preemptive removal", "warning", "Follow the XID that came before it."),
    XidEntry(46, "GPU time-out", "hardware", "critical", RESET_GPU),
    XidEntry(48, "double-bit ECC error", "memory", "critical", RESET_GPU),
    XidEntry(
        54,
        "auxiliary power not connected",
        "hardware",
        "critical",
        "Drain the node and check the board's power and seating.",
        cleared_by="boot",
    ),
    *(
        XidEntry(code, _UNUSED, "other", "warning", CONTACT_SUPPORT)
        for code in (56, 57, 58, 61, 65, 122, 123)
    ),
    XidEntry(62, "PMU halt", "firmware", "critical", RESET_GPU),
    XidEntry(63, "row remapping recorded", "memory", "warning", RESET_WHEN_IDLE),
    XidEntry(64, "row remapping failed", "memory", "fatal", RESET_THEN_SUPPORT),
    _application(68, "NVDEC exception", "warning", RESTART_APPLICATION),
    _application(69, "graphics class error", "warning", RESTART_APPLICATION),
    XidEntry(74, "NVLink error", "nvlink", "critical", NVLINK_WORKFLOW),
    XidEntry(
        79, "GPU has fallen off the bus", "hardware", "fatal", RESTART_NODE, cleared_by="boot"
    ),
    XidEntry(92, "high rate of single-bit ECC errors", "memory", "warning", CONTACT_SUPPORT),
    XidEntry(
        94,
        "contained ECC error",
        "memory",
        "critical",
        RESTART_APPLICATION,
        cleared_by="pod",
        changes_health=False,
    ),
    XidEntry(95, "uncontained ECC error", "memory", "fatal", RESET_GPU),
    XidEntry(109, "context-switch time-out", "driver", "critical", RESET_GPU),
    XidEntry(110, "security fault", "security", "critical", RESET_GPU),
    XidEntry(119, "GSP RPC time-out", "firmware", "critical", RESET_GPU),
    XidEntry(120, "GSP error", "firmware", "critical", RESET_GPU),
    XidEntry(
        121,
        "C2C link error (not on H100)",
        "other",
        "info",
        "Nothing to do on an H100.",
        cleared_by="time",
        changes_health=False,
    ),
    XidEntry(136, "NVLink training failed", "nvlink", "critical", NVLINK_WORKFLOW),
    XidEntry(137, "NVLink privilege error", "nvlink", "warning", "Nothing to do while it is rare."),
    XidEntry(140, "unrecovered ECC error", "memory", "fatal", RESET_GPU),
    XidEntry(143, "GPU initialisation failed", "hardware", "fatal", RESET_THEN_SUPPORT),
    *(
        XidEntry(
            code,
            "NVLink 5 error (not on H100)",
            "nvlink",
            "warning",
            "Decode the unit that the line names.",
        )
        for code in range(144, 151)
    ),
    XidEntry(154, "recovery action changed", "driver", "warning", "Do what the driver names."),
)

_BY_CODE = {entry.code: entry for entry in CATALOGUE}


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


def _switch(
    codes: tuple[int, ...], name: str, severity: Severity, action: str, cleared_by: ClearedBy
) -> tuple[XidEntry, ...]:
    return tuple(
        XidEntry(code, name, "nvlink", severity, action, cleared_by=cleared_by) for code in codes
    )


SWITCH_CATALOGUE: tuple[XidEntry, ...] = (
    *_switch(
        (12020, 22003, 22011, *range(23001, 23018)),
        "fatal for the NVLink fabric",
        "fatal",
        RESTART_NODE,
        "boot",
    ),
    *_switch(
        (20034, 14017, 11001, 12001, 12002, *range(24004, 24008)),
        "fatal for an NVLink port",
        "critical",
        NVLINK_WORKFLOW,
        "boot",
    ),
    *_switch((20001, 20009, 20012, 22013), "link error, recovered", "info", LOOK_UP, "time"),
    *_switch((10004,), "switch too hot", "warning", "Check the machine's cooling.", "boot"),
    *_switch((10005,), "switch cool again", "info", "Nothing to do.", "time"),
    *_switch((11004, 12028, 19084), "switch access error", "warning", RESTART_NODE, "boot"),
)
"""Severities of the non-fatal rows are our judgement."""

_SWITCH_BY_CODE = {entry.code: entry for entry in SWITCH_CATALOGUE}


def find_entry(
    code: int, *, kind: str = "xid", text: str = "", recovery: int | None = None
) -> XidEntry:
    """Return the entry of a code; an unknown one is kept as a warning to be looked up.

    For XID 154 the driver's own `recovery` action decides; for an unknown SXid the word
    Fatal in its `text` does.
    """
    if kind == "sxid":
        known = _SWITCH_BY_CODE.get(code)
        if known is not None:
            return known
        fatal = ", Fatal" in text or text.startswith("Fatal")
        return XidEntry(
            code,
            "unknown switch error",
            "nvlink",
            "critical" if fatal else "warning",
            LOOK_UP,
            cleared_by="boot",
        )
    if code == 154 and recovery is not None:
        wanted = RECOVERY_ACTIONS.get(recovery)
        if wanted is None:
            return XidEntry(154, f"recovery action {recovery:#x}", "driver", "warning", LOOK_UP)
        return XidEntry(
            154,
            f"the driver asks for: {wanted.name}",
            "driver",
            wanted.severity,
            wanted.action,
            cleared_by=wanted.cleared_by,
            changes_health=recovery != 0,
        )
    return _BY_CODE.get(code) or XidEntry(code, "unknown code", "other", "warning", LOOK_UP)


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
