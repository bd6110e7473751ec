"""What the reconciler reads and decides: an operation, its memory, its steps, and the four decisions.

Everything here is frozen and knows neither the store nor Kubernetes' API, so that every decision can
be made, and tested, without either.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from k8s.view import ClusterView
from k8s.workloads.kind import Workload

ANNOTATION = "pitwall.dev/operation"

# Step names. A step is unique by (operation, name, target, uid).
CORDON = "cordon"
EVICT = "evict"
SUSPEND = "suspend"
RESUME = "resume"
FORCE_DELETE = "force_delete"
CONFIRM_EMPTY = "confirm_empty"
OUT_OF_SERVICE = "out_of_service"  # the taint, on a node that a person confirmed to be off
IN_SERVICE = "in_service"  # the taint's removal
BREAK_GLASS = frozenset({FORCE_DELETE, OUT_OF_SERVICE, IN_SERVICE})

# Names of choices that other modules read.
POWER_OFF = "confirm_power_off"
TAKE_OVER = "take_over"
GIVE_BACK = "give_back"  # stop, and uncordon what was cordoned
UNCORDON = "uncordon"
AWAIT_STOPPED = "await_stopped"
AWAIT_RETURNED = "await_returned"

# Verdicts on a workload. The last five are settled: nothing more is awaited.
WAITING = "Waiting"
RESTARTING = "Restarting"
WAITING_FOR_CAPACITY = "Waiting for capacity"
RETURNED = "Returned"
FINISHED = "Finished"
REMOVED = "Removed"
FAILED = "Failed"
LEFT = "Left"
SETTLED = frozenset({RETURNED, FINISHED, REMOVED, FAILED, LEFT})
GOOD = frozenset({RETURNED, FINISHED, REMOVED, LEFT})  # LEFT: as its owner put it


class Options(msgspec.Struct, frozen=True):
    """How an operation goes about it, as the person asked."""

    mode: str = "now"  # now, checkpoint, complete, deadline
    modes: dict[str, str] = {}  # namespace/name of a pod or workload -> its mode, where it differs
    delete_emptydir_data: bool = False
    force: bool = False
    accept_no_capacity: tuple[str, ...] = ()  # names of jobs that may go though nothing fits
    accept_protected: tuple[str, ...] = ()  # names of protected things that a person has typed
    spacing_seconds: float = 0.0  # between the units that begin to move
    units_at_once: int = 0  # on the move; 0: as many as there are
    job: str = ""  # uid of the workload, for reschedule
    pods: tuple[str, ...] = ()  # uids that a reschedule moves, fixed when it was accepted


class NodeFacts(msgspec.Struct, frozen=True):
    """What the store says of a node, for the plan."""

    block: str | None = None
    rack: str | None = None
    health: str = "Unknown"
    service: str = "In service"


class Wish(msgspec.Struct, frozen=True):
    """What is asked for, checked: the nodes exist, the workload is known."""

    action: str  # drain, reschedule
    nodes: tuple[str, ...]
    options: Options
    deadline_seconds: float | None = None
    workload: Workload | None = None  # of a reschedule
    past_limits: frozenset[str] = frozenset()  # names of limits that a person has typed
    automatic: bool = False  # nobody asked for it

    @property
    def evicts_nothing(self) -> bool:
        """True for a drain that cordons, and lets every pod run to its end."""
        named = {self.options.mode, *self.options.modes.values()}
        return self.action == "drain" and named == {"complete"}


class MovedPod(msgspec.Struct, frozen=True):
    """A pod that this operation makes move: its rank comes back under another UID."""

    name: str
    node: str
    rank: int | None = None


class Unit(msgspec.Struct, frozen=True):
    """What is remembered of a workload that has pods on the nodes: it moves once, as one unit."""

    namespace: str
    name: str
    kind: str
    path: str  # evict, suspend_resume
    watched: bool = True  # False for an owner that is only named: nothing tells that it went
    moved: dict[str, MovedPod] = {}
    ready_before: int = 0
    generation_before: int = 0  # when the suspend was claimed: a view at that generation is late
    waiting_since: datetime | None = None
    stopped_since: datetime | None = None
    suspended_by_others: bool = False  # before this operation suspended it
    resumed_by_others: bool = False  # after it did
    verdict: str = WAITING
    message: str = ""


class Choice(msgspec.Struct, frozen=True):
    """What a person chose while the operation was Blocked."""

    name: str
    subject: str
    by: str
    at: datetime
    groups: tuple[str, ...] | None = None  # of who chose, as their token said


class Memory(msgspec.Struct, frozen=True):
    """What must be known after a restart and can't be observed. Stored with each claim and each look."""

    units: dict[str, Unit] = {}  # by workload uid
    pods: dict[str, str] = {}  # uid -> node, of every pod that had to go
    cordon_seen: tuple[str, ...] = ()  # nodes whose cordon the view has shown
    was_unschedulable: dict[str, bool] = {}  # as the cordon's answer said
    retry_at: dict[str, datetime] = {}  # "name:uid" -> not before
    waiting_since: dict[str, datetime] = {}  # what is waited for -> since
    begun: dict[str, datetime] = {}  # units that move, and since when: see turns
    choices: tuple[Choice, ...] = ()
    stopped: str = ""  # why the operation stops by itself, one sentence
    failed: bool = False  # it stops because it failed, not because somebody wanted it


class StepRow(msgspec.Struct, frozen=True):
    """A step as the store has it. state: claimed, done, waiting, failed."""

    name: str
    target: str
    uid: str
    state: str
    attempts: int = 1
    message: str = ""
    started_at: datetime | None = None


StepKey = tuple[str, str]  # (name, uid)


class Operation(msgspec.Struct, frozen=True):
    """An open operation as the reconciler reads it."""

    id: str
    cluster: str
    kind: str  # drain, reschedule, uncordon
    subject: str
    nodes: tuple[str, ...]
    options: Options
    author: str
    created_at: datetime
    reason: str = ""
    state: str = "Running"
    deadline_at: datetime | None = None
    cancel_requested_by: str | None = None
    author_groups: tuple[str, ...] | None = None
    cancel_groups: tuple[str, ...] | None = None
    memory: Memory = Memory()
    steps: Mapping[StepKey, StepRow] = {}

    def step(self, name: str, uid: str) -> StepRow | None:
        """The row of that step, or None when it was never claimed."""
        return self.steps.get((name, uid))

    def done(self, name: str, uid: str) -> bool:
        """True once the step's answer says it is done."""
        row = self.steps.get((name, uid))
        return row is not None and row.state == "done"


class Observed(msgspec.Struct, frozen=True):
    """What was seen of the world when a decision is made.

    health: of nodes, from the store: name -> (health, reason). Missing means Unknown.
    activity: highest utilisation (ratio) of the GPUs that a pod holds, by pod uid, as agents told.
    pause: the sentence of the pause that holds, "" for none.
    """

    view: ClusterView
    health: Mapping[str, tuple[str, str]] = {}
    activity: Mapping[str, float | None] = {}
    pause: str = ""

    def health_of(self, node: str) -> tuple[str, str]:
        """Health and its reason; ("Unknown", ...) when nothing was ever told."""
        return self.health.get(node, ("Unknown", "no report yet"))


class Step(msgspec.Struct, frozen=True):
    """One idempotent call. target is Kind/namespace/name (or Kind/name), uid pins the object."""

    name: str
    target: str
    uid: str
    message: str = ""
    node: str = ""  # where the object is, for calls that need it


class Awaited(msgspec.Struct, frozen=True):
    """Something waited for that shows as a step of its own."""

    name: str
    target: str
    uid: str
    message: str
    done: bool = False


class Offer(msgspec.Struct, frozen=True):
    """A choice offered while Blocked. confirmation: the words that must be typed, "" for none."""

    name: str
    label: str
    warning: str
    subject: str = ""
    confirmation: str = ""


class Progress(msgspec.Struct, frozen=True):
    """What people see of an operation between its steps."""

    nodes_state: dict[str, str] = {}
    workloads_state: dict[str, dict[str, str]] = {}
    pods_total: int = 0
    pods_done: int = 0
    awaited: tuple[Awaited, ...] = ()


class Act(msgspec.Struct, frozen=True):
    """Take these steps now; they do not depend on each other."""

    steps: tuple[Step, ...]
    message: str
    memory: Memory
    progress: Progress = Progress()


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do until the world moves. held: something stands in the way (state Waiting)."""

    message: str
    memory: Memory
    progress: Progress = Progress()
    held: bool = False


class Blocked(msgspec.Struct, frozen=True):
    """A person must choose."""

    message: str
    choices: tuple[Offer, ...]
    memory: Memory
    progress: Progress = Progress()


class Ended(msgspec.Struct, frozen=True):
    """The operation is over. state: Succeeded, Failed, Cancelled."""

    state: str
    message: str
    memory: Memory
    progress: Progress = Progress()


Decision = Act | Wait | Blocked | Ended
