"""The open findings of one node, as they are kept between polls and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from collectors.report import Finding
from collectors.rule import SEVERITY_RANK
from collectors.xid import ClearedBy


class OpenFinding(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A finding and what is needed to know its end.

    `cleared_by` is None for level rules. `energy_joules`, `unreachable` and `recovery_seen`
    (NVML's field 230) are what the GPU's last reading said, to tell a reset; `recovery_asked`
    is the action that an XID 154 named. `event_count` counts of `occurrences` those of the
    event `event_id`, whose count may still rise. `came_back` is how often it did after its action.
    """

    key: str
    finding: Finding
    boot_id: str
    last_true_at: datetime
    cleared_by: ClearedBy | None = None
    gpu_uuid: str | None = None
    energy_joules: float | None = None
    unreachable: bool = False
    recovery_seen: int | None = None
    recovery_asked: int | None = None
    occurrences: int = 1
    event_id: str | None = None
    event_count: int = 0
    came_back: int = 0


class Past(msgspec.Struct, frozen=True):
    """How often an XID's finding ended by its named action, and when it last did."""

    ended: int
    last_at: datetime


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """Open findings by key, and since when a rule with a hold time has held.

    `waiting` and `past` (what has come back after its action was done) are keyed like `open`. A ledger is kept on disk, so that a restart of the agent
    opens nothing twice.
    """

    open: tuple[OpenFinding, ...] = ()
    waiting: dict[str, datetime] = {}
    past: dict[str, Past] = {}

    @property
    def findings(self) -> list[Finding]:
        """The open findings, worst first, in a stable order."""
        if not self.open:
            return []
        return sorted(
            (entry.finding for entry in self.open),
            key=lambda finding: (
                -SEVERITY_RANK[finding.severity],
                finding.since,
                finding.rule,
                finding.episode,
            ),
        )

    @property
    def episodes(self) -> frozenset[str]:
        """The episodes open now: a change of this set is a change worth a report."""
        return frozenset(entry.finding.episode for entry in self.open)


@dataclass(frozen=True)
class Moment:
    """What every step of the judgement needs: the time, this boot, a source of episodes."""

    now: datetime
    boot_id: str
    new_episode: Callable[[], str]


def close_episodes(ledger: Ledger, episodes: Iterable[str]) -> Ledger:
    """Return the ledger without what a person closed. A fault still there opens anew."""
    closed = frozenset(episodes)
    return Ledger(
        open=tuple(entry for entry in ledger.open if entry.finding.episode not in closed),
        waiting=ledger.waiting,
        past=ledger.past,
    )
