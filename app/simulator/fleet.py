"""The agents of a simulated cluster, all in one process: each node's is the agent's own code.

One thread polls, judges and spools; a few push over kept-alive connections; two hear the
simulator. Up to 256 nodes are polled each 5 s, more each 15 s; a node in which something other
than its load has changed is polled at once, and an XID goes out at once.
"""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from app.simulator.errors import SimulatorError
from app.simulator.fleet_feed import Feed, NodesChanged, XidsTold
from app.simulator.fleet_node import FleetNode, utc_now
from app.simulator.fleet_tokens import NodeToken
from app.simulator.nvml import SimulatedNvml, install
from collectors.agent import agent_version
from collectors.desk import CHANGE_GAP_SECONDS
from collectors.errors import SpoolError
from collectors.push import Sender, push_oldest
from k8s.client import Connection, connect

log = structlog.get_logger()

FEW_NODES = 256
POLL_SECONDS = 5.0
POLL_SECONDS_OF_MANY = 15.0
SLOW_SECONDS = 15.0
SLOW_SECONDS_OF_MANY = 60.0
SILENT_POLL_SECONDS = 1.0
"""How often the watchdog looks at a node whose NVML does not answer."""

FEWEST_PUSHERS = 6
MOST_PUSHERS = 48
NODES_A_PUSHER = 40
"""Ingest answers once a tick of 0.1 s, so a pusher delivers some 7 reports a second; 40 nodes send 2.7."""

BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_LONGEST_SECONDS = 10.0
ADDRESSES_WAIT_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 0.5


class _Addresses(msgspec.Struct, frozen=True):
    kubernetes_url: str
    control_url: str


class _Marks(msgspec.Struct, frozen=True):
    """What the fleet keeps over a restart: the last XID it was told."""

    control_url: str = ""
    last_xid: int = 0


_Turn = Literal["interval", "now", "report", "push"]
"""Why a node's turn has come: its poll of the interval, a poll at once, a report that waits for
the one before it, a push after a back-off."""


@dataclass(frozen=True)
class _Retry:
    node: FleetNode


class Fleet:
    """All agents. `run` returns after `stop`."""

    def __init__(
        self,
        directory: Path,
        *,
        control_url: str,
        ingest_url: str,
        connection: Connection,
        cluster: str = "default",
    ) -> None:
        self._directory = directory / "agents"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._ingest_url = ingest_url
        self._connection = connection
        self._cluster = cluster
        self._version = agent_version()
        self._library = SimulatedNvml()
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._to_push: queue.SimpleQueue[FleetNode | None] = queue.SimpleQueue()
        self._queue_lock = threading.Lock()
        self._nodes: dict[str, FleetNode] = {}
        self._pushers: list[threading.Thread] = []
        self._due: list[tuple[float, int, FleetNode, _Turn]] = []
        self._numbers = itertools.count()
        self._interval_seconds = POLL_SECONDS
        self._stopped = threading.Event()
        self._marks = self._read_marks(control_url)
        self._feed = Feed(control_url, self._inbox.put, xids_after=self._marks.last_xid)

    def stop(self) -> None:
        """Ask `run` to return; safe from a signal handler and from other threads."""
        self._stopped.set()
        self._inbox.put(None)

    def run(self) -> None:
        """Work until `stop`."""
        install(self._library)
        self._add_pushers()
        self._feed.start()
        log.info("the simulated agents have started", ingest=self._ingest_url)
        try:
            while not self._stopped.is_set():
                self._run_due()
                self._hear()
        finally:
            self._feed.stop()
            for _ in self._pushers:
                self._to_push.put(None)
            for thread in self._pushers:
                thread.join(2.0)

    def _run_due(self) -> None:
        while self._due and not self._stopped.is_set():
            at = time.monotonic()
            if self._due[0][0] > at:
                return
            _, _, node, turn = heapq.heappop(self._due)
            self._step(node, turn, at)
            if turn == "interval":
                pause = SILENT_POLL_SECONDS if node.waiting else self._interval_seconds
                self._schedule(node, at + pause, "interval")
            if not self._inbox.empty():
                return

    def _step(self, node: FleetNode, turn: _Turn, at: float) -> None:
        if node.dead:
            return
        now = utc_now()
        try:
            if turn in ("interval", "now"):
                node.poll(at=at, now=now)
            if node.report(at=at, now=now) or (turn == "push" and len(node.spool)):
                self._offer(node)
        except SpoolError as error:
            log.error("an agent cannot write", node=node.name, error=str(error))
        next_at = node.next_report_at(at=at)
        if turn != "push" and at < next_at < at + CHANGE_GAP_SECONDS:
            self._schedule(node, next_at, "report")

    def _schedule(self, node: FleetNode, at: float, turn: _Turn) -> None:
        heapq.heappush(self._due, (at, next(self._numbers), node, turn))

    def _hear(self) -> None:
        wait = LONGEST_WAIT_SECONDS
        if self._due:
            wait = min(wait, max(self._due[0][0] - time.monotonic(), 0.0))
        try:
            item = self._inbox.get(timeout=max(wait, 0.001))
            while item is not None:
                if isinstance(item, NodesChanged):
                    self._take_nodes(item)
                elif isinstance(item, XidsTold):
                    self._take_xids(item)
                elif isinstance(item, _Retry):
                    self._schedule(item.node, item.node.push.not_before, "push")
                item = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _take_nodes(self, changed: NodesChanged) -> None:
        at = time.monotonic()
        fresh = [name for name in changed.nodes if name not in self._nodes]
        if fresh:
            many = len(self._nodes) + len(fresh) > FEW_NODES
            self._interval_seconds = POLL_SECONDS_OF_MANY if many else POLL_SECONDS
        # First polls are spread over an interval, so that the load stays even ever after.
        spread = self._interval_seconds / max(len(fresh), 1)
        places = {name: place for place, name in enumerate(fresh)}
        for name, state in changed.nodes.items():
            node = self._nodes.get(name)
            if node is None:
                directory = self._directory / name
                node = self._nodes[name] = FleetNode(
                    name,
                    state,
                    cluster=self._cluster,
                    agent_version=self._version,
                    directory=directory,
                    library=self._library,
                    token=NodeToken(self._connection, name),
                    slow_interval_seconds=(
                        SLOW_SECONDS
                        if self._interval_seconds == POLL_SECONDS
                        else SLOW_SECONDS_OF_MANY
                    ),
                )
                self._schedule(node, at + places[name] * spread, "interval")
                if len(node.spool):
                    self._offer(node)
            elif node.apply(state):
                self._schedule(node, at, "now")
                if node.hangs:
                    # The watchdog must not wait for the next interval to look.
                    self._schedule_silent(node, at)

        self._add_pushers()

    def _add_pushers(self) -> None:
        wanted = min(max(len(self._nodes) // NODES_A_PUSHER, FEWEST_PUSHERS), MOST_PUSHERS)
        while len(self._pushers) < wanted:
            name = f"push-{len(self._pushers)}"
            self._pushers.append(threading.Thread(target=self._push, name=name, daemon=True))
            self._pushers[-1].start()

    def _schedule_silent(self, node: FleetNode, at: float) -> None:
        for second in range(1, int(self._interval_seconds) + 1):
            self._schedule(node, at + second, "now")

    def _take_xids(self, told: XidsTold) -> None:
        at, now = time.monotonic(), utc_now()
        for event in told.events:
            node = self._nodes.get(event.node)
            if node is not None:
                node.take_xid(event, now=now)
                self._schedule(node, at, "now")
        self._marks = msgspec.structs.replace(self._marks, last_xid=told.last)
        (self._directory / "marks.json").write_bytes(msgspec.json.encode(self._marks))

    def _offer(self, node: FleetNode) -> None:
        """Give a node's spool to a pusher; never to two, so that reports stay in order."""
        with self._queue_lock:
            if node.queued:
                return
            node.queued = True
        self._to_push.put(node)

    def _push(self) -> None:
        sender = Sender(self._ingest_url)
        while (node := self._to_push.get()) is not None:
            self._push_node(node, sender)
        sender.close()

    def _push_node(self, node: FleetNode, sender: Sender) -> None:
        at = time.monotonic()
        try:
            while (
                not node.dead
                and at >= node.push.not_before
                and push_oldest(
                    node.spool,
                    node.push,
                    sender=sender,
                    token=node.token,
                    at=at,
                    first_seconds=BACKOFF_FIRST_SECONDS,
                    longest_seconds=BACKOFF_LONGEST_SECONDS,
                    on_receipt=node.receipts.append,
                    node=node.name,
                )
            ):
                at = time.monotonic()
        except SpoolError as error:
            log.error("an agent's spool cannot be read", node=node.name, error=str(error))
        with self._queue_lock:
            node.queued = False
        if len(node.spool) and not node.dead:
            if node.push.not_before > time.monotonic():
                self._inbox.put(_Retry(node))
            else:
                self._offer(node)  # a report came between the last look and here

    def _read_marks(self, control_url: str) -> _Marks:
        try:
            marks = msgspec.json.decode((self._directory / "marks.json").read_bytes(), type=_Marks)
        except (OSError, msgspec.DecodeError):
            return _Marks(control_url)
        # Another simulator counts its own XIDs.
        return marks if marks.control_url == control_url else _Marks(control_url)


def run(directory: Path, ingest_url: str | None = None, *, cluster: str | None = None) -> None:
    """Run the agents of the simulator whose simulator.json is in `directory` until SIGTERM.

    Ingest is `ingest_url` or PITWALL_INGEST_URL, the cluster PITWALL_CLUSTER. Raises
    SimulatorError when the simulator has not started within a minute.
    """
    addresses = _wait_for_addresses(directory)
    fleet = Fleet(
        directory,
        control_url=addresses.control_url,
        ingest_url=ingest_url or os.environ.get("PITWALL_INGEST_URL", "http://127.0.0.1:8470"),
        connection=connect(directory / "kubeconfig"),
        cluster=cluster or os.environ.get("PITWALL_CLUSTER", "default"),
    )
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: fleet.stop())
    fleet.run()


def _wait_for_addresses(directory: Path) -> _Addresses:
    path = directory / "simulator.json"
    deadline = time.monotonic() + ADDRESSES_WAIT_SECONDS
    while True:
        try:
            return msgspec.json.decode(path.read_bytes(), type=_Addresses)
        except (OSError, msgspec.DecodeError) as error:
            if time.monotonic() >= deadline:
                raise SimulatorError(
                    f"{path} is not there: start the simulator with --directory {directory} first."
                ) from error
        time.sleep(0.1)
