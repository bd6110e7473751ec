"""The dead man's switch: a receiver outside is told each minute that alerts work; its silence is the alarm.

It is told only while all that makes alerts has just worked: this worker holds the lease, the store takes what
it writes, and the alerts were looked at lately.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import structlog
from sqlalchemy import Engine

from app.operations.lease import LeaseKeeper, check
from app.store.engine import write
from app.store.sources import note_source

log = structlog.get_logger()

PERIOD = timedelta(seconds=60)
SHOWN_PERIOD = timedelta(seconds=20)
"""A source that says nothing for 45 s is shown as blind."""

LOOKED_WITHIN = timedelta(seconds=60)
TIMEOUT_SECONDS = 8.0


class Watchdog:
    """Tells the receiver on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        url_file: Path | None,
        *,
        cluster: str,
        lease: LeaseKeeper,
        looked_at: Callable[[], datetime | None],
        clock: Callable[[], datetime],
        client: httpx.Client | None = None,
    ) -> None:
        """url_file: holds the address, which is a secret; None: there is no such receiver. looked_at: the alerts."""
        self._engine = engine
        self._url_file = url_file
        self._cluster = cluster
        self._lease = lease
        self._looked_at = looked_at
        self._clock = clock
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._told_at: datetime | None = None
        self._shown_at: datetime | None = None

    def tick(self) -> bool:
        """Tells it when it is due; whether it was told. Raises StoreError, LeaseLost."""
        if self._url_file is None or self._lease.held() is None:
            return False
        now = self._clock()
        if self._told_at is not None and now - self._told_at < PERIOD:
            if self._shown_at is None or now - self._shown_at >= SHOWN_PERIOD:
                self._note("ok", "told", self._told_at)
            return False
        looked_at = self._looked_at()
        if looked_at is None or now - looked_at > LOOKED_WITHIN:
            self._note("blind", "not told: alerts have not been looked at within a minute", None)
            return False
        # Where this write fails the pipeline is broken, and the silence outside says so.
        self._note("ok", "telling it", self._told_at)
        error = self._tell()
        if error:
            self._note("late", error, self._told_at)
            return False
        self._told_at = now
        self._note("ok", "told", now)
        return True

    def _tell(self) -> str:
        assert self._url_file is not None
        try:
            answer = self._client.get(self._url_file.read_text(encoding="utf-8").strip())
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            return f"the receiver outside does not answer ({type(error).__name__})"
        return "" if answer.is_success else f"the receiver outside answered {answer.status_code}"

    def _note(self, state: str, message: str, last_ok_at: datetime | None) -> None:
        now = self._shown_at = self._clock()
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            note_source(
                connection, self._cluster, "watchdog", state=state, now=now, message=message, last_ok_at=last_ok_at,  # type: ignore[arg-type]
            )  # fmt: skip
