"""The worker: watches Kubernetes, answers requests, carries operations out. The composition root.

Any number may run; the one that holds the lease acts, the others keep their watches warm and stand by.
Jobs are few and coarse, in memory, each with a misfire grace of its own: APScheduler's default of one
second loses firings under load (facts/store.md).
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine

from app.alerts.config import DEFAULT, AlertConfig, load_config
from app.alerts.message import check_templates
from app.errors import PitwallError, SettingsError
from app.notifications.watchdog import Watchdog
from app.operations.access import Access
from app.operations.authority import Authority
from app.operations.automatic_rules import AutomaticRule, load_automatic
from app.operations.diagnostics import load_template
from app.operations.events import EventWriter
from app.operations.lease import CALL_SECONDS, RENEW_SECONDS, LeaseKeeper, LeaseLost, holder_name
from app.operations.people import local_user
from app.operations.reconciler import Reconciler
from app.operations.requests import RequestDesk
from app.settings import Settings
from app.store.engine import check_schema, open_store
from app.worker_alertmanager import AlertmanagerSync, peers_of
from app.worker_alerts import AlertDesk
from app.worker_automatic import Automatic
from app.worker_checkpoints import CheckpointMetric
from app.worker_chores import Chores
from app.worker_dcgm import DcgmWatch
from app.worker_deliveries import Deliveries
from app.worker_diagnostics import Diagnostics
from app.worker_kubernetes_findings import KubernetesFindings
from app.worker_permissions import PermissionFacts
from app.worker_repairs import RepairCalls
from app.worker_sources import Source, SourceBoard, kubernetes_source
from app.worker_sync import ClusterSync
from app.worker_training import TrainingWatch
from collectors.errors import RulesError
from collectors.health import BUILT_IN, RuleSet
from collectors.site_rules import load_rules
from k8s.client import Connection, connect
from k8s.errors import ConfigurationError
from k8s.view import ClusterView, ClusterWatcher
from k8s.workloads import KINDS

log = structlog.get_logger()

CONNECT_SECONDS = 3.0
READ_SECONDS = CALL_SECONDS - CONNECT_SECONDS
MISFIRE_GRACE_SECONDS = 60
THREADS = 8

REQUESTS_SECONDS = 0.2
AUTOMATIC_SECONDS = 0.5
OPERATIONS_SECONDS = 0.1
"""Between looks at the operations; after a look that took long there is a pause as long, up to LONGEST_PAUSE_SECONDS."""
LONGEST_PAUSE_SECONDS = 0.4
ALERTS_SECONDS = 1.0
WATCHDOG_SECONDS = 5.0
DELIVERIES_SECONDS = 0.5
ALERTMANAGER_SECONDS = 2.0
DIAGNOSTICS_SECONDS = 1.0
SYNC_SECONDS = 1.0
KUBERNETES_SECONDS = 2.0
CHORES_SECONDS = 2.0
SOURCES_SECONDS = 2.0
PROMETHEUS_SECONDS = 15.0
TRAINING_SECONDS = 15.0
CHECKPOINTS_SECONDS = 15.0
RETENTION_SECONDS = 3600.0
PERMISSIONS_SECONDS = 20.0


def utc_now() -> datetime:
    """Now, as an aware UTC time."""
    return datetime.now(UTC)


def enabled_kinds(settings: Settings) -> frozenset[str]:
    """The kinds that the site lets be restarted at its own word. Raises SettingsError for what is no kind."""
    known = {kind.name for kind in KINDS}
    if unknown := sorted(set(settings.enabled_kinds) - known):
        raise SettingsError(
            f"PITWALL_ENABLED_KINDS names {', '.join(unknown)}, which would enable nothing: there are "
            f"{', '.join(sorted(known))}; correct it and start again."
        )
    return frozenset(settings.enabled_kinds)


def load_alerts(settings: Settings) -> AlertConfig:
    """The site's alerts with templates that were rendered once. Raises SettingsError."""
    config = load_config(settings.alerts)
    try:
        check_templates(config.templates, cluster=settings.cluster, page_url=settings.page_url)
    except ValueError as error:
        raise SettingsError(f"{settings.alerts}: {error}; correct it and start again.") from error
    return config


class Worker:
    """Everything of one worker, put together; start, then stop."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine,
        watching: Connection,
        acting: Connection,
        clock: Callable[[], datetime] = utc_now,
        rules: RuleSet = BUILT_IN,
        automatic: Sequence[AutomaticRule] = (),
        diagnostic: dict[str, Any] | None = None,
        alerts: AlertConfig = DEFAULT,
    ) -> None:
        """watching: for lists and watches; acting: for calls, with time-outs within the lease's margin."""
        self.settings = settings
        self.watcher = ClusterWatcher(watching, enabled=enabled_kinds(settings))
        self.lease = LeaseKeeper(engine, settings.cluster, holder=holder_name(), clock=clock)
        self.access = Access(acting, local=local_user(settings))
        self.checkpoints = CheckpointMetric(settings, clock=clock)
        self.desk = RequestDesk(
            engine,
            settings=settings,
            view=self._view,
            lease=self.lease,
            clock=clock,
            access=self.access,
            diagnostic=diagnostic,
            alerts=alerts,
        )
        self.alerts = AlertDesk(engine, alerts, settings=settings, lease=self.lease, clock=clock)
        self.watchdog = Watchdog(
            engine,
            settings.watchdog_url_file,
            cluster=settings.cluster,
            lease=self.lease,
            looked_at=lambda: self.alerts.looked_at,
            clock=clock,
        )
        self.deliveries = Deliveries(
            engine, alerts, settings=settings, lease=self.lease, clock=clock
        )
        self.alertmanager = AlertmanagerSync(
            engine,
            peers_of(settings),
            cluster=settings.cluster,
            lease=self.lease,
            clock=clock,
        )
        self.automatic = Automatic(
            engine, automatic, settings=settings, lease=self.lease, clock=clock
        )
        events = EventWriter(acting, instance=holder_name())
        self.reconciler = Reconciler(
            engine,
            settings.cluster,
            connection=acting,
            view=self._view,
            lease=self.lease,
            clock=clock,
            authority=Authority(
                acting,
                access=self.access,
                settings=settings,
                guard=self.lease.require,
                events=events,
            ),
        )
        self.diagnostics = Diagnostics(
            engine,
            acting,
            diagnostic,
            settings=settings,
            view=self.watcher.view,
            access=self.access,
            lease=self.lease,
            events=events,
            clock=clock,
        )
        self.repairs = RepairCalls(engine, settings=settings, lease=self.lease, clock=clock)
        self.sync = ClusterSync(engine, settings=settings, watcher=self.watcher, clock=clock)
        self.kubernetes = KubernetesFindings(
            engine, settings=settings, watcher=self.watcher, clock=clock, rules=rules
        )
        self.permissions = PermissionFacts(engine, acting, settings=settings, clock=clock)
        self.chores = Chores(engine, settings=settings, clock=clock)
        self._board = SourceBoard(engine, settings.cluster, clock=clock)
        self._clock = clock
        self.dcgm = DcgmWatch(
            engine,
            settings=settings,
            view=self.watcher.view,
            board=self._board,
            clock=clock,
            rules=rules,
        )
        self.training = TrainingWatch(engine, settings=settings, clock=clock, rules=rules)
        self._active = False
        self._operates_at = 0.0
        self._failing: dict[str, str] = {}
        self._scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(THREADS)},
            job_defaults={
                "coalesce": True,
                "max_instances": 1,
                "misfire_grace_time": MISFIRE_GRACE_SECONDS,
            },
            timezone=UTC,
        )

    def start(self) -> None:
        """Starts the watches and the jobs; returns at once."""
        # A job that runs longer than its interval is no news: it is coalesced.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self.watcher.start()
        self._guarded("lease", self._renew)()
        for name, call, seconds in (
            ("lease", self._renew, RENEW_SECONDS),
            ("requests", self.desk.tick, REQUESTS_SECONDS),
            ("automatic", self.automatic.tick, AUTOMATIC_SECONDS),
            ("operations", self._operate, OPERATIONS_SECONDS),
            ("alerts", self.alerts.tick, ALERTS_SECONDS),
            ("watchdog", self.watchdog.tick, WATCHDOG_SECONDS),
            ("deliveries", self.deliveries.tick, DELIVERIES_SECONDS),
            ("alertmanager", self.alertmanager.tick, ALERTMANAGER_SECONDS),
            ("diagnostics", self.diagnostics.tick, DIAGNOSTICS_SECONDS),
            ("repairs", self.repairs.tick, DIAGNOSTICS_SECONDS),
            ("sync", self._when_active(self.sync.tick), SYNC_SECONDS),
            ("kubernetes", self._when_active(self.kubernetes.tick), KUBERNETES_SECONDS),
            ("chores", self._when_active(self.chores.tick), CHORES_SECONDS),
            ("sources", self._when_active(self._show_sources), SOURCES_SECONDS),
            ("prometheus", self._when_active(self.dcgm.tick), PROMETHEUS_SECONDS),
            ("checkpoints", self._when_active(self.checkpoints.tick), CHECKPOINTS_SECONDS),
            ("training", self._when_active(self.training.tick), TRAINING_SECONDS),
            ("permissions", self._when_active(self.permissions.tick), PERMISSIONS_SECONDS),
            ("retention", self._when_active(self.chores.retain), RETENTION_SECONDS),
        ):
            self._scheduler.add_job(
                self._guarded(name, call),
                "interval",
                seconds=seconds,
                id=name,
                next_run_time=utc_now(),
            )
        self._scheduler.start()

    def stop(self) -> None:
        """Ends the jobs after what they are at, gives the lease back, ends the watches."""
        self._scheduler.shutdown(wait=True)
        self.reconciler.close()
        self._guarded("lease", self.lease.give_back)()
        self.watcher.stop()
        self._guarded("prometheus", self.dcgm.close)()
        self._guarded("deliveries", self.deliveries.close)()
        self._guarded("alertmanager", self.alertmanager.close)()

    def _view(self) -> ClusterView:
        """The cluster, with the checkpoints that are told by a metric."""
        return self.checkpoints.over(self.watcher.view())

    def _renew(self) -> None:
        active = self.lease.renew() is not None
        if active != self._active:
            log.info("worker is active" if active else "worker stands by")
            self._active = active
            self.sync.forget()
            self.kubernetes.forget()
            self.dcgm.forget()
            self.training.forget()

    def _operate(self) -> None:
        begun = time.monotonic()
        if begun < self._operates_at:
            return
        try:
            self.reconciler.tick()
        finally:
            ended = time.monotonic()
            self._operates_at = ended + min(ended - begun, LONGEST_PAUSE_SECONDS)

    def _when_active(self, call: Callable[[], object]) -> Callable[[], object]:
        return lambda: call() if self.lease.held() is not None else None

    def _guarded(self, name: str, call: Callable[[], object]) -> Callable[[], None]:
        """A job that fails says so once, is tried at its next turn, and says when it goes again."""

        def run() -> None:
            try:
                call()
            except LeaseLost as lost:
                log.warning("lease lost", job=name, reason=str(lost))
            except PitwallError as error:
                self._failed(name, str(error))
            except Exception as error:
                if name not in self._failing:
                    log.exception("worker's job failed", job=name)
                self._failing[name] = str(error)
            else:
                if self._failing.pop(name, None) is not None:
                    log.info("worker's job goes again", job=name)

        return run

    def _failed(self, name: str, message: str) -> None:
        if name not in self._failing:
            log.warning("worker's job failed", job=name, error=message)
        self._failing[name] = message

    def _show_sources(self) -> None:
        now = self._clock()
        failing = "; ".join(f"{job}: {error}" for job, error in sorted(self._failing.items()))
        worker = Source("worker", "late" if failing else "ok", failing, now)
        self._board.show([kubernetes_source(self.watcher, now), worker])


def run(settings: Settings) -> None:
    """Runs a worker until SIGINT or SIGTERM.

    Raises SettingsError when the kubeconfig or the site's rules can't be used, StoreError when the store is not of this release.
    """
    engine = open_store(settings.store_url)
    check_schema(engine)
    try:
        rules = load_rules(settings.rules)
    except RulesError as error:
        raise SettingsError(str(error)) from error
    try:
        watching = connect(settings.kubeconfig)
        acting = connect(
            settings.kubeconfig,
            connect_timeout_seconds=CONNECT_SECONDS,
            read_timeout_seconds=READ_SECONDS,
        )
    except ConfigurationError as error:
        raise SettingsError(str(error)) from error
    worker = Worker(
        settings,
        engine=engine,
        watching=watching,
        acting=acting,
        rules=rules,
        automatic=load_automatic(settings.automatic),
        diagnostic=load_template(settings.diagnostic_job),
        alerts=load_alerts(settings),
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    worker.start()
    log.info("worker started", cluster=settings.cluster)
    stop.wait()
    worker.stop()
    engine.dispose()
