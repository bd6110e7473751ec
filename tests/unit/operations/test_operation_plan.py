"""Previews: what is told, what blocks, what the hash binds to."""

from datetime import timedelta

import pytest
from cluster_builders import NOW, budget, job, node, pod, stamp, view

from app.errors import RequestRefused
from app.limits import LimitLine, Limits
from app.operations.model import NodeFacts, Options, Wish
from app.operations.plan import build_plan
from app.operations.plan_hash import changes, hash_plan
from app.operations.wishes import Parameters, read_parameters, read_wish

LIMITS = Limits("ok", (LimitLine("stock", 1, 0, 1, "fine"),))


def plan(
    seen, *nodes, mode="now", limits=LIMITS, reserved=None, now=NOW, failing=("a",), **options
):
    return build_plan(
        Wish("drain", nodes, Options(mode=mode, **options)),
        view=seen,
        facts={name: NodeFacts("b1", "r1", "Failing") for name in failing},
        reserved=reserved or {},
        limits=limits,
        now=now,
        valid_seconds=600,
    )


def gang_on(*nodes, **changed):
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    return view(*[node(name) for name in nodes], job(**changed), *pods)


def test_a_gang_is_restarted_whole_and_its_own_gpus_count_as_free():
    made = plan(gang_on("a", "b", "c"), "a")
    assert made["blockers"] == []
    only = made["jobs"][0]
    assert only["ranks_moved"] == [0]
    assert only["gpus"] == 16
    assert only["fit"] == {
        "verdict": "fits",
        "nodes": ["b", "c"],
        "reason": "16 GPUs are free elsewhere",
    }
    assert made["pods"][0]["action"] == "restart_with_gang"
    assert made["nodes"][0]["health"] == "Failing"


def test_no_room_elsewhere_blocks_until_the_job_is_named():
    seen = gang_on("a", "b")
    assert "type its name, llm" in plan(seen, "a")["blockers"][0]
    allowed = plan(seen, "a", accept_no_capacity=("llm",))
    assert allowed["blockers"] == []
    assert "although it may find no place" in " ".join(allowed["warnings"])
    assert allowed["hash"] == plan(seen, "a")["hash"]


def test_a_failing_node_is_no_room_and_is_warned_of():
    seen = gang_on("a", "b", "c", "d")
    made = plan(seen, "a", failing=("a", "c"))
    assert made["jobs"][0]["fit"]["nodes"] == ["b", "d"]
    assert "c is Failing and schedulable" in made["warnings"][-1]
    both = plan(gang_on("a", "b", "c"), "a", failing=("a", "b"))
    assert both["jobs"][0]["fit"]["verdict"] == "does_not_fit"
    cordoned = view(node("a"), node("b"), node("c"), node("d", cordoned=True), job(),
                    pod("llm-0", "a", rank=0), pod("llm-1", "b", rank=1))  # fmt: skip
    assert not any(
        "Failing and" in said for said in plan(cordoned, "a", failing=("a", "d"))["warnings"]
    )


def test_gpus_that_another_drain_counts_on_are_not_free():
    made = plan(gang_on("a", "b", "c"), "a", reserved={"c": 8})
    assert made["jobs"][0]["fit"]["verdict"] == "does_not_fit"


def test_gpu_hours_count_from_the_checkpoint_where_one_is_told():
    untold = plan(gang_on("a", "b", "c"), "a")
    assert untold["gpu_hours_at_stake"] == 8.0  # 16 GPUs, 30 min of two hours
    assert "no checkpoint" in untold["jobs"][0]["stake_basis"]
    at = stamp(NOW - timedelta(minutes=15))
    told = plan(gang_on("a", "b", "c", annotations={"pitwall.dev/checkpoint-at": at}), "a")
    assert told["gpu_hours_at_stake"] == 4.0
    assert told["jobs"][0]["checkpoint_at"].startswith("2026-07-01T11:45:00")


def test_a_broken_checkpoint_annotation_is_no_checkpoint():
    seen = gang_on("a", "b", "c", annotations={"pitwall.dev/checkpoint-at": "yesterday"})
    assert plan(seen, "a")["jobs"][0]["checkpoint_at"] is None


def test_an_unmanaged_pod_blocks_and_force_takes_it():
    seen = view(node("a"), pod("bare", "a", owner=None))
    assert plan(seen, "a")["pods"][0]["action"] == "block"
    assert "bare" in plan(seen, "a")["blockers"][0]
    assert plan(seen, "a", force=True)["blockers"] == []


def test_a_budget_in_the_way_is_named_and_waited_for():
    seen = view(
        node("a"),
        node("b"),
        job(gang=False),
        pod("w", "a", labels={"app": "w"}),
        budget("keep", labels={"app": "w"}, allowed=0),
    )
    made = plan(seen, "a")
    assert [(each["name"], each["kind"]) for each in made["budgets"]] == [("keep", "exhausted")]
    assert made["blockers"] == []


def test_mode_complete_moves_nothing_and_blocks_on_nothing():
    made = plan(
        view(node("a"), job(), pod("llm-0", "a", rank=0), pod("bare", "a", owner=None)),
        "a",
        mode="complete",
    )
    assert {each["action"] for each in made["pods"]} == {"let_complete"}
    assert made["blockers"] == []
    assert made["gpu_hours_at_stake"] == 0


def test_mode_deadline_says_so_of_each_pod():
    made = plan(gang_on("a", "b", "c"), "a", mode="deadline")
    assert [each["action"] for each in made["pods"]] == ["at_deadline"]


def test_a_dead_node_under_a_gang_is_told():
    pods = [pod("llm-0", "a", rank=0), pod("llm-1", "dead", rank=1)]
    seen = view(node("a"), node("dead", ready=False), node("c"), node("d"), job(), *pods)
    made = plan(seen, "a")
    assert made["jobs"][0]["on_dead_nodes"] == ["dead"]
    assert "does not answer" in " ".join(made["warnings"])


def test_the_hash_holds_while_only_shown_figures_move():
    seen = gang_on("a", "b", "c")
    later = plan(seen, "a", now=NOW + timedelta(minutes=5))
    assert later["hash"] == plan(seen, "a")["hash"]
    more_room = gang_on("a", "b", "c", "d")
    assert plan(more_room, "a")["hash"] == plan(seen, "a")["hash"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (lambda: plan(gang_on("a", "b", "c", generation=2), "a"), "job team-a/llm was edited"),
        (lambda: plan(gang_on("a", "b", "c"), "a", "b"), "node b is new"),
        (
            lambda: plan(gang_on("a", "b", "c"), "a", mode="deadline"),
            "the mode asked for is not the same",
        ),
        (lambda: plan(gang_on("a", "b"), "a"), "does not fit now, fits before"),
        (lambda: plan(view(node("a"), node("c"), job()), "a"), "pod team-a/llm-0 is gone"),
        (
            lambda: plan(
                gang_on("a", "b", "c"),
                "a",
                limits=Limits("refused", (LimitLine("stock", 1, 1, 2, "over"),)),
            ),
            "the limit stock refuses it now",
        ),
        (
            lambda: plan(
                view(
                    node("a"),
                    node("b"),
                    node("c"),
                    job(),
                    pod("llm-0", "a", rank=0, empty_dir=True),
                    pod("llm-1", "b", rank=1),
                ),
                "a",
            ),
            "would be blocked instead of restarted with its gang",
        ),
    ],
)
def test_whatever_binds_changes_the_hash_and_is_said_in_words(after, said):
    before = plan(gang_on("a", "b", "c"), "a")
    now = after()
    assert hash_plan(now) != before["hash"]
    assert any(said in each for each in changes(before, now)), changes(before, now)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"nodes": ["a"], "mode": "later"}, "invalid"),
        ({"nodes": ["a"], "mode": "deadline"}, "invalid"),
        ({"nodes": ["a"], "deadline_seconds": 5}, "invalid"),
        ({"nodes": []}, "invalid"),
        ({"nodes": ["nowhere"]}, "not_found"),
        ({"nodes": ["a"], "accept_no_capacity": True}, "invalid"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_a_code(document, code):
    with pytest.raises(RequestRefused) as refused:
        read_wish("drain", read_parameters(document), view=view(node("a")), health={})
    assert refused.value.code == code


def test_parameters_of_the_wrong_type_are_refused():
    with pytest.raises(RequestRefused):
        read_parameters({"nodes": "a"})


@pytest.mark.parametrize(
    ("jobs", "text", "code"),
    [
        ([], "llm", "not_found"),
        ([job(finished="Complete")], "team-a/llm", "invalid"),
        ([job(suspended=True)], "llm", "invalid"),
    ],
)
def test_a_job_that_can_not_be_restarted_is_refused(jobs, text, code):
    with pytest.raises(RequestRefused) as refused:
        read_wish("reschedule", Parameters(job=text), view=view(*jobs), health={})
    assert refused.value.code == code


@pytest.mark.parametrize("text", ["team-a/gone", "gone", "job-gone"])
def test_a_workload_known_only_by_its_pods_is_not_called_unknown(text):
    seen = view(node("a"), pod("gone-0", "a", owner="gone"))
    with pytest.raises(RequestRefused, match=r"Job team-a/gone .* drain the nodes") as refused:
        read_wish("reschedule", Parameters(job=text), view=seen, health={})
    assert refused.value.code == "protected"


def test_a_reschedule_takes_the_failing_nodes_under_the_ranks():
    seen = gang_on("a", "b", "c")
    wish = read_wish("reschedule", Parameters(job="job-llm"), view=seen, health={"b": "Failing"})
    assert wish.nodes == ("b",)
    assert wish.workload is not None


def test_a_plan_says_of_each_pod_and_job_which_mode_it_has():
    pods = [pod("solo", "a", owner="web", gpus=1), pod("llm-0", "a", rank=0)]
    seen = view(node("a"), node("b"), job(ranks=1), job("web", gang=False, ranks=1), *pods)
    made = plan(seen, "a", modes={"team-a/llm": "complete"})
    assert {each["name"]: (each["mode"], each["action"]) for each in made["pods"]} == {
        "llm-0": ("complete", "let_complete"),
        "solo": ("now", "evict"),
    }
    assert {each["name"]: each["mode"] for each in made["jobs"]} == {
        "llm": "complete",
        "web": "now",
    }
    assert made["gpu_hours_at_stake"] == 0.5  # of the one GPU that moves
    assert made["gpus_stopped"] == 1
    assert made["hash"] != plan(seen, "a")["hash"]


def checkpointed(**annotations):
    at = stamp(NOW - timedelta(minutes=15))
    return gang_on("a", "b", "c", annotations={"pitwall.dev/checkpoint-at": at, **annotations})


def test_a_plan_tells_what_is_lost_now_and_at_the_next_checkpoint():
    seen = checkpointed(**{"pitwall.dev/checkpoint-interval-seconds": "1800"})
    only = plan(seen, "a")["jobs"][0]
    assert only["checkpoint_age_seconds"] == 900
    assert only["next_checkpoint_at"] == (NOW + timedelta(minutes=15)).isoformat()
    assert (only["gpu_hours_at_stake_now"], only["gpu_hours_at_next_checkpoint"]) == (4.0, 0.0)
    at_next = plan(seen, "a", mode="checkpoint")
    assert (at_next["gpu_hours_at_stake"], at_next["gpu_hours_at_next_checkpoint"]) == (0.0, 0.0)
    assert at_next["pods"][0]["action"] == "at_checkpoint"
    assert at_next["blockers"] == []
    untold = plan(gang_on("a", "b", "c"), "a")
    assert untold["gpu_hours_at_next_checkpoint"] is None
    assert untold["jobs"][0]["checkpoint_age_seconds"] is None


def test_mode_checkpoint_is_refused_for_a_job_that_tells_of_none():
    made = plan(gang_on("a", "b", "c"), "a", mode="checkpoint")
    assert "Job team-a/llm tells of no checkpoint" in made["blockers"][0]
    mixed = plan(gang_on("a", "b", "c"), "a", mode="checkpoint", modes={"team-a/llm": "now"})
    assert mixed["blockers"] == []


def test_the_hash_binds_to_what_is_protected_and_not_to_the_word_that_lifts_it():
    label = {"pitwall.dev/protected": "true"}
    before, after = (
        plan(gang_on("a", "b", "c"), "a"),
        plan(gang_on("a", "b", "c", labels=label), "a"),
    )
    assert any("the protection of Job team-a/llm is new" in said for said in changes(before, after))
    assert "--confirm-protected" in after["blockers"][0]
    typed = plan(gang_on("a", "b", "c", labels=label), "a", accept_protected=("llm",))
    assert typed["blockers"] == []
    assert typed["protected"] == [{"kind": "Job", "name": "team-a/llm", "accepted": True}]


def test_what_runs_to_its_end_needs_no_word_for_its_protection():
    label = {"pitwall.dev/protected": "true"}
    made = plan(gang_on("a", "b", "c", labels=label), "a", mode="complete")
    assert (made["blockers"], made["protected"]) == ([], [])
