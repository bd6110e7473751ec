"""The preview: what an operation would do, whom it hurts, and what stands in the way. Pure.

What is previewed is judged by the same functions that the reconciler acts by, so the plan equals what
is then done as long as its hash holds.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.limits import Limits
from app.operations.model import NodeFacts, Wish
from app.operations.modes import ACTIONS, CHECKPOINT, COMPLETE, mode_of
from app.operations.objections import blockers_of, limit_warnings, warnings_of
from app.operations.plan_hash import hash_plan
from app.operations.protection import guard_of_node
from app.operations.spares import NoSpares, no_spares, probation_reason, spare_warnings
from app.operations.stake import Stake, stake_of
from app.operations.survey import Surveyed, is_dead, live_pods, pods_on, survey
from k8s.budgets import BudgetObstacle, budget_obstacles
from k8s.capacity import Fit, demand_of, fit
from k8s.objects import Pod, controller_of, gpu_request
from k8s.view import ClusterView
from k8s.workloads import rank_of
from k8s.workloads.kind import Workload

VERSION = 1


def build_plan(
    wish: Wish,
    *,
    view: ClusterView,
    facts: Mapping[str, NodeFacts],
    reserved: Mapping[str, int],
    limits: Limits,
    now: datetime,
    valid_seconds: float,
) -> dict[str, Any]:
    """The plan as a JSON document.

    facts: of the nodes asked for and of all that are Failing or on Probation; reserved: GPUs by node that open
    operations count on.
    """
    spares = no_spares(wish.nodes, view, facts)
    surveyed = survey(wished_pods(wish, view), view=view, options=wish.options, now=now)
    surveyed = [found for found in surveyed if found.way != "gone"]
    moving = [found for found in surveyed if mode_of(found, wish.options) != COMPLETE]
    budgets = _budgets(moving, view)
    jobs = _jobs(wish, surveyed, view=view, reserved=reserved, spares=spares, now=now)
    moved = [job for job, _ in jobs if job["mode"] != COMPLETE]
    plan: dict[str, Any] = {
        "version": VERSION,
        "action": wish.action,
        "mode": wish.options.mode,
        "modes": dict(wish.options.modes),
        "options": {
            "delete_emptydir_data": wish.options.delete_emptydir_data,
            "force": wish.options.force,
            "deadline_seconds": wish.deadline_seconds,
            "accept_no_capacity": list(wish.options.accept_no_capacity),
            "accept_protected": list(wish.options.accept_protected),
            "past_limits": sorted(wish.past_limits),
            "spacing_seconds": wish.options.spacing_seconds,
            "units_at_once": wish.options.units_at_once,
        },
        "nodes": [_node(name, view, facts.get(name, NodeFacts())) for name in wish.nodes],
        "pods": [_pod(found, mode_of(found, wish.options)) for found in surveyed],
        "jobs": [job for job, _ in jobs],
        "budgets": [_budget(obstacle) for obstacle in budgets],
        "limits": msgspec.to_builtins(limits),
        "protected": _protected(wish, moving, view),
        "gpu_hours_at_stake": round(sum(job["gpu_hours_at_stake"] for job, _ in jobs), 2),
        "gpu_hours_at_next_checkpoint": _at_next_checkpoint([job for job, _ in jobs]),
        "gpus_stopped": sum(job["gpus"] for job in moved),
        "blockers": blockers_of(wish, moving, budgets, moved, view),
        "warnings": warnings_of(wish, surveyed, budgets, moved, view)
        + limit_warnings(limits)
        + spare_warnings(spares, moved),
        "created_at": now.isoformat(),
        "expires_at": (now + timedelta(seconds=valid_seconds)).isoformat(),
        # What accepting reserves: {node: GPUs}; shown as candidates, not bound to.
        "reserve": _reserve(jobs),
    }
    plan["hash"] = hash_plan(plan)
    return plan


def wished_pods(wish: Wish, view: ClusterView) -> list[Pod]:
    """The pods that are concerned: all on the nodes, or those of the workload that a restart moves."""
    if wish.action == "drain" or wish.workload is None:
        return pods_on(wish.nodes, view)
    live = live_pods(wish.workload, view)
    if wish.workload.restart_path == "evict" and wish.nodes:
        # Independent pods: only those on the nodes that are left; the others run on.
        live = [pod for pod in live if pod.spec.node_name in wish.nodes]
    return sorted(live, key=lambda pod: (rank_of(pod, view) or 0, pod.metadata.name))


def _node(name: str, view: ClusterView, facts: NodeFacts) -> dict[str, Any]:
    node = view.nodes.get(name)
    return {
        "name": name,
        "block": facts.block,
        "rack": facts.rack,
        "health": facts.health,
        "service": facts.service,
        "already_unschedulable": node is not None and node.spec.unschedulable,
        "ready": node is not None and not is_dead(name, view),
    }


def _pod(found: Surveyed, mode: str) -> dict[str, Any]:
    meta = found.pod.metadata
    owner = controller_of(meta)
    action = {"restart": "restart_with_gang"}.get(found.way, found.way)
    if found.way in ("evict", "restart") or (found.leaving and mode == COMPLETE):
        action = ACTIONS.get(mode, action)
    return {
        "uid": found.uid,
        "namespace": meta.namespace,
        "name": meta.name,
        "node": found.node,
        "owner": f"{owner.kind}/{owner.name}" if owner else "",
        "job_uid": found.workload.uid if found.workload else None,
        "rank": found.rank,
        "gpus": found.gpus,
        "action": action,
        "mode": mode,
        "warnings": list(found.warnings),
        "reasons": list(found.reasons),
    }


def _jobs(
    wish: Wish,
    surveyed: Sequence[Surveyed],
    *,
    view: ClusterView,
    reserved: Mapping[str, int],
    spares: NoSpares,
    now: datetime,
) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """Each workload concerned, and the GPUs by node that it would take. They are fitted one after another."""
    groups: dict[str, list[Surveyed]] = {}
    for found in surveyed:
        if found.workload is not None and found.leaving and found.workload.finished is None:
            groups.setdefault(found.workload.uid, []).append(found)
    spent, released = dict(reserved), set[str]()
    jobs = []
    for members in groups.values():
        workload = members[0].workload
        assert workload is not None
        gang = workload.restart_path == "suspend_resume"
        pods = live_pods(workload, view) if gang else [found.pod for found in members]
        modes = {mode_of(found, wish.options) for found in members}
        mode = modes.pop() if len(modes) == 1 else "mixed"
        # What runs to its end needs no room, and holds none back from others.
        room, taken = (
            (Fit("fits", reason="it runs to its end where it is"), {})
            if mode == COMPLETE
            else _fit(
                pods,
                gang,
                view=view,
                excluded=set(wish.nodes),
                spares=spares,
                spent=spent,
                released=released,
            )
        )
        for node, gpus in taken.items():
            spent[node] = spent.get(node, 0) + gpus
        stake = stake_of(workload, pods, view=view, now=now)
        jobs.append((_job(workload, members, pods, room, stake, mode, view, now), taken))
    return jobs


def _fit(
    pods: Sequence[Pod],
    gang: bool,
    *,
    view: ClusterView,
    excluded: set[str],
    spares: NoSpares,
    spent: Mapping[str, int],
    released: set[str],
) -> tuple[Fit, dict[str, int]]:
    demand = [demand_of(pod) for pod in pods if gpu_request(pod)]
    if gang:
        released.update(pod.metadata.uid for pod in pods)

    def fit_without(nodes: Collection[str]) -> Fit:
        return fit(
            demand,
            view=view,
            excluded_nodes={*excluded, *nodes},
            reserved=spent,
            released=frozenset(released),
        )

    room = fit_without(spares.excluded)
    if (
        spares.probation
        and room.verdict in ("does_not_fit", "outside_domain")
        and fit_without(spares.failing).verdict == "fits"
    ):
        room = replace(room, reason=f"{room.reason}; {probation_reason(spares)}")
    taken: dict[str, int] = {}
    for node, entry in zip(room.nodes, demand, strict=False):
        taken[node] = taken.get(node, 0) + entry.gpus
    return room, taken


def _job(
    workload: Workload,
    members: Sequence[Surveyed],
    pods: Sequence[Pod],
    room: Fit,
    stake: Stake,
    mode: str,
    view: ClusterView,
    now: datetime,
) -> dict[str, Any]:
    moved = {found.uid for found in members}
    lost, basis = stake.gpu_hours, stake.basis
    if mode == COMPLETE:
        lost, basis = 0.0, "it runs to its end"
    elif mode == CHECKPOINT and stake.gpu_hours_at_next is not None:
        lost, basis = stake.gpu_hours_at_next, "it is stopped right after its next checkpoint"
    age = (now - stake.checkpoint_at).total_seconds() if stake.checkpoint_at else None
    due = stake.next_checkpoint_at
    return {
        "uid": workload.uid,
        "kind": workload.kind,
        "namespace": workload.namespace,
        "name": workload.name,
        "team": workload.team,
        "gang": workload.gang,
        "ranks_moved": sorted(found.rank for found in members if found.rank is not None),
        "pods_moved": len(moved),
        "wanted_pods": workload.wanted_pods or len(pods),
        "gpus": sum(gpu_request(pod) for pod in pods),
        "restart_path": workload.restart_path,
        "refusal": workload.refusal,
        "generation": workload.generation,
        "checkpoint_at": stake.checkpoint_at.isoformat() if stake.checkpoint_at else None,
        "checkpoint_age_seconds": round(age, 1) if age is not None else None,
        "next_checkpoint_at": due.isoformat() if due else None,
        "mode": mode,
        "gpu_hours_at_stake": lost,
        "gpu_hours_at_stake_now": stake.gpu_hours,
        "gpu_hours_at_next_checkpoint": stake.gpu_hours_at_next,
        "stake_basis": basis,
        "fit": {"verdict": room.verdict, "nodes": sorted(set(room.nodes)), "reason": room.reason},
        "on_dead_nodes": sorted(
            {
                pod.spec.node_name
                for pod in pods
                if pod.spec.node_name and is_dead(pod.spec.node_name, view)
            }
        ),
    }


def _budgets(surveyed: Sequence[Surveyed], view: ClusterView) -> list[BudgetObstacle]:
    # A gang's pods go with the suspend, which asks no budget; only evictions do.
    return budget_obstacles([found.pod for found in surveyed if found.way == "evict"], view)


def _budget(obstacle: BudgetObstacle) -> dict[str, Any]:
    return {
        "namespace": obstacle.namespace,
        "name": obstacle.name,
        "kind": obstacle.kind,
        "message": obstacle.message,
        "pods": [f"{pod.metadata.namespace}/{pod.metadata.name}" for pod in obstacle.pods],
    }


def _protected(wish: Wish, surveyed: Sequence[Surveyed], view: ClusterView) -> list[dict[str, Any]]:
    """What is protected of all that would be taken, and whether a person has typed its name."""
    guards = dict.fromkeys(
        guard for name in wish.nodes if (guard := guard_of_node(name, view)) is not None
    )
    for found in surveyed:
        guards.update(dict.fromkeys(found.guards))
    typed = wish.options.accept_protected
    return [
        {"kind": guard.kind, "name": guard.name, "accepted": guard.is_lifted(typed)}
        for guard in guards
    ]


def _at_next_checkpoint(jobs: Sequence[Mapping[str, Any]]) -> float | None:
    """What is lost when each job is stopped at its next checkpoint; None as soon as one tells of none."""
    hours = [
        job["gpu_hours_at_next_checkpoint"] if job["mode"] != COMPLETE else 0.0 for job in jobs
    ]
    known = [hour for hour in hours if hour is not None]
    return round(sum(known), 2) if len(known) == len(hours) else None


def _reserve(jobs: Sequence[tuple[Mapping[str, Any], Mapping[str, int]]]) -> dict[str, int]:
    """GPUs by node beyond what a gang gives free itself on nodes where it stays."""
    total: dict[str, int] = {}
    for _, taken in jobs:
        for node, gpus in taken.items():
            total[node] = total.get(node, 0) + gpus
    return total
