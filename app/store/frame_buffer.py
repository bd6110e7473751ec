"""What stored reports change in the frames, held until the frames are written."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Engine

from app.store.engine import write
from app.store.frames import refresh_frames, update_frames
from app.store.writes.gpus import GpuRows
from app.store.writes.reports import Stored

MOST_BATCHES_HELD = 600
"""Batches whose frames wait while they can't be written; beyond, the frames are made anew from the rows."""


@dataclass
class FrameBuffer:
    """For one writer of reports. Not for two threads."""

    _health: dict[str, str] = field(default_factory=dict)
    _gpu_rows: list[GpuRows] = field(default_factory=list)
    _whole: bool = False

    @property
    def waits(self) -> bool:
        """Whether there is something to write."""
        return bool(self._health)

    def keep(self, stored: Stored) -> None:
        """Hold what a batch changes."""
        self._health.update(stored.health)
        if stored.gpu_rows.nodes:
            self._gpu_rows.append(stored.gpu_rows)
        if len(self._gpu_rows) > MOST_BATCHES_HELD:
            self._gpu_rows, self._whole = [], True

    def flush(self, engine: Engine, cluster: str, now: datetime) -> None:
        """Write it in a transaction of its own; what can't be written stays held. Raises StoreError."""
        with write(engine) as connection:
            if self._whole:
                refresh_frames(connection, cluster, now, whole=True)
            else:
                update_frames(
                    connection, cluster, now, health=self._health, gpu_rows=self._gpu_rows
                )
        self._health, self._gpu_rows, self._whole = {}, [], False
