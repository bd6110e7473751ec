"""The node agent: polls NVML in a child process, reads the kernel log, judges, spools, pushes.

One main thread owns the desk and the child; threads beside it only wait for something (the
child's answers, the kernel log, the kubelet, ingest) and put what came into one queue.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import structlog

from collectors.child import Gone
from collectors.desk import Desk, Identity
from collectors.errors import CollectorError, SourceError, SpoolError
from collectors.folding import Occurrence
from collectors.infiniband import read_ports
from collectors.kernel_log import KernelLog, Line
from collectors.memory import load_memory, save_memory
from collectors.metrics import MetricsServer, Snapshot
from collectors.nvml_source import Child, NvmlSource
from collectors.pods import CgroupPodFinder
from collectors.poller import Answer, NvmlXid, Told
from collectors.push import PushThread, Receipt, Sender, TokenFile
from collectors.readings import PortReading
from collectors.report import AgentCounters, encode_report
from collectors.settings import AgentSettings, read_agent_settings
from collectors.site_rules import load_rules
from collectors.spool import Spool
from collectors.xid import parse_kernel_line

log = structlog.get_logger()

ALIVE_SECONDS = 30.0
"""/healthz fails when the main thread has not come round for so long."""

LONGEST_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class _FromChild:
    child: Child
    message: Told | Gone


@dataclass(frozen=True)
class _Ports:
    """The node's InfiniBand ports, as they were at `at`."""

    at: datetime
    ports: tuple[PortReading, ...]


class Agent:
    """The whole agent of one node. `run` returns after `stop`."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        boot_id = read_boot_id(settings.proc_root)
        directory = settings.spool_dir
        self._spool = Spool(directory, max_bytes=settings.spool_max_bytes, boot_id=boot_id)
        memory = load_memory(directory)
        self._find_pod = CgroupPodFinder(settings.proc_root)
        self._desk = Desk(
            Identity(settings.cluster, settings.node, boot_id, agent_version()),
            memory,
            push_interval_seconds=settings.push_interval_seconds,
            xid_window_seconds=settings.xid_window_seconds,
            find_pod=self._find_pod,
            rules=load_rules(settings.rules),
        )
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._kernel_log = (
            KernelLog(settings.kmsg_path, boot_id=boot_id, place=memory.place)
            if settings.kmsg_path
            else None
        )
        self._push = PushThread(
            self._spool,
            sender=Sender(
                settings.ingest_url,
                timeout_seconds=settings.request_timeout_seconds,
                ca_file=settings.ingest_ca_file,
            ),
            token=TokenFile(settings.token_file),
            first_seconds=settings.backoff_first_seconds,
            longest_seconds=settings.backoff_longest_seconds,
            on_receipt=self._inbox.put,
            node=settings.node,
        )
        self._nvml = NvmlSource(
            lambda child, message: self._inbox.put(_FromChild(child, message)),
            timeout_seconds=settings.nvml_timeout_seconds,
            poll_interval_seconds=settings.poll_interval_seconds,
            slow_interval_seconds=settings.nvml_slow_interval_seconds,
        )
        self._xids: Counter[tuple[str, int]] = Counter()
        self._came_round_at = time.monotonic()
        self._trouble: str | None = None
        self._metrics = MetricsServer(
            settings.metrics_host,
            settings.metrics_port,
            take=self._take_snapshot,
            is_alive=lambda: time.monotonic() - self._came_round_at < ALIVE_SECONDS,
        )

    def stop(self) -> None:
        """Ask `run` to return; safe from a signal handler and from other threads."""
        self._stopped.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Work until `stop`. To be called on the main thread of the process."""
        settings = self._settings
        self._metrics.start()
        self._push.start()
        if self._kernel_log is not None:
            self._start_thread(self._follow_kernel_log, "kernel-log")
        if settings.podresources_socket is not None:
            self._start_thread(self._follow_kubelet, "kubelet")
        if settings.infiniband_root is not None:
            self._start_thread(self._follow_infiniband, "infiniband")
        log.info(
            "the agent has started",
            node=settings.node,
            spool_id=self._spool.spool_id,
            metrics_port=self._metrics.port,
        )
        try:
            while not self._stopped.is_set():
                self._came_round_at = time.monotonic()
                self._take_nvml(datetime.now(UTC))
                self._report()
                self._wait()
        finally:
            self._nvml.stop()
            self._keep_memory()
            self._push.stop(timeout_seconds=2.0)
            log.info("the agent has stopped", node=settings.node)

    def _take_nvml(self, now: datetime) -> None:
        before = self._desk.nvml
        nvml = self._nvml.keep(self._desk.inventory, at=time.monotonic(), now=now)
        if nvml is None or nvml.answering:
            return
        self._desk.take_silence(nvml, now=now)
        if before is None or before.answering:
            log.error("NVML is silent", node=self._settings.node, reason=nvml.message)

    def _hear_child(self, child: Child, message: Told | Gone, now: datetime) -> None:
        if not self._nvml.hear(child, message, at=time.monotonic(), now=now):
            return
        if isinstance(message, Answer) and self._nvml.state is not None:
            if self._desk.nvml is not None and not self._desk.nvml.answering:
                log.info("NVML answers again", node=self._settings.node)
            self._desk.take_poll(message.poll, nvml=self._nvml.state, now=now)
            self._find_pod.keep(
                process.pid for gpu in message.poll.gpus for process in gpu.processes
            )
        elif isinstance(message, NvmlXid):
            self._take_xid(
                Occurrence(
                    at=message.at,
                    code=message.xid,
                    kind="xid",
                    source="nvml",
                    gpu_uuid=message.gpu_uuid,
                    pci_bus_id=message.pci_bus_id,
                ),
                now,
            )

    def _hear_kernel(self, line: Line) -> None:
        told = parse_kernel_line(line.text)
        if told is None:
            if "Xid" in line.text and self._kernel_log is not None:
                self._kernel_log.unreadable_total += 1  # cut, or of a driver that writes otherwise
            self._desk.take_place(line.place)
            return
        self._take_xid(
            Occurrence(
                at=line.at,
                code=told.code,
                kind=told.kind,
                source="kernel",
                pci_bus_id=told.pci_bus_id,
                text=told.text,
                recovery_action=told.recovery_action,
                follow_on=told.follow_on,
            ),
            datetime.now(UTC),
            line,
        )

    def _take_xid(self, occurrence: Occurrence, now: datetime, line: Line | None = None) -> None:
        if not occurrence.follow_on:
            self._xids[(occurrence.gpu_uuid or occurrence.pci_bus_id or "", occurrence.code)] += 1
        self._desk.take_xid(occurrence, now=now, place=line.place if line else None)
        self._nvml.hurry()

    def _hear(self, item: Any) -> None:
        if isinstance(item, _FromChild):
            self._hear_child(item.child, item.message, datetime.now(UTC))
        elif isinstance(item, Line):
            self._hear_kernel(item)
        elif isinstance(item, Receipt):
            self._desk.take_decision(
                closed_episodes=item.closed_episodes, expected_gpus=item.expected_gpus
            )
        elif isinstance(item, _Ports):
            self._desk.take_ports(item.ports, now=item.at)
        elif isinstance(item, dict):
            self._desk.take_allocations(item)

    def _wait(self) -> None:
        at = time.monotonic()
        wake_at = min(self._desk.next_due_at(at=at), at + LONGEST_WAIT_SECONDS)
        wake_at = min(wake_at, self._nvml.wake_at(at=at))
        try:
            item = self._inbox.get(timeout=max(wake_at - at, 0.005))
            while item is not None:
                self._hear(item)
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _report(self) -> None:
        at = time.monotonic()
        trigger = self._desk.due(at=at)
        if trigger is None:
            return
        # The memory goes first: a report must not speak of an episode that a crash forgets.
        self._keep_memory()
        try:
            sequence = self._spool.next_sequence()
            report = self._desk.compose(
                trigger,
                spool_id=self._spool.spool_id,
                sequence=sequence,
                counters=self._counters(),
                now=datetime.now(UTC),
                at=at,
            )
            self._spool.append(
                encode_report(report), sequence=sequence, durable=trigger == "change"
            )
        except SpoolError as error:
            self._say_trouble(error)
            return
        self._trouble = None
        self._push.wake()

    def _keep_memory(self) -> None:
        if not self._desk.dirty:
            return
        try:
            save_memory(self._settings.spool_dir, self._desk.memory)
            self._desk.dirty = False
        except SpoolError as error:
            self._say_trouble(error)

    def _say_trouble(self, error: CollectorError) -> None:
        if self._trouble is None:
            log.error("the agent cannot write; it goes on", error=str(error))
        self._trouble = str(error)

    def _counters(self) -> AgentCounters:
        return AgentCounters(
            reports_dropped_total=self._spool.dropped_total,
            reports_rejected_total=self._spool.rejected_total,
            polls_failed_total=self._nvml.failures_total,
            kernel_lines_unreadable_total=(
                self._kernel_log.unreadable_total if self._kernel_log else 0
            ),
            nvml_children_replaced_total=self._nvml.replaced_total,
        )

    def _take_snapshot(self) -> Snapshot:
        desk = self._desk
        return Snapshot(
            cluster=self._settings.cluster,
            node=self._settings.node,
            agent_version=desk.identity.agent_version,
            driver_version=desk.driver_version,
            nvml=desk.nvml,
            gpus=desk.gpus,
            findings=tuple(desk.ledger.findings),
            expected_gpus=desk.inventory.expected_gpus,
            polls_total=self._nvml.polls_total,
            polled_at_seconds=desk.polled_at.timestamp() if desk.polled_at else None,
            poll_duration_seconds=self._nvml.poll_duration_seconds,
            reports_pushed_total=self._push.pushed_total,
            push_failures=self._push.state.failures,
            spool_reports=len(self._spool),
            spool_bytes=self._spool.size_bytes,
            counters=self._counters(),
            xid_events=tuple((uuid, code, n) for (uuid, code), n in list(self._xids.items())),
        )

    def _start_thread(self, target: Any, name: str) -> None:
        threading.Thread(target=target, name=name, daemon=True).start()

    def _follow_kernel_log(self) -> None:
        if self._kernel_log is not None:
            self._kernel_log.follow(self._inbox.put, stopped=self._stopped.is_set)

    def _follow_kubelet(self) -> None:
        # grpc is imported by those who use it: it is the agent's largest part.
        socket = self._settings.podresources_socket
        silent = False
        while socket is not None and not self._stopped.is_set():
            if socket.exists():
                from collectors.pod_resources import list_allocations

                try:
                    self._inbox.put(list_allocations(socket))
                    if silent:
                        log.info("the kubelet's PodResources answers again")
                    silent = False
                except SourceError as error:
                    if not silent:
                        log.warning("the kubelet's PodResources is silent", error=str(error))
                    silent = True
            self._stopped.wait(self._settings.podresources_interval_seconds)

    def _follow_infiniband(self) -> None:
        root = self._settings.infiniband_root
        silent = False
        known = bool(self._desk.memory.ports)
        while root is not None and not self._stopped.is_set():
            try:
                ports = tuple(read_ports(root))
                # A node that never had an adapter has nothing to say; one that lost its has.
                if ports or known:
                    self._inbox.put(_Ports(datetime.now(UTC), ports))
                known = known or bool(ports)
                if silent:
                    log.info("InfiniBand devices can be read again")
                silent = False
            except SourceError as error:
                if not silent:
                    log.warning("InfiniBand devices cannot be read", error=str(error))
                silent = True
            self._stopped.wait(self._settings.infiniband_interval_seconds)


def read_boot_id(proc_root: Path) -> str:
    """Return the kernel's id of this boot. Raises SourceError when it cannot be read."""
    path = proc_root / "sys/kernel/random/boot_id"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SourceError(
            f"the boot id cannot be read at {path}: {error.strerror or error}; "
            "check PITWALL_PROC_ROOT"
        ) from error


def agent_version() -> str:
    """Return the release of Pitwall that runs."""
    try:
        return version("pitwall")
    except PackageNotFoundError:
        return "unknown"


def run() -> None:
    """Run the agent of this node with the settings in the environment until SIGTERM."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(
                serializer=lambda value, **_: msgspec.json.encode(value).decode()
            ),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    agent = Agent(read_agent_settings())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    agent.run()


if __name__ == "__main__":
    run()
