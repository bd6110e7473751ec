"""The pure next step of a drain, case by case."""

import msgspec
import pytest
from cluster_builders import (
    NOW,
    at,
    budget,
    carry_on,
    decide,
    job,
    node,
    operation,
    pod,
    taken,
    view,
)

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

CORDONED = (("cordon", "node-a"),)
EMPTY = (*CORDONED, ("confirm_empty", "node-a"))
HOLD = '{"operation": "op1", "was_unschedulable": false}'


def a(**options):
    return node("a", cordoned=True, hold=HOLD, **options)


def gang_unit(**changes):
    unit = Unit(
        "team-a",
        "llm",
        "Job",
        "suspend_resume",
        moved={"pod-llm-0": MovedPod("llm-0", "a", 0)},
        ready_before=2,
        generation_before=1,
    )
    return msgspec.structs.replace(unit, **changes)


def remembering(**units_and_rest):
    units = {"job-llm": units_and_rest.pop("unit", gang_unit())}
    return Memory(units=units, pods={"pod-llm-0": "a"}, cordon_seen=("a",), **units_and_rest)


def test_nothing_is_done_while_kubernetes_is_not_heard():
    decision = decide(operation("a"), view(node("a"), synced=False))
    assert isinstance(decision, Wait)
    assert decision.held


def test_all_nodes_are_cordoned_before_any_pod_is_touched():
    seen = view(node("a"), node("b"), job(), pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1))
    decision = decide(operation("a", "b"), seen)
    assert taken(decision) == [("cordon", "node-a"), ("cordon", "node-b")]
    half = operation("a", "b", done=CORDONED)
    assert taken(decide(half, seen)) == [("cordon", "node-b")]


def test_a_gang_with_ranks_on_two_nodes_is_suspended_once():
    seen = view(
        a(), node("b", cordoned=True), job(), pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1)
    )
    work = operation("a", "b", done=(*CORDONED, ("cordon", "node-b")))
    assert taken(decide(work, seen)) == [("suspend", "job-llm")]


def test_independent_pods_are_evicted_and_daemonsets_stay():
    seen = view(
        a(),
        job(gang=False),
        pod("llm-x", "a"),
        pod("exporter", "a", daemonset=True),
    )
    decision = decide(operation("a", done=CORDONED), seen)
    assert taken(decision) == [("evict", "pod-llm-x")]


def test_evictions_have_a_cap():
    pods = [pod(f"w-{i}", "a", gpus=0) for i in range(40)]
    decision = decide(operation("a", done=CORDONED), view(a(), job(gang=False), *pods))
    assert len(taken(decision)) == 16


def test_an_evicted_pod_is_not_evicted_again_while_the_view_is_late():
    work = operation("a", done=(*CORDONED, ("evict", "pod-llm-x")))
    decision = decide(work, view(a(), job(gang=False), pod("llm-x", "a")))
    assert isinstance(decision, Wait)
    assert "llm-x" in decision.message


def test_a_replacement_of_the_same_name_is_another_pod():
    work = operation("a", done=(*CORDONED, ("evict", "pod-llm-x")))
    again = pod("llm-x", "a", uid="pod-second")
    assert taken(decide(work, view(a(), job(gang=False), again))) == [("evict", "pod-second")]


def test_a_budget_that_refused_is_waited_for_and_tried_again_when_due():
    row = StepRow(
        "evict", "Pod/team-a/llm-x", "pod-llm-x", "waiting", 1, "budget team-a/keep: no", NOW
    )
    work = operation(
        "a", done=CORDONED, rows=(row,), memory=Memory(retry_at={"evict:pod-llm-x": at(5)})
    )
    seen = view(a(), job(gang=False), pod("llm-x", "a"), budget("keep", labels={}, allowed=0))
    early = decide(work, seen, now=at(1))
    assert isinstance(early, Wait)
    assert early.held
    assert "budget team-a/keep" in early.message
    assert taken(decide(work, seen, now=at(5))) == [("evict", "pod-llm-x")]


def test_a_failed_step_waits_for_a_person():
    row = StepRow("evict", "Pod/team-a/llm-x", "pod-llm-x", "failed", 1, "several budgets", NOW)
    work = operation("a", done=CORDONED, rows=(row,))
    seen = view(a(), job(gang=False), pod("llm-x", "a"))
    decision = decide(work, seen)
    assert isinstance(decision, Blocked)
    assert [offer.name for offer in decision.choices] == ["retry"]
    again = Memory(choices=(Choice("retry", "", "ada", at(1)),))
    work = operation("a", done=CORDONED, rows=(row,), memory=again)
    assert taken(decide(work, seen, now=at(2))) == [("evict", "pod-llm-x")]


def test_a_suspended_gang_is_resumed_only_when_every_rank_has_stopped():
    work = operation("a", done=(*CORDONED, ("suspend", "job-llm")), memory=remembering())
    stopping = view(
        a(),
        node("b"),
        job(suspended_by="op1", active=0, terminating=1, generation=2),
        pod("llm-0", "a", rank=0, deleted_at=at(30)),
    )
    waiting = decide(work, stopping)
    assert isinstance(waiting, Wait)
    assert "have not stopped" in waiting.message
    still_there = view(
        a(),
        node("b"),
        job(suspended_by="op1", active=0, generation=2),
        pod("llm-0", "a", rank=0, deleted_at=at(30)),
    )
    assert isinstance(decide(work, still_there), Wait)
    stopped = view(a(), node("b"), job(suspended_by="op1", active=0, generation=2))
    assert ("resume", "job-llm") in taken(decide(work, stopped))


def test_a_view_older_than_the_suspend_is_not_taken_for_a_foreign_resume():
    work = operation("a", done=(*CORDONED, ("suspend", "job-llm")), memory=remembering())
    decision = decide(work, view(a(), job(generation=1), pod("llm-0", "a", rank=0)))
    assert isinstance(decision, Wait)
    assert not decision.memory.units["job-llm"].resumed_by_others


def test_a_job_that_somebody_resumed_is_not_fought():
    work = operation("a", done=(*EMPTY, ("suspend", "job-llm")), memory=remembering())
    back = view(
        a(),
        node("b"),
        job(generation=3),
        pod("llm-0", "b", rank=0, uid="new-0"),
        pod("llm-1", "b", rank=1, uid="new-1"),
    )
    first = decide(work, back)
    assert first.memory.units["job-llm"].resumed_by_others
    assert taken(first) == []
    ended = decide(carry_on(work, first), back)
    assert isinstance(ended, Ended)
    assert ended.state == "Succeeded"


def test_a_suspension_that_is_no_longer_ours_is_a_persons_matter():
    work = operation("a", done=(*CORDONED, ("suspend", "job-llm")), memory=remembering())
    decision = decide(work, view(a(), job(suspended=True, active=0, generation=3)))
    while isinstance(decision, Act):
        work = carry_on(work, decision)
        decision = decide(work, view(a(), job(suspended=True, active=0, generation=3)))
    assert isinstance(decision, Blocked)
    assert "resume" not in [offer.name for offer in decision.choices]
    assert "leave" in [offer.name for offer in decision.choices]


DEAD = ("pod-llm-1", "dead")


def dead_gang(**changes):
    return view(
        a(),
        node("dead", ready=False),
        job(**changes),
        pod("llm-0", "a", rank=0),
        pod("llm-1", "dead", rank=1, grace_seconds=30),
    )


def test_a_gang_with_a_pod_on_a_dead_node_is_not_suspended_and_blocks_at_its_deadline():
    work = operation("a", done=CORDONED)
    waiting = decide(work, dead_gang())
    assert isinstance(waiting, Wait)
    assert waiting.held
    work = carry_on(work, waiting)
    assert isinstance(decide(work, dead_gang(), now=at(89)), Wait)
    blocked = decide(work, dead_gang(), now=at(90))
    assert isinstance(blocked, Blocked)
    offers = {offer.name: offer for offer in blocked.choices}
    assert offers["confirm_power_off"].subject == "dead"
    assert offers["confirm_power_off"].confirmation == "dead"
    assert ("suspend", "job-llm") not in work.steps


def test_a_dead_node_that_answers_again_settles_it():
    work = carry_on(
        operation("a", done=CORDONED), decide(operation("a", done=CORDONED), dead_gang())
    )
    alive = view(a(), node("dead"), job(), pod("llm-0", "a", rank=0), pod("llm-1", "dead", rank=1))
    assert taken(decide(work, alive, now=at(20))) == [("suspend", "job-llm")]


def test_a_confirmed_power_off_lets_the_gang_be_suspended_and_its_pod_be_deleted():
    confirmed = (Choice("confirm_power_off", "dead", "ada", at(95)),)
    work = operation("a", done=CORDONED, memory=Memory(choices=confirmed))
    assert taken(decide(work, dead_gang(), now=at(96))) == [("suspend", "job-llm")]
    work = operation(
        "a", done=(*EMPTY, ("suspend", "job-llm")), memory=remembering(choices=confirmed)
    )
    left = view(
        a(),
        node("dead", ready=False),
        job(suspended_by="op1", active=0, terminating=1, generation=2),
        pod("llm-1", "dead", rank=1, deleted_at=at(60)),
    )
    given_up = decide(work, left, now=at(97))
    assert taken(given_up) == [("out_of_service", "node-dead")]
    assert taken(decide(carry_on(work, given_up), left, now=at(98))) == [
        ("force_delete", "pod-llm-1")
    ]


def test_a_node_that_dies_after_the_suspend_blocks_with_resume_and_power_off():
    memory = remembering(waiting_since={"stop:job-llm": NOW})
    work = operation("a", done=(*EMPTY, ("suspend", "job-llm")), memory=memory)
    left = view(
        a(),
        node("dead", ready=False),
        job(suspended_by="op1", active=0, terminating=1, generation=2),
        pod("llm-1", "dead", rank=1, deleted_at=at(30)),
    )
    assert isinstance(decide(work, left, now=at(89)), Wait)
    blocked = decide(work, left, now=at(91))
    assert isinstance(blocked, Blocked)
    assert [offer.name for offer in blocked.choices] == ["resume", "confirm_power_off", "retry"]
    chosen = msgspec.structs.replace(memory, choices=(Choice("resume", "job-llm", "ada", at(92)),))
    work = operation("a", done=(*EMPTY, ("suspend", "job-llm")), memory=chosen)
    assert taken(decide(work, left, now=at(93))) == [("resume", "job-llm")]


def test_a_gang_that_lands_on_the_node_again_is_not_restarted_twice():
    work = operation(
        "a",
        done=(*EMPTY, ("suspend", "job-llm"), ("resume", "job-llm")),
        memory=remembering(),
    )
    back = view(a(), node("b"), job(generation=3), pod("llm-0", "a", rank=0, uid="new-0"))
    decision = decide(work, back)
    assert isinstance(decision, Blocked)
    assert taken(decision) == []
    assert "a second time" in decision.message


RETURNED = (
    pod("llm-0", "b", rank=0, uid="new-0"),
    pod("llm-1", "c", rank=1, uid="new-1"),
)


@pytest.mark.parametrize(
    ("pods", "verdict"),
    [
        (RETURNED, "Returned"),
        (RETURNED[:1], "Restarting"),
        ((RETURNED[0], pod("llm-1", "c", rank=1, uid="new-1", ready=False)), "Restarting"),
        ((RETURNED[0], pod("llm-1", "c", rank=1, uid="new-1", phase="Pending")), "Restarting"),
        ((*RETURNED, pod("llm-1b", "c", rank=1, uid="new-2")), "Restarting"),
        (
            (
                RETURNED[0],
                pod("llm-1", "", rank=1, uid="new-1", phase="Pending", unschedulable="0/4"),
            ),
            "Waiting for capacity",
        ),
    ],
    ids=["all back", "one missing", "one not ready", "one pending", "one doubled", "no node"],
)
def test_a_gang_is_returned_only_when_each_rank_runs_once_and_ready_elsewhere(pods, verdict):
    work = operation(
        "a",
        done=(*EMPTY, ("suspend", "job-llm"), ("resume", "job-llm")),
        memory=remembering(),
    )
    decision = decide(work, view(a(), node("b"), node("c"), job(generation=3), *pods))
    assert decision.memory.units["job-llm"].verdict == verdict
    assert isinstance(decision, Ended) == (verdict == "Returned")


@pytest.mark.parametrize(
    ("jobs", "state", "verdict"),
    [
        ([], "Succeeded", "Removed"),
        ([job(finished="Complete", generation=3)], "Succeeded", "Finished"),
        ([job(finished="Failed", generation=3)], "Failed", "Failed"),
        ([job(suspended=True, generation=4)], "Succeeded", "Left"),
    ],
)
def test_the_operation_ends_by_its_workloads_verdicts(jobs, state, verdict):
    work = operation(
        "a",
        done=(*EMPTY, ("suspend", "job-llm"), ("resume", "job-llm")),
        memory=remembering(),
    )
    decision = decide(work, view(a(), *jobs))
    assert isinstance(decision, Ended)
    assert decision.state == state
    assert decision.memory.units["job-llm"].verdict == verdict


def test_a_gang_that_a_second_drain_suspends_again_is_waited_for_and_not_left():
    work = operation(
        "a",
        done=(*EMPTY, ("suspend", "job-llm"), ("resume", "job-llm")),
        memory=remembering(),
    )
    decision = decide(work, view(a(), job(suspended=True, suspended_by="second", generation=4)))
    assert isinstance(decision, Wait)
    assert "Operation second has suspended it again" in decision.message
    assert decision.memory.units["job-llm"].verdict == "Restarting"


def test_a_node_is_drained_only_after_the_api_server_was_asked_once_more():
    decision = decide(
        operation("a", done=CORDONED), view(a(), pod("exporter", "a", daemonset=True))
    )
    assert taken(decision) == [("confirm_empty", "node-a")]
    just_now = StepRow("cordon", "Node/a", "node-a", "done", started_at=at(-0.3))
    assert isinstance(decide(operation("a", rows=(just_now,)), view(a())), Wait)


def test_a_pod_that_was_bound_late_is_moved_too():
    late = view(a(), job(gang=False), pod("late", "a"))
    decision = decide(operation("a", done=EMPTY), late)
    assert taken(decision) == [("evict", "pod-late")]
    assert decision.progress.nodes_state == {"a": "Draining"}


def test_mode_complete_evicts_nothing_and_waits():
    seen = view(a(), job(), pod("llm-0", "a", rank=0), pod("bare", "a", owner=None))
    decision = decide(operation("a", mode="complete", done=CORDONED), seen)
    assert isinstance(decision, Wait)
    assert "2 pods run on" in decision.message
    finished = view(a(), job(finished="Complete"), pod("llm-0", "a", rank=0, phase="Succeeded"))
    work = operation("a", mode="complete", done=CORDONED)
    last = decide(work, finished)
    assert taken(last) == [("confirm_empty", "node-a")]
    ended = decide(carry_on(work, last), finished)
    assert isinstance(ended, Ended)
    assert ended.progress.nodes_state == {"a": "Drained"}


def test_mode_deadline_waits_and_then_moves():
    seen = view(a(), job(), pod("llm-0", "a", rank=0))
    work = operation("a", mode="deadline", done=CORDONED, deadline_at=at(100))
    assert isinstance(decide(work, seen, now=at(99)), Wait)
    assert taken(decide(work, seen, now=at(100))) == [("suspend", "job-llm")]


def test_a_blocked_pod_holds_its_gang_back_and_others_go_on():
    seen = view(
        a(),
        job(),
        job("other", gang=False),
        pod("llm-0", "a", rank=0, empty_dir=True),
        pod("other-x", "a", owner="other"),
    )
    work = operation("a", done=CORDONED)
    first = decide(work, seen)
    assert taken(first) == [("evict", "pod-other-x")]
    gone = view(a(), job(), job("other", gang=False), pod("llm-0", "a", rank=0, empty_dir=True))
    decision = decide(carry_on(work, first), gone)
    assert isinstance(decision, Blocked)
    assert "--delete-emptydir-data" in decision.message
    allowed = msgspec.structs.replace(work, options=Options(delete_emptydir_data=True))
    assert ("suspend", "job-llm") in taken(decide(allowed, seen))


def test_a_manual_uncordon_stops_the_drain():
    memory = Memory(cordon_seen=("a",))
    work = operation("a", done=CORDONED, memory=memory)
    seen = view(node("a", hold=HOLD), job(), pod("llm-0", "a", rank=0))
    first = decide(work, seen)
    assert ("suspend", "job-llm") not in taken(first)
    assert "uncordoned by somebody else" in first.memory.stopped
    ended = decide(carry_on(work, first), seen)
    assert isinstance(ended, Ended)
    assert ended.state == "Cancelled"


def test_a_cordon_that_the_view_has_not_shown_yet_is_no_manual_uncordon():
    decision = decide(
        operation("a", done=CORDONED), view(node("a"), job(), pod("llm-0", "a", rank=0))
    )
    assert not decision.memory.stopped


def test_a_pod_that_outstays_its_grace_is_a_persons_matter():
    late = pod("llm-x", "a", deleted_at=NOW)
    work = operation("a", done=(*CORDONED, ("evict", "pod-llm-x")))
    assert isinstance(decide(work, view(a(), job(gang=False), late), now=at(59)), Wait)
    blocked = decide(work, view(a(ready=False), job(gang=False), late), now=at(61))
    assert isinstance(blocked, Blocked)
    assert [offer.name for offer in blocked.choices] == ["confirm_power_off", "retry"]


def test_a_node_that_was_removed_needs_no_draining():
    ended = decide(operation("a"), view(node("b")))
    assert isinstance(ended, Ended)
    assert ended.progress.nodes_state == {"a": "Removed"}


@pytest.mark.parametrize(
    "left", [(), (pod("llm-x", "a", deleted_at=at(30)),)], ids=["gone", "terminating"]
)
def test_an_eviction_whose_answer_was_lost_is_looked_at_again(left):
    claimed = StepRow("evict", "Pod/team-a/llm-x", "pod-llm-x", "claimed", started_at=NOW)
    work = operation("a", done=EMPTY, rows=(claimed,))
    decision = decide(work, view(a(), job(gang=False), *left))
    assert taken(decision) == [("evict", "pod-llm-x")]
