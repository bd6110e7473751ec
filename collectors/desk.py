"""One node as the agent knows it: takes polls, XIDs and silence, says when to report and what.

No input or output, no threads: the agent runs one desk, the simulator's fleet runs thousands.
Times named `at` are seconds of a monotonic clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from collectors.folding import Folding, Occurrence, fold, forget_old, has_news, take_untold
from collectors.health import BUILT_IN, NodeFacts, RuleSet
from collectors.inventory import Inventory, update_inventory
from collectors.judgement import judge
from collectors.kernel_log import Place
from collectors.ledger import Ledger, Moment, close_episodes
from collectors.memory import Memory
from collectors.pods import PodFinder, assign_pods
from collectors.ports import Tracks, follow_ports, forgive_flaps
from collectors.readings import GpuReading, PodReference, Poll, PortReading
from collectors.report import (
    MAX_FINDINGS,
    MAX_XIDS,
    SCHEMA_VERSION,
    AgentCounters,
    NvmlState,
    Report,
    XidEvent,
)
from collectors.trends import Trends

CHANGE_GAP_SECONDS = 0.5
"""Changes within this of the report before wait for it, so that a storm is no flood."""


@dataclass(frozen=True)
class Identity:
    """Who reports: fixed while the process lives."""

    cluster: str
    node: str
    boot_id: str
    agent_version: str


def new_identifier() -> str:
    """Return a random identifier for an episode or an event."""
    return uuid.uuid4().hex


class Desk:
    """The state of one node between what comes in and what goes out. Not for two threads."""

    def __init__(
        self,
        identity: Identity,
        memory: Memory,
        *,
        push_interval_seconds: float,
        xid_window_seconds: float,
        find_pod: PodFinder,
        new_id: Callable[[], str] = new_identifier,
        rules: RuleSet = BUILT_IN,
    ) -> None:
        self.identity = identity
        self.ledger: Ledger = memory.ledger
        self.inventory: Inventory = memory.inventory
        self.nvml: NvmlState | None = None
        self.gpus: tuple[GpuReading, ...] = ()
        self.driver_version: str | None = None
        self.polled_at: datetime | None = None
        self.dirty = False
        self.ports: tuple[PortReading, ...] = ()
        self._tracks: Tracks = memory.ports
        self._place = memory.place
        self._folding: Folding = memory.folding
        self._gpu_count: int | None = None
        self._known: dict[str, GpuReading] = {}
        self._push_interval_seconds = push_interval_seconds
        self._xid_window_seconds = xid_window_seconds
        self._find_pod = find_pod
        self._new_id = new_id
        self._rules = rules
        self._trends = Trends()
        self._allocations: Mapping[str, tuple[PodReference, ...]] | None = None
        self._sent_at: float | None = None
        self._sent_state: object = None
        self._seen_gpus: object = None

    @property
    def memory(self) -> Memory:
        """What is to be kept on disk now."""
        return Memory(self.ledger, self._folding, self.inventory, self._place, self._tracks)

    def take_poll(self, poll: Poll, *, nvml: NvmlState, now: datetime) -> None:
        """A poll came: readings get their pods, the inventory grows, the rules judge."""
        gpus = tuple(self._place_pods(assign_pods(gpu, self._find_pod)) for gpu in poll.gpus)
        self.gpus, self.nvml = gpus, nvml
        self.polled_at, self.driver_version = poll.at, poll.driver_version
        self._gpu_count = poll.gpu_count
        seen = tuple((gpu.uuid, gpu.index, gpu.pci_bus_id) for gpu in gpus)
        if seen != self._seen_gpus:
            self._seen_gpus = seen
            inventory = update_inventory(self.inventory, gpus, gpu_count=poll.gpu_count)
            if inventory is not self.inventory:
                self.inventory, self.dirty = inventory, True
        self._known = {gpu.uuid: gpu for gpu in gpus}
        trends = self._trends.observe(
            gpus, now=poll.at, allocations_known=self._allocations is not None
        )
        self._judge(gpus, (), now=now, trends=trends)

    def take_silence(self, nvml: NvmlState, *, now: datetime) -> None:
        """NVML does not answer: what was known stays open, nothing new is known."""
        self.nvml = nvml
        self._judge(None, (), now=now)

    def take_xid(
        self, occurrence: Occurrence, *, now: datetime, place: Place | None = None
    ) -> None:
        """One XID from one source; `place` is where the kernel log goes on after it."""
        named = self._name_gpu(occurrence)
        self._folding, event = fold(
            self._folding,
            named,
            window_seconds=self._xid_window_seconds,
            new_id=self._new_id,
        )
        if place is not None:
            self._place = place
        self.dirty = True
        self._judge(None, (event,), now=now)

    def take_ports(self, ports: Iterable[PortReading], *, now: datetime) -> None:
        """The node's InfiniBand ports were read."""
        self.ports = tuple(ports)
        tracks, rows = follow_ports(self._tracks, self.ports, now=now)
        if tracks != self._tracks:
            self._tracks, self.dirty = tracks, True
        if rows:
            self._judge(None, (), now=now, ports=rows)

    def take_place(self, place: Place) -> None:
        """The kernel log was read up to here with nothing of note in it."""
        self._place, self.dirty = place, True

    def take_allocations(self, allocations: Mapping[str, tuple[PodReference, ...]]) -> None:
        """The kubelet's word on which pod holds which GPU, by UUID."""
        self._allocations = allocations

    def take_decision(
        self, *, closed_episodes: Iterable[str] = (), expected_gpus: int | None = None
    ) -> None:
        """A person closed findings, or lowered the number of GPUs that are expected."""
        closed = frozenset(closed_episodes)
        if closed & self.ledger.episodes:
            self._tracks = forgive_flaps(
                self._tracks,
                (
                    entry.key.partition("/")[2]
                    for entry in self.ledger.open
                    if entry.finding.episode in closed
                ),
            )
            self.ledger, self.dirty = close_episodes(self.ledger, closed), True
        if expected_gpus is not None and expected_gpus < self.inventory.expected_gpus:
            self.inventory = msgspec.structs.replace(self.inventory, expected_gpus=expected_gpus)
            self.dirty = True

    def due(self, *, at: float) -> str | None:
        """Return why a report is due now ("start", "change", "interval"), or None."""
        if self.nvml is None and not has_news(self._folding):
            return None
        if self._sent_at is None:
            return "start"
        if self._is_changed() and at - self._sent_at >= CHANGE_GAP_SECONDS:
            return "change"
        return "interval" if at - self._sent_at >= self._push_interval_seconds else None

    def next_due_at(self, *, at: float) -> float:
        """Return when `due` may next say something, if nothing comes in before."""
        if self._sent_at is None:
            return at + self._push_interval_seconds
        gap = CHANGE_GAP_SECONDS if self._is_changed() else self._push_interval_seconds
        return self._sent_at + gap

    def compose(
        self,
        trigger: str,
        *,
        spool_id: str,
        sequence: int,
        counters: AgentCounters,
        now: datetime,
        at: float,
    ) -> Report:
        """Return the report of this moment; its XIDs count as told from here on."""
        self._folding, xids = take_untold(self._folding, limit=MAX_XIDS)
        self._folding = forget_old(self._folding, now=now, window_seconds=self._xid_window_seconds)
        if xids:
            self.dirty = True
        self._sent_at, self._sent_state = at, self._state()
        nvml = self.nvml or NvmlState(
            answering=False, since=now, message="NVML has not answered yet"
        )
        return Report(
            schema_version=SCHEMA_VERSION,
            cluster=self.identity.cluster,
            node=self.identity.node,
            spool_id=spool_id,
            sequence=sequence,
            observed_at=now,
            boot_id=self.identity.boot_id,
            agent_version=self.identity.agent_version,
            driver_version=self.driver_version,
            nvml=nvml,
            polled_at=self.polled_at,
            expected_gpus=self.inventory.expected_gpus or None,
            trigger=trigger,
            gpus=list(self.gpus) if nvml.answering else [],
            xids=xids,
            findings=self.ledger.findings[:MAX_FINDINGS],
            counters=counters,
            ports=list(self.ports),
        )

    def _judge(
        self,
        gpus: tuple[GpuReading, ...] | None,
        xids: tuple[XidEvent, ...],
        *,
        now: datetime,
        trends: Mapping[str, Mapping[str, Any]] | None = None,
        ports: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        before = self.ledger
        self.ledger = judge(
            before,
            moment=Moment(now, self.identity.boot_id, self._new_id),
            facts=self._facts(now),
            gpus=gpus,
            xids=xids,
            known=self._known,
            trends=trends,
            ports=ports,
            rules=self._rules,
        )
        if before.open or self.ledger.open:
            self.dirty = self.dirty or self.ledger.episodes != before.episodes

    def _facts(self, now: datetime) -> NodeFacts:
        silent: float | None = None
        if self.nvml is not None:
            since = self.nvml.since or now
            silent = 0.0 if self.nvml.answering else max((now - since).total_seconds(), 0.001)
        expected = self.inventory.expected_gpus
        missing: tuple[str, ...] = ()
        if self._gpu_count is not None and self._gpu_count < expected:
            missing = tuple(gpu.uuid for gpu in self.inventory.gpus if gpu.uuid not in self._known)
        return NodeFacts(
            gpu_count=self._gpu_count,
            expected_gpus=expected,
            silent_seconds=silent,
            missing_gpus=missing,
        )

    def _place_pods(self, reading: GpuReading) -> GpuReading:
        pods = self._allocations.get(reading.uuid) if self._allocations else None
        return msgspec.structs.replace(reading, allocated_to=pods) if pods else reading

    def _name_gpu(self, occurrence: Occurrence) -> Occurrence:
        if occurrence.kind == "sxid" or (occurrence.gpu_uuid and occurrence.pci_bus_id):
            return occurrence
        for gpu in self.inventory.gpus:
            if gpu.uuid == occurrence.gpu_uuid or (
                occurrence.gpu_uuid is None and gpu.pci_bus_id == occurrence.pci_bus_id
            ):
                return Occurrence(
                    **{
                        **vars(occurrence),
                        "gpu_uuid": gpu.uuid,
                        "pci_bus_id": gpu.pci_bus_id or occurrence.pci_bus_id,
                    }
                )
        return occurrence

    def _is_changed(self) -> bool:
        return has_news(self._folding) or self._state() != self._sent_state

    def _state(self) -> object:
        nvml = self.nvml
        return (
            self.ledger.episodes,
            nvml.answering if nvml else None,
            tuple((gpu.uuid, gpu.error_code, gpu.pod_uids) for gpu in self.gpus),
        )
