"""Collects what a look at an operation finds, and makes one decision of it.

Steps that can be taken come first; then what a person must choose; then what is waited for.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec

from app.operations.model import (
    Act,
    Blocked,
    Decision,
    Memory,
    Offer,
    Operation,
    Progress,
    Step,
    Unit,
    Wait,
)
from app.operations.survey import retried_at

MESSAGES_SHOWN = 3
RELEASE_MARGIN_SECONDS = 60.0
"""Beyond the longest grace, until a pod that does not go is a person's matter (facts/drain-and-reschedule.md)."""


@dataclass
class Draft:
    """Built up while one decision is made, then turned into it."""

    operation: Operation
    memory: Memory
    now: datetime
    steps: list[Step] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    offers: list[Offer] = field(default_factory=list)

    def take(self, step: Step) -> None:
        """Adds a step unless its retry is not due yet; a failed one waits for a person's retry."""
        row = self.operation.step(step.name, step.uid)
        if row is not None and row.state == "failed" and not self._retried(row.started_at):
            self.block(
                f"{step.name.replace('_', ' ').capitalize()} of {step.target} failed: {row.message}",
                Offer("retry", "Try again", "The step is taken once more."),
            )
            return
        due = self.memory.retry_at.get(f"{step.name}:{step.uid}")
        if due is not None and self.now < due:
            self.held.append(row.message if row is not None and row.message else step.message)
            return
        self.steps.append(step)

    def wait(self, message: str, *, held: bool = False) -> None:
        """Something is awaited; held when it stands in the way rather than takes its time."""
        (self.held if held else self.waits).append(message)

    def block(self, message: str, *offers: Offer) -> None:
        """A person must choose."""
        self.blocks.append(message)
        for offer in offers:
            if all((offer.name, offer.subject) != (had.name, had.subject) for had in self.offers):
                self.offers.append(offer)

    def unit(self, uid: str) -> Unit | None:
        """What is remembered of a workload."""
        return self.memory.units.get(uid)

    def remember_unit(self, uid: str, unit: Unit) -> None:
        """Remembers a workload; stored with the claim or the look that this draft becomes."""
        if self.memory.units.get(uid) != unit:
            self.memory = msgspec.structs.replace(
                self.memory, units={**self.memory.units, uid: unit}
            )

    def waiting_since(self, key: str) -> datetime:
        """Since when that is waited for; begins now when it is new, and anew with a person's retry."""
        since = self.memory.waiting_since.get(key)
        if since is None:
            since = self.now
            self.memory = msgspec.structs.replace(
                self.memory, waiting_since={**self.memory.waiting_since, key: since}
            )
        again = retried_at(self.memory)
        return max(since, again) if again is not None else since

    def release_deadline(self, since: datetime, grace_seconds: float) -> datetime:
        """Until when pods may take to go, once they were told to."""
        return since + timedelta(seconds=grace_seconds + RELEASE_MARGIN_SECONDS)

    def decision(self, progress: Progress) -> Decision:
        """Steps, else what a person must choose, else what is awaited."""
        if self.steps:
            names = list(dict.fromkeys(step.message or step.name for step in self.steps))
            return Act(tuple(self.steps), summary(names), self.memory, progress)
        if self.blocks:
            return Blocked(summary(self.blocks), tuple(self.offers), self.memory, progress)
        if self.held:
            return Wait(summary(self.held), self.memory, progress, held=True)
        return Wait(summary(self.waits) or "Waiting.", self.memory, progress)

    def _retried(self, at: datetime | None) -> bool:
        again = retried_at(self.memory)
        return again is not None and (at is None or again >= at)


def summary(messages: list[str]) -> str:
    """A few sentences in one, and how many more there are."""
    distinct = list(dict.fromkeys(messages))
    more = len(distinct) - MESSAGES_SHOWN
    said = " ".join(distinct[:MESSAGES_SHOWN])
    return f"{said} And {more} more." if more > 0 else said
