"""The agent's own /metrics and /healthz.

Names follow Prometheus's conventions: base units, counters end in _total, a GPU is its uuid.
What is not known is not exposed: a missing series is unknown, never 0. /healthz tells of the
agent alone: a node whose NVML hangs is not helped by killing its agent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from collectors.errors import CollectorError
from collectors.health import SEVERITY_RANK
from collectors.readings import GpuReading
from collectors.report import AgentCounters, Finding, NvmlState

GAUGES: tuple[tuple[str, str], ...] = (
    ("temperature_celsius", "Temperature of the GPU's core."),
    ("memory_temperature_celsius", "Temperature of the GPU's memory (HBM)."),
    ("temperature_margin_celsius", "Degrees left before the GPU slows itself down."),
    ("power_watts", "Power drawn."),
    ("power_limit_watts", "Power limit enforced."),
    ("sm_clock_hertz", "Clock of the streaming multiprocessors."),
    ("sm_clock_max_hertz", "Highest clock of the streaming multiprocessors."),
    ("memory_clock_hertz", "Clock of the memory."),
    ("clocks_event_reasons", "NVML's clock event reason bits."),
    ("gpu_utilization_ratio", "Share of time in which a kernel ran."),
    ("memory_utilization_ratio", "Share of time in which memory was read or written."),
    ("memory_used_bytes", "Memory in use."),
    ("memory_total_bytes", "Memory there is."),
    ("sm_activity_ratio", "Share of multiprocessors at work since the poll before (GPM)."),
    ("sm_occupancy_ratio", "Share of a multiprocessor's warps in use (GPM)."),
    ("tensor_activity_ratio", "Share of time in which tensor cores worked (GPM)."),
    ("dram_activity_ratio", "Share of the memory's bandwidth in use (GPM)."),
    ("nvlink_receive_bytes_per_second", "Received over all NVLinks (GPM)."),
    ("nvlink_transmit_bytes_per_second", "Sent over all NVLinks (GPM)."),
    ("ecc_mode", "1 when ECC is on."),
    ("persistence_mode", "1 when persistence mode is on."),
    ("remapped_correctable", "Memory rows remapped for correctable errors."),
    ("remapped_uncorrectable", "Memory rows remapped for uncorrectable errors."),
    ("remap_pending", "1 when a reset is needed to remap a row."),
    ("remap_failure", "1 when a row could not be remapped."),
    ("pcie_generation", "PCIe generation of the link now."),
    ("pcie_width", "PCIe lanes of the link now."),
    ("nvlink_active_links", "NVLinks that are up."),
    ("fabric_state", "NVLink fabric registration; 3 is completed."),
    ("recovery_action", "What the driver asks for (NVML field 230); 0 is nothing."),
)
COUNTERS: tuple[tuple[str, str], ...] = (
    ("energy_joules_total", "Energy used since the driver was loaded."),
    ("ecc_corrected_total", "Corrected ECC errors since the last reset."),
    ("ecc_uncorrected_total", "Uncorrectable ECC errors since the last reset."),
    ("sram_uncorrected_total", "Uncorrectable SRAM errors since the last reset."),
    ("pcie_replay_total", "PCIe replays."),
    ("nvlink_crc_errors_total", "NVLink CRC errors, all links."),
    ("nvlink_replay_errors_total", "NVLink replays, all links."),
    ("nvlink_recovery_errors_total", "NVLink recoveries, all links."),
)
IDENTITY = ("index", "pci_bus_id", "serial", "name")


@dataclass(frozen=True)
class Snapshot:
    """The agent at one moment, as its main thread last left it."""

    cluster: str = ""
    node: str = ""
    agent_version: str = ""
    driver_version: str | None = None
    nvml: NvmlState | None = None
    gpus: tuple[GpuReading, ...] = ()
    findings: tuple[Finding, ...] = ()
    expected_gpus: int = 0
    polls_total: int = 0
    polled_at_seconds: float | None = None
    poll_duration_seconds: float | None = None
    reports_pushed_total: int = 0
    push_failures: int = 0
    spool_reports: int = 0
    spool_bytes: int = 0
    counters: AgentCounters = field(default_factory=AgentCounters)
    xid_events: tuple[tuple[str, int, int], ...] = field(default=())
    """(uuid, code, events) since the agent started; uuid is "" for a switch."""


class AgentCollector(Collector):
    """Turns a snapshot into metric families; one scrape is one call of `collect`."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def collect(self) -> Iterator[Metric]:
        """Yield every family of which something is known."""
        snapshot = self._take()
        yield from _agent_families(snapshot)
        yield from _gpu_families(snapshot)


def _agent_families(snapshot: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "pitwall_agent_info",
        "The agent and what it runs on; always 1.",
        labels=("cluster", "node", "version", "driver_version"),
    )
    info.add_metric(
        (snapshot.cluster, snapshot.node, snapshot.agent_version, snapshot.driver_version or ""),
        1,
    )
    yield info
    if snapshot.nvml is not None:
        yield GaugeMetricFamily(
            "pitwall_agent_nvml_answering",
            "1 while NVML answers.",
            value=int(snapshot.nvml.answering),
        )
    counters = snapshot.counters
    for name, text, count in (
        ("polls", "Polls of NVML that were answered.", snapshot.polls_total),
        ("poll_failures", "Polls that failed or were given up.", counters.polls_failed_total),
        (
            "nvml_children_replaced",
            "Child processes given up because NVML hung in them.",
            counters.nvml_children_replaced_total,
        ),
        ("reports_pushed", "Reports that ingest took.", snapshot.reports_pushed_total),
        (
            "reports_dropped",
            "Reports dropped because the spool was full.",
            counters.reports_dropped_total,
        ),
        (
            "reports_rejected",
            "Reports that ingest refused for good.",
            counters.reports_rejected_total,
        ),
        (
            "kernel_lines_unreadable",
            "Lines of the kernel log that were lost, cut or binary.",
            counters.kernel_lines_unreadable_total,
        ),
    ):
        yield CounterMetricFamily(f"pitwall_agent_{name}", text, value=count)
    for name, text, value in (
        ("spool_reports", "Reports that wait for ingest.", snapshot.spool_reports),
        ("spool_bytes", "Size of the spool on disk.", snapshot.spool_bytes),
        ("push_failures", "Pushes that failed in a row.", snapshot.push_failures),
        ("expected_gpus", "Highest GPU count ever seen on the node.", snapshot.expected_gpus),
        ("last_poll_timestamp_seconds", "When NVML last answered.", snapshot.polled_at_seconds),
        (
            "last_poll_duration_seconds",
            "How long the last poll took.",
            snapshot.poll_duration_seconds,
        ),
    ):
        if value is not None:
            yield GaugeMetricFamily(f"pitwall_agent_{name}", text, value=value)
    findings = GaugeMetricFamily(
        "pitwall_agent_findings", "Open findings by severity.", labels=("severity",)
    )
    for severity in SEVERITY_RANK:
        count = sum(finding.severity == severity for finding in snapshot.findings)
        findings.add_metric((severity,), count)
    yield findings
    xids = CounterMetricFamily(
        "pitwall_gpu_xid_events",
        "XID events since the agent started, repeats folded.",
        labels=("uuid", "xid"),
    )
    for uuid, code, events in snapshot.xid_events:
        xids.add_metric((uuid, str(code)), events)
    yield xids


def _gpu_families(snapshot: Snapshot) -> Iterator[Metric]:
    if snapshot.nvml is None or not snapshot.nvml.answering:
        return
    info = GaugeMetricFamily(
        "pitwall_gpu_info", "What a GPU is; always 1.", labels=("uuid", *IDENTITY)
    )
    readable = GaugeMetricFamily(
        "pitwall_gpu_readable", "1 when NVML can read the GPU.", labels=("uuid",)
    )
    for gpu in snapshot.gpus:
        labels = [
            str(getattr(gpu, name)) if getattr(gpu, name) is not None else "" for name in IDENTITY
        ]
        info.add_metric((gpu.uuid, *labels), 1)
        readable.add_metric((gpu.uuid,), int(gpu.error_code is None))
    yield info
    yield readable
    kinds: tuple[tuple[Any, tuple[tuple[str, str], ...]], ...] = (
        (GaugeMetricFamily, GAUGES),
        (CounterMetricFamily, COUNTERS),
    )
    for family_type, entries in kinds:
        for name, text in entries:
            exposed = name.removeprefix("gpu_").removesuffix("_total")
            family = family_type(f"pitwall_gpu_{exposed}", text, labels=("uuid",))
            for gpu in snapshot.gpus:
                value = getattr(gpu, name)
                if value is not None:
                    family.add_metric((gpu.uuid,), value)
            if family.samples:
                yield family


class MetricsServer:
    """Serves /metrics and /healthz on a thread. `port` is the one in use."""

    def __init__(
        self, host: str, port: int, *, take: Callable[[], Snapshot], is_alive: Callable[[], bool]
    ) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(AgentCollector(take))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.partition("?")[0] == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    alive = is_alive()
                    self._answer(200 if alive else 503, b"ok\n" if alive else b"stuck\n")
                else:
                    self._answer(404, b"/metrics and /healthz are here\n")

            def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return None  # a scrape is no event

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise CollectorError(
                f"/metrics cannot be served on {host}:{port}: {error.strerror or error}; "
                "set PITWALL_METRICS_PORT to a free port"
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])

    def start(self) -> None:
        """Serve until the process ends."""
        threading.Thread(
            target=self._server.serve_forever, args=(5.0,), name="metrics", daemon=True
        ).start()
