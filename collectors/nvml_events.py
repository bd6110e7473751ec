"""NVML's event queue: a thread that waits for XIDs with a time-out, for ever.

What happened before a GPU was registered is lost here, so the kernel log is read as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pynvml

from collectors.nvml import address_of

WAIT_MILLISECONDS = 5_000
"""One wait of nvmlEventSetWait_v2; it ends early with each event."""

PAUSE_SECONDS = 5.0
"""After an error of the wait itself, which comes back at once."""

WANTED = (
    pynvml.nvmlEventTypeXidCriticalError
    | pynvml.nvmlEventTypeDoubleBitEccError
    | pynvml.nvmlEventTypeGpuUnavailableError
    | pynvml.nvmlEventTypeGpuRecoveryAction
)


class EventWatch:
    """Owns the event set and its thread. `on_xid` gets (time, code, uuid, PCI id)."""

    def __init__(
        self,
        *,
        on_xid: Callable[[datetime, int, str | None, str | None], None],
        on_other: Callable[[], None],
    ) -> None:
        self._on_xid = on_xid
        self._on_other = on_other
        self._set: Any = None
        self._covered: dict[int, tuple[str, str | None]] = {}
        self._refused: set[int] = set()

    def cover(self, handles: Iterable[tuple[Any, str, str | None]]) -> None:
        """Register the GPUs that are not registered yet; starts the thread with the first."""
        for handle, uuid, pci_bus_id in handles:
            address = address_of(handle)
            if address in self._covered or address in self._refused:
                continue
            try:
                if self._set is None:
                    self._set = pynvml.nvmlEventSetCreate()
                types = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & WANTED
                if types:
                    pynvml.nvmlDeviceRegisterEvents(handle, types, self._set)
                    self._covered[address] = (uuid, pci_bus_id)
                    if len(self._covered) == 1:
                        threading.Thread(target=self._wait, name="nvml-events", daemon=True).start()
                else:
                    self._refused.add(address)
            except pynvml.NVMLError as error:
                # A GPU without events still has the kernel log; a lost one is tried again.
                if error.value not in (pynvml.NVML_ERROR_GPU_IS_LOST,):
                    self._refused.add(address)

    def _wait(self) -> None:
        while True:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, WAIT_MILLISECONDS)
            except pynvml.NVMLError_Timeout:
                continue
            except pynvml.NVMLError:
                time.sleep(PAUSE_SECONDS)
                continue
            now = datetime.now(UTC)
            if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
                uuid, pci_bus_id = self._covered.get(address_of(event.device), (None, None))
                self._on_xid(now, int(event.eventData), uuid, pci_bus_id)
            else:
                self._on_other()
