"""Repeats of an XID folded into one event, from whichever source each came.

The driver tells NVML's event queue and the kernel log of the same fault. Occurrences are
counted by source, and an event's count is the greatest of them, so that a fault told twice
counts once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from collectors.report import XidEvent

KEEP_SECONDS = 60.0
"""How long an event stays open to a late word from the other source."""


@dataclass(frozen=True)
class Occurrence:
    """One XID or SXid as one source told it. `follow_on` adds to what was told before."""

    at: datetime
    code: int
    kind: Literal["xid", "sxid"]
    source: Literal["nvml", "kernel"]
    gpu_uuid: str | None = None
    pci_bus_id: str | None = None
    text: str = ""
    recovery_action: int | None = None
    follow_on: bool = False


class Folded(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event and its occurrences by source. `told` is the count last put in a report."""

    event: XidEvent
    by_source: dict[str, int]
    told: int = 0


class Folding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The events that may still grow, oldest first."""

    events: tuple[Folded, ...] = ()


def fold(
    folding: Folding,
    occurrence: Occurrence,
    *,
    window_seconds: float,
    new_id: Callable[[], str],
) -> tuple[Folding, XidEvent]:
    """Return the folding with the occurrence in it, and its event as it stands now.

    An occurrence belongs to the latest event of its code and GPU when it came no more than
    `window_seconds` after the event's last occurrence (or before its first).
    """
    window = timedelta(seconds=window_seconds)
    for position in range(len(folding.events) - 1, -1, -1):
        known = folding.events[position]
        event = known.event
        if not _same(event, occurrence):
            continue
        if event.at - window <= occurrence.at <= event.last_at + window:
            grown = _grow(known, occurrence)
            events = (
                *folding.events[:position],
                grown,
                *folding.events[position + 1 :],
            )
            return Folding(events), grown.event
        break
    event = XidEvent(
        event_id=new_id(),
        at=occurrence.at,
        last_at=occurrence.at,
        xid=occurrence.code,
        kind=occurrence.kind,
        gpu_uuid=occurrence.gpu_uuid,
        pci_bus_id=occurrence.pci_bus_id,
        text=occurrence.text,
        source=occurrence.source,
        window_seconds=window_seconds,
        recovery_action=occurrence.recovery_action,
    )
    return Folding((*folding.events, Folded(event, {occurrence.source: 1}))), event


def take_untold(folding: Folding, *, limit: int) -> tuple[Folding, list[XidEvent]]:
    """Return the events that are new or have grown since they were last put in a report."""
    told: list[XidEvent] = []
    events: list[Folded] = []
    for known in folding.events:
        if known.told < known.event.count and len(told) < limit:
            told.append(known.event)
            known = msgspec.structs.replace(known, told=known.event.count)
        events.append(known)
    return (Folding(tuple(events)), told) if told else (folding, [])


def has_news(folding: Folding) -> bool:
    """Whether an event is there that no report has carried (growth alone can wait)."""
    return any(known.told == 0 for known in folding.events)


def forget_old(folding: Folding, *, now: datetime, window_seconds: float) -> Folding:
    """Return the folding without events that nothing can be folded into any more."""
    horizon = now - timedelta(seconds=max(KEEP_SECONDS, window_seconds))
    kept = tuple(
        known
        for known in folding.events
        if known.event.last_at >= horizon or known.told < known.event.count
    )
    return folding if len(kept) == len(folding.events) else Folding(kept)


def _same(event: XidEvent, occurrence: Occurrence) -> bool:
    if event.xid != occurrence.code or event.kind != occurrence.kind:
        return False
    if event.recovery_action != occurrence.recovery_action and occurrence.source == "kernel":
        # NVML's event of an XID 154 does not say which action; two log lines that differ do.
        return event.recovery_action is None and event.source == "nvml"
    if event.gpu_uuid and occurrence.gpu_uuid:
        return event.gpu_uuid == occurrence.gpu_uuid
    return event.pci_bus_id == occurrence.pci_bus_id


def _grow(known: Folded, occurrence: Occurrence) -> Folded:
    event = known.event
    by_source = dict(known.by_source)
    if not occurrence.follow_on:
        by_source[occurrence.source] = by_source.get(occurrence.source, 0) + 1
    prefer_kernel = occurrence.source == "kernel" and "kernel" not in known.by_source
    text = occurrence.text if prefer_kernel or not event.text else event.text
    recovery = event.recovery_action
    return Folded(
        msgspec.structs.replace(
            event,
            at=min(event.at, occurrence.at),
            last_at=max(event.last_at, occurrence.at),
            count=max(by_source.values()),
            source="+".join(sorted(by_source, reverse=True)),
            gpu_uuid=event.gpu_uuid or occurrence.gpu_uuid,
            pci_bus_id=event.pci_bus_id or occurrence.pci_bus_id,
            text=text,
            recovery_action=occurrence.recovery_action if recovery is None else recovery,
        ),
        by_source,
        # An event that learns what the driver asks for is news again.
        0 if recovery is None and occurrence.recovery_action is not None else known.told,
    )
