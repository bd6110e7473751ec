"""A tiny cluster in memory for the reconciler's state machine: just enough of Kubernetes, and its faults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from types import MappingProxyType

import msgspec
from cluster_builders import NOW, job, node, pod, view

from app.operations.model import (
    Act,
    Choice,
    Decision,
    Ended,
    Memory,
    Observed,
    Operation,
    Options,
    Step,
    StepRow,
)
from app.operations.reconciliation import next_step
from k8s.view import ClusterView

GRACE_SECONDS = 30
OPERATION = "op1"
OTHER = "op2"  # a second operator's
# Answers that come instead of the real one, and whether the call had its effect all the same.
FAULTS = {
    "time-out before the effect": ("waiting", False),
    "time-out after the effect": ("waiting", True),
    "409": ("waiting", False),
    "429": ("waiting", False),
    "500": ("waiting", False),
    "504": ("waiting", False),
    "504 after the effect": ("waiting", True),
    "403": ("failed", False),
}


@dataclass
class ModelNode:
    ready: bool = True
    cordoned: bool = False
    hold: bool | None = None  # the annotation: was it cordoned before
    holder: str = OPERATION  # the operation that the annotation names
    given_up: bool = False  # our out-of-service taint
    boots: int = 1


@dataclass
class ModelPod:
    name: str
    owner: str | None
    node: str
    rank: int | None = None
    ready: bool = True
    daemonset: bool = False
    mirror: bool = False
    deleted_at: datetime | None = None

    @property
    def stays(self) -> bool:
        """True for what no drain takes."""
        return self.daemonset or self.mirror


@dataclass
class ModelJob:
    gang: bool
    ranks: int
    suspended: bool = False
    holder: str | None = None  # our annotation
    generation: int = 1
    starts: int = 0  # how often somebody let it run after a stop


@dataclass
class ModelWorld:
    """What is there, what was done to it, and one operation on it."""

    now: datetime = NOW
    nodes: dict[str, ModelNode] = field(default_factory=dict)
    pods: dict[str, ModelPod] = field(default_factory=dict)
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    budget_closed: bool = False
    evicted: list[str] = field(default_factory=list)
    suspended: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    uncordoned: list[str] = field(default_factory=list)
    foreign_cordons: set[str] = field(default_factory=set)
    names: count = field(default_factory=count)  # type: ignore[type-arg]

    def place(self) -> None:
        """The Job controller and the scheduler: missing pods of jobs that run, on nodes that take them."""
        for name, work in self.jobs.items():
            if work.suspended:
                continue
            live = [each for each in self.pods.values() if each.owner == name]
            for rank in (
                range(work.ranks - len(live)) if not work.gang else self._missing(work, live)
            ):
                where = self._free_node()
                if where is None:
                    return
                number = next(self.names)
                self.pods[f"pod-{name}-{number}"] = ModelPod(
                    f"{name}-{number}", name, where, rank if work.gang else None
                )

    @staticmethod
    def _missing(work: ModelJob, live: list[ModelPod]) -> list[int]:
        return [rank for rank in range(work.ranks) if rank not in {each.rank for each in live}]

    def _free_node(self) -> str | None:
        used = {each.node for each in self.pods.values() if not each.stays}
        free = [
            name
            for name, each in self.nodes.items()
            if each.ready and not each.cordoned and not each.given_up and name not in used
        ]
        return free[0] if free else None

    def end_pods(self) -> None:
        """The kubelets that answer: pods told to go are gone."""
        for uid, each in list(self.pods.items()):
            host = self.nodes[each.node]
            if (host.given_up and not each.stays) or (
                each.deleted_at is not None and host.ready
            ):  # the taint: by its kubelet, else by the collector
                del self.pods[uid]

    def stop_pods(self, name: str) -> None:
        """The Job controller on a suspended job."""
        for each in self.pods.values():
            if each.owner == name and each.deleted_at is None:
                each.deleted_at = self.now + timedelta(seconds=GRACE_SECONDS)

    def see(self) -> ClusterView:
        """What the watches show."""
        objects: list[object] = []
        for name, each in self.nodes.items():
            text = ""
            if each.hold is not None:
                text = f'{{"operation": "{each.holder}", "was_unschedulable": {str(each.hold).lower()}}}'
            objects.append(
                node(
                    name,
                    ready=each.ready,
                    cordoned=each.cordoned,
                    hold=text,
                    given_up_by=OPERATION if each.given_up else "",
                    boot_id=f"boot-{each.boots}",
                )
            )
        for name, work in self.jobs.items():
            own = [each for each in self.pods.values() if each.owner == name]
            ending = sum(each.deleted_at is not None for each in own)
            made = job(
                name,
                ranks=work.ranks,
                gang=work.gang,
                suspended_by=work.holder,
                active=len(own) - ending,
                terminating=ending,
                generation=work.generation,
            )
            spec = msgspec.structs.replace(made.spec, suspend=work.suspended)
            objects.append(msgspec.structs.replace(made, spec=spec))
        for uid, each in self.pods.items():
            objects.append(
                pod(
                    each.name,
                    each.node,
                    owner=each.owner,
                    rank=each.rank,
                    ready=each.ready,
                    uid=uid,
                    deleted_at=each.deleted_at,
                    daemonset=each.daemonset,
                    annotations={"kubernetes.io/config.mirror": "x"} if each.mirror else None,
                )
            )
        return replace(view(*objects), observed_at=self.now)

    # --- what calls do, as k8s/ does it ---

    def call(self, step: Step) -> tuple[str, str]:
        """State and message of an answer; the effect is there when it returns."""
        return getattr(self, f"_{step.name}")(step)

    def _cordon(self, step: Step) -> tuple[str, str]:
        found = self.nodes[step.node]
        if found.hold is not None and found.holder != OPERATION:
            return "failed", f"held by {found.holder}"
        if found.hold is None:
            found.hold, found.holder = found.cordoned, OPERATION
        found.cordoned = True
        return "done", ""

    def _uncordon(self, step: Step) -> tuple[str, str]:
        found = self.nodes[step.node]
        if found.hold is None or found.holder != OPERATION:
            return "done", "held by no operation, or another"
        if found.cordoned and not found.hold:
            found.cordoned = False
            self.uncordoned.append(step.node)
        found.hold = None
        return "done", ""

    def _evict(self, step: Step) -> tuple[str, str]:
        found = self.pods.get(step.uid)
        if found is None or found.deleted_at is not None:
            return "done", "gone"
        if self.budget_closed:
            return "waiting", "budget"
        found.deleted_at = self.now + timedelta(seconds=GRACE_SECONDS)
        self.evicted.append(step.uid)
        return "done", ""

    def _suspend(self, step: Step) -> tuple[str, str]:
        work = self.jobs.get(step.uid.removeprefix("job-"))
        if work is None:
            return "done", "gone"
        if work.suspended or work.holder == OPERATION:
            return ("done", "already") if work.suspended and work.holder else ("waiting", "foreign")
        work.suspended, work.holder = True, OPERATION
        work.generation += 1
        self.suspended.append(step.uid)
        self.stop_pods(step.uid.removeprefix("job-"))
        return "done", ""

    def _resume(self, step: Step) -> tuple[str, str]:
        work = self.jobs.get(step.uid.removeprefix("job-"))
        if work is None:
            return "done", "gone"
        if work.holder != OPERATION:
            return ("failed", "foreign") if work.suspended else ("done", "not suspended")
        if work.suspended:
            work.suspended = False
            work.generation += 1
            work.starts += 1
            self.resumed.append(step.uid)
        work.holder = None
        return "done", ""

    def _force_delete(self, step: Step) -> tuple[str, str]:
        found = self.pods.get(step.uid)
        if found is None:
            return "done", "gone"
        if self.nodes[found.node].ready:
            return "failed", "it answers again"
        assert found.deleted_at is not None
        assert self.nodes[found.node].given_up, "a pod is given up only with its node"
        del self.pods[step.uid]
        return "done", ""

    def _out_of_service(self, step: Step) -> tuple[str, str]:
        found = self.nodes[step.node]
        if found.ready:
            return "failed", "it answers again"
        found.given_up = True
        return "done", ""

    def _in_service(self, step: Step) -> tuple[str, str]:
        self.nodes[step.node].given_up = False
        return "done", ""

    def _confirm_empty(self, step: Step) -> tuple[str, str]:
        there = [p for p in self.pods.values() if p.node == step.node and not p.stays]
        return ("waiting", "not empty") if there else ("done", "")


@dataclass
class ModelOperation:
    """The stored side: an operation as the store keeps it, and the worker's turns on it."""

    world: ModelWorld
    operation: Operation
    view: ClusterView
    last: Decision | None = None
    pause: str = ""

    @property
    def ended(self) -> bool:
        return isinstance(self.last, Ended)

    def turn(
        self,
        *,
        die_at: int | None = None,
        faults: Mapping[int, str] = MappingProxyType({}),
        leased_calls: int | None = None,
    ) -> None:
        """One look with the view as last seen.

        die_at: even, before the n/2-th call; odd, right after it. faults: by number of the call, what is
        answered instead. leased_calls: after so many the lease is lost, so that none follows.
        """
        if self.ended or leased_calls == 0:
            return
        decision = next_step(
            self.operation,
            Observed(replace(self.view, observed_at=self.world.now), pause=self.pause),
            self.world.now,
        )
        self.last = decision
        self.operation = msgspec.structs.replace(self.operation, memory=decision.memory)
        if not isinstance(decision, Act):
            return
        for step in decision.steps:
            self._row(step, "claimed", "")
        for number, step in enumerate(decision.steps):
            if die_at == 2 * number or leased_calls == number:
                return
            state, message = self._call(step, faults.get(number))
            if die_at == 2 * number + 1:
                return
            self._row(step, state, message)
            retry = {
                k: v
                for k, v in self.operation.memory.retry_at.items()
                if k != f"{step.name}:{step.uid}"
            }
            if state == "waiting":
                retry[f"{step.name}:{step.uid}"] = self.world.now + timedelta(seconds=5)
            self._remember(retry_at=retry)

    def _call(self, step: Step, fault: str | None) -> tuple[str, str]:
        if fault is None:
            return self.world.call(step)
        state, has_effect = FAULTS[fault]
        if has_effect:
            self.world.call(step)
        return state, fault

    def choose(self, number: int) -> None:
        """A person takes one of what is offered."""
        choices = getattr(self.last, "choices", ())
        if not choices:
            return
        offer = choices[number % len(choices)]
        made = Choice(offer.name, offer.subject, "ada", self.world.now)
        self._remember(choices=(*self.operation.memory.choices, made))

    def cancel(self) -> None:
        self.operation = msgspec.structs.replace(self.operation, cancel_requested_by="bob")

    def _row(self, step: Step, state: str, message: str) -> None:
        row = StepRow(step.name, step.target, step.uid, state, 1, message, self.world.now)
        self.operation = msgspec.structs.replace(
            self.operation, steps={**self.operation.steps, (step.name, step.uid): row}
        )

    def _remember(self, **changes: object) -> None:
        memory = msgspec.structs.replace(self.operation.memory, **changes)
        self.operation = msgspec.structs.replace(self.operation, memory=memory)


def begin(world: ModelWorld, *nodes: str, options: Options) -> ModelOperation:
    """A drain of these nodes, just accepted."""
    operation = Operation(
        id=OPERATION,
        cluster="test",
        kind="drain",
        subject="",
        nodes=nodes,
        options=options,
        author="ada",
        created_at=world.now,
        memory=Memory(),
    )
    return ModelOperation(world, operation, world.see())
