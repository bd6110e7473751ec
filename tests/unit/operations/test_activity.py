"""A workload whose ranks are Ready is Returned once their GPUs work, or can't be seen, or a minute is over."""

from collections.abc import Mapping

from cluster_builders import NOW, at, job, node, pod, view

from app.operations.activity import WAIT_SECONDS, judge_activity
from app.operations.model import RESTARTING, RETURNED, MovedPod, Observed, Unit

UNIT = Unit("team-a", "llm", "Job", "suspend_resume", moved={"pod-old": MovedPod("llm-0", "a", 0)})
SAID = "All 2 ranks are Running and Ready elsewhere."
HEARD = {"b": ("Healthy", ""), "c": ("Healthy", "")}


def judged(
    activity: Mapping[str, float | None], *, seconds: float, health: dict[str, tuple[str, str]]
) -> tuple[str, str]:
    ranks = [pod("llm-0", "b", rank=0, ready_at=NOW), pod("llm-1", "c", rank=1, ready_at=NOW)]
    seen = view(node("a"), node("b"), node("c"), job(), *ranks)
    observed = Observed(seen, health, activity)
    return judge_activity("job-llm", UNIT, SAID, observed=observed, now=at(seconds))


def test_ranks_whose_gpus_work_are_returned() -> None:
    busy = {"pod-llm-0": 0.97, "pod-llm-1": 0.5}
    verdict, message = judged(busy, seconds=5, health=HEARD)
    assert (verdict, message) == (RETURNED, f"{SAID} Its GPUs are at work.")


def test_an_idle_or_unseen_rank_is_waited_for() -> None:
    for quiet in ({"pod-llm-0": 0.9, "pod-llm-1": 0.0}, {"pod-llm-0": 0.9}, {"pod-llm-0": 0.9, "pod-llm-1": None}):  # fmt: skip
        verdict, message = judged(quiet, seconds=WAIT_SECONDS - 1, health=HEARD)
        assert verdict == RESTARTING
        assert "1 of 2 pods, llm-1 among them" in message


def test_the_wait_ends_and_says_that_nothing_was_seen() -> None:
    verdict, message = judged({"pod-llm-0": 0.9}, seconds=WAIT_SECONDS, health=HEARD)
    assert verdict == RETURNED
    assert "No GPU activity of 1 of 2 pods, llm-1 among them, was seen within 60 s" in message


def test_a_silent_agent_is_not_waited_for_and_its_gpus_are_unknown() -> None:
    verdict, message = judged({}, seconds=0, health={"b": ("Unknown", "silent")})
    assert verdict == RETURNED
    assert "unknown" in message
    verdict, message = judged({"pod-llm-0": 0.9}, seconds=0, health={"b": ("Healthy", "")})
    assert (verdict, message) == (RETURNED, f"{SAID} Its GPUs are at work.")
