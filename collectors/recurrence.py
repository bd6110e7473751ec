"""XIDs that come back after what was asked for was done: when the same remedy no longer helps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from collectors.ledger import OpenFinding, Past

RECURRENCES = 2
"""An XID that came back this often after its reset or restart wants the hardware inspected."""

REMEMBER = timedelta(days=28)
"""How long an end is remembered; the window of lemon signals (Meta, "Revisiting Reliability")."""


def count_end(past: dict[str, Past], entry: OpenFinding, *, now: datetime) -> None:
    """Note that an XID's finding ended by its reset or restart (others end by time or pod)."""
    if entry.cleared_by not in ("reset", "boot") or entry.finding.xid is None:
        return
    before = past.get(entry.key)
    past[entry.key] = Past(ended=(before.ended if before else 0) + 1, last_at=now)


def has_come_back(past: Mapping[str, Past], key: str) -> int:
    """Return how often an XID that opens now has come back, 0 while it is too seldom to say."""
    before = past.get(key)
    return before.ended if before is not None and before.ended >= RECURRENCES else 0


def drop_old(past: Mapping[str, Past], *, now: datetime) -> dict[str, Past]:
    """Return what is still remembered."""
    return {key: one for key, one in past.items() if now - one.last_at < REMEMBER}
