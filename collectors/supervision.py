"""Whether a source that may hang answers: a pure record of what was asked and when.

The agent supervises the child process that holds NVML with it, the simulator's fleet the
nodes that it polls. Times named `at` are seconds of a monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from collectors.report import NvmlState

RESTART_FIRST_SECONDS = 5.0
RESTART_LONGEST_SECONDS = 60.0
"""Pause before a new child is tried, doubling: a driver that hangs does so for long."""


@dataclass(frozen=True)
class Supervision:
    """`asked_at` is when the oldest question without an answer was put, None without one.

    `hung` is set while NVML is silent for want of an answer (not because it said that it
    cannot be used). `failures` counts children in a row that gave no answer; no new one
    starts before `restart_at`.
    """

    nvml: NvmlState | None = None
    asked_at: float | None = None
    hung: bool = False
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
    return _back_off(
        replace(watch, nvml=_silent(_silent_since(watch) or now, message), hung=False), at=at
    )


def check(
    watch: Supervision, *, at: float, now: datetime, timeout_seconds: float
) -> tuple[Supervision, bool]:
    """Return the state at this moment, and whether the child that was asked is to be given up.

    A question open for `timeout_seconds` means that NVML is silent, from when it was put; the
    question is dropped with the child. The message carries the real age until an answer comes.
    """
    give_up = watch.asked_at is not None and at - watch.asked_at >= timeout_seconds
    if give_up and watch.asked_at is not None:
        since = _silent_since(watch) or now - timedelta(seconds=at - watch.asked_at)
        watch = _back_off(replace(watch, hung=True, nvml=_silent(since, "")), at=at)
    silent_since = _silent_since(watch)
    if watch.hung and silent_since is not None:
        age = int((now - silent_since).total_seconds())
        watch = replace(watch, nvml=_silent(silent_since, f"NVML does not answer for {age} s"))
    return watch, give_up


def may_start(watch: Supervision, *, at: float) -> bool:
    """Whether a new child may be tried now."""
    return at >= watch.restart_at


def _back_off(watch: Supervision, *, at: float) -> Supervision:
    pause = min(RESTART_FIRST_SECONDS * 2**watch.failures, RESTART_LONGEST_SECONDS)
    return replace(watch, asked_at=None, failures=watch.failures + 1, restart_at=at + pause)


def _silent_since(watch: Supervision) -> datetime | None:
    return watch.nvml.since if watch.nvml is not None and not watch.nvml.answering else None


def _silent(since: datetime, message: str) -> NvmlState:
    return NvmlState(answering=False, since=since, message=message)
