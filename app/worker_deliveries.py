"""Sends what the outbox holds: claimed in the store, sent outside any transaction, noted. Never holds up the lease."""

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Engine, select

from app.alerts.config import AlertConfig, Receiver, receiver_of_page
from app.notifications.addresses import AddressError, read_address
from app.notifications.sending import Message, Sender, Sent
from app.operations.lease import LeaseKeeper, check
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.tables import AlertReceiver
from app.store.writes.alert_deliveries import Delivery, claim_due, note_failed, note_sent

log = structlog.get_logger()

FIRST_SECONDS, LONGEST_SECONDS = 5.0, 900.0
GIVEN_UP_AFTER = timedelta(hours=24)
THREADS = 8

_receiver = table_of(AlertReceiver)


class Deliveries:
    """Sends on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        config: AlertConfig,
        *,
        settings: Settings,
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
        sender: Sender | None = None,
    ) -> None:
        self._engine = engine
        self._config = config
        self._settings = settings
        self._cluster = settings.cluster
        self._lease = lease
        self._clock = clock
        self._sender = sender or Sender(clock=clock)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="deliveries")
        self._failing: set[str] = set()

    def tick(self) -> int:
        """Sends what is due; gives how many were tried. Raises StoreError, LeaseLost."""
        if self._lease.held() is None:
            return 0
        now = self._clock()
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            due = claim_due(connection, self._cluster, now=now, failing=sorted(self._failing))
        if not due:
            return 0
        receivers = self._receivers()
        answers = self._pool.map(lambda one: self._send(one, receivers.get(one.receiver)), due)
        for delivery, sent in zip(due, answers, strict=True):
            self._note(delivery, sent)
        return len(due)

    def close(self) -> None:
        """Waits for what is under way."""
        self._pool.shutdown(wait=True)
        self._sender.close()

    def _receivers(self) -> Mapping[str, Receiver]:
        """Of the file and of the page; the file's where both name one."""
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_receiver.c.name, _receiver.c.secret, _receiver.c.send_resolved).where(
                    _receiver.c.cluster == self._cluster, _receiver.c.disabled_at.is_(None)
                )
            ).all()
        found: dict[str, Receiver] = {}
        for row in rows:
            try:
                found[row.name] = receiver_of_page(
                    row.name,
                    row.secret,
                    send_resolved=row.send_resolved,
                    secrets_dir=self._settings.alert_secrets_dir,
                )
            except ValueError as error:
                log.warning("receiver can't be used", receiver=row.name, error=str(error))
        return found | self._config.named()

    def _send(self, delivery: Delivery, receiver: Receiver | None) -> Sent:
        if receiver is None:
            return Sent("refused", f"there is no receiver {delivery.receiver} any more")
        try:
            address = read_address(receiver)
        except AddressError as error:
            return Sent("later", str(error))
        said = delivery.message
        return self._sender.send(
            address,
            Message(
                delivery.id,
                delivery.deduplication_key,
                delivery.event,
                str(said.get("title", "")),
                str(said.get("body", "")),
                str(said.get("severity", "warning")),
                str(said.get("link", "")),
                tuple(said.get("alerts", ())),
            ),
        )

    def _note(self, delivery: Delivery, sent: Sent) -> None:
        now = self._clock()
        # The lease is not asked: what was sent was sent, whoever is active now.
        with write(self._engine) as connection:
            if sent.outcome == "sent":
                note_sent(connection, self._cluster, delivery.id, now=now)
            else:
                again_at = next_try(delivery, sent, now)
                note_failed(
                    connection, self._cluster, delivery.id, error=sent.error, again_at=again_at
                )
        if sent.outcome == "sent":
            if delivery.receiver in self._failing:
                self._failing.discard(delivery.receiver)
                log.info("receiver takes messages again", receiver=delivery.receiver)
        elif delivery.receiver not in self._failing:
            self._failing.add(delivery.receiver)
            log.warning("message not delivered", receiver=delivery.receiver, error=sent.error)


def next_try(delivery: Delivery, sent: Sent, now: datetime) -> datetime | None:
    """When to try again: doubling from 5 s to 15 min, or as the service asks; None: given up."""
    if sent.outcome == "refused" or now - delivery.created_at > GIVEN_UP_AFTER:
        return None
    doubled = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(delivery.attempts - 1, 10))
    pause = timedelta(seconds=doubled * random.uniform(0.8, 1.2))
    return now + max(pause, sent.wait or timedelta())
