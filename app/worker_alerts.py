"""Looks each second at what a person must hear of, and writes alerts, groups and messages in one transaction.

A worker that dies before it has written nothing, after it everything: the next look finds the same and writes
no message twice.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, Engine, select

from app.alerts.config import AlertConfig, Route
from app.alerts.grouping import Place, take_turn
from app.alerts.identity import facts_of
from app.alerts.inhibition import inhibitors
from app.alerts.lifecycle import live
from app.alerts.message import compose
from app.alerts.model import Alert, Group
from app.alerts.quiet_hours import is_held
from app.alerts.routing import Way, escalations_of, root_timing, ways_of
from app.alerts.seen import SourceSeen
from app.alerts.silences import silencers
from app.operations.lease import LeaseKeeper, check
from app.settings import Settings
from app.store.engine import write
from app.store.reads.alert_facts import read_seen, read_silences
from app.store.reads.rows import table_of
from app.store.tables import AlertReceiver, SourceStatus
from app.store.writes import alerts as rows

log = structlog.get_logger()

AWAY = timedelta(seconds=60)
"""A worker that finds the last one heard longer ago than this tells that nobody was active."""

BLIND_TOLD = timedelta(seconds=60)
"""A source is told of when it has been blind for so long: at a start none has been heard yet. Our judgement."""

_receiver, _source = table_of(AlertReceiver), table_of(SourceStatus)


class AlertDesk:
    """Decides on behalf of the active worker; looked_at: when it last did, for the watchdog."""

    def __init__(
        self,
        engine: Engine,
        config: AlertConfig,
        *,
        settings: Settings,
        lease: LeaseKeeper,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._config = config
        self._settings = settings
        self._cluster = settings.cluster
        self._lease = lease
        self._clock = clock
        self._epoch: int | None = None
        self._blind_since: dict[str, datetime] = {}
        self.looked_at: datetime | None = None

    def tick(self) -> int:
        """One look; gives how many messages it wrote. Raises StoreError, LeaseLost."""
        held = self._lease.held()
        if held is None:
            self._epoch = None
            return 0
        now = self._clock()
        with write(self._engine) as connection:
            check(connection, self._cluster, held=self._lease.require(), now=now)
            away_since = None
            if self._epoch != held.epoch:
                away_since = _away_since(connection, self._cluster, now)
            written = self._look(connection, away_since, now)
        self._epoch = held.epoch
        self.looked_at = now
        return written

    def _look(self, connection: Connection, away_since: datetime | None, now: datetime) -> int:
        opened = rows.read_open(connection, self._cluster)
        groups = rows.read_groups(connection, self._cluster)
        extra, resolving = self._receivers(connection)
        seen = read_seen(
            connection,
            self._cluster,
            incidents={one.incident_id for one in opened if one.incident_id},
            requests={one.labels["subject"] for one in opened if one.name == "ApprovalWaiting"},
            receivers={one.labels["receiver"] for one in opened if one.name == "DeliveriesDead"},
            away_since=away_since,
            now=now,
        )
        told = {one.labels["subject"] for one in opened if one.name == "SourceBlind"}
        seen = replace(seen, sources=[self._aged(one, told, now) for one in seen.sources])
        life = live(
            facts_of(seen, page_url=self._settings.page_url, now=now),
            opened,
            had=rows.read_had(connection, self._cluster, now),
            now=now,
        )
        silences = read_silences(connection, self._cluster, now)
        muted = inhibitors(life.open, life.nodes, self._config.inhibit)
        alive = [
            replace(
                one,
                silenced_by=silencers(one.labels, silences, now),
                inhibited_by=muted.get(one.id),
            )
            for one in life.open
        ]
        told_at = _first_told(groups)
        alive, places = self._places(alive, told_at, extra, now)
        ended = {one.id: one for one in life.ended}
        over = (
            {name for group in groups for name in group.told}
            - {one.id for one in alive}
            - ended.keys()
        )
        ended |= rows.read_ended(connection, self._cluster, over)
        turn = take_turn(
            places,
            groups,
            ended=ended,
            resolving=resolving,
            held=self._held(ended.values(), groups, now),
            default=root_timing(self._config),
            now=now,
        )
        known = {one.id: one for one in opened}
        rows.write_alerts(connection, self._cluster, [*alive, *life.ended], known=known)
        rows.write_groups(connection, self._cluster, turn.groups, gone=turn.gone, known=groups)
        for notice in turn.notices:
            rows.write_message(
                connection,
                self._cluster,
                group=notice.group,
                event=notice.event,
                alert_ids=[one.id for one in (*notice.firing, *notice.ended)],
                message=compose(
                    notice,
                    cluster=self._cluster,
                    page_url=self._settings.page_url,
                    templates=self._config.templates,
                ),
                now=now,
            )
        return len(turn.notices)

    def _aged(self, source: SourceSeen, told: set[str], now: datetime) -> SourceSeen:
        """A source that has just gone blind, or was not heard yet since the start, is not told of at once."""
        if not source.is_blind:
            self._blind_since.pop(source.name, None)
            return source
        since = self._blind_since.setdefault(source.name, now)
        return replace(source, is_young=source.name not in told and now - since < BLIND_TOLD)

    def _places(
        self,
        alive: Iterable[Alert],
        told_at: dict[str, datetime],
        extra: list[tuple[str, Route]],
        now: datetime,
    ) -> tuple[list[Alert], list[Place]]:
        """Where each alert is told; with its escalation noted on it once it goes further."""
        direct = bool(self._settings.alertmanager_urls)
        kept: list[Alert] = []
        places: list[Place] = []
        for alert in alive:
            ways = list(ways_of(alert, self._config, extra))
            further = (
                ()
                if alert.silenced_by
                else escalations_of(alert, self._config, told_at=told_at.get(alert.id), now=now)
            )
            if further and alert.escalated_at is None:
                alert = replace(alert, escalated_at=now, updated_at=now)
            known = {way.receiver for way in ways}
            ways += [way for way in further if way.receiver not in known]
            kept.append(alert)
            places += [
                Place(alert, way, is_held=self._is_held(alert, way, now))
                for way in ways
                # Alertmanager tells people, unless a route is for both.
                if not direct or way.also_with_alertmanager
            ]
        return kept, places

    def _is_held(self, alert: Alert, way: Way, now: datetime) -> bool:
        """Quiet hours hold it; and what is unknown is told to nobody anew."""
        return alert.state == "unknown" or is_held(
            alert.labels, way.receiver, self._config.quiet_hours, now
        )

    def _held(
        self, ended: Iterable[Alert], groups: list[Group], now: datetime
    ) -> list[tuple[str, str]]:
        receivers = {group.receiver for group in groups}
        return [
            (receiver, one.id)
            for one in ended
            for receiver in receivers
            if is_held(one.labels, receiver, self._config.quiet_hours, now)
        ]

    def _receivers(self, connection: Connection) -> tuple[list[tuple[str, Route]], dict[str, bool]]:
        """The page's receivers as routes, and of every receiver whether it hears of ends."""
        resolving = {one.name: one.send_resolved for one in self._config.receiver}
        extra = []
        for row in connection.execute(
            select(_receiver).where(
                _receiver.c.cluster == self._cluster, _receiver.c.disabled_at.is_(None)
            )
        ):
            if row.name in resolving:
                continue
            match = tuple(
                f"{one['label']}{one['op']}"
                + '"'
                + one["value"].replace("\\", "\\\\").replace('"', '\\"')
                + '"'
                for one in row.matchers
            )
            extra.append((row.name, Route(match=match, receivers=(row.name,))))
            resolving[row.name] = row.send_resolved
        return extra, resolving


def _first_told(groups: Iterable[Group]) -> dict[str, datetime]:
    """When each alert was first told to anybody."""
    found: dict[str, datetime] = {}
    for group in groups:
        for name, entry in group.told.items():
            at = datetime.fromisoformat(str(entry["first_at"]))
            found[name] = min(at, found.get(name, at))
    return found


def _away_since(connection: Connection, cluster: str, now: datetime) -> datetime | None:
    """When the worker before was last heard, where that is long ago."""
    at = connection.execute(
        select(_source.c.updated_at).where(
            _source.c.cluster == cluster, _source.c.source == "worker"
        )
    ).scalar_one_or_none()
    return at if at is not None and now - at > AWAY else None
