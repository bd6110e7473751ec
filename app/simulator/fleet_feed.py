"""What the fleet hears from the simulator's control API, by long-polling it on two threads."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

log = structlog.get_logger()

TIMEOUT_SECONDS = 15.0
RETRY_SECONDS = 0.5


class GpuState(msgspec.Struct, frozen=True):
    """One GPU as the world says it is."""

    index: int
    uuid: str
    pci_bus_id: str
    serial: str = ""
    pod_uid: str | None = None
    pod_namespace: str | None = None
    pod_name: str | None = None
    pid: int | None = None
    activity_ratio: float = 0.0
    power_ratio: float | None = None
    lost: bool = False
    ecc_uncorrectable_total: int = 0
    remap_pending: bool = False
    remap_failure: bool = False
    recovery_action: int = 0
    ailments: dict[str, float] = {}


class NodeState(msgspec.Struct, frozen=True):
    """One node as the world says it is."""

    boot_id: str
    dead: bool = False
    nvml_hang: bool = False
    ailments: dict[str, float] = {}
    gpus: tuple[GpuState, ...] = ()


class NodesChanged(msgspec.Struct, frozen=True):
    """Answer of GET /simulator/gpus: the nodes that changed since a version."""

    version: int
    nodes: dict[str, NodeState]


class XidTold(msgspec.Struct, frozen=True):
    """One XID of the simulated kernel log."""

    sequence: int
    at: datetime
    node: str
    xid: int
    gpu_uuid: str | None = None
    pci_bus_id: str | None = None
    text: str = ""


class XidsTold(msgspec.Struct, frozen=True):
    """Answer of GET /simulator/xids."""

    last: int
    events: tuple[XidTold, ...] = ()


class Feed:
    """Hands every change of the world to `put`, from threads of its own, until `stop`."""

    def __init__(self, control_url: str, put: Callable[[Any], None], *, xids_after: int) -> None:
        self._address = urlsplit(control_url)
        self._put = put
        self._stopped = threading.Event()
        self._xids_after = xids_after
        self._nodes_are_known = threading.Event()

    def start(self) -> None:
        """Begin with everything there is."""
        for target, name in ((self._follow_nodes, "feed-nodes"), (self._follow_xids, "feed-xids")):
            threading.Thread(target=target, name=name, daemon=True).start()

    def stop(self) -> None:
        """End after the request under way."""
        self._stopped.set()

    def _follow_nodes(self) -> None:
        version: int | None = None

        def take(body: bytes) -> None:
            nonlocal version
            changed = msgspec.json.decode(body, type=NodesChanged)
            if changed.nodes:
                self._put(changed)
            version = changed.version
            self._nodes_are_known.set()

        self._follow(
            lambda: "/simulator/gpus" + ("" if version is None else f"?after={version}"), take
        )

    def _follow_xids(self) -> None:
        # An XID of a node that the fleet has not been told of would be lost.
        while not self._nodes_are_known.wait(1.0):
            if self._stopped.is_set():
                return
        after = self._xids_after

        def take(body: bytes) -> None:
            nonlocal after
            told = msgspec.json.decode(body, type=XidsTold)
            if told.last < after:
                log.info("the simulator began anew", last=told.last, after=after)
            if told.events:
                self._put(told)
            after = told.last

        self._follow(lambda: f"/simulator/xids?after={after}", take)

    def _follow(self, path: Callable[[], str], take: Callable[[bytes], None]) -> None:
        connection = http.client.HTTPConnection(
            self._address.hostname or "127.0.0.1", self._address.port, timeout=TIMEOUT_SECONDS
        )
        silent = False
        while not self._stopped.is_set():
            try:
                connection.request("GET", self._address.path.rstrip("/") + path())
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise http.client.HTTPException(f"status {answer.status}: {body[:200]!r}")
                take(body)
                if silent:
                    log.info("the simulator answers again")
                silent = False
            except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
                connection.close()
                if not silent:
                    log.warning("the simulator's control API does not answer", error=str(error))
                silent = True
                time.sleep(RETRY_SECONDS)
        connection.close()


def utc(at: datetime) -> datetime:
    """Return a time of the feed as aware UTC."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
