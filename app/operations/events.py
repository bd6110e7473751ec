"""Tells the cluster of each write: an Event on the node or the workload, naming the operation and the person.

They go out beside the operation, in a thread of their own: an Event that can't be written is dropped and
said once, and stops nothing.
"""

import queue
import threading
from datetime import datetime

import structlog

from app.operations.model import (
    CORDON,
    EVICT,
    FORCE_DELETE,
    IN_SERVICE,
    OUT_OF_SERVICE,
    RESUME,
    SUSPEND,
    UNCORDON,
    Operation,
    Step,
)
from k8s.client import Connection
from k8s.errors import KubernetesError
from k8s.events import Note, Subject, write_event
from k8s.resources import NODES, PODS
from k8s.view import ClusterView
from k8s.workloads import owner_of
from k8s.workloads.kind import Workload

log = structlog.get_logger()

COMPONENT = "pitwall.dev/worker"
MOST_WAITING = 2_000
"""Events that wait to be written; beyond it the newest are dropped: they are a courtesy, the audit is not."""

STOP_SECONDS = 5.0

REASONS = {
    CORDON: "PitwallCordoned",
    UNCORDON: "PitwallUncordoned",
    EVICT: "PitwallEvicted",
    SUSPEND: "PitwallSuspended",
    RESUME: "PitwallResumed",
    FORCE_DELETE: "PitwallForceDeleted",
    OUT_OF_SERVICE: "PitwallOutOfService",
    IN_SERVICE: "PitwallBackInService",
}
GRAVE = frozenset({FORCE_DELETE, OUT_OF_SERVICE})


def note_of(
    operation: Operation,
    step: Step,
    *,
    message: str,
    author: str,
    view: ClusterView,
    now: datetime,
) -> Note | None:
    """The Event on a step that wrote; None for a step that has none, or whose object was never seen."""
    reason = REASONS.get(step.name)
    about, related = _subjects(step, view)
    if reason is None or about is None:
        return None
    why = f": {operation.reason}" if operation.reason else ""
    text = f"{message.rstrip('.')} ({operation.kind} {operation.id} for {author}{why})"
    return Note(
        about,
        reason=reason,
        action=step.name,
        text=text,
        at=now,
        related=related,
        warning=step.name in GRAVE,
    )


def _subjects(step: Step, view: ClusterView) -> tuple[Subject | None, Subject | None]:
    """What the Event is about, and what it names beside: an evicted pod's is its workload's, else its node's."""
    if step.name in (SUSPEND, RESUME):
        workload = view.workloads.get(step.uid)
        return (_workload(workload), None) if workload is not None else (None, None)
    node = view.nodes.get(step.node)
    host = Subject.of(NODES, step.node, node.metadata.uid) if node is not None else None
    if step.name not in (EVICT, FORCE_DELETE):
        return host, None
    _, namespace, name = step.target.split("/", 2)
    taken = Subject.of(PODS, name, step.uid, namespace=namespace)
    pod = view.pods.get(step.uid)
    owner = owner_of(pod, view) if pod is not None else None
    return (_workload(owner) if owner is not None else host), taken


def _workload(workload: Workload) -> Subject:
    return Subject(
        workload.api_version, workload.kind, workload.name, workload.uid, workload.namespace
    )


class EventWriter:
    """Owns the thread that writes Events."""

    def __init__(self, connection: Connection, *, instance: str) -> None:
        """instance: which worker this is."""
        self._connection = connection
        self._instance = instance
        self._waiting: queue.Queue[Note | None] = queue.Queue(MOST_WAITING)
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def write(self, note: Note | None) -> None:
        """Hands an Event over; returns at once, whatever becomes of it."""
        if note is None:
            return
        try:
            self._waiting.put_nowait(note)
        except queue.Full:
            self._failed("too many wait to be written")

    def close(self) -> None:
        """Writes what waits, for STOP_SECONDS at most, and ends the thread."""
        try:
            self._waiting.put(None, timeout=STOP_SECONDS)
        except queue.Full:
            return
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while (note := self._waiting.get()) is not None:
            try:
                write_event(self._connection, note, component=COMPONENT, instance=self._instance)
            except KubernetesError as error:
                self._failed(str(error))
            else:
                if self._failing:
                    self._failing = False
                    log.info("events are written again")

    def _failed(self, error: str) -> None:
        if not self._failing:
            self._failing = True
            log.warning("an event was not written; operations go on", error=error)
