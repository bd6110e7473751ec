"""One simulated node's agent: the agent's own poller, supervision, desk and spool.

Only the child process is missing: a node whose NVML hangs is not polled, as a child that hangs
would not answer, and the same supervision draws the same conclusions from the silence.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from app.simulator.fleet_feed import NodeState, XidTold, utc
from app.simulator.nvml import SimulatedNvml
from app.simulator.nvml_gpu import SimulatedGpu, SimulatedNode
from app.simulator.ports import ports_of
from collectors.desk import Desk, Identity
from collectors.errors import NvmlUnavailableError
from collectors.folding import Occurrence
from collectors.memory import load_memory, save_memory
from collectors.nvml import NodePoller
from collectors.push import PushState, Receipt, TokenSource
from collectors.readings import PodReference
from collectors.report import AgentCounters, encode_report
from collectors.spool import Spool
from collectors.supervision import Supervision, answered, ask, check, failed, may_start
from collectors.xid import parse_kernel_line

NVML_TIMEOUT_SECONDS = 15.0
PUSH_INTERVAL_SECONDS = 14.5
"""A little under 15 s, so that the poll that ends the interval carries the report."""

XID_WINDOW_SECONDS = 5.0
PORT_SLACK_SECONDS = 0.5
"""Polls are never exactly on time; ports are read with the one that ends their interval."""

SPOOL_BYTES = 1024 * 1024


class FleetNode:
    """State of one node. To be used by the fleet's main thread, but for `spool` and `push`."""

    def __init__(
        self,
        name: str,
        state: NodeState,
        *,
        cluster: str,
        agent_version: str,
        directory: Path,
        library: SimulatedNvml,
        token: TokenSource,
        slow_interval_seconds: float,
    ) -> None:
        self.name = name
        self.token = token
        self.push = PushState()
        self.queued = False
        self.dead = state.dead
        self.receipts: list[Receipt] = []
        self._cluster = cluster
        self._agent_version = agent_version
        self._directory = directory
        self._library = library
        self._slow_interval_seconds = slow_interval_seconds
        self._node: SimulatedNode = library.add_node(name, boot_id=state.boot_id)
        self._pods: dict[int, str] = {}
        self._ailments: dict[str, float] = {}
        self._ports_read_at: float | None = None
        self._port_readings = 0
        self._polls_failed = 0
        # One spool over simulated reboots: a pusher may be at work on it.
        self.spool = Spool(directory, max_bytes=SPOOL_BYTES, boot_id=state.boot_id, sync=False)
        self._watch: Supervision
        self._desk: Desk
        self._poller: NodePoller
        self._boot(state)
        self.apply(state)

    @property
    def hangs(self) -> bool:
        """Whether NVML would not answer a poll now."""
        return self._node.nvml_hang

    @property
    def waiting(self) -> bool:
        """Whether a poll is without its answer, or NVML was given up."""
        return self._watch.waiting or self._watch.hung

    def apply(self, state: NodeState) -> bool:
        """Take the world's word; True when a poll at once is worth it (more than activity)."""
        before = self._significant()
        if state.boot_id != self._node.boot_id:
            self._boot(state)
        self.dead = state.dead
        self._ailments = state.ailments
        self._node.nvml_hang = state.nvml_hang
        known = {gpu.uuid: gpu for gpu in self._node.gpus}
        gpus: list[SimulatedGpu] = []
        pods: dict[int, str] = {}
        allocations: dict[str, tuple[PodReference, ...]] = {}
        for told in sorted(state.gpus, key=lambda gpu: gpu.index):
            if "gone" in told.ailments:
                continue
            gpu = known.get(told.uuid) or SimulatedGpu(
                told.uuid, told.index, told.pci_bus_id, told.serial
            )
            gpu.index, gpu.pci_bus_id = told.index, told.pci_bus_id
            gpu.activity_ratio = min(max(told.activity_ratio, 0.0), 1.0)
            gpu.power_ratio = told.power_ratio
            gpu.pid, gpu.lost = told.pid, told.lost
            gpu.ecc_uncorrectable_total = told.ecc_uncorrectable_total
            gpu.remap_pending, gpu.remap_failure = told.remap_pending, told.remap_failure
            gpu.recovery_action = told.recovery_action
            gpu.ailments = told.ailments
            gpus.append(gpu)
            if told.pid is not None and told.pod_uid:
                pods[told.pid] = told.pod_uid
            if told.pod_namespace and told.pod_name:
                allocations[told.uuid] = (PodReference(told.pod_namespace, told.pod_name),)
        self._node.gpus, self._pods = gpus, pods
        self._desk.take_allocations(allocations)
        return self._significant() != before

    def take_xid(self, told: XidTold, *, now: datetime) -> None:
        """One line of the node's kernel log; lost with the node when it is dead."""
        if self.dead:
            return
        line = parse_kernel_line(told.text)
        self._desk.take_xid(
            Occurrence(
                at=min(utc(told.at), now),
                code=told.xid,
                kind=line.kind if line else "xid",
                source="kernel",
                gpu_uuid=told.gpu_uuid,
                pci_bus_id=line.pci_bus_id if line else told.pci_bus_id,
                text=line.text if line else told.text,
                recovery_action=line.recovery_action if line else None,
                follow_on=line.follow_on if line else False,
            ),
            now=now,
        )

    def poll(self, *, at: float, now: datetime) -> None:
        """Poll, or wait for NVML as the watchdog does. `at` is monotonic seconds."""
        self._watch, give_up = check(
            self._watch, at=at, now=now, timeout_seconds=NVML_TIMEOUT_SECONDS
        )
        self._polls_failed += give_up
        if self._watch.waiting or may_start(self._watch, at=at):
            self._watch = ask(self._watch, at=at)
            if not self._node.nvml_hang:
                self._answer(at=at, now=now)
        if self._watch.nvml is not None and not self._watch.nvml.answering:
            self._desk.take_silence(self._watch.nvml, now=now)
        self._read_ports(at=at, now=now)

    def report(self, *, at: float, now: datetime) -> bool:
        """Put a report in the spool when one is due; True when there is one to push."""
        while self.receipts:
            receipt = self.receipts.pop()
            self._desk.take_decision(
                closed_episodes=receipt.closed_episodes, expected_gpus=receipt.expected_gpus
            )
        trigger = None if self.dead else self._desk.due(at=at)
        if trigger is None:
            return False
        if self._desk.dirty:
            save_memory(self._directory, self._desk.memory, sync=False)
            self._desk.dirty = False
        sequence = self.spool.next_sequence()
        report = self._desk.compose(
            trigger,
            spool_id=self.spool.spool_id,
            sequence=sequence,
            counters=AgentCounters(
                reports_dropped_total=self.spool.dropped_total,
                reports_rejected_total=self.spool.rejected_total,
                polls_failed_total=self._polls_failed,
            ),
            now=now,
            at=at,
        )
        self.spool.append(encode_report(report), sequence=sequence)
        return True

    def next_report_at(self, *, at: float) -> float:
        """Return when a report may next be due, if nothing happens before."""
        return self._desk.next_due_at(at=at)

    def _read_ports(self, *, at: float, now: datetime) -> None:
        read_at = self._ports_read_at
        if read_at is not None and at - read_at < self._slow_interval_seconds - PORT_SLACK_SECONDS:
            return
        self._ports_read_at = at
        self._port_readings += 1
        self._desk.take_ports(ports_of(self._ailments, reading=self._port_readings), now=now)

    def _answer(self, *, at: float, now: datetime) -> None:
        try:
            with self._library.select(self._node, at=at):
                poll = self._poller.poll(now)
        except NvmlUnavailableError as error:
            self._watch = failed(self._watch, str(error), now=now, at=at)
            return
        self._watch = answered(self._watch, now=now)
        if self._watch.nvml is not None:
            self._desk.take_poll(poll, nvml=self._watch.nvml, now=now)

    def _boot(self, state: NodeState) -> None:
        """A new boot: the agent starts anew with what its disk holds."""
        self._node.boot_id = state.boot_id
        for gpu in self._node.gpus:
            gpu.energy_joules = 0.0
        self._watch = Supervision()
        self._poller = NodePoller(slow_interval_seconds=self._slow_interval_seconds)
        memory = load_memory(self._directory)
        self._poller.inventory = memory.inventory
        self._desk = Desk(
            Identity(self._cluster, self.name, state.boot_id, self._agent_version),
            memory,
            push_interval_seconds=PUSH_INTERVAL_SECONDS,
            xid_window_seconds=XID_WINDOW_SECONDS,
            find_pod=lambda pid: self._pods.get(pid),
        )

    def _significant(self) -> object:
        return (
            self.dead,
            self._ailments,
            self._node.boot_id,
            self._node.nvml_hang,
            [
                (
                    gpu.uuid,
                    gpu.pid,
                    gpu.lost,
                    gpu.ecc_uncorrectable_total,
                    gpu.remap_pending,
                    gpu.remap_failure,
                    gpu.recovery_action,
                    gpu.ailments,
                )
                for gpu in self._node.gpus
            ],
        )


def utc_now() -> datetime:
    """The time of an observation."""
    return datetime.now(UTC)
