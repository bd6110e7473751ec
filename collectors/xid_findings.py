"""XID events into open findings, and the signs that end them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeVar

import msgspec

from collectors.actions import INSPECT_HARDWARE
from collectors.ledger import Moment, OpenFinding, Past
from collectors.readings import GpuReading
from collectors.recurrence import has_come_back
from collectors.report import Finding, Severity, XidEvent
from collectors.rule import SEVERITY_RANK
from collectors.sxid_catalogue import SWITCH_COOL_AGAIN, SWITCH_TOO_HOT
from collectors.xid import (
    APPLICATION_CLOSES_AFTER_SECONDS,
    RECOVERY_ACTIONS,
    XidEntry,
    find_entry,
)

ENERGY_SLACK_JOULES = 1.0
"""A fall of the energy counter beyond rounding means that the GPU was reset."""

RECOVERY_CHANGED = 154

RECOVERY_RULES = ("recovery-reset", "recovery-reboot", "recovery-software")
"""The rules over NVML's field 230: for GPUs of which no XID says what happened."""

T = TypeVar("T", int, float)


def apply_xid(
    event: XidEvent,
    opened: dict[str, OpenFinding],
    *,
    known: Mapping[str, GpuReading],
    past: Mapping[str, Past],
    moment: Moment,
) -> None:
    """Open the event's finding in `opened`, or count its repeats on the one already open.

    `known` are the last readings, for the GPU's index and the pods on it; `past` tells what
    has come back after its action was done.
    """
    entry = find_entry(event.xid, kind=event.kind, text=event.text, recovery=event.recovery_action)
    rule = f"{event.kind}-{event.xid}"
    key = f"{rule}/{event.gpu_uuid or event.pci_bus_id or 'node'}"
    before = opened.get(key)
    if event.kind == "xid" and event.xid == RECOVERY_CHANGED:
        if before is not None and before.recovery_asked != event.recovery_action:
            # The driver has changed its mind: what it asked for before no longer stands.
            del opened[key]
            before = None
        if event.recovery_action == 0:
            return
    if event.kind == "sxid" and event.xid == SWITCH_COOL_AGAIN:
        opened.pop(f"sxid-{SWITCH_TOO_HOT}/{_place(key)}", None)
    if entry.cleared_by == "time" and moment.now - event.last_at >= timedelta(
        seconds=APPLICATION_CLOSES_AFTER_SECONDS
    ):
        return
    reading = known.get(event.gpu_uuid or "")
    if before is None:
        opened[key] = _escalate(
            _open(event, entry, key=key, reading=reading, moment=moment),
            times=has_come_back(past, key),
        )
        return
    counted = before.event_count if before.event_id == event.event_id else 0
    occurrences = before.occurrences + max(event.count - counted, 0)
    opened[key] = msgspec.structs.replace(
        before,
        last_true_at=max(before.last_true_at, event.last_at),
        occurrences=occurrences,
        event_id=event.event_id,
        event_count=event.count,
        finding=msgspec.structs.replace(
            before.finding,
            message=_word(event, entry, reading=reading, count=occurrences)
            + _word_return(before.came_back),
        ),
    )


def has_ended(entry: OpenFinding, reading: GpuReading | None, *, moment: Moment) -> bool:
    """Whether an XID's finding is over: its named action seen, or its time passed.

    `reading` is the GPU's new reading, None where there is none.
    """
    if entry.boot_id != moment.boot_id:
        return True
    if entry.cleared_by == "time":
        age = moment.now - entry.last_true_at
        return age >= timedelta(seconds=APPLICATION_CLOSES_AFTER_SECONDS)
    if reading is None or entry.cleared_by == "boot" or reading.error_code is not None:
        return False
    if entry.cleared_by == "pod":
        pods = entry.finding.pod_uids
        if pods and not set(pods) & set(reading.pod_uids):
            return True
    return _was_reset(entry, reading)


def follow(entry: OpenFinding, reading: GpuReading) -> OpenFinding:
    """Return the entry with what the GPU's new reading says about a later reset."""
    return msgspec.structs.replace(
        entry,
        unreachable=reading.error_code is not None,
        energy_joules=_newer(reading.energy_joules_total, entry.energy_joules),
        recovery_seen=_newer(reading.recovery_action, entry.recovery_seen),
    )


def carry_recovery(opened: dict[str, OpenFinding], readings: Mapping[str, GpuReading]) -> None:
    """Give the XIDs' findings the action that the driver itself asks for.

    NVML's field 230 says it, or an XID 154 on the same GPU. A GPU whose XID carries it needs no
    finding of its own for it.
    """
    told = {
        _place(key): entry.recovery_asked
        for key, entry in opened.items()
        if entry.recovery_asked is not None
    }
    for key, entry in list(opened.items()):
        reading = readings.get(entry.gpu_uuid or "")
        seen = reading.recovery_action if reading is not None else None
        asked = RECOVERY_ACTIONS.get(seen or told.get(_place(key)) or 0)
        if asked is None or asked.code == 0 or entry.cleared_by not in ("reset", "boot"):
            continue
        for rule in RECOVERY_RULES:
            opened.pop(f"{rule}/{entry.gpu_uuid}", None)
        finding = entry.finding
        if finding.action not in (asked.action, INSPECT_HARDWARE):
            opened[key] = msgspec.structs.replace(
                entry,
                finding=msgspec.structs.replace(
                    finding,
                    action=asked.action,
                    severity=_worse(finding.severity, asked.severity),
                ),
            )


def _place(key: str) -> str:
    return key.partition("/")[2]


def _worse(one: Severity, other: Severity) -> Severity:
    return one if SEVERITY_RANK[one] >= SEVERITY_RANK[other] else other


def _escalate(entry: OpenFinding, *, times: int) -> OpenFinding:
    """What came back `times` after a reset or restart wants the hardware looked at."""
    if not times or entry.cleared_by not in ("reset", "boot"):
        return entry
    finding = entry.finding
    return msgspec.structs.replace(
        entry,
        came_back=times,
        finding=msgspec.structs.replace(
            finding,
            action=INSPECT_HARDWARE,
            severity=_worse(finding.severity, "critical"),
            message=finding.message + _word_return(times),
        ),
    )


def _word_return(times: int) -> str:
    return f" It came back after {times} resets or restarts." if times else ""


def _newer(new: T | None, old: T | None) -> T | None:
    return old if new is None else new


def _was_reset(entry: OpenFinding, reading: GpuReading) -> bool:
    """The GPU came back from NVML's error 15 or 16, its energy counter began anew, or the
    driver no longer asks for the action it was seen to ask for (field 230)."""
    if entry.unreachable:
        return True
    energy = reading.energy_joules_total
    if (
        energy is not None
        and entry.energy_joules is not None
        and energy < entry.energy_joules - ENERGY_SLACK_JOULES
    ):
        return True
    return bool(entry.recovery_seen) and reading.recovery_action == 0


def _open(
    event: XidEvent, entry: XidEntry, *, key: str, reading: GpuReading | None, moment: Moment
) -> OpenFinding:
    return OpenFinding(
        key=key,
        boot_id=moment.boot_id,
        last_true_at=event.last_at,
        cleared_by=entry.cleared_by,
        gpu_uuid=event.gpu_uuid,
        energy_joules=reading.energy_joules_total if reading else None,
        unreachable=reading is not None and reading.error_code is not None,
        recovery_asked=event.recovery_action,
        occurrences=event.count,
        event_id=event.event_id,
        event_count=event.count,
        finding=Finding(
            episode=moment.new_episode(),
            rule=f"{event.kind}-{event.xid}",
            severity=entry.severity,
            message=_word(event, entry, reading=reading, count=event.count),
            action=entry.action,
            since=event.at,
            gpu_uuid=event.gpu_uuid,
            xid=event.xid,
            changes_health=entry.changes_health,
            pod_uids=reading.pod_uids if reading else (),
        ),
    )


def _word(event: XidEvent, entry: XidEntry, *, reading: GpuReading | None, count: int) -> str:
    label = "SXid" if event.kind == "sxid" else "XID"
    if reading is not None and reading.index is not None:
        place = f"GPU {reading.index} ({reading.pci_bus_id})"
    else:
        place = event.pci_bus_id or event.gpu_uuid or "the node"
    times = f", {count} times" if count > 1 else ""
    return f"{label} {event.xid}: {entry.name} on {place}{times}."
