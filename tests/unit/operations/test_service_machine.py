"""A node's service state under any order of cordons, drains, repairs, boots, findings, time and restarts."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cluster_builders import NOW, node, view
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.operations.model import NodeFacts
from app.operations.service import (
    DRAINED,
    IN_SERVICE,
    PROBATION,
    UNDER_REPAIR,
    Holding,
    Repair,
    Seen,
    Service,
    next_service,
)
from app.operations.spares import no_spares

PROBATION_SECONDS = 3600.0


@dataclass
class Truth:
    """What is so, whether the worker looks or not."""

    now: datetime = NOW
    cordoned: bool = False
    hold: str | None = None  # the operation that our annotation names
    open_drain: str | None = None  # state of the node in it
    drains: int = 0
    ended: dict[str, str] = field(default_factory=dict)  # operation -> state of the node at its end
    repair: bool = False
    health: str = "Healthy"
    health_since: datetime = NOW - timedelta(days=1)
    gpu_pods: bool = False
    clean_from: datetime = NOW  # since the last finding, or the last uncordon that was seen


class ServiceMachine(RuleBasedStateMachine):
    """The worker looks after each event while it is up; the properties hold at each look."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.state: Service | None = None
        self.up = True

    @initialize(
        begin=st.sampled_from(["new", "drained", "on probation", "on probation", "repaired"])
    )
    def begin(self, begin: str) -> None:
        if begin in ("drained", "repaired"):
            self.truth.drains, self.truth.cordoned, self.truth.hold = 1, True, "op1"
            self.truth.ended["op1"] = "Drained"
            self.truth.repair = begin == "repaired"
        elif begin == "on probation":
            self.state = Service(PROBATION, owes_probation=True)

    # --- the world ---

    @rule()
    def foreign_cordon(self) -> None:
        self.truth.cordoned = True

    @rule(keeps_annotation=st.booleans())
    def foreign_uncordon(self, keeps_annotation: bool) -> None:
        if self.truth.cordoned and self.up:
            self.truth.clean_from = self.truth.now
        self.truth.cordoned = False
        if not keeps_annotation:
            self.truth.hold = None

    @rule()
    def annotation_is_lost(self) -> None:
        self.truth.hold = None

    @rule(steps=st.integers(1, 3))
    def a_drain_goes_on(self, steps: int) -> None:
        truth = self.truth
        if truth.open_drain is None:
            truth.drains += 1
            truth.open_drain = "Cordoning"
            steps -= 1
        for _ in range(steps):
            truth.cordoned, truth.hold = True, f"op{truth.drains}"
            if truth.open_drain == "Draining":
                truth.open_drain, truth.gpu_pods = "Drained", False
            elif truth.open_drain == "Cordoning":
                truth.open_drain = "Draining"

    @precondition(lambda self: self.truth.open_drain is not None)
    @rule(gives_back=st.booleans())
    def the_drain_ends(self, gives_back: bool) -> None:
        truth = self.truth
        assert truth.open_drain is not None
        if gives_back and truth.open_drain != "Drained":
            truth.open_drain, truth.cordoned, truth.hold = "Given back", False, None
            truth.clean_from = truth.now if self.up else truth.clean_from
        truth.ended[f"op{truth.drains}"] = truth.open_drain
        truth.open_drain = None

    @precondition(lambda self: self.truth.cordoned and self.truth.open_drain is None)
    @rule()
    def a_person_repairs(self) -> None:
        self.truth.repair = True

    @precondition(lambda self: not self.truth.cordoned)
    @rule()
    def a_pod_lands(self) -> None:
        self.truth.gpu_pods = True

    @rule(health=st.sampled_from(["Degraded", "Failing", "Unknown"]))
    def something_is_found(self, health: str) -> None:
        if health != self.truth.health:
            self.truth.health, self.truth.health_since = health, self.truth.now
            self.truth.clean_from = self.truth.now

    @rule()
    def all_is_well(self) -> None:
        if self.truth.health != "Healthy":
            self.something_is_found("Healthy")

    @rule(seconds=st.sampled_from([1, 1800, 3599]))
    def time_passes(self, seconds: int) -> None:
        self.truth.now += timedelta(seconds=seconds)

    @rule()
    def an_hour_passes(self) -> None:
        self.time_passes(3600)

    @rule()
    def the_node_object_is_made_anew(self) -> None:
        self.truth = Truth(now=self.truth.now, drains=self.truth.drains, ended=self.truth.ended)
        self.state = None

    @precondition(lambda self: self.state is not None and self.state.state == PROBATION)
    @rule()
    def a_person_ends_the_probation(self) -> None:
        assert self.state is not None
        self.state = Service(self.state.state, owes_probation=False)

    # --- the worker ---

    def worker_restarts(self) -> None:
        """What is kept of a state is what the store has: no reason is needed."""
        if self.state is not None:
            was = self.state
            self.state = Service(
                was.state, "", was.operation_id, was.owes_probation, was.clean_since
            )

    @rule()
    def worker_goes_or_comes(self) -> None:
        self.up = not self.up
        if self.up:
            self.worker_restarts()

    @invariant()
    def worker_looks(self) -> None:
        truth = self.truth
        if not self.up:
            return
        hold = f'{{"operation": "{truth.hold}", "was_unschedulable": false}}' if truth.hold else ""
        ended = truth.ended.get(truth.hold or "")
        look = Seen(
            node("a", cordoned=truth.cordoned, hold=hold),
            Holding(f"op{truth.drains}", "drain", truth.open_drain, True)
            if truth.open_drain
            else None,
            Holding(truth.hold or "", "drain", ended, False) if ended else None,
            repair=Repair("ada") if truth.repair else None,
            health=truth.health,
            health_since=truth.health_since,
            heard=truth.health != "Unknown",
            gpu_pods=truth.gpu_pods,
        )
        before = self.state
        after = next_service(before, look, now=truth.now, probation_seconds=PROBATION_SECONDS)
        if after.state in (IN_SERVICE, PROBATION):
            truth.repair = False  # as the store does
        self._check(before or Service(), after)
        self.state = after

    def _check(self, before: Service, after: Service) -> None:
        truth = self.truth
        owed = before.owes_probation or before.state in (DRAINED, UNDER_REPAIR)
        if after.state == IN_SERVICE and owed:
            assert before.state == PROBATION
            assert truth.health == "Healthy"
            assert truth.now - truth.clean_from >= timedelta(seconds=PROBATION_SECONDS)
        if after.state == DRAINED and before.state != DRAINED:
            said = truth.open_drain or truth.ended.get(truth.hold or "")
            assert said == "Drained"
        if after.state in (IN_SERVICE, PROBATION):
            assert not truth.cordoned
        if truth.cordoned and before.state == IN_SERVICE and truth.hold is None:
            assert after.state != DRAINED or truth.open_drain == "Drained"
        if after.state == UNDER_REPAIR:
            assert truth.cordoned
            assert truth.repair

    @invariant()
    def a_node_on_probation_is_no_spare(self) -> None:
        if self.state is None or self.state.state != PROBATION:
            return
        facts = {"a": NodeFacts(health="Healthy", service=self.state.state)}
        assert "a" in no_spares((), view(node("a")), facts).excluded


ServiceMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=30, deadline=None)
TestServiceMachine = ServiceMachine.TestCase
