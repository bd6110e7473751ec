"""What stands against a plan, and what a person should know before it is carried out. Pure."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from app.limits import Limits
from app.operations.model import Wish
from app.operations.modes import ACTIONS, CHECKPOINT, checkpoint_of_pod, mode_of
from app.operations.power_off import power_off_warnings
from app.operations.protection import guard_of_node, protected_reason
from app.operations.stake import CHECKPOINT_ANNOTATION
from app.operations.survey import Surveyed
from k8s.budgets import BudgetObstacle
from k8s.view import ClusterView

NO_ROOM = ("does_not_fit", "unknown")


def blockers_of(
    wish: Wish,
    surveyed: Sequence[Surveyed],
    budgets: Sequence[BudgetObstacle],
    jobs: Sequence[Mapping[str, Any]],
    view: ClusterView,
) -> list[str]:
    """One sentence for each thing that keeps the plan from being carried out. jobs: those that move."""
    said = [
        f"{protected_reason(guard)}."
        for name in wish.nodes
        if (guard := guard_of_node(name, view)) is not None
        and not guard.is_lifted(wish.options.accept_protected)
    ]
    said += [
        f"Pod {found.name} is not moved: {'; '.join(found.reasons)}."
        for found in surveyed
        if found.way == "block"
    ]
    said += _without_checkpoint(wish, surveyed, view)
    said += [f"{obstacle.message}." for obstacle in budgets if obstacle.kind != "exhausted"]
    for job in jobs:
        if job["fit"]["verdict"] in NO_ROOM and not is_accepted(
            job, wish.options.accept_no_capacity
        ):
            what = (
                "does not fit elsewhere"
                if job["fit"]["verdict"] == "does_not_fit"
                else "may not fit elsewhere"
            )
            said.append(
                f"{job['kind']} {job['namespace']}/{job['name']} {what} ({job['fit']['reason']}): "
                f"to stop it all the same, type its name, {job['name']}."
            )
    return said


def _without_checkpoint(wish: Wish, surveyed: Sequence[Surveyed], view: ClusterView) -> list[str]:
    """Pods that can't be taken at their next checkpoint, since nobody tells of one."""
    names = dict.fromkeys(
        found.workload.said if found.workload is not None else f"Pod {found.name}"
        for found in surveyed
        if found.way in ("evict", "restart")
        and mode_of(found, wish.options) == CHECKPOINT
        and checkpoint_of_pod(found, view) is None
    )
    return [
        f"{name} tells of no checkpoint (annotation {CHECKPOINT_ANNOTATION}), so when its next one comes is "
        "not known: give it another mode."
        for name in names
    ]


def is_accepted(job: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a person has typed the job's name."""
    return job["name"] in names or f"{job['namespace']}/{job['name']}" in names


def warnings_of(
    wish: Wish,
    surveyed: Sequence[Surveyed],
    budgets: Sequence[BudgetObstacle],
    jobs: Sequence[Mapping[str, Any]],
    view: ClusterView,
) -> list[str]:
    """What is no obstacle, and yet should be known. jobs: those that move."""
    said = [
        f"{obstacle.message}; its pods are waited for."
        for obstacle in budgets
        if obstacle.kind == "exhausted"
    ]
    seen: set[str] = set()
    for found in surveyed:
        workload = found.workload
        if workload is None or not found.leaving or workload.uid in seen:
            continue
        seen.add(workload.uid)
        said += [f"{workload.said}: {warning}." for warning in workload.warnings]
        if found.way == "evict" and workload.refusal:
            said.append(f"{workload.said}: {workload.refusal}.")
    for job in jobs:
        name = f"{job['kind']} {job['namespace']}/{job['name']}"
        if job["fit"]["verdict"] == "outside_domain":
            said.append(f"{name} fits only outside its topology domain: {job['fit']['reason']}.")
        if job["fit"]["verdict"] in NO_ROOM and is_accepted(job, wish.options.accept_no_capacity):
            said.append(f"{name} is stopped although it may find no place: {job['fit']['reason']}.")
        if (
            job["on_dead_nodes"]
            and job["restart_path"] == "suspend_resume"
            and job["mode"] not in ACTIONS
        ):
            nodes = ", ".join(job["on_dead_nodes"])
            said.append(
                f"{name} has pods on {nodes}, which does not answer: it is suspended only after the node "
                "answers or a person has confirmed that it is off."
            )
    said += power_off_warnings(list(surveyed), view)
    if wish.action == "reschedule":
        said.append(
            f"{', '.join(wish.nodes)} under its ranks is Failing or does not answer: it is cordoned, so "
            "that no rank returns to it, and stays so."
            if wish.nodes
            else "No node under its ranks is Failing: it is restarted and may return to the same nodes."
        )
    return said


def limit_warnings(limits: Limits) -> list[str]:
    """What goes past a limit all the same: by a person's word, or since nothing is evicted."""
    return [
        f"It goes past the limit {line.name}: {line.message}"
        for line in limits.lines
        if line.passed
    ]
