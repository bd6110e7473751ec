"""What the store counts, as Prometheus metrics: nodes, findings, incidents, operations, alerts, deliveries, sources.

Read by one look at the store that serves every scrape within KEPT_SECONDS. Where the store can't be read the
families are left out, so that rules see absence rather than an old number.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, Engine, func, select

from app.errors import StoreError
from app.store.engine import read
from app.store.reads.rows import table_of
from app.store.reads.status import status
from app.store.tables import (
    Alert,
    AlertDelivery,
    Finding,
    Incident,
    Lease,
    Operation,
    Request,
    Silence,
)

log = structlog.get_logger()

KEPT_SECONDS = 5.0

_finding, _incident, _operation = table_of(Finding), table_of(Incident), table_of(Operation)
_alert, _delivery, _silence = table_of(Alert), table_of(AlertDelivery), table_of(Silence)
_lease, _request = table_of(Lease), table_of(Request)


class StoreMetrics(Collector):
    """Gauges of the store; register it with a registry."""

    def __init__(self, engine: Engine, cluster: str, *, now: Callable[[], datetime]) -> None:
        self._engine = engine
        self._cluster = cluster
        self._now = now
        self._kept: tuple[float, list[GaugeMetricFamily]] | None = None
        self._blind = False
        self._lock = threading.Lock()

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not read the store."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families as of the last look."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > KEPT_SECONDS:
                self._kept = time.monotonic(), self._look()
            found = self._kept[1]
        yield from found

    def _look(self) -> list[GaugeMetricFamily]:
        now = self._now()
        try:
            families = [*_counts(self._engine, self._cluster, now)]
            with read(self._engine) as connection:
                families += [*_rows(connection, self._cluster, now)]
        except StoreError as error:
            if not self._blind:
                log.warning("store's metrics are left out", error=str(error))
            self._blind = True
            return []
        self._blind = False
        return families


def _family(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label_values, value in values:
        family.add_metric(list(label_values), value)
    return family


def _counts(engine: Engine, cluster: str, now: datetime) -> Iterator[GaugeMetricFamily]:
    seen = status(engine, cluster, now)
    counts = seen.counts
    yield _family(
        "pitwall_nodes_by_health", "GPU nodes by health.", ("health",),
        (((name,), count) for name, count in counts.nodes_by_health.items()),
    )  # fmt: skip
    yield _family(
        "pitwall_nodes_by_service", "GPU nodes by service state.", ("service",),
        (((name,), count) for name, count in counts.nodes_by_service.items()),
    )  # fmt: skip
    yield _family(
        "pitwall_gpus_by_health", "GPUs by health.", ("health",),
        (((name,), count) for name, count in counts.gpus_by_health.items()),
    )  # fmt: skip
    for name, text, value in (
        ("pitwall_gpus_usable", "GPUs on nodes that are Ready, schedulable and not Failing or Unknown.", counts.gpus_usable),
        ("pitwall_gpus_free", "Usable GPUs that no pod asks for.", counts.gpus_free),
        ("pitwall_gpus_requested", "GPUs that pods ask for.", counts.gpus_requested),
        ("pitwall_jobs_running", "Jobs that run.", counts.jobs_running),
        ("pitwall_jobs_at_risk", "Jobs with a rank on a node that is Failing or Unknown.", counts.jobs_at_risk),
        ("pitwall_paused", "1 while operations are paused.", float(seen.pause is not None)),
        ("pitwall_approvals_waiting", "Requests that wait for a second person.", len(seen.approvals)),
    ):  # fmt: skip
        yield _family(name, text, (), [((), float(value))])
    yield _family(
        "pitwall_limit_tripped", "1 for a limit that stopped automation.", ("limit",),
        (((mark.name,), float(mark.tripped_at is not None)) for mark in seen.limits),
    )  # fmt: skip
    yield _family(
        "pitwall_source_up", "1 for a source that is heard, 0 for one that is late or blind.", ("source",),
        (((source.source,), float(source.state == "ok")) for source in seen.sources),
    )  # fmt: skip
    yield _family(
        "pitwall_source_last_heard_timestamp_seconds", "When a source was last well.", ("source",),
        (((s.source,), s.last_ok_at.timestamp()) for s in seen.sources if s.last_ok_at is not None),
    )  # fmt: skip


def _rows(connection: Connection, cluster: str, now: datetime) -> Iterator[GaugeMetricFamily]:
    def grouped(
        table: object, columns: tuple[object, ...], *where: object
    ) -> list[tuple[tuple[str, ...], float]]:
        statement = select(*columns, func.count()).where(table.c.cluster == cluster, *where)  # type: ignore[call-overload,attr-defined]
        rows = connection.execute(statement.group_by(*columns))
        return [(tuple(str(value) for value in row[:-1]), float(row[-1])) for row in rows]

    yield _family(
        "pitwall_findings_open", "Open findings by rule and severity.", ("rule", "severity"),
        grouped(_finding, (_finding.c.rule, _finding.c.severity), _finding.c.closed_at.is_(None)),
    )  # fmt: skip
    yield _family(
        "pitwall_incidents_open", "Open incidents by severity and scope.", ("severity", "scope"),
        grouped(_incident, (_incident.c.severity, _incident.c.scope), _incident.c.resolved_at.is_(None)),
    )  # fmt: skip
    yield _family(
        "pitwall_incidents_unacknowledged", "Open incidents that nobody has taken up.", ("severity",),
        grouped(_incident, (_incident.c.severity,), _incident.c.resolved_at.is_(None), _incident.c.acknowledged_at.is_(None)),
    )  # fmt: skip
    yield _family(
        "pitwall_operations_open", "Open operations by kind and state.", ("kind", "state"),
        grouped(_operation, (_operation.c.kind, _operation.c.state), _operation.c.ended_at.is_(None)),
    )  # fmt: skip
    yield _family(
        "pitwall_requests_pending", "Requests that wait for the worker.", (),
        [((), float(connection.execute(select(func.count()).where(_request.c.cluster == cluster, _request.c.state == "pending")).scalar_one()))],
    )  # fmt: skip
    yield _family(
        "pitwall_alerts_open", "Open alerts by name, severity and state.", ("name", "severity", "state"),
        _alerts(connection, cluster),
    )  # fmt: skip
    hidden = {
        "inhibited": _alert.c.inhibited_by.is_not(None),
        "escalated": _alert.c.escalated_at.is_not(None),
    }
    for word, condition in hidden.items():
        number = connection.execute(
            select(func.count()).where(
                _alert.c.cluster == cluster, _alert.c.ended_at.is_(None), condition
            )
        ).scalar_one()
        yield _family(
            f"pitwall_alerts_{word}", f"Open alerts that are {word}.", (), [((), float(number))]
        )
    yield _family(
        "pitwall_silences_active", "Silences and maintenance windows that hold now.", ("kind",),
        grouped(_silence, (_silence.c.kind,), _silence.c.starts_at <= now, _silence.c.ends_at > now),
    )  # fmt: skip
    yield _family(
        "pitwall_deliveries", "Messages in the outbox by receiver and state.", ("receiver", "state"),
        grouped(_delivery, (_delivery.c.receiver, _delivery.c.state)),
    )  # fmt: skip
    oldest = connection.execute(
        select(func.min(_delivery.c.created_at, type_=_delivery.c.created_at.type)).where(
            _delivery.c.cluster == cluster, _delivery.c.state == "pending"
        )
    ).scalar_one()
    lag = (now - oldest).total_seconds() if oldest is not None else 0.0
    yield _family(
        "pitwall_delivery_lag_seconds",
        "Age of the oldest message that is not delivered.",
        (),
        [((), lag)],
    )
    lease = connection.execute(
        select(_lease.c.renewed_at).where(_lease.c.cluster == cluster, _lease.c.name == "worker")
    ).scalar_one_or_none()
    if lease is not None:
        yield _family(
            "pitwall_worker_lease_age_seconds", "Since the active worker last renewed its lease.", (),
            [((), max(0.0, (now - lease).total_seconds()))],
        )  # fmt: skip


def _alerts(connection: Connection, cluster: str) -> list[tuple[tuple[str, ...], float]]:
    """By alertname, which is in the labels: counted here, since open alerts are few."""
    counts: dict[tuple[str, ...], float] = {}
    for row in connection.execute(
        select(_alert.c.labels, _alert.c.severity, _alert.c.state).where(
            _alert.c.cluster == cluster, _alert.c.ended_at.is_(None)
        )
    ):
        key = (str(row.labels.get("alertname", "")), row.severity, row.state)
        counts[key] = counts.get(key, 0.0) + 1.0
    return sorted(counts.items())
