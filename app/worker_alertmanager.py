"""Keeps every Alertmanager peer told: all open alerts each 30 s and at once on a change, silences both ways.

A peer that is down holds up no other, hears everything once it is back, and is shown among the sources.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, or_, select, update
from sqlalchemy import insert as sql_insert

from app.alerts.model import outgrown
from app.errors import SettingsError
from app.notifications.alertmanager import (
    PUSH_SECONDS,
    RESOLVED_FOR,
    Outgoing,
    Peer,
    PeerError,
    PeerRefused,
    PeerSilence,
)
from app.operations.lease import LeaseKeeper, check
from app.settings import Settings
from app.store.engine import read, write
from app.store.reads.rows import table_of
from app.store.sources import note_source
from app.store.tables import Alert, Silence

log = structlog.get_logger()

SILENCES_PERIOD = timedelta(seconds=10)
STATUS_PERIOD = timedelta(seconds=15)

_alert, _silence = table_of(Alert), table_of(Silence)


@dataclass
class _Told:
    """What is remembered of a peer."""

    digest: str = ""
    pushed_at: datetime | None = None
    failing: str = ""
    last_ok_at: datetime | None = None
    said: str = ""
    shown_at: datetime | None = None


class AlertmanagerSync:
    """Speaks to the peers on behalf of the active worker."""

    def __init__(
        self,
        engine: Engine,
        peers: Sequence[Peer],
        *,
        cluster: str,
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._peers = tuple(peers)
        self._cluster = cluster
        self._lease = lease
        self._clock = clock
        self._told = {peer.name: _Told() for peer in self._peers}
        self._silences_at: datetime | None = None
        self._refused: set[str] = set()
        self._pool = ThreadPoolExecutor(max(1, len(self._peers)), thread_name_prefix="alertmanager")

    def tick(self) -> int:
        """Pushes what is due to each peer, then takes silences; gives how many peers were pushed to."""
        if not self._peers or self._lease.held() is None:
            return 0
        now = self._clock()
        with read(self._engine) as connection:
            alerts = _outgoing(connection, self._cluster, now)
        digest = _digest(alerts)
        due = [peer for peer in self._peers if self._is_due(peer, digest, now)]
        for peer, error in zip(
            due, self._pool.map(lambda one: _push(one, alerts, now), due), strict=True
        ):
            told = self._told[peer.name]
            told.pushed_at = now
            if error:
                told.digest = ""
            else:
                told.digest, told.last_ok_at = digest, now
            self._changed(peer, error)
        if self._silences_at is None or now - self._silences_at >= SILENCES_PERIOD:
            self._silences_at = now
            self._exchange_silences(now)
        self._show(now)
        return len(due)

    def close(self) -> None:
        """Ends the connections."""
        self._pool.shutdown(wait=True)
        for peer in self._peers:
            peer.close()

    def _is_due(self, peer: Peer, digest: str, now: datetime) -> bool:
        told = self._told[peer.name]
        if told.pushed_at is None:
            return True
        waited = (now - told.pushed_at).total_seconds()
        # One that does not answer is asked again soon, and not at each turn.
        return waited >= (5.0 if told.failing else PUSH_SECONDS) or (
            not told.failing and told.digest != digest
        )

    def _changed(self, peer: Peer, error: str) -> None:
        told = self._told[peer.name]
        if error and not told.failing:
            log.warning("alertmanager does not take alerts", peer=peer.name, error=error)
        elif told.failing and not error:
            log.info("alertmanager takes alerts again", peer=peer.name)
        told.failing = error

    def _show(self, now: datetime) -> None:
        rows = []
        for peer in self._peers:
            told = self._told[peer.name]
            if told.shown_at is not None and now - told.shown_at < STATUS_PERIOD:
                continue
            told.shown_at = now
            if not told.failing:
                try:
                    told.said = peer.status()
                except PeerError as error:
                    self._changed(peer, str(error))
            rows.append((peer.name, told))
        if not rows:
            return
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            for name, told in rows:
                note_source(
                    connection,
                    self._cluster,
                    f"alertmanager:{name}",
                    state="late" if told.failing else "ok",
                    now=now,
                    message=(told.failing or told.said)[:500],
                    last_ok_at=told.last_ok_at,
                )

    def _exchange_silences(self, now: datetime) -> None:
        """Peers gossip silences among them: the first that answers speaks for all."""
        for peer in self._peers:
            if self._told[peer.name].failing:
                continue
            try:
                self._write_silences(peer, now)
                self._take_silences(peer.silences(), now)
            except PeerError as error:
                log.warning("silences not exchanged", peer=peer.name, error=str(error))
                continue
            return

    def _write_silences(self, peer: Peer, now: datetime) -> None:
        with read(self._engine) as connection:
            rows = connection.execute(
                select(_silence).where(
                    _silence.c.cluster == self._cluster,
                    _silence.c.origin == "pitwall",
                    or_(_silence.c.alertmanager_id.is_(None), _silence.c.ended_by.is_not(None)),
                    _silence.c.ends_at > now - timedelta(days=1),
                )
            ).all()
        for row in rows:
            try:
                self._write_silence(peer, row, now)
            except PeerRefused as error:  # this one alone: the others, and reading, go on
                if row.id not in self._refused:
                    log.warning("silence is refused", silence=row.id, error=str(error))
                self._refused.add(row.id)

    def _write_silence(self, peer: Peer, row: Any, now: datetime) -> None:
        if row.ended_by is not None or row.ends_at <= now:
            if row.alertmanager_id:
                peer.end_silence(row.alertmanager_id)
                self._set(row.id, {"alertmanager_id": None}, now)
            return
        given = peer.put_silence(
            PeerSilence(
                "", tuple(row.matchers), row.author, f"{row.reason} (Pitwall {row.id})",
                max(row.starts_at, now), row.ends_at, False,
            )
        )  # fmt: skip
        self._set(row.id, {"alertmanager_id": given}, now)

    def _take_silences(self, found: Sequence[PeerSilence], now: datetime) -> None:
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            known = {
                row.alertmanager_id: row
                for row in connection.execute(
                    select(_silence).where(
                        _silence.c.cluster == self._cluster,
                        _silence.c.alertmanager_id.is_not(None),
                    )
                )
            }
            for one in found:
                row = known.get(one.id)
                ends_at = min(one.ends_at, now) if one.is_over else one.ends_at
                if row is None:
                    if not one.is_over:
                        connection.execute(sql_insert(_silence).values(**self._row(one, now)))
                elif row.ends_at > ends_at or (
                    row.origin == "alertmanager" and row.ends_at != ends_at
                ):
                    self._store(connection, row.id, {"ends_at": ends_at})

    def _row(self, one: PeerSilence, now: datetime) -> dict[str, object]:
        return {
            "cluster": self._cluster,
            "id": f"am-{one.id}"[:40],
            "kind": "silence",
            "matchers": list(one.matchers),
            "author": one.author or "somebody at Alertmanager",
            "reason": one.reason,
            "created_at": now,
            "starts_at": one.starts_at,
            "ends_at": one.ends_at,
            "ended_by": None,
            "alertmanager_id": one.id,
            "origin": "alertmanager",
        }

    def _set(self, silence_id: str, values: dict[str, object], now: datetime) -> None:
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            self._store(connection, silence_id, values)

    def _store(self, connection: Connection, silence_id: str, values: dict[str, object]) -> None:
        connection.execute(
            update(_silence)
            .where(_silence.c.cluster == self._cluster, _silence.c.id == silence_id)
            .values(**values)
        )


def peers_of(settings: Settings) -> list[Peer]:
    """The site's peers. Raises SettingsError where the token's file can't be read."""
    token = ""
    if settings.alertmanager_urls and settings.alertmanager_token_file is not None:
        try:
            token = settings.alertmanager_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise SettingsError(
                f"PITWALL_ALERTMANAGER_TOKEN_FILE={settings.alertmanager_token_file} can't be read: "
                f"{type(error).__name__}."
            ) from error
    return [Peer(url, token=token) for url in settings.alertmanager_urls]


def _push(peer: Peer, alerts: Sequence[Outgoing], now: datetime) -> str:
    try:
        peer.push(alerts, now=now)
    except PeerError as error:
        return str(error)
    return ""


def _outgoing(connection: Connection, cluster: str, now: datetime) -> list[Outgoing]:
    """What is open, what ended lately, and the label sets that a rise of severity left behind.

    Alertmanager knows an alert by its labels alone, so an end is left out where the same labels are open again.
    """
    rows = connection.execute(
        select(
            _alert.c.labels,
            _alert.c.annotations,
            _alert.c.started_at,
            _alert.c.ended_at,
        )
        .where(
            _alert.c.cluster == cluster,
            or_(_alert.c.ended_at.is_(None), _alert.c.ended_at > now - RESOLVED_FOR),
        )
        .order_by(_alert.c.id)
    )
    found: list[Outgoing] = []
    for row in rows:
        link = str(row.annotations.get("link", ""))
        found.append(Outgoing(row.labels, row.annotations, row.started_at, row.ended_at, link))
        found += [
            Outgoing(labels, row.annotations, row.started_at, row.ended_at or now, link)
            for labels in outgrown(row.labels, row.annotations)
        ]
    is_open = {_identity(one) for one in found if one.ended_at is None}
    return [one for one in found if one.ended_at is None or _identity(one) not in is_open]


def _identity(alert: Outgoing) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(alert.labels.items()))


def _digest(alerts: Sequence[Outgoing]) -> str:
    """Changes when an alert opens, ends or rises; what annotations say is told at the next push."""
    said = [[sorted(one.labels.items()), one.ended_at is None] for one in alerts]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
