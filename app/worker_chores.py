"""What the active worker keeps in order besides the cluster: silent nodes, incidents, old rows."""

from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import Engine

from app.settings import Settings
from app.store.engine import write
from app.store.retention import drop_old
from app.store.writes.aging import age_nodes
from app.store.writes.incidents import refresh_incidents

log = structlog.get_logger()


class Chores:
    """Aging and incidents in one short transaction a tick; retention by the hour."""

    def __init__(
        self, engine: Engine, *, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock

    def tick(self) -> None:
        """Makes silent nodes Unknown, then opens, changes and resolves incidents. Raises StoreError."""
        now = self._clock()
        with write(self._engine) as connection:
            silent = age_nodes(
                connection, self._settings.cluster, now, self._settings.silence_seconds
            )
            refresh_incidents(connection, self._settings.cluster, now)
        if silent:
            log.warning("nodes fell silent", nodes=silent[:20], count=len(silent))

    def retain(self) -> None:
        """Drops what is older than its days. Raises StoreError."""
        dropped = drop_old(
            self._engine,
            self._settings.cluster,
            event_days=self._settings.event_retention_days,
            history_days=self._settings.history_retention_days,
            now=self._clock(),
        )
        if any(dropped.values()):
            log.info("old rows dropped", **dropped)
