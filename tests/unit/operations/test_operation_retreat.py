"""Cancel, uncordon and reschedule: what is taken back, and what is not."""

import pytest
from cluster_builders import at, carry_on, decide, job, node, operation, pod, taken, view

from app.operations.model import (
    Act,
    Blocked,
    Choice,
    Ended,
    Memory,
    MovedPod,
    Options,
    StepRow,
    Unit,
    Wait,
)

HOLD = '{"operation": "op1", "was_unschedulable": false}'
UNIT = Unit(
    "team-a",
    "llm",
    "Job",
    "suspend_resume",
    moved={"pod-llm-0": MovedPod("llm-0", "a", 0)},
    generation_before=1,
)
MEMORY = Memory(units={"job-llm": UNIT}, cordon_seen=("a",))
CORDONED = (("cordon", "node-a"),)
SUSPENDED = (*CORDONED, ("suspend", "job-llm"))


def a():
    return node("a", cordoned=True, hold=HOLD)


def test_cancel_resumes_what_we_suspended_before_it_gives_nodes_back():
    work = operation("a", done=SUSPENDED, memory=MEMORY, cancelled_by="bob")
    seen = view(a(), job(suspended_by="op1", active=0, generation=2))
    first = decide(work, seen)
    assert taken(first) == [("resume", "job-llm")]
    second = decide(carry_on(work, first), seen)
    assert taken(second) == [("uncordon", "node-a")]
    ended = decide(carry_on(carry_on(work, first), second), view(node("a"), job(generation=3)))
    assert isinstance(ended, Ended)
    assert ended.state == "Cancelled"
    assert "bob" in ended.message


def test_a_cancelled_operation_ends_with_what_became_of_its_nodes_and_jobs():
    done = (*SUSPENDED, ("resume", "job-llm"), ("uncordon", "node-a"))
    late_view = view(a(), job(suspended=True, suspended_by="op1", generation=2))
    ended = decide(operation("a", done=done, memory=MEMORY, cancelled_by="bob"), late_view)
    assert isinstance(ended, Ended)
    assert ended.progress.nodes_state == {"a": "Given back"}
    told = ended.progress.workloads_state["job-llm"]
    assert told["verdict"] == ended.memory.units["job-llm"].verdict == "Restarting"
    assert told["message"] == "It was resumed; its return is not waited for any more."


def test_an_operation_cancelled_before_it_touched_a_job_says_so():
    work = operation("a", done=CORDONED, memory=MEMORY, cancelled_by="bob")
    ended = decide(
        operation("a", done=(*CORDONED, ("uncordon", "node-a")), memory=MEMORY, cancelled_by="bob"),
        view(node("a"), job()),
    )
    assert taken(decide(work, view(a(), job()))) == [("uncordon", "node-a")]
    assert isinstance(ended, Ended)
    assert ended.progress.workloads_state["job-llm"]["message"] == "It was not stopped."


def test_cancel_before_anything_was_done_only_ends():
    ended = decide(operation("a", cancelled_by="bob"), view(node("a"), job()))
    assert isinstance(ended, Ended)


def test_cancel_leaves_a_failing_node_cordoned_and_says_why():
    work = operation("a", done=CORDONED, cancelled_by="bob")
    ended = decide(work, view(a()), health={"a": "Failing"})
    assert isinstance(ended, Ended)
    assert "a stays cordoned: it is Failing (xid-79)" in ended.message


def test_cancel_after_a_suspend_whose_answer_was_lost_looks_at_the_job_itself():
    claimed = StepRow("suspend", "Job/team-a/llm", "job-llm", "claimed")
    work = operation("a", done=CORDONED, rows=(claimed,), memory=MEMORY, cancelled_by="bob")
    assert taken(decide(work, view(a(), job(), pod("llm-0", "a", rank=0)))) == [
        ("resume", "job-llm")
    ]


def test_cancel_does_not_resume_what_somebody_changed_since():
    work = operation("a", done=SUSPENDED, memory=MEMORY, cancelled_by="bob")
    seen = view(a(), job(suspended=True, active=0, generation=3))
    blocked = decide(work, seen)
    assert isinstance(blocked, Blocked)
    assert [offer.name for offer in blocked.choices] == ["leave"]
    left = Memory(
        units=MEMORY.units, cordon_seen=("a",), choices=(Choice("leave", "", "bob", at(1)),)
    )
    work = operation("a", done=SUSPENDED, memory=left, cancelled_by="bob")
    assert taken(decide(work, seen)) == [("uncordon", "node-a")]


@pytest.mark.parametrize("gone", [(), (job(finished="Complete"),)], ids=["removed", "finished"])
def test_cancel_forgets_a_job_that_is_over(gone):
    work = operation("a", done=SUSPENDED, memory=MEMORY, cancelled_by="bob")
    assert taken(decide(work, view(a(), *gone))) == [("uncordon", "node-a")]


def test_a_cordon_that_failed_ends_the_operation_as_failed():
    failed = StepRow("cordon", "Node/b", "node-b", "failed", 1, "403 Forbidden")
    work = operation("a", "b", done=CORDONED, rows=(failed,))
    first = decide(work, view(a(), node("b"), job(), pod("llm-0", "a", rank=0)))
    assert taken(first) == [("uncordon", "node-a"), ("uncordon", "node-b")]
    ended = decide(carry_on(work, first), view(node("a"), node("b"), job()))
    assert isinstance(ended, Ended)
    assert ended.state == "Failed"
    assert "403 Forbidden" in ended.message


def test_uncordon_gives_each_node_back_and_ends():
    work = operation("a", "b", kind="uncordon")
    first = decide(work, view(a(), node("b", cordoned=True)))
    assert taken(first) == [("uncordon", "node-a"), ("uncordon", "node-b")]
    assert isinstance(decide(carry_on(work, first), view(node("a"), node("b"))), Ended)


def test_a_reschedule_cordons_the_failing_node_and_restarts_the_gang_once():
    options = Options(job="job-llm", pods=("pod-llm-0", "pod-llm-1"))
    work = operation("a", kind="reschedule", options=options)
    before = view(node("a"), node("b"), job(), pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1))
    cordon = decide(work, before)
    assert taken(cordon) == [("cordon", "node-a")]
    work = carry_on(work, cordon)
    running = view(a(), node("b"), job(), pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1))
    suspend = decide(work, running)
    assert taken(suspend) == [("suspend", "job-llm")]
    work = carry_on(work, suspend)
    stopped = view(a(), node("b"), node("c"), job(suspended_by="op1", active=0, generation=2))
    resume = decide(work, stopped)
    assert taken(resume) == [("resume", "job-llm")]
    work = carry_on(work, resume)
    back = view(
        a(),
        node("b"),
        node("c"),
        job(generation=3),
        pod("llm-0", "c", rank=0, uid="new-0"),
        pod("llm-1", "b", rank=1, uid="new-1"),
    )
    ended = decide(work, back)
    assert isinstance(ended, Ended)
    assert ended.state == "Succeeded"


def test_a_reschedule_of_independent_pods_does_not_evict_their_replacements():
    options = Options(job="job-llm", pods=("pod-llm-x",))
    work = operation(kind="reschedule", options=options)
    first = decide(work, view(node("a"), job(gang=False, ranks=1), pod("llm-x", "a")))
    assert taken(first) == [("evict", "pod-llm-x")]
    work = carry_on(work, first)
    second = decide(work, view(node("a"), job(gang=False, ranks=1), pod("llm-y", "a", uid="new")))
    assert isinstance(second, Ended)


def test_a_job_that_another_operation_suspended_is_left_to_it():
    work = operation("a", done=CORDONED)
    stopping = view(
        a(),
        job(suspended_by="op0", active=0, terminating=1),
        pod("llm-0", "a", rank=0, deleted_at=at(30)),
    )
    first = decide(work, stopping)
    assert isinstance(first, Wait)
    assert "op0" in first.message
    work = carry_on(work, first)
    gone = view(a(), job(suspended_by="op0", active=0))
    while isinstance(step := decide(work, gone), Act):
        assert taken(step) == [("confirm_empty", "node-a")]
        work = carry_on(work, step)
    assert isinstance(step, Wait)
    back = view(
        a(),
        node("b"),
        job(generation=3),
        pod("llm-0", "b", rank=0, uid="new-0"),
        pod("llm-1", "b", rank=1, uid="new-1"),
    )
    assert isinstance(decide(carry_on(work, step), back), Ended)
