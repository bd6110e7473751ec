"""When jobs last wrote a checkpoint, for those that tell it by a metric rather than by an annotation.

A site names a PromQL expression whose value is Unix time in seconds, with the labels `namespace` and `job_name` (or
`job`) of the workload; of several series of one workload the newest counts.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import structlog

from app.settings import Settings
from collectors.errors import SourceError
from collectors.prometheus import DcgmSource
from k8s.view import ClusterView

log = structlog.get_logger()

NAMES = ("job_name", "exported_job", "job")
"""Labels that may hold the workload's name; Prometheus's own `job` is the scrape's, so it comes last."""

KEPT = timedelta(minutes=10)
"""So long the last answer counts while Prometheus does not answer: a checkpoint that was told was written."""

MOST_AHEAD = timedelta(minutes=5)
"""A time further ahead than clocks differ is no checkpoint."""

Told = Mapping[tuple[str, str], datetime]


class CheckpointMetric:
    """Asks Prometheus each time it is told to; holds the last answer."""

    def __init__(self, settings: Settings, *, clock: Callable[[], datetime]) -> None:
        """Without a Prometheus or an expression it asks nothing and tells of nothing."""
        self._expression = settings.checkpoint_metric
        self._source = (
            DcgmSource(settings.prometheus_url)
            if settings.prometheus_url and settings.checkpoint_metric
            else None
        )
        self._clock = clock
        self._told: Told = {}
        self._heard_at: datetime | None = None
        self._failing = False

    def tick(self) -> int:
        """Asks; gives how many workloads were told of."""
        if self._source is None or self._expression is None:
            return 0
        now = self._clock()
        try:
            answer = self._source.query(self._expression)
        except SourceError as error:
            if not self._failing:
                log.warning("checkpoints are not heard", error=str(error))
            self._failing = True
            return 0
        self._failing = False
        self._told, self._heard_at = read_checkpoints(answer, now), now
        return len(self._told)

    def over(self, view: ClusterView) -> ClusterView:
        """The view with what was told, while that is not too old."""
        if not self._told or self._heard_at is None or self._clock() - self._heard_at > KEPT:
            return view
        return replace(view, told_checkpoints=self._told)


def read_checkpoints(answer: list[dict], now: datetime) -> Told:
    """(namespace, name) to the newest time of an instant vector; what is no time is left out."""
    found: dict[tuple[str, str], datetime] = {}
    for series in answer:
        labels = series.get("metric") or {}
        namespace = labels.get("namespace") or labels.get("exported_namespace") or ""
        name = next((labels[one] for one in NAMES if labels.get(one)), "")
        try:
            at = datetime.fromtimestamp(float(series["value"][1]), UTC)
        except (KeyError, IndexError, TypeError, ValueError, OverflowError, OSError):
            continue
        if not namespace or not name or at > now + MOST_AHEAD or at.year < 2000:
            continue
        key = (str(namespace), str(name))
        found[key] = max(at, found.get(key, at))
    return found
