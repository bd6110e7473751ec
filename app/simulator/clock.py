"""Time of the simulated cluster: a clock that can be injected, and what is due on it.

Everything that happens by itself in the simulator hangs on one Schedule. The server drives it by
the wall clock; a test drives it by hand and gets the same history each time.
"""

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Says what time it is, aware UTC."""

    def now(self) -> datetime: ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def move_to(self, moment: datetime) -> None:
        self._now = max(self._now, moment)


class Schedule:
    """Calls to make at a time, in the order of (time, order of asking)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.on_earlier: Callable[[], None] = lambda: None

    def call_at(self, moment: datetime, call: Callable[[], None]) -> None:
        """Make `call` at `moment`, or at the next run when that is past."""
        earlier = not self._due or moment < self._due[0][0]
        heapq.heappush(self._due, (moment, next(self._order), call))
        if earlier:
            self.on_earlier()

    def call_after(self, delay_seconds: float, call: Callable[[], None]) -> None:
        self.call_at(self.clock.now() + timedelta(seconds=delay_seconds), call)

    def next_due(self) -> datetime | None:
        return self._due[0][0] if self._due else None

    def run_due(self, *, most: int | None = None) -> int:
        """Make the calls that are due now, at most `most`; returns how many were made."""
        made = 0
        while self._due and (most is None or made < most):
            if self._due[0][0] > self.clock.now():
                break
            _, _, call = heapq.heappop(self._due)
            call()
            made += 1
        return made

    def advance(self, seconds: float) -> None:
        """Move a ManualClock on by `seconds`, making each call at its own time."""
        clock = self.clock
        if not isinstance(clock, ManualClock):
            raise TypeError("only a ManualClock can be advanced")
        end = clock.now() + timedelta(seconds=seconds)
        self.run_due()
        while self._due and self._due[0][0] <= end:
            clock.move_to(self._due[0][0])
            self.run_due()
        clock.move_to(end)


class WorkQueue:
    """Keys that want looking at: a key asked for twice before its turn is looked at once."""

    def __init__(self, schedule: Schedule, look_at: Callable[[str], None]) -> None:
        self._schedule = schedule
        self._look_at = look_at
        self._waiting: dict[str, datetime] = {}

    def add(self, key: str, *, delay_seconds: float = 0.0) -> None:
        """Look at `key` after `delay_seconds`; an earlier turn already asked for stands."""
        moment = self._schedule.clock.now() + timedelta(seconds=delay_seconds)
        if (known := self._waiting.get(key)) is not None and known <= moment:
            return
        self._waiting[key] = moment
        self._schedule.call_at(moment, lambda: self._turn(key, moment))

    def _turn(self, key: str, moment: datetime) -> None:
        if self._waiting.get(key) == moment:
            del self._waiting[key]
            self._look_at(key)


def as_rfc3339(moment: datetime) -> str:
    """metav1.Time: whole seconds, Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_rfc3339_micro(moment: datetime) -> str:
    """metav1.MicroTime, what leases carry."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_rfc3339(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
