"""Modes that a drain mixes, units that leave in turn, protection and pause, as the next step decides them."""

from datetime import timedelta
from itertools import pairwise

import msgspec
import pytest
from cluster_builders import (
    NOW,
    at,
    carry_on,
    decide,
    job,
    node,
    operation,
    pod,
    stamp,
    taken,
    view,
)
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestRefused
from app.operations.model import Act, Ended, Memory, Observed, Options, StepRow, Unit, Wait
from app.operations.modes import is_due
from app.operations.reconciliation import next_step, takes_back
from app.operations.stake import CHECKPOINT_ANNOTATION, INTERVAL_ANNOTATION, stake_of
from app.operations.survey import survey
from app.operations.wishes import Pace, read_parameters, read_wish

CORDONED = (("cordon", "node-a"),)
ON_A = {"cordoned": True, "hold": '{"operation": "op1", "was_unschedulable": false}'}


def drain(*nodes, options, done=CORDONED, **more):
    return operation(*(nodes or ("a",)), options=options, done=done, **more)


def singles(*names, where="a", **changed):
    """Independent pods of one Job each, on a cordoned node."""
    pods = [pod(name, where, owner=f"job-of-{name}", gpus=1, **changed) for name in names]
    jobs = [job(f"job-of-{name}", gang=False, ranks=1) for name in names]
    return [*jobs, *pods]


def test_a_timed_pod_goes_at_its_deadline_beside_one_that_is_let_complete():
    seen = view(node("a", **ON_A), *singles("timed", "long"))
    options = Options(mode="complete", modes={"team-a/timed": "deadline"})
    work = drain(options=options, deadline_at=at(60))
    before = decide(work, seen, now=at(59))
    assert isinstance(before, Wait)
    assert "team-a/timed run on until its deadline" in before.message
    assert taken(decide(work, seen, now=at(60))) == [("evict", "pod-timed")]


def test_each_pod_has_its_own_mode_and_an_urgent_one_waits_for_none():
    seen = view(node("a", **ON_A), *singles("urgent", "timed", "long"))
    modes = {"team-a/timed": "deadline", "team-a/job-of-long": "complete"}
    work = drain(options=Options(mode="now", modes=modes), deadline_at=at(60))
    assert taken(decide(work, seen)) == [("evict", "pod-urgent")]
    assert taken(decide(work, seen, now=at(61))) == [
        ("evict", "pod-timed"),
        ("evict", "pod-urgent"),
    ]


def gang_with(checkpoint_at=None, **notes):
    notes = {name: str(value) for name, value in notes.items()}
    told = {CHECKPOINT_ANNOTATION: stamp(checkpoint_at)} if checkpoint_at else {}
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    return view(node("a", **ON_A), node("b"), node("c"), job(annotations={**told, **notes}), *pods)


@pytest.mark.parametrize(
    ("checkpoint_at", "now", "goes"),
    [
        (at(-600), NOW, False),  # the last one, before the drain was accepted
        (at(-61), NOW, False),
        (at(-59), NOW, True),  # the first one after it (accepted 60 s ago)
        (None, NOW, False),  # tells of none: runs to its end
        (None, at(3600), True),  # unless it has a deadline
    ],
)
def test_a_gang_is_stopped_right_after_its_next_checkpoint(checkpoint_at, now, goes):
    work = drain(options=Options(mode="checkpoint"), deadline_at=at(3600))
    decision = decide(work, gang_with(checkpoint_at), now=now)
    assert taken(decision) == ([("suspend", "job-llm")] if goes else [])
    if not goes:
        assert "run on until" in decision.message


def test_a_restart_under_way_goes_on_when_the_checkpoint_is_told_no_more():
    work = drain(
        options=Options(mode="checkpoint"),
        rows=(StepRow("suspend", "Job/team-a/llm", "job-llm", "claimed", started_at=at(-1)),),
        memory=Memory(units={"job-llm": Unit("team-a", "llm", "Job", "suspend_resume")}),
    )
    assert taken(decide(work, gang_with(None))) == [("suspend", "job-llm")]


def test_the_wait_names_when_the_next_checkpoint_is_due():
    seen = gang_with(at(-600), **{INTERVAL_ANNOTATION: 900})
    decision = decide(drain(options=Options(mode="checkpoint")), seen)
    assert "its next checkpoint, due at 12:05:00 UTC" in decision.message


@given(
    mode=st.sampled_from(["now", "checkpoint", "complete", "deadline"]),
    checkpoint=st.one_of(st.none(), st.integers(-7200, 7200)),
    deadline=st.one_of(st.none(), st.integers(0, 7200)),
    looks=st.lists(st.integers(0, 9000), min_size=2, max_size=6),
)
def test_what_is_due_stays_due_and_nothing_goes_at_its_end(mode, checkpoint, deadline, looks):
    seen = gang_with(at(checkpoint) if checkpoint is not None else None)
    work = drain(
        options=Options(mode=mode), deadline_at=at(deadline) if deadline is not None else None
    )
    found = survey([seen.pods["pod-llm-0"]], view=seen, options=work.options, now=NOW)[0]
    due = [is_due(found, work, view=seen, now=at(moment)) for moment in sorted(looks)]
    assert due == sorted(due)
    if mode == "complete":
        assert not any(due)
    if mode == "now":
        assert all(due)


def wish(modes, seen, mode="now", seconds=None):
    asked = {"nodes": ["a"], "mode": mode, "modes": modes, "deadline_seconds": seconds}
    return read_wish("drain", read_parameters(asked), view=seen, health={})


def test_a_gangs_mode_is_the_gangs_whichever_of_its_pods_was_named():
    seen = gang_with()
    assert wish({"team-a/llm-0": "complete"}, seen).options.modes == {"team-a/llm": "complete"}
    with pytest.raises(RequestRefused, match="moves as one"):
        wish({"team-a/llm-0": "complete", "team-a/llm": "checkpoint"}, seen)


@pytest.mark.parametrize(
    ("modes", "mode", "seconds", "code"),
    [
        ({"team-a/nobody": "complete"}, "now", None, "not_found"),
        ({"team-a/llm": "later"}, "now", None, "invalid"),
        ({"team-a/llm": "deadline"}, "now", None, "invalid"),
        ({"team-a/llm": "complete"}, "now", 60, "invalid"),
        ({}, "checkpoint", -1, "invalid"),
    ],
)
def test_modes_that_make_no_sense_are_refused_with_a_code(modes, mode, seconds, code):
    with pytest.raises(RequestRefused) as refused:
        wish(modes, gang_with(), mode, seconds)
    assert refused.value.code == code


def test_a_mode_checkpoint_may_have_a_latest_moment():
    assert wish({}, gang_with(), "checkpoint", 60).deadline_seconds == 60


# --- turns ---


def fleet_of_jobs(*gone, count=5):
    """So many single-pod jobs on a; those in gone are on their way out."""
    names = [f"p{number}" for number in range(count) if number not in gone]
    return view(node("a", **ON_A), *singles(*names))


def test_so_many_units_are_on_the_move_as_may_be():
    work = drain(options=Options(units_at_once=2))
    first = decide(work, fleet_of_jobs())
    assert len(taken(first)) == 2
    work = carry_on(work, first)
    held = decide(work, fleet_of_jobs(), now=at(1))
    assert taken(held) == []
    assert "2 units are on the move" in held.message
    after = decide(work, fleet_of_jobs(0), now=at(2))
    assert [uid for _, uid in taken(after)] == ["pod-p2"]


def test_units_leave_with_a_pause_between_them():
    work = drain(options=Options(spacing_seconds=30))
    first = decide(work, fleet_of_jobs())
    assert [uid for _, uid in taken(first)] == ["pod-p0"]
    work = carry_on(work, first)
    held = decide(work, fleet_of_jobs(0), now=at(29))
    assert taken(held) == []
    assert "The next unit moves at 12:00:30 UTC" in held.message
    assert [uid for _, uid in taken(decide(work, fleet_of_jobs(0), now=at(30)))] == ["pod-p1"]


def test_nodes_that_share_a_gang_are_one_unit_with_one_restart():
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    seen = view(node("a", **ON_A), node("b", **ON_A), node("c"), node("d"), job(), *pods)
    work = drain(
        "a",
        "b",
        options=Options(spacing_seconds=600, units_at_once=1),
        done=(("cordon", "node-a"), ("cordon", "node-b")),
    )
    decision = decide(work, seen)
    assert taken(decision) == [("suspend", "job-llm")]
    assert decision.memory.units["job-llm"].moved.keys() == {"pod-llm-0", "pod-llm-1"}


def test_all_nodes_are_cordoned_before_the_first_unit_moves():
    pods = singles("p0") + singles("p1", where="b")
    seen = view(node("a", **ON_A), node("b"), *pods)
    work = drain("a", "b", options=Options())
    assert taken(decide(work, seen)) == [("cordon", "node-b")]


def test_the_pods_of_one_workload_are_one_unit():
    pods = [pod(f"w{number}", "a", owner="web", gpus=1) for number in range(3)]
    seen = view(node("a", **ON_A), job("web", gang=False, ranks=3), *pods)
    work = drain(options=Options(spacing_seconds=600, units_at_once=1))
    assert len(taken(decide(work, seen))) == 3


@given(count=st.integers(1, 8), most=st.integers(1, 3), spacing=st.sampled_from([0.0, 10.0, 45.0]))
def test_every_unit_has_its_turn_and_never_too_many_at_once(count, most, spacing):
    work = drain(options=Options(units_at_once=most, spacing_seconds=spacing))
    gone, moving, begun = set(), set(), []
    for tick in range(200):
        seen = fleet_of_jobs(*gone, count=count)
        decision = next_step(work, Observed(seen), at(5 * tick))
        moving |= {
            int(uid.removeprefix("pod-p")) for name, uid in taken(decision) if name == "evict"
        }
        begun += [at(5 * tick)] * sum(name == "evict" for name, _ in taken(decision))
        assert len(moving) <= most
        if isinstance(decision, Ended) or len(gone) == count:
            break
        work = carry_on(work, decision) if isinstance(decision, Act) else work
        if tick % 3 == 2 and moving:
            gone.add(moving.pop())
    assert len(gone) == count
    assert all(later - earlier >= timedelta(seconds=spacing) for earlier, later in pairwise(begun))


def test_the_sites_pace_is_kept_with_the_operation():
    parameters = read_parameters({"nodes": ["a"]})
    options = read_wish(
        "drain", parameters, view=view(node("a")), health={}, pace=Pace(30.0, 4)
    ).options
    assert (options.spacing_seconds, options.units_at_once) == (30.0, 4)


# --- pause ---


def paused(work, seen, now=NOW):
    return next_step(work, Observed(seen, pause="Paused by bob: storm."), now)


def test_a_paused_drain_takes_no_step_and_says_who_paused():
    decision = paused(drain(options=Options()), gang_with())
    assert isinstance(decision, Wait)
    assert decision.held
    assert decision.message == "Paused by bob: storm."
    assert taken(paused(operation("a"), view(node("a")))) == []


def test_a_job_that_a_pause_leaves_suspended_is_named():
    work = drain(
        options=Options(),
        done=(*CORDONED, ("suspend", "job-llm")),
        memory=Memory(units={"job-llm": Unit("team-a", "llm", "Job", "suspend_resume")}),
    )
    seen = view(node("a", **ON_A), job(suspended_by="op1", active=0))
    assert "Job team-a/llm is suspended meanwhile; cancel to resume" in paused(work, seen).message
    assert ("resume", "job-llm") in taken(decide(work, seen))


def test_what_takes_back_is_not_held_by_a_pause():
    cancelled = drain(options=Options(), cancelled_by="ada")
    assert taken(paused(cancelled, view(node("a", **ON_A)))) == [("uncordon", "node-a")]
    given = operation("a", kind="uncordon")
    assert taken(paused(given, view(node("a", cordoned=True)))) == [("uncordon", "node-a")]
    assert takes_back(cancelled, cancelled.memory)
    assert not takes_back(drain(options=Options()), Memory())


# --- protection ---

LABEL = {"pitwall.dev/protected": "true"}


def test_a_pod_that_becomes_protected_while_a_drain_runs_is_left_alone():
    pods = [pod("w", "a", owner="web", gpus=1, labels=LABEL), pod("x", "a", owner="web", gpus=1)]
    seen = view(node("a", **ON_A), job("web", gang=False, ranks=2), *pods)
    decision = decide(drain(options=Options()), seen)
    assert taken(decision) == [("evict", "pod-x")]
    typed = drain(options=Options(accept_protected=("w",)))
    assert len(taken(decide(typed, seen))) == 2


def test_a_rank_that_is_protected_anywhere_protects_its_gang():
    pods = [pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1, labels=LABEL)]
    seen = view(node("a", **ON_A), node("b"), node("c"), job(), *pods)
    decision = decide(drain(options=Options()), seen)
    assert taken(decision) == []
    assert "Pod team-a/llm-1 is protected" in decision.message


def test_a_gang_that_was_suspended_is_resumed_although_it_was_protected_since():
    seen = view(
        node("a", **ON_A),
        job(suspended_by="op1", active=0, labels=LABEL),
        pod("llm-9", "a", rank=9, owner="other"),
        job("other", labels=LABEL),
    )
    work = drain(
        options=Options(),
        done=(*CORDONED, ("suspend", "job-llm")),
        memory=Memory(units={"job-llm": Unit("team-a", "llm", "Job", "suspend_resume")}),
    )
    assert ("resume", "job-llm") in taken(decide(work, seen))


def test_false_protects_nothing():
    pods = [pod("w", "a", owner="web", labels={"pitwall.dev/protected": "false"})]
    seen = view(node("a", **ON_A), job("web", gang=False, ranks=1), *pods)
    assert taken(decide(drain(options=Options()), seen)) == [("evict", "pod-w")]


# --- stake ---


def test_the_stake_tells_the_next_checkpoint_where_the_interval_is_told():
    seen = gang_with(at(-600), **{INTERVAL_ANNOTATION: 900})
    pods = list(seen.pods.values())
    stake = stake_of(seen.workloads["job-llm"], pods, view=seen, now=NOW)
    assert (stake.next_checkpoint_at, stake.gpu_hours_at_next) == (at(300), 0.0)
    assert stake.gpu_hours == round(16 * 600 / 3600, 2)
    late = stake_of(seen.workloads["job-llm"], pods, view=seen, now=at(301))
    assert late.next_checkpoint_at == at(1200)
    untold = gang_with()
    nothing = stake_of(untold.workloads["job-llm"], pods, view=untold, now=NOW)
    assert (nothing.next_checkpoint_at, nothing.gpu_hours_at_next) == (None, None)


@pytest.mark.parametrize("interval", ["0", "-5", "often", "nan", "inf"])
def test_an_interval_that_can_not_be_is_not_told(interval):
    seen = gang_with(at(-600), **{INTERVAL_ANNOTATION: interval})
    stake = stake_of(seen.workloads["job-llm"], list(seen.pods.values()), view=seen, now=NOW)
    assert stake.next_checkpoint_at is None


def test_a_rank_may_tell_of_the_checkpoint():
    told = {CHECKPOINT_ANNOTATION: stamp(at(-30))}
    pods = [pod("llm-0", "a", rank=0, annotations=told), pod("llm-1", "b", rank=1)]
    seen = view(node("a", **ON_A), node("b"), node("c"), job(), *pods)
    decision = decide(drain(options=Options(mode="checkpoint")), seen)
    assert taken(decision) == [("suspend", "job-llm")]


def test_options_of_an_operation_survive_the_store():
    options = Options(
        mode="deadline", modes={"a/b": "now"}, accept_protected=("x",), units_at_once=3
    )
    assert msgspec.convert(msgspec.to_builtins(options), Options) == options
