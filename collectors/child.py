"""The parent's side of the child that holds NVML: start, ask, hear, give up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from collectors.inventory import Inventory
from collectors.poller import Ask, Begin, Told, read_frame, write_frame

KILL_WAIT_SECONDS = 1.0
"""How long SIGKILL may take before the child counts as stuck in the kernel."""

log = structlog.get_logger()


class Gone(msgspec.Struct, frozen=True):
    """The child has ended by itself."""

    returncode: int | None


class PollerChild:
    """One child process. Answers reach `on_told` on a thread of its own with this child."""

    def __init__(
        self,
        on_told: Callable[[PollerChild, Told | Gone], None],
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "collectors.poller"),
    ) -> None:
        self._on_told = on_told
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._number = 0

    def start(self, inventory: Inventory, *, slow_interval_seconds: float) -> None:
        """Start the process and have it initialise NVML. To be called from the main thread:
        the kernel ends the child with the thread that started it."""
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the parent, which ends its child itself.
            start_new_session=True,
        )
        threading.Thread(target=self._hear, name="nvml-child", daemon=True).start()
        self._send(Begin(inventory, slow_interval_seconds))

    @property
    def pid(self) -> int | None:
        """The process id, None before the start."""
        return self._process.pid if self._process else None

    def ask(self) -> int:
        """Ask for a poll and return the number that its answer will carry."""
        self._number += 1
        self._send(Ask(self._number))
        return self._number

    def is_alive(self) -> bool:
        """Whether the process is still there, stuck in the kernel included."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> bool:
        """Kill the process; False when the kernel does not let it go."""
        process = self._process
        if process is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        try:
            process.wait(KILL_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            log.error(
                "the child that holds NVML cannot be killed; it is left behind", pid=process.pid
            )
            return False
        return True

    def _send(self, message: msgspec.Struct) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        # A dead child is told by its closed answers, a hung one by the watchdog. The pipe
        # holds many questions, and one at a time is asked, so this does not block.
        with contextlib.suppress(BrokenPipeError, ValueError):
            write_frame(process.stdin, message)  # type: ignore[arg-type]

    def _hear(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Told)
        with contextlib.suppress(msgspec.DecodeError, OSError, ValueError):
            while (body := read_frame(process.stdout)) is not None:  # type: ignore[arg-type]
                self._on_told(self, decoder.decode(body))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_WAIT_SECONDS)
        self._on_told(self, Gone(process.returncode))
