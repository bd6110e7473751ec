"""The out-of-service taint: after a person's word and before the first delete, and off again afterwards."""

from datetime import datetime

import msgspec
from cluster_builders import NOW, at, carry_on, decide, job, node, operation, pod, taken, view

from app.operations.draft import Draft
from app.operations.model import (
    Act,
    Blocked,
    Choice,
    Decision,
    Ended,
    Memory,
    Observed,
    Operation,
    StepRow,
    Wait,
)
from app.operations.power_off import LEAVE_TAINT, power_off_warnings, settle_taints
from app.operations.survey import is_powered_off, survey
from k8s.view import ClusterView

WORD = Choice("confirm_power_off", "a", "eve", at(-5))
DONE = (("cordon", "node-a"), ("evict", "pod-p"))


def dead(*, given_up_by: str = "", **more: object) -> object:
    return node("a", ready=False, cordoned=True, hold=HOLD, given_up_by=given_up_by, **more)  # type: ignore[arg-type]


HOLD = '{"operation": "op1", "was_unschedulable": false}'


def lone(name: str = "p") -> object:
    return pod(name, "a", owner=None, deleted_at=at(-10))


def work(*rows: StepRow, **more: object) -> Operation:
    memory = Memory(
        choices=(WORD,), cordon_seen=("a",), was_unschedulable={"a": False}, pods={"pod-p": "a"}
    )
    return operation("a", done=DONE, rows=rows, memory=memory, **more)  # type: ignore[arg-type]


def tainted(*, state: str = "done") -> StepRow:
    return StepRow("out_of_service", "Node/a", "node-a", state, started_at=at(-4))


def test_the_taint_comes_before_the_first_pod_is_given_up() -> None:
    seen = view(dead(), lone())
    first = decide(work(), seen)
    assert taken(first) == [("out_of_service", "node-a")]
    assert taken(decide(carry_on(work(), first), seen)) == [("force_delete", "pod-p")]


def test_a_taint_that_may_not_be_put_on_gives_up_no_pod_and_asks_a_person() -> None:
    row = msgspec.structs.replace(tainted(state="failed"), message="403 Forbidden")
    decision = decide(work(row), view(dead(), lone()))
    assert isinstance(decision, Blocked)
    assert "403 Forbidden" in decision.message


def test_a_node_that_is_no_more_needs_no_taint() -> None:
    assert taken(decide(work(), view(lone()))) == [("force_delete", "pod-p")]


def test_a_word_on_an_earlier_outage_is_none_on_this_one() -> None:
    memory = Memory(choices=(WORD,))
    assert is_powered_off("a", memory, view(dead(unready_since=at(-60))))
    assert not is_powered_off("a", memory, view(dead(unready_since=at(-1))))
    assert not is_powered_off("a", memory, view(node("a")))


def finishing(seen: ClusterView, *rows: StepRow) -> object:
    done = (*DONE, ("confirm_empty", "node-a"))
    base = work(*rows)
    steps = {
        **base.steps,
        **{(n, u): StepRow(n, f"X/{u}", u, "done", started_at=at(-20)) for n, u in done},
    }
    return decide(msgspec.structs.replace(base, steps=steps), seen)


def test_an_operation_ends_only_once_its_taint_is_off() -> None:
    seen = view(dead(given_up_by="op1"))
    assert taken(finishing(seen, tainted())) == [("in_service", "node-a")]
    off = StepRow("in_service", "Node/a", "node-a", "done", started_at=at(-1))
    assert isinstance(finishing(view(dead()), tainted(), off), Ended)


def test_a_taint_whose_answer_was_lost_is_looked_for_as_well() -> None:
    assert taken(finishing(view(dead()), tainted(state="claimed"))) == [("in_service", "node-a")]


def test_a_taint_that_was_refused_is_not_there_to_be_taken_off() -> None:
    assert isinstance(finishing(view(dead()), tainted(state="failed")), Ended)


def test_the_taint_stays_while_pods_are_left_that_it_deletes() -> None:
    ending = work(tainted())
    agent, left = pod("exporter", "a", daemonset=True), lone()

    def settled(*pods: object, now: datetime = NOW) -> Decision:
        seen = view(dead(given_up_by="op1"), *pods)
        memory = msgspec.structs.replace(ending.memory, waiting_since={"taint:a": NOW})
        decision = Ended("Succeeded", "a Drained.", memory)
        return settle_taints(decision, ending, Observed(seen), draft=Draft(ending, memory, now))

    assert taken(settled(agent)) == [("in_service", "node-a")]
    waiting = settled(agent, left)
    assert isinstance(waiting, Wait)
    assert waiting.held
    assert "team-a/p" in waiting.message
    asked = settled(agent, left, now=at(91))
    assert isinstance(asked, Blocked)
    assert [offer.name for offer in asked.choices] == ["retry", LEAVE_TAINT]


def test_a_node_that_is_back_with_another_boot_loses_the_taint_at_once() -> None:
    held = node("a", cordoned=True, hold=HOLD, given_up_by="op1", boot_id="boot-2")
    decision = decide(work(tainted()), view(held, lone()))
    assert isinstance(decision, Act)
    assert ("in_service", "node-a") in taken(decision)


def test_a_node_that_was_never_off_keeps_the_taint_until_its_pods_are_gone() -> None:
    held = node("a", cordoned=True, hold=HOLD, given_up_by="op1", boot_id="boot-1")
    decision = decide(work(tainted()), view(held, lone()))
    assert isinstance(decision, Wait | Act)
    assert ("in_service", "node-a") not in taken(decision)


def test_a_cancelled_operation_takes_its_taint_off_too() -> None:
    done = (("uncordon", "node-a"),)
    base = work(tainted(), cancelled_by="bob")
    steps = {
        **base.steps,
        **{(n, u): StepRow(n, f"X/{u}", u, "done", started_at=at(-1)) for n, u in done},
    }
    base = msgspec.structs.replace(base, steps=steps)
    seen = view(node("a", ready=False, given_up_by="op1"))
    assert taken(decide(base, seen)) == [("in_service", "node-a")]


def test_a_taint_that_can_not_be_taken_off_is_left_only_by_a_persons_word() -> None:
    failed = StepRow("in_service", "Node/a", "node-a", "failed", message="403", started_at=at(-1))
    seen = view(dead(given_up_by="op1"))
    blocked = finishing(seen, tainted(), failed)
    assert isinstance(blocked, Blocked)
    assert [offer.name for offer in blocked.choices] == ["retry", LEAVE_TAINT]
    left = work(tainted(), failed)
    memory = msgspec.structs.replace(
        left.memory, choices=(*left.memory.choices, Choice(LEAVE_TAINT, "", "eve", NOW))
    )
    steps = {
        **left.steps,
        ("confirm_empty", "node-a"): StepRow(
            "confirm_empty", "X", "node-a", "done", started_at=at(-20)
        ),
    }
    ended = decide(msgspec.structs.replace(left, memory=memory, steps=steps), seen)
    assert isinstance(ended, Ended)


def test_the_preview_names_the_taint_for_each_node_that_does_not_answer() -> None:
    seen = view(node("a", ready=False), node("b"), job(), pod("x", "a"), pod("y", "b"))
    surveyed = survey(seen.pods.values(), view=seen, options=operation("a").options, now=NOW)
    (said,) = power_off_warnings(surveyed, seen)
    assert said.startswith("a does not answer")
    assert "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in said
    assert "taken off afterwards" in said
