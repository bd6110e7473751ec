"""Whose turn it is: units leave one after another, with a pause between them and so many on the move. Pure.

A unit is a gang, the pods of a workload that move alone, or a pod that belongs to nothing.
"""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from app.operations.draft import Draft
from app.operations.model import EVICT, RESUME, SETTLED, SUSPEND
from app.operations.survey import Surveyed


def unit_of(found: Surveyed) -> str:
    """Key of the unit that a pod belongs to."""
    return found.workload.uid if found.workload is not None else found.uid


class Turns:
    """Lets units begin while one look at an operation is decided upon."""

    def __init__(self, draft: Draft, surveyed: Sequence[Surveyed]) -> None:
        self._draft = draft
        options = draft.operation.options
        self._spacing = timedelta(seconds=options.spacing_seconds)
        self._most = options.units_at_once
        self._begun = set(draft.memory.begun) | _begun_by_steps(draft, surveyed)
        there = {unit_of(found) for found in surveyed if found.way in ("evict", "restart")}
        self._moving = {key for key in self._begun if key in there or _is_underway(draft, key)}

    def begin(self, key: str) -> bool:
        """Whether the unit may move now; it is remembered as begun then. What has begun goes on."""
        if key in self._begun:
            return True
        if self._most and len(self._moving) >= self._most:
            self._draft.wait(f"{self._most} units are on the move, as many as may be at once.")
            return False
        last = max(self._draft.memory.begun.values(), default=None)
        if last is not None and self._draft.now < last + self._spacing:
            self._draft.wait(f"The next unit moves at {last + self._spacing:%H:%M:%S} UTC.")
            return False
        self._begun.add(key)
        self._moving.add(key)
        memory = self._draft.memory
        self._draft.memory = msgspec.structs.replace(
            memory, begun={**memory.begun, key: self._draft.now}
        )
        return True

    def has_begun(self, key: str) -> bool:
        """Whether it has begun before."""
        return key in self._begun


def _begun_by_steps(draft: Draft, surveyed: Sequence[Surveyed]) -> set[str]:
    """Units that steps were taken of, whatever is remembered."""
    operation = draft.operation
    begun = {uid for uid in draft.memory.units if operation.step(SUSPEND, uid) is not None}
    begun |= {unit_of(found) for found in surveyed if operation.step(EVICT, found.uid) is not None}
    return begun


def _is_underway(draft: Draft, key: str) -> bool:
    """A gang between its suspend and its resume has no pod on the nodes any more, and moves all the same."""
    operation, unit = draft.operation, draft.memory.units.get(key)
    if unit is None or unit.path != "suspend_resume" or unit.verdict in SETTLED:
        return False
    return operation.step(SUSPEND, key) is not None and not operation.done(RESUME, key)
