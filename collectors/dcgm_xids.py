"""DCGM's XID gauge: the last code of each GPU, from which only a change tells that something happened."""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import datetime

import numpy as np

from collectors.dcgm_columns import DcgmTable
from collectors.dcgm_labels import read_identity
from collectors.report import XidEvent


class XidGauges:
    """The last value of each GPU's gauge.

    It keeps its value until the exporter restarts, so its level says nothing: that of a GPU seen for
    the first time raises nothing, a fall to 0 neither, and the same code twice cannot be seen.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._last: dict[str, float] = {}

    def forget(self, known: Container[str]) -> None:
        """Keep the GPUs in `known` only."""
        self._last = {key: code for key, code in self._last.items() if key in known}

    def take(
        self, table: DcgmTable, hosts: Container[str], *, now: datetime
    ) -> dict[str, list[XidEvent]]:
        """Return by host an event for each GPU whose gauge has changed to another code."""
        events: dict[str, list[XidEvent]] = {}
        heard = np.flatnonzero(~np.isnan(table.xids))
        for place, code in zip(heard.tolist(), table.xids[heard].tolist(), strict=True):
            key = table.keys[place]
            before = self._last.get(key)
            if code == before or table.hosts[place] not in hosts:
                continue
            self._last[key] = code
            if before is not None and code > 0:
                event = self._tell(table, place, int(code), now)
                events.setdefault(table.hosts[place], []).append(event)
        return events

    def _tell(self, table: DcgmTable, place: int, code: int, now: datetime) -> XidEvent:
        labels = table.labels[place]
        return XidEvent(
            event_id=self._new_id(),
            at=now,
            last_at=now,
            xid=code,
            gpu_uuid=labels["UUID"],
            pci_bus_id=read_identity(labels).get("pci_bus_id"),
            source="dcgm",
        )
