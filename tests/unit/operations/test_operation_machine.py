"""Whatever happens in whatever order, the reconciler keeps its promises, and ends once faults stop."""

import os
import time
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from model_world import FAULTS, OPERATION, OTHER, ModelJob, ModelNode, ModelPod, ModelWorld, begin

from app.operations.model import Ended, Options

DRAINED = ("n0", "n1")
NODES = st.sampled_from(["n0", "n1", "n2", "n3", "n4"])


class DrainMachine(RuleBasedStateMachine):
    """A drain of two of five nodes with a gang across three and lone pods, among crashes and other people."""

    @initialize(
        foreign=st.booleans(),
        mode=st.sampled_from(["now", "now", "complete"]),
        lone=st.sampled_from(["now", "complete"]),
        spacing_seconds=st.sampled_from([0.0, 0.0, 15.0]),
        units_at_once=st.integers(0, 2),
    )
    def start(
        self, foreign: bool, mode: str, lone: str, spacing_seconds: float, units_at_once: int
    ) -> None:
        world = self.world = ModelWorld(nodes={f"n{number}": ModelNode() for number in range(8)})
        world.jobs = {"llm": ModelJob(True, 3), "solo": ModelJob(False, 1)}
        world.pods = {
            "pod-llm-a": ModelPod("llm-a", "llm", "n0", 0),
            "pod-llm-b": ModelPod("llm-b", "llm", "n1", 1),
            "pod-llm-c": ModelPod("llm-c", "llm", "n2", 2),
            "pod-solo": ModelPod("solo", "solo", "n0"),
            "exporter": ModelPod("exporter", None, "n0", daemonset=True),
            "static": ModelPod("static", None, "n1", mirror=True),
        }
        if foreign:
            world.nodes["n1"].cordoned = True
            world.foreign_cordons.add("n1")
        self.foreign_suspend = False
        self.others_nodes: dict[str, int] = {}  # and how often we had uncordoned each before
        self.mode, self.lone = mode, lone
        options = Options(
            mode=mode,
            modes={"team-a/solo": lone},
            spacing_seconds=spacing_seconds,
            units_at_once=units_at_once,
        )
        self.work = begin(world, *DRAINED, options=options)
        self.taken_when_paused: tuple[int, int] | None = None

    @rule(
        die_at=st.none() | st.none() | st.integers(0, 5),
        faults=st.just({})
        | st.dictionaries(st.integers(0, 3), st.sampled_from(sorted(FAULTS)), max_size=2),
        leased_calls=st.none() | st.none() | st.integers(0, 3),
    )
    def turn(self, die_at: int | None, faults: dict[int, str], leased_calls: int | None) -> None:
        self.work.turn(die_at=die_at, faults=faults, leased_calls=leased_calls)

    @rule()
    def look(self) -> None:
        self.work.view = self.world.see()

    @rule(seconds=st.sampled_from([1, 10, 100]))
    def wait(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def cluster_goes_on(self) -> None:
        self.world.end_pods()
        self.world.place()

    @rule(name=NODES, ready=st.booleans())
    def a_node_dies_or_answers_again(self, name: str, ready: bool) -> None:
        self.world.nodes[name].ready = ready

    @rule(name=NODES)
    def a_node_boots(self, name: str) -> None:
        self.world.nodes[name].boots += 1
        self.world.nodes[name].ready = True

    @rule(closed=st.booleans())
    def a_budget_closes_or_opens(self, closed: bool) -> None:
        self.world.budget_closed = closed

    @rule(name=NODES)
    def somebody_cordons(self, name: str) -> None:
        found = self.world.nodes[name]
        if not found.cordoned:
            found.cordoned = True
            if found.hold is None:
                self.world.foreign_cordons.add(name)

    @rule(name=NODES)
    def somebody_uncordons(self, name: str) -> None:
        self.world.nodes[name].cordoned = False
        self.world.foreign_cordons.discard(name)

    @rule()
    def somebody_resumes(self) -> None:
        work = self.world.jobs.get("llm")
        if work is not None and work.suspended:
            work.suspended = False
            work.generation += 1

    @rule()
    def somebody_takes_the_suspension_over(self) -> None:
        work = self.world.jobs.get("llm")
        if work is not None and work.suspended and work.holder == OPERATION:
            work.holder = None
            work.generation += 1
            self.foreign_suspend = True

    @rule()
    def somebody_suspends(self) -> None:
        work = self.world.jobs.get("llm")
        if work is not None and not work.suspended and work.holder is None:
            work.suspended = True
            work.generation += 1
            self.foreign_suspend = True
            self.world.stop_pods("llm")

    @rule(name=st.sampled_from(["llm", "solo"]))
    def somebody_deletes_a_job(self, name: str) -> None:
        if self.world.jobs.pop(name, None) is not None:
            self.world.stop_pods(name)

    @rule()
    def a_pod_is_bound_late(self) -> None:
        if "solo" in self.world.jobs and not self.world.nodes["n1"].cordoned:
            self.world.pods["pod-late"] = ModelPod("late", "solo", "n1")

    @rule(where=st.sampled_from(["n0", "n1", "n3"]))
    def a_pod_is_replaced_by_one_of_its_name(self, where: str) -> None:
        """As a StatefulSet does, or somebody who deletes and creates: the name stays, the UID does not."""
        world = self.world
        lone = [uid for uid, each in world.pods.items() if each.owner == "solo"]
        if lone and "solo" in world.jobs:
            name = world.pods.pop(lone[0]).name
            world.pods[f"pod-{name}-again-{next(world.names)}"] = ModelPod(name, "solo", where)

    @rule(name=st.sampled_from(DRAINED))
    def a_second_operator_takes_a_node(self, name: str) -> None:
        found = self.world.nodes[name]
        if found.hold is None:
            found.hold, found.holder = found.cordoned, OTHER
            found.cordoned = True
            self.others_nodes[name] = self.world.uncordoned.count(name)

    @rule()
    def a_second_operator_suspends_the_gang(self) -> None:
        work = self.world.jobs.get("llm")
        if work is not None and not work.suspended and work.holder is None:
            work.suspended, work.holder = True, OTHER
            work.generation += 1
            self.foreign_suspend = True
            self.world.stop_pods("llm")

    @rule()
    def a_second_operator_resumes_what_it_suspended(self) -> None:
        work = self.world.jobs.get("llm")
        if work is not None and work.suspended and work.holder == OTHER:
            work.suspended, work.holder = False, None
            work.generation += 1

    @rule()
    def cancel(self) -> None:
        self.work.cancel()

    @rule(paused=st.booleans())
    def somebody_pauses_or_unpauses(self, paused: bool) -> None:
        self.work.pause = "Paused." if paused else ""
        self.taken_when_paused = self._taken() if paused else None

    def _taken(self) -> tuple[int, int]:
        return len(self.world.evicted), len(self.world.suspended)

    @rule(number=st.integers(0, 3))
    def choose(self, number: int) -> None:
        self.work.choose(number)

    @invariant()
    def no_pod_is_evicted_twice(self) -> None:
        if hasattr(self, "world"):
            assert max(Counter(self.world.evicted).values(), default=0) <= 1

    @invariant()
    def no_job_is_restarted_twice(self) -> None:
        if hasattr(self, "world"):
            assert len(self.world.suspended) <= 1
            assert len(self.world.resumed) <= len(self.world.suspended)

    @invariant()
    def a_foreign_cordon_is_never_undone(self) -> None:
        if hasattr(self, "world"):
            for name in self.world.foreign_cordons:
                assert self.world.nodes[name].cordoned, name

    @invariant()
    def a_daemonset_pod_is_never_touched(self) -> None:
        if hasattr(self, "world"):
            assert "exporter" not in self.world.evicted
            assert "exporter" in self.world.pods

    @invariant()
    def a_mirror_pod_is_never_touched(self) -> None:
        if hasattr(self, "world"):
            assert "static" not in self.world.evicted
            assert "static" in self.world.pods

    @invariant()
    def what_a_second_operator_holds_stays_so(self) -> None:
        if hasattr(self, "world"):
            for name, before in self.others_nodes.items():
                assert self.world.nodes[name].holder == OTHER
                assert self.world.nodes[name].hold is not None
                assert self.world.uncordoned.count(name) == before

    @invariant()
    def nothing_is_taken_while_pods_may_complete(self) -> None:
        if hasattr(self, "world"):
            if self.lone == "complete":
                assert not self.world.evicted
            if self.mode == "complete":
                assert not self.world.suspended

    @invariant()
    def nothing_is_taken_in_a_pause(self) -> None:
        if hasattr(self, "world") and self.taken_when_paused is not None:
            assert self._taken() == self.taken_when_paused

    def teardown(self) -> None:
        """Faults stop: the drain ends by itself or by a person's word, and leaves nothing of its own suspended."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.budget_closed = False
        self.work.pause, self.taken_when_paused = "", None
        self.a_second_operator_resumes_what_it_suspended()  # every operation ends, theirs too
        for found in world.nodes.values():
            found.ready = True
        for name in world.foreign_cordons - set(DRAINED):
            world.nodes[name].cordoned = False  # their own people give them back: room for all
        world.foreign_cordons &= set(DRAINED)
        for number in range(200):
            if self.work.ended:
                break
            world.now += timedelta(seconds=2)
            world.end_pods()
            world.place()
            self.work.view = world.see()
            self.work.turn()
            if "complete" in (self.mode, self.lone) and number == 20:
                self.work.cancel()  # its pods here run for ever
            if number % 20 == 19:
                self.work.choose(number // 20)
        assert isinstance(self.work.last, Ended), self.work.last
        self.no_pod_is_evicted_twice()
        self.no_job_is_restarted_twice()
        self.a_foreign_cordon_is_never_undone()
        if not any(choice.name == "leave_taint" for choice in self.work.operation.memory.choices):
            assert not [name for name, found in world.nodes.items() if found.given_up]
        gang = world.jobs.get("llm")
        if gang is not None and gang.suspended:
            assert gang.holder != OPERATION, "the job was left suspended by us"


TestDrainMachine = DrainMachine.TestCase
TestDrainMachine.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


HISTORIES = 10_000
SEED = 20261125
"""Of the run that is on record; PITWALL_MACHINE_SEED gives another."""


@pytest.mark.acceptance
@pytest.mark.timeout(7200)
def test_ten_thousand_histories_keep_every_promise(capsys: pytest.CaptureFixture[str]) -> None:
    number = int(os.environ.get("PITWALL_MACHINE_SEED", SEED))

    @seed(number)
    class Seeded(DrainMachine):
        pass

    begun = time.monotonic()
    with capsys.disabled():
        print(f"\n{HISTORIES} histories of a drain, seed {number}", flush=True)
    run_state_machine_as_test(
        Seeded,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=40,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    with capsys.disabled():
        print(f"all kept, in {time.monotonic() - begun:.0f} s")
