"""Who is the active worker. The epoch rises with each new holder and fences every claim.

Times: a lease lasts LEASE_SECONDS from its last renewal, and its holder makes no call to Kubernetes
later than DEADLINE_SECONDS after it. The gap is longer than a call's time-outs (CALL_SECONDS), so
that the last call of a stalled worker has ended before a stand-by takes over. Workers' clocks must
agree to the remaining second or so; the store's row is compared with the worker's own clock.
"""

import os
import secrets
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update

from app.errors import PitwallError
from app.store.engine import write
from app.store.reads.rows import table_of
from app.store.tables import Lease as LeaseTable

# Chosen so that DEADLINE + CALL < LEASE; Kubernetes' own leader election uses 15, 10 and 2 seconds.
LEASE_SECONDS = 20.0
DEADLINE_SECONDS = 10.0
CALL_SECONDS = 9.0  # connect 3 + read 6, see app.worker
RENEW_SECONDS = 3.0
NAME = "worker"

_lease = table_of(LeaseTable)


class LeaseLost(PitwallError):
    """This worker is not the active one, or can't be sure that it is: it makes no call."""


class Held(msgspec.Struct, frozen=True):
    """A lease as held: until deadline_at its holder may make calls."""

    holder: str
    epoch: int
    deadline_at: datetime
    expires_at: datetime


def holder_name() -> str:
    """A name that no other worker has, not even this process started again."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def take(connection: Connection, cluster: str, *, holder: str, now: datetime) -> Held | None:
    """Takes or renews the lease inside the caller's transaction; None while another worker holds it."""
    row = _read(connection, cluster)
    fresh = {"renewed_at": now, "expires_at": now + timedelta(seconds=LEASE_SECONDS)}
    if row is None:
        epoch = 1
        connection.execute(
            insert(_lease).values(
                cluster=cluster, name=NAME, holder=holder, epoch=epoch, acquired_at=now, **fresh
            )
        )
    elif row.holder == holder and row.expires_at > now:
        epoch = row.epoch
        connection.execute(update(_lease).where(*_key(cluster)).values(**fresh))
    elif row.expires_at <= now:
        epoch = row.epoch + 1
        connection.execute(
            update(_lease)
            .where(*_key(cluster), _lease.c.epoch == row.epoch)
            .values(holder=holder, epoch=epoch, acquired_at=now, **fresh)
        )
    else:
        return None
    return Held(holder, epoch, now + timedelta(seconds=DEADLINE_SECONDS), fresh["expires_at"])


def check(connection: Connection, cluster: str, *, held: Held, now: datetime) -> None:
    """Proves inside the caller's transaction that the lease is still ours and before its deadline.

    Raises LeaseLost otherwise; the caller's transaction must then be rolled back.
    """
    row = _read(connection, cluster)
    if row is None or row.holder != held.holder or row.epoch != held.epoch:
        raise LeaseLost("another worker is active; this one stands by.")
    if now >= row.renewed_at + timedelta(seconds=DEADLINE_SECONDS):
        raise LeaseLost(
            f"the worker's lease was last renewed at {row.renewed_at:%H:%M:%S} UTC; it makes no call until it is renewed."
        )


def release(connection: Connection, cluster: str, *, held: Held, now: datetime) -> None:
    """Gives the lease back so that a stand-by need not wait for its end. Another's lease is left alone."""
    connection.execute(
        update(_lease)
        .where(*_key(cluster), _lease.c.holder == held.holder, _lease.c.epoch == held.epoch)
        .values(expires_at=now)
    )


class LeaseKeeper:
    """Owns this worker's hold on the lease; renewed by one thread, asked by others."""

    def __init__(
        self, engine: Engine, cluster: str, *, holder: str, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._cluster = cluster
        self._holder = holder
        self._clock = clock
        self._lock = Lock()
        self._held: Held | None = None

    def renew(self) -> Held | None:
        """Takes or renews the lease; None when another worker is active."""
        with write(self._engine) as connection:
            held = take(connection, self._cluster, holder=self._holder, now=self._clock())
        with self._lock:
            self._held = held
        return held

    def held(self) -> Held | None:
        """The lease if calls may be made under it now, else None."""
        with self._lock:
            held = self._held
        return held if held is not None and self._clock() < held.deadline_at else None

    def require(self) -> Held:
        """The lease if calls may be made under it now. Raises LeaseLost otherwise."""
        held = self.held()
        if held is None:
            raise LeaseLost("this worker does not hold the lease; it makes no call.")
        return held

    def give_back(self) -> None:
        """Releases the lease if it is ours."""
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            with write(self._engine) as connection:
                release(connection, self._cluster, held=held, now=self._clock())


def _key(cluster: str) -> tuple:
    return (_lease.c.cluster == cluster, _lease.c.name == NAME)


def _read(connection: Connection, cluster: str):  # type: ignore[no-untyped-def]
    # The row lock orders claims and takeovers in PostgreSQL; SQLite's transaction holds the whole store.
    return connection.execute(select(_lease).where(*_key(cluster)).with_for_update()).first()
