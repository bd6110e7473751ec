"""Ingest's own metrics, in Prometheus's conventions; one registry an app, so that tests see their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

BATCH_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_REPORTS_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096)


class IngestMetrics:
    """Counters of what came in, what became of it, and how long the store took."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reports = Counter(
            "pitwall_ingest_reports",
            "Reports taken, by outcome: stored, older, duplicate.",
            ["outcome"],
            registry=self.registry,
        )
        self.refused = Counter(
            "pitwall_ingest_reports_refused",
            "Reports not taken, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.gpus = Counter(
            "pitwall_ingest_gpu_readings",
            "GPU readings stored as the latest state.",
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "pitwall_ingest_batch_seconds",
            "Time of one batch's transaction.",
            buckets=BATCH_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.batch_reports = Histogram(
            "pitwall_ingest_batch_reports",
            "Reports in one transaction.",
            buckets=BATCH_REPORTS_BUCKETS,
            registry=self.registry,
        )
        self.store_failures = Counter(
            "pitwall_ingest_store_failures",
            "Transactions that the store did not take, by what was written.",
            ["what"],
            registry=self.registry,
        )
        self.waiting = Gauge(
            "pitwall_ingest_waiting_reports",
            "Reports that wait for the next transaction.",
            registry=self.registry,
        )
        self.token_reviews = Counter(
            "pitwall_ingest_token_reviews",
            "TokenReviews asked of the API server, by result: valid, invalid, failed.",
            ["result"],
            registry=self.registry,
        )
        self.requests = Counter(
            "pitwall_ingest_http_requests",
            "Requests answered, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )

    def exposition(self) -> tuple[bytes, str]:
        """The metrics as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST
