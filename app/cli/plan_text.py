"""A preview's plan as text for a person who must say yes to it. The plan's shape: docs/json.md."""

from datetime import datetime
from typing import Any

from app.cli.durations import write_duration
from app.cli.tables import align, printable

RANKS_SHOWN = 16


def plan_lines(plan: dict[str, Any], *, now: datetime) -> list[str]:
    """What would be done, whom it hurts, what stands in the way, and until when a yes counts."""
    lines = [_title(plan)]
    lines += _nodes(plan)
    lines += _pods(plan)
    lines += _jobs(plan)
    lines += _limits(plan)
    for title, key in (
        ("Budgets in the way", "budgets"),
        ("Blockers", "blockers"),
        ("Warnings", "warnings"),
    ):
        sentences = [_sentence(entry) for entry in plan.get(key, [])]
        if sentences:
            lines += ["", f"{title}:", *(f"  {sentence}" for sentence in sentences)]
    lines += ["", _validity(plan, now=now)]
    return lines


def stands_against(plan: dict[str, Any]) -> str | None:
    """One sentence when the plan can't be carried out as it is, else None."""
    limits = plan.get("limits", {})
    if limits.get("verdict") == "refused":
        against = [
            line.get("message", "")
            for line in limits.get("lines", [])
            if line.get("after", 0) > line.get("limit", 0) and not line.get("passed")
        ]
        return printable(" ".join(against)) or "a limit refuses it"
    blockers = plan.get("blockers", [])
    return printable(" ".join(blockers)) if blockers else None


def is_refused_by_limit_or_budget(plan: dict[str, Any]) -> bool:
    """True when what stands against the plan is a limit, or a budget that no waiting opens."""
    if plan.get("limits", {}).get("verdict") == "refused":
        return True
    hopeless = any(budget.get("kind") != "exhausted" for budget in plan.get("budgets", []))
    return bool(plan.get("blockers")) and hopeless


def _title(plan: dict[str, Any]) -> str:
    nodes = plan.get("nodes", [])
    hours = plan.get("gpu_hours_at_stake")
    stake = "GPU-hours at stake unknown" if hours is None else f"{hours:.1f} GPU-hours at stake"
    names = ", ".join(node["name"] for node in nodes)
    action = str(plan.get("action", "drain")).capitalize()
    jobs = ", ".join(f"{job['namespace']}/{job['name']}" for job in plan.get("jobs", []))
    # A reschedule is asked for a job; the nodes that it cordons are listed below.
    subject = (jobs or names) if plan.get("action") == "reschedule" else (names or jobs)
    return f"{action} {subject} (mode {plan.get('mode', 'now')}): {stake}."


def _nodes(plan: dict[str, Any]) -> list[str]:
    rows = [["NODE", "BLOCK", "RACK", "HEALTH", "SERVICE", "CORDONED"]]
    for node in plan.get("nodes", []):
        cells = [node.get(key) or "-" for key in ("name", "block", "rack", "health", "service")]
        rows.append([*cells, "already" if node.get("already_unschedulable") else "no"])
    return ["", *align(rows)] if len(rows) > 1 else []


def _pods(plan: dict[str, Any]) -> list[str]:
    rows = [["POD", "NODE", "RANK", "GPUS", "ACTION", "REASON"]]
    for pod in plan.get("pods", []):
        rank = pod.get("rank")
        why = "; ".join([*pod.get("reasons", []), *pod.get("warnings", [])])
        rows.append(
            [
                f"{pod.get('namespace')}/{pod.get('name')}",
                str(pod.get("node") or "-"),
                "-" if rank is None else str(rank),
                str(pod.get("gpus", 0)),
                str(pod.get("action", "")).replace("_", " "),
                printable(why) or "-",
            ]
        )
    return ["", *align(rows)] if len(rows) > 1 else ["", "No pod is moved."]


def _jobs(plan: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for job in plan.get("jobs", []):
        hours = job.get("gpu_hours_at_stake")
        shape = "gang" if job.get("gang") else "independent pods"
        lines += [
            "",
            f"{job.get('kind', 'Job')} {job.get('namespace')}/{job.get('name')} "
            f"(team {job.get('team') or '-'}): {shape} of {job.get('wanted_pods', '?')} pods, "
            f"{job.get('gpus', '?')} GPUs",
            f"  ranks moved: {_ranks(job.get('ranks_moved', []))}",
            f"  brought back by: {str(job.get('restart_path', '-')).replace('_', ' and ')}",
            f"  GPU-hours at stake: {'unknown' if hours is None else format(hours, '.1f')}"
            f" ({printable(job.get('stake_basis') or '') or 'not said from when'})",
            *_checkpoint(job),
            f"  elsewhere: {_fit(job.get('fit') or {})}",
        ]
        if job.get("refusal"):
            lines.append(f"  refused: {printable(job['refusal'])}")
        if job.get("on_dead_nodes"):
            lines.append(
                f"  on nodes that do not answer: {', '.join(map(str, job['on_dead_nodes']))}"
            )
    return lines


def _checkpoint(job: dict[str, Any]) -> list[str]:
    """How old the job's checkpoint is, and what it would lose now and at its next one."""
    age = job.get("checkpoint_age_seconds")
    if age is None:
        return []
    due = job.get("next_checkpoint_at")
    now, then = job.get("gpu_hours_at_stake_now"), job.get("gpu_hours_at_next_checkpoint")
    line = f"  checkpoint: {write_duration(max(0.0, age))} old"
    line += f", the next at {due[11:19]} UTC" if due else ", it does not tell when the next comes"
    if now is not None and then is not None:
        line += f"; {now:.1f} GPU-hours lost now, {then:.1f} right after it"
    return [line]


def _ranks(ranks: list[int]) -> str:
    shown = ", ".join(str(rank) for rank in ranks[:RANKS_SHOWN]) or "none"
    rest = len(ranks) - RANKS_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def _fit(fit: dict[str, Any]) -> str:
    verdict = {
        "fits": "fits",
        "outside_domain": "fits only outside its topology domain",
        "does_not_fit": "does not fit",
    }.get(fit.get("verdict", ""), "unknown whether it fits")
    reason = printable(fit.get("reason", ""))
    return f"{verdict} ({reason})" if reason else verdict


def _limits(plan: dict[str, Any]) -> list[str]:
    limits = plan.get("limits") or {}
    rows = [
        [
            f"  {line.get('name')}",
            f"limit {line.get('limit')}" + (" (gone past)" if line.get("passed") else ""),
            f"now {line.get('now')}",
            f"left {line['remaining']}" if "remaining" in line else "",
            f"after {line.get('after')}",
            printable(line.get("message", "")),
        ]
        for line in limits.get("lines", [])
    ]
    return ["", f"Limits: {limits.get('verdict', 'unknown')}", *(align(rows) if rows else [])]


def _sentence(entry: Any) -> str:
    if isinstance(entry, dict):
        return printable(
            f"{entry.get('namespace')}/{entry.get('name')}: {entry.get('message', '')}"
        )
    return printable(str(entry))


def _validity(plan: dict[str, Any], *, now: datetime) -> str:
    expires = plan.get("expires_at")
    if not expires:
        return f"Plan {plan.get('hash')}"
    left = (datetime.fromisoformat(expires) - now).total_seconds()
    return f"Plan {plan.get('hash')}, good for {write_duration(left)}."
