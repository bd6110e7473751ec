"""Starts processes one after another, waits until each answers, and stops them all again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.demo.errors import DemoError

READY_POLL_SECONDS = 0.2
# Kubernetes gives a pod 30 s; people at a terminal expect Ctrl-C to take a few.
STOP_SECONDS = 5.0
LAST_WORDS_BYTES = 4096


@dataclass(frozen=True)
class Child:
    """A process of the demo: `pitwall COMMAND`, its environment, and how it is asked whether it is up.

    `ready` returns None when it is, else what is still missing.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[str | None]]


class Supervisor:
    """Holds the running processes. All are stopped in the reverse order of their start."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self.stopping = asyncio.Event()

    async def start(self, child: Child) -> None:
        """Starts a process in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        with self._log(child.name).open("wb") as log:
            self._running[child.name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "app.demo.child",
                str(os.getpid()),
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(child.environment),
                start_new_session=True,
            )

    def process_ids(self) -> list[int]:
        """Of the running processes, in the order of their start."""
        return [process.pid for process in self._running.values()]

    async def until_ready(self, child: Child, *, timeout_seconds: float) -> bool:
        """Waits until the process answers; False when the demo is being stopped meanwhile.

        Raises DemoError when it, or any other, dies first or the time runs out.
        """
        missing: str | None = "no answer yet"
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.stopping.is_set():
                    self._raise_if_one_ended()
                    missing = await child.ready()
                    if missing is None:
                        return True
                    await self._sleep(READY_POLL_SECONDS)
        except TimeoutError as error:
            raise DemoError(
                f"{child.name} was not ready within {timeout_seconds:.0f} s ({missing}); see "
                f"{self._log(child.name)}."
            ) from error
        return False

    async def until_stopped(self) -> None:
        """Returns when the demo is told to stop. Raises DemoError when a process ends by itself."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self.stopping.wait())]
        waits += [asyncio.ensure_future(process.wait()) for process in self._running.values()]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self.stopping.is_set():
            self._raise_if_one_ended()

    async def stop(self) -> None:
        """Stops all: SIGTERM in reverse order, then SIGKILL to the groups of those that stay."""
        end = asyncio.get_running_loop().time() + STOP_SECONDS
        processes = list(reversed(self._running.values()))
        for process in processes:
            _signal_group(process, signal.SIGTERM)
        for process in processes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(end):
                    await process.wait()
            _signal_group(process, signal.SIGKILL)  # what it may have started itself, too
            await process.wait()
        self._running.clear()

    def _raise_if_one_ended(self) -> None:
        for name, process in self._running.items():
            if process.returncode is not None:
                raise DemoError(
                    f"{name} ended by itself ({_how(process.returncode)}){self._last_words(name)}; "
                    f"the demo stops. All it said is in {self._log(name)}."
                )

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)

    def _log(self, name: str) -> Path:
        return self._log_directory / f"{name}.log"

    def _last_words(self, name: str) -> str:
        try:
            with self._log(name).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
                lines = log.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        words = [line.strip() for line in lines if line.strip()]
        return f', its last words being "{words[-1]}"' if words else ""


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # The child leads a session of its own, so its process id is its group's. The group can outlive it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
