"""Polls through a child process that may hang: starts it, asks it, gives it up, tries again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from collectors.child import Gone, PollerChild
from collectors.inventory import Inventory
from collectors.poller import Answer, Failure, Nudge, Ready, Told
from collectors.report import NvmlState
from collectors.supervision import Supervision, answered, ask, check, failed, may_start

NEVER = float("inf")


class Child(Protocol):
    """A process that polls NVML, as PollerChild is one."""

    def start(self, inventory: Inventory, *, slow_interval_seconds: float) -> None: ...

    def ask(self) -> int: ...

    def is_alive(self) -> bool: ...

    def stop(self) -> bool: ...


OnTold = Callable[[Child, Told | Gone], None]


class NvmlSource:
    """Owns the child that holds NVML and, at most, one before it that could not be killed.

    Everything but `on_told` is to be called from one thread, the process's main one. `at` is
    seconds of a monotonic clock.
    """

    def __init__(
        self,
        on_told: OnTold,
        *,
        timeout_seconds: float,
        poll_interval_seconds: float,
        slow_interval_seconds: float,
        make_child: Callable[[OnTold], Child] = PollerChild,
    ) -> None:
        self.polls_total = 0
        self.failures_total = 0
        self.replaced_total = 0
        self.poll_duration_seconds: float | None = None
        self._on_told = on_told
        self._make_child = make_child
        self._timeout_seconds = timeout_seconds
        self._poll_interval_seconds = poll_interval_seconds
        self._slow_interval_seconds = slow_interval_seconds
        self._watch = Supervision()
        self._child: Child | None = None
        self._orphan: Child | None = None
        self._stuck = False
        self._ready = False
        self._asked_at: float | None = None
        self._next_poll_at = 0.0

    @property
    def state(self) -> NvmlState | None:
        """Whether NVML answers, None before anything is known."""
        return self._watch.nvml

    def keep(self, inventory: Inventory, *, at: float, now: datetime) -> NvmlState | None:
        """Do what is due: give a hung child up, start one, ask for a poll. Returns the state.

        `inventory` is what a new child is told of the node's GPUs.
        """
        self._watch, give_up = check(
            self._watch, at=at, now=now, timeout_seconds=self._timeout_seconds
        )
        if give_up:
            self._give_up()
        if self._stuck and not self._is_orphan_alive():
            self._orphan, self._child, self._stuck = self._child, None, False
        if self._child is None and may_start(self._watch, at=at):
            self._start(inventory, at=at)
        if self._child and self._ready and self._asked_at is None and at >= self._next_poll_at:
            self._child.ask()
            self._asked_at = at
            self._watch = ask(self._watch, at=at)
            self._next_poll_at = at + self._poll_interval_seconds
        return self._watch.nvml

    def hear(self, child: Child, message: Told | Gone, *, at: float, now: datetime) -> bool:
        """Take a child's word; False when it is of one that was given up."""
        if child is not self._child:
            if isinstance(message, Gone) and child is self._orphan:
                self._orphan = None
            return False
        if isinstance(message, Ready):
            # Initialised, but silent until it has answered a poll: the question stays open.
            self._ready = True
        elif isinstance(message, Answer):
            if self._asked_at is not None:
                self.poll_duration_seconds = at - self._asked_at
            self._asked_at = None
            self._watch = answered(self._watch, now=now)
            self.polls_total += 1
        elif isinstance(message, Nudge):
            self.hurry()
        elif isinstance(message, Failure | Gone):
            text = (
                message.message
                if isinstance(message, Failure)
                else f"the process that reads NVML ended by itself ({message.returncode})"
            )
            self.failures_total += 1
            self._watch = failed(self._watch, text, now=now, at=at)
            self._child, self._ready, self._asked_at, self._stuck = None, False, None, False
        return True

    def hurry(self) -> None:
        """Poll as soon as the child is free."""
        self._next_poll_at = 0.0

    def wake_at(self, *, at: float) -> float:
        """Return when `keep` has something to do, if nothing is heard before."""
        moment = NEVER
        if self._watch.asked_at is not None:
            moment = self._watch.asked_at + self._timeout_seconds
        if self._child is None:
            moment = min(moment, self._watch.restart_at)
        elif self._ready and self._asked_at is None:
            moment = min(moment, self._next_poll_at)
        return max(moment, at)

    def stop(self) -> None:
        """Kill what can be killed."""
        for child in (self._child, self._orphan):
            if child is not None:
                child.stop()

    def _start(self, inventory: Inventory, *, at: float) -> None:
        child = self._make_child(self._on_told)
        try:
            child.start(inventory, slow_interval_seconds=self._slow_interval_seconds)
        except OSError as error:
            self._watch = failed(
                self._watch,
                f"the process that reads NVML cannot be started: {error}",
                now=datetime.now(UTC),
                at=at,
            )
            return
        self._child, self._ready, self._asked_at = child, False, None
        self._next_poll_at = at
        self._watch = ask(self._watch, at=at)

    def _give_up(self) -> None:
        self.failures_total += 1
        child = self._child
        if child is None:
            return
        self.replaced_total += 1
        if child.stop():
            self._child = None
        elif not self._is_orphan_alive():
            self._orphan, self._child = child, None
        else:
            # One is stuck in the kernel already: this one stays our child until one of them
            # ends, so that no more than two processes ever hang on one driver.
            self._stuck = True

    def _is_orphan_alive(self) -> bool:
        return self._orphan is not None and self._orphan.is_alive()
