"""A node on probation is schedulable, and yet no room that a plan counts on."""

from cluster_builders import NOW, job, node, pod, view
from hypothesis import given
from hypothesis import strategies as st

from app.limits import LimitLine, Limits, LimitSettings, judge_limits
from app.operations.model import NodeFacts, Options, Wish
from app.operations.plan import build_plan

LIMITS = Limits("ok", (LimitLine("stock", 1, 0, 1, "fine"),))
TRIAL = NodeFacts("b1", "r1", "Healthy", "Probation")


def plan(seen, *, mode="now", **facts):
    return build_plan(
        Wish("drain", ("a",), Options(mode=mode)),
        view=seen,
        facts=facts,
        reserved={},
        limits=LIMITS,
        now=NOW,
        valid_seconds=600,
    )


def gang_on(*nodes):
    pods = [pod(f"llm-{rank}", where, rank=rank) for rank, where in enumerate(("a", "b"))]
    return view(*[node(name) for name in nodes], job(), *pods)


def test_a_gang_is_fitted_elsewhere_than_on_a_node_on_probation():
    made = plan(gang_on("a", "b", "c", "d"), c=TRIAL)
    assert made["jobs"][0]["fit"]["nodes"] == ["b", "d"]
    assert "c is on probation: not counted as room" in made["warnings"][-1]


def test_the_preview_says_when_probation_is_why_a_job_does_not_fit():
    made = plan(gang_on("a", "b", "c"), c=TRIAL)
    only = made["jobs"][0]["fit"]
    assert only["verdict"] == "does_not_fit"
    assert "it would fit with c, no spare while on probation" in only["reason"]
    assert "no spare while on probation" in made["blockers"][0]


def test_probation_is_not_blamed_where_nothing_would_fit_anyway():
    made = plan(gang_on("a", "b"), b=TRIAL)
    reason = made["jobs"][0]["fit"]["reason"]
    assert "probation" not in reason


def test_a_failing_node_on_probation_is_told_as_failing():
    made = plan(gang_on("a", "b", "c", "d"), c=NodeFacts("b1", "r1", "Failing", "Probation"))
    assert "c is Failing and schedulable" in made["warnings"][-1]
    assert not any("on probation" in said for said in made["warnings"])


def test_a_node_on_probation_may_be_drained_itself_and_a_cordoned_one_is_not_warned_of():
    own = plan(gang_on("a", "b", "c"), a=TRIAL)
    assert own["jobs"][0]["fit"]["verdict"] == "fits"
    assert own["nodes"][0]["service"] == "Probation"
    cordoned = view(*gang_on("a", "b", "c").nodes.values(), node("d", cordoned=True))
    assert plan(cordoned, d=TRIAL)["warnings"] == []


def test_who_lets_pods_complete_is_not_warned_of_spares():
    made = plan(gang_on("a", "b", "c", "d"), mode="complete", c=TRIAL)
    assert not any("probation" in said for said in made["warnings"])


@given(st.sets(st.sampled_from("bcdefgh")))
def test_no_plan_ever_counts_on_a_node_on_probation(trial):
    made = plan(gang_on(*"abcdefgh"), **dict.fromkeys(trial, TRIAL))
    assert not trial & set(made["jobs"][0]["fit"]["nodes"])
    assert not trial & set(made["reserve"])


def test_for_the_limits_a_node_on_probation_is_in_service():
    seen = view(*[node(f"n{number}") for number in range(10)])
    judged = judge_limits(
        {"n0"},
        view=seen,
        held=set(),
        taken_in_window=0,
        now=NOW,
        settings=LimitSettings(0.1, 10, 1.0),
    )
    assert judged.lines[0].now == 0
    assert judged.verdict != "refused"
