"""Whether a source that may hang answers: a pure record of what was asked and when.

The agent supervises the child process that holds NVML with it, the simulator's fleet the
nodes that it polls. Times named `at` are seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from collectors.report import NvmlState

RESTART_FIRST_SECONDS = 5.0
RESTART_LONGEST_SECONDS = 300.0
"""Pause before a new child is tried, doubling: a driver that hangs does so for long."""


@dataclass(frozen=True)
class Supervision:
    """`asked_at` is when the oldest question without an answer was put, None without one.

    `failures` counts children in a row that gave no answer; no new one starts before
    `restart_at`.
    """

    nvml: NvmlState | None = None
    asked_at: float | None = None
    failures: int = 0
    restart_at: float = 0.0

    @property
    def waiting(self) -> bool:
        """Whether a question is open."""
        return self.asked_at is not None


def ask(watch: Supervision, *, at: float) -> Supervision:
    """A question (a poll or the initialisation) was put."""
    return watch if watch.waiting else replace(watch, asked_at=at)


def answered(watch: Supervision, *, now: datetime) -> Supervision:
    """An answer came: NVML answers, and the node recovers if it did not before."""
    nvml = watch.nvml
    if nvml is None or not nvml.answering:
        nvml = NvmlState(answering=True, since=now)
    return Supervision(nvml=nvml)


def failed(watch: Supervision, message: str, *, now: datetime, at: float) -> Supervision:
    """NVML answered that it cannot be used, or the child died: known at once, not a hang."""
    since = watch.nvml.since if watch.nvml and not watch.nvml.answering else now
    return _back_off(replace(watch, nvml=_silent(since, message)), at=at)


def check(
    watch: Supervision, *, at: float, now: datetime, timeout_seconds: float
) -> tuple[Supervision, bool]:
    """Return the state at this moment, and whether the child is to be replaced now.

    A question open for `timeout_seconds` means that NVML is silent; the message carries the
    real age. The child is given up at that moment and then no more than once a back-off.
    """
    if watch.asked_at is None:
        return watch, False
    age = at - watch.asked_at
    if age < timeout_seconds:
        return watch, False
    was_silent = watch.nvml is not None and not watch.nvml.answering
    since = watch.nvml.since if was_silent and watch.nvml else now - timedelta(seconds=age)
    silent_for = (now - since).total_seconds() if since else age
    state = _silent(since, f"NVML does not answer for {int(max(age, silent_for))} s")
    if at < watch.restart_at:
        return replace(watch, nvml=state), False
    return _back_off(replace(watch, nvml=state), at=at), True


def may_start(watch: Supervision, *, at: float) -> bool:
    """Whether a new child may be tried now."""
    return at >= watch.restart_at


def _back_off(watch: Supervision, *, at: float) -> Supervision:
    pause = min(RESTART_FIRST_SECONDS * 2**watch.failures, RESTART_LONGEST_SECONDS)
    return replace(watch, failures=watch.failures + 1, restart_at=at + pause)


def _silent(since: datetime | None, message: str) -> NvmlState:
    return NvmlState(answering=False, since=since, message=message)
