"""The XIDs of an H100: what each is, how bad, what to do and where to look next.

Codes, classes and actions follow NVIDIA's XID catalogue as of 2026, the texts are Pitwall's own.
A severity that no source states is marked "judgement".
"""

from __future__ import annotations

from collectors.actions import (
    CONTACT_SUPPORT,
    NVLINK_WORKFLOW,
    RESET_GPU,
    RESET_THEN_SUPPORT,
    RESET_WHEN_IDLE,
    RESTART_APPLICATION,
    RESTART_NODE,
)
from collectors.report import Severity
from collectors.xid_entry import XidEntry

_JOB_LOG = "The log of the pod that the line's pid belongs to, at the same second."
_MEMORY_PAGE = "Row remapping (nvidia-smi -q -d ROW_REMAPPER) and the ECC counts of the GPU."
_BUG_REPORT = "nvidia-bug-report.log.gz, taken before the GPU is reset."


def _application(
    code: int,
    name: str,
    explanation: str,
    *,
    severity: Severity = "warning",
    action: str = RESTART_APPLICATION,
    look_at: str = _JOB_LOG,
) -> XidEntry:
    return XidEntry(
        code,
        name,
        "application",
        severity,
        action,
        explanation,
        look_at,
        cleared_by="time",
        changes_health=False,
    )


_UNUSED = tuple(
    XidEntry(
        code,
        "no longer used by the driver",
        "other",
        "warning",
        CONTACT_SUPPORT,
        "Today's driver does not raise this code for an H100. That it came points to an old driver, "
        "or to a fault that nobody has described.",
        "The driver's version (nvidia-smi) and the lines around this one in the kernel log.",
    )
    for code in (56, 57, 58, 61, 65, 122, 123)
)

_NVLINK_5 = tuple(
    XidEntry(
        code,
        "NVLink 5 error (not on H100)",
        "nvlink",
        "warning",
        "Decode the unit that the line names.",
        "A unit of the fifth NVLink generation reported an error; an H100 has the fourth. On the "
        "right board the words after the code say which unit and whether it was fatal.",
        "The product that nvidia-smi names: this node may not be what its labels say.",
    )
    for code in range(144, 151)
)

CATALOGUE: tuple[XidEntry, ...] = (
    _application(
        8,
        "GPU idle time-out",
        "The driver waited too long for a channel to finish its work and gave the channel up. Most "
        "often a kernel ran without end or a debugger held it.",
    ),
    _application(
        11,
        "invalid push buffer",
        "The GPU was handed a command stream that it cannot decode. A process that writes over its "
        "own memory is the usual cause, a broken driver library the rare one.",
    ),
    _application(
        13,
        "graphics engine exception",
        "A kernel did something illegal, such as reaching outside an array, and its process was "
        "stopped. The GPU itself is fine unless the same board says so under several applications.",
    ),
    _application(
        31,
        "memory page fault",
        "A process touched an address on the GPU that is not mapped for it. It is a fault of the "
        "application or its libraries in nearly every case.",
    ),
    _application(
        32,
        "PBDMA error",
        "The unit that fetches commands from host memory met corrupt ones. Bad commands of the "
        "process are likelier than a bad PCIe link, which would show in replays too.",
        look_at="The PCIe replay counter of the GPU, then the log of the pod.",
    ),
    _application(
        43,
        "channel reset",
        "The driver ended a channel because its process had failed before. This is the tidying up "
        "and not the cause.",
        severity="info",
        action="Nothing to do for the GPU; the application ended.",
        look_at="The XID that came just before it on the same GPU.",
    ),
    XidEntry(
        44,
        "context-switch fault",
        "driver",
        "warning",
        CONTACT_SUPPORT,
        "The GPU failed while it switched from one piece of work to another. One alone may be let "
        "pass; when it comes again the driver or the board is at fault.",
        _BUG_REPORT,
    ),
    _application(
        45,
        "preemptive removal",
        "The driver took the channels of a process away after something else had gone wrong. It "
        "tells which work was hit and not why.",
        action="Follow the XID that came before it.",
        look_at="The XID that the line names, or the one just before it on any GPU of the node.",
    ),
    XidEntry(
        46,
        "GPU time-out",
        "hardware",
        "critical",
        RESET_GPU,
        "The GPU stopped making progress and did not answer in the time given. Work on it hangs "
        "until it is reset.",
        "Whether other GPUs of the node timed out as well: then suspect power or the PCIe switch.",
    ),
    XidEntry(
        48,
        "double-bit ECC error",
        "memory",
        "critical",
        RESET_GPU,
        "Memory returned data that ECC can see to be wrong and cannot repair. The row is set aside "
        "at the next reset, and until then the page is kept out of use.",
        _MEMORY_PAGE,
    ),
    XidEntry(
        54,
        "auxiliary power not connected",
        "hardware",
        "critical",
        "Drain the node and check the board's power and seating.",
        "The board does not see the power that it needs beside that of its slot. It runs slowly or "
        "not at all until someone has looked inside the machine.",
        "Power supplies and cables in the machine's BMC log.",
        cleared_by="boot",
    ),
    *_UNUSED,
    XidEntry(
        62,
        "PMU halt",
        "firmware",
        "critical",
        RESET_GPU,
        "The small processor that keeps the GPU's power and clocks has stopped. Clocks stay where "
        "they were and nothing regulates them until a reset.",
        "Temperature and power of the GPU just before; DCGM's XID gauge may not show this one.",
    ),
    XidEntry(
        63,
        "row remapping recorded",
        "memory",
        "warning",
        RESET_WHEN_IDLE,
        "A failing memory row has been noted and a spare one will take its place at the next reset. "
        "The job may go on: the row is out of use already.",
        _MEMORY_PAGE,
    ),
    XidEntry(
        64,
        "row remapping failed",
        "memory",
        "fatal",
        RESET_THEN_SUPPORT,
        "A failing memory row could not be given a spare. Either the spares of its bank are used up "
        "or the record could not be written, so the board cannot be trusted further.",
        _MEMORY_PAGE,
    ),
    _application(
        68,
        "NVDEC exception",
        "The video decoder met a stream or a command that it cannot process. Training does not use "
        "it, so look at who does.",
    ),
    _application(
        69,
        "graphics class error",
        "A process asked an engine for something that its class does not offer. Mismatched "
        "libraries are the usual reason.",
    ),
    XidEntry(
        74,
        "NVLink error",
        "nvlink",
        "critical",
        NVLINK_WORKFLOW,
        "A link between this GPU and a switch or a neighbour failed beyond its own repair. "
        "Collectives over it hang or abort, and the fault may sit at either end.",
        "The link's number in the line, the SXids of the switches, and the GPU at its other end.",
    ),
    XidEntry(
        79,
        "GPU has fallen off the bus",
        "hardware",
        "fatal",
        RESTART_NODE,
        "The machine can no longer reach the GPU over PCIe. Whatever ran on it is lost, and only a "
        "restart, often with power taken off, brings it back.",
        "The BMC's log for power and PCIe errors, and AER lines in the kernel log before this one.",
        cleared_by="boot",
    ),
    XidEntry(
        92,
        "high rate of single-bit ECC errors",
        "memory",
        "warning",
        CONTACT_SUPPORT,
        "Memory errors that ECC repairs come far more often than they should. Results are right so "
        "far, and the rate is a sign of what is coming.",
        _MEMORY_PAGE,
    ),
    XidEntry(
        94,
        "contained ECC error",
        "memory",
        "critical",
        RESTART_APPLICATION,
        "An uncorrectable memory error was confined to the process that read it, which was stopped. "
        "Others on the GPU go on unharmed, and the row is remapped at the next reset.",
        _MEMORY_PAGE,
        cleared_by="pod",
        changes_health=False,
    ),
    XidEntry(
        95,
        "uncontained ECC error",
        "memory",
        "fatal",
        RESET_GPU,
        "An uncorrectable memory error could not be confined to one process. Everything on the GPU "
        "is suspect until it is reset.",
        _MEMORY_PAGE,
    ),
    XidEntry(
        109,
        "context-switch time-out",
        "driver",
        "critical",
        RESET_GPU,
        "The GPU did not finish a switch between pieces of work in time. An application that hangs "
        "may provoke it, but the GPU needs a reset either way.",
        _JOB_LOG,
    ),
    XidEntry(
        110,
        "security fault",
        "security",
        "critical",
        RESET_GPU,
        "A protection of the GPU's own firmware was tripped. A fault in the board is likelier than "
        "an attack, and the GPU refuses work until it is reset.",
        _BUG_REPORT,
    ),
    XidEntry(
        119,
        "GSP RPC time-out",
        "firmware",
        "critical",
        RESET_GPU,
        "The processor on the GPU that runs most of the driver did not answer a call in time. What "
        "asks the GPU next, nvidia-smi and monitors among it, is likely to hang too.",
        "The function that the line expected, and whether the firmware matches the driver.",
    ),
    XidEntry(
        120,
        "GSP error",
        "firmware",
        "critical",
        RESET_GPU,
        "The processor on the GPU that runs most of the driver failed. The GPU cannot be managed or "
        "given new work until it is reset.",
        _BUG_REPORT,
    ),
    XidEntry(
        121,
        "C2C link error (not on H100)",
        "other",
        "info",
        "Nothing to do on an H100.",
        "The link between a GPU and a CPU in one package corrected an error. An H100 board has no "
        "such link.",
        "The product that nvidia-smi names: this node may not be what its labels say.",
        cleared_by="time",
        changes_health=False,
    ),
    XidEntry(
        136,
        "NVLink training failed",
        "nvlink",
        "critical",
        NVLINK_WORKFLOW,
        "A link did not come up when its two ends tried to agree on a signal. The GPU runs with "
        "fewer links or outside the fabric until it does.",
        "The signal quality of the link named in the line, and dirt or damage at the baseboard.",
    ),
    XidEntry(
        137,
        "NVLink privilege error",
        "nvlink",
        "warning",
        "Nothing to do while it is rare.",
        "A request over NVLink reached for memory that it may not use. A peer's process ended with "
        "its memory still in use elsewhere is the common harmless case.",
        _JOB_LOG,
    ),
    XidEntry(
        140,
        "unrecovered ECC error",
        "memory",
        "fatal",
        RESET_GPU,
        "An ECC error was found that neither hardware nor driver could recover from. The GPU's "
        "contents cannot be trusted until it is reset.",
        _MEMORY_PAGE,
    ),
    XidEntry(
        143,
        "GPU initialisation failed",
        "hardware",
        "fatal",
        RESET_THEN_SUPPORT,
        "The GPU did not come through its own start. A reset may mend it once; when it fails again "
        "the board has to be replaced.",
        _BUG_REPORT,
    ),
    *_NVLINK_5,
    XidEntry(
        154,
        "recovery action changed",
        "driver",
        "warning",
        "Do what the driver names.",
        "The driver says what it needs to bring the GPU back. Its word goes before what this "
        "catalogue says of the XIDs around it.",
        "The action that the line names, and the XID just before it for the cause.",
    ),
)
