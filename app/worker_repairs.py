"""Tells a site's webhook of repairs that ask for an action: at least once, in order of their time, never while paused.

One call a node. Each try is noted before it is made, so that a worker that dies in between tries again with
the same key; the other side tells repeats by it.
"""

import hashlib
import hmac
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import structlog
from sqlalchemy import Engine, select

from app.operations.lease import LeaseKeeper, check
from app.operations.ledger import audit
from app.operations.pause import read_pause
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import NodeRepair
from app.store.writes.repairs import change_call

log = structlog.get_logger()

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 900.0
GIVEN_UP_AFTER = timedelta(hours=24)
TIMEOUT_SECONDS = 8.0
A_TURN = 10
PASSING = frozenset({408, 425, 429})
"""Answers that a later try may better, beside those of 500 and above."""

_repair = table_of(NodeRepair)


class RepairCalls:
    """Sends on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        *,
        settings: Settings,
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
        client: httpx.Client | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._cluster = settings.cluster
        self._lease = lease
        self._clock = clock
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS)

    def tick(self) -> int:
        """Sends what is due; gives how many were tried. Raises StoreError, LeaseLost."""
        url_file = self._settings.repair_webhook_url_file
        if url_file is None or self._lease.held() is None:
            return 0
        now = self._clock()
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_repair)
                .where(
                    _repair.c.cluster == self._cluster,
                    _repair.c.call == "pending",
                    _repair.c.call_next_at <= now,
                )
                .order_by(_repair.c.call_next_at, _repair.c.id)
                .limit(A_TURN)
            ).all()
            if not rows or read_pause(connection, self._cluster) is not None:
                return 0
        for row in rows:
            self._send(row)
        return len(rows)

    def _send(self, row: Any) -> None:
        now, tries = self._clock(), row.call_attempts + 1
        pause = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (tries - 1)) * random.uniform(0.8, 1.2)
        self._note(row, now, call_attempts=tries, call_next_at=now + timedelta(seconds=pause))
        try:
            answer = self._post(row)
        except (OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            self._failed(row, f"no answer: {type(error).__name__}", now)
            return
        if answer.is_success:
            self._note(row, now, told="done", call="sent", call_error="")
            log.info("repair told", node=row.node, repair=row.id)
        elif answer.status_code in PASSING or answer.status_code >= 500:
            wait = retry_after(answer.headers.get("Retry-After"), now)
            later = {} if wait is None else {"call_next_at": now + max(wait, timedelta())}
            self._failed(row, f"answered {answer.status_code}", now, **later)
        else:
            said = f"refused with {answer.status_code}"
            self._note(row, now, told="failed", call="dead", call_error=said)

    def _post(self, row: Any) -> httpx.Response:
        assert self._settings.repair_webhook_url_file is not None
        url = self._settings.repair_webhook_url_file.read_text().strip()
        body = json.dumps(message_of(row, self._cluster), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"{row.id}-{len(row.notes)}",
        }
        if self._settings.repair_webhook_secret_file is not None:
            secret = self._settings.repair_webhook_secret_file.read_bytes().strip()
            headers["X-Pitwall-Signature"] = (
                "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
            )
        return self._client.post(url, content=body, headers=headers)

    def _failed(self, row: Any, error: str, now: datetime, **values: Any) -> None:
        # The address is a secret, and httpx's own words may hold it: only what kind of failure it was is kept.
        asked_at = datetime.fromisoformat(row.notes[-1]["at"])
        if now - asked_at > GIVEN_UP_AFTER:
            self._note(row, now, told="failed", call="dead", call_error=f"given up: {error}")
        else:
            self._note(row, now, call_error=error, **values)

    def _note(self, row: Any, now: datetime, *, told: str = "", **values: Any) -> None:
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            change_call(connection, self._cluster, row.id, **values)
            if told:
                audit(
                    connection,
                    self._cluster,
                    at=now,
                    author=row.notes[-1]["by"],
                    action="repair_webhook",
                    target=f"Node/{row.node}",
                    target_uid=row.id,
                    outcome=told,
                    message=f"{row.action}: {values.get('call_error') or 'told'}",
                )


def message_of(row: Any, cluster: str) -> dict[str, Any]:
    """What the webhook is told of one node's repair."""
    last = row.notes[-1]
    return {
        "cluster": cluster,
        "repair": row.id,
        "node": row.node,
        "action": row.action,
        "note": last["text"],
        "requested_by": last["by"],
        "at": last["at"],
        "incident": row.incident_id,
        "gpus": row.gpus,
    }


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for, in seconds or as a date; None where it says neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return timedelta(seconds=min(int(value), 86_400))
    try:
        from email.utils import parsedate_to_datetime

        return min(parsedate_to_datetime(value) - now, timedelta(days=1))
    except (TypeError, ValueError):
        return None
