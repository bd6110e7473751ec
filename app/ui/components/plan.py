"""A preview's plan as parts: what happens to each pod, each job, and what stands in the way. Its shape: docs/json.md."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.ui import words
from app.ui.components import parts

NO_ROOM = ("does_not_fit", "unknown")

_ACTIONS = {
    "evict": ("Evicted", "busy"),
    "restart_with_gang": ("Restarted with its gang", "busy"),
    "skip": ("Stays", "quiet"),
    "block": ("Can't be moved", "act"),
    "let_complete": ("Runs to its end", "calm"),
    "at_deadline": ("Moved at the deadline", "busy"),
    "at_checkpoint": ("Moved at its next checkpoint", "busy"),
}
_FITS = {
    "fits": ("Fits elsewhere", "calm"),
    "outside_domain": ("Fits outside its domain", "watch"),
    "does_not_fit": ("Does not fit elsewhere", "act"),
    "unknown": ("Not known whether it fits", "blank"),
}
_PATHS = {
    "evict": "its pods are evicted and come back one by one",
    "suspend_resume": "stopped and started as one",
    "none": "not brought back by Pitwall",
}


def show_plan(plan: Mapping[str, Any]) -> None:
    """The plan in the order of a person's questions: what it costs, whom it hurts, what is in the way."""
    parts.figures("plan-figures", figures_of(plan))
    parts.notes("plan-notes", notes_of(plan))
    if plan.get("jobs"):
        parts.sheet(
            "plan-jobs",
            label="Jobs that move",
            title="Jobs",
            dense=True,
            empty="",
            rows=[_job_row(job) for job in plan["jobs"]],
            columns=[
                parts.column("job", "Job", "two"),
                parts.column("ranks", "Ranks moved"),
                parts.column("hours", "GPU-hours lost", right=True, missing="not known"),
                parts.column("fit", "Room", "state"),
            ],
        )
    pods = sorted(
        plan.get("pods", []),
        key=lambda pod: (pod.get("action") == "skip", -int(pod.get("gpus") or 0)),
    )
    parts.sheet(
        "plan-pods",
        label="Pods and what happens to each",
        title="Pods",
        count=str(len(pods)) if pods else "",
        dense=True,
        height="220px",
        empty="No pod is on it: nothing is moved.",
        rows=[_pod_row(pod) for pod in pods],
        columns=[
            parts.column("pod", "Pod", "two"),
            parts.column("rank", "Rank", right=True),
            parts.column("gpus", "GPUs", "number"),
            parts.column("action", "What happens", "state"),
        ],
    )


def figures_of(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    pods, jobs = plan.get("pods", []), plan.get("jobs", [])
    moved = sum(pod.get("action") not in {"skip", "block", "let_complete"} for pod in pods)
    hours = plan.get("gpu_hours_at_stake")
    rooms = {job.get("fit", {}).get("verdict") for job in jobs}
    room, tone = (
        ("nothing to place", "calm")
        if not jobs
        else ("yes", "calm")
        if rooms == {"fits"}
        else ("no", "act")
        if "does_not_fit" in rooms
        else ("partly", "watch")
        if "outside_domain" in rooms
        else ("not known", "blank")
    )
    limits = plan.get("limits") or {}
    verdict = str(limits.get("verdict", "unknown"))
    return [
        {"label": "Pods moved", "value": str(moved), "of": f"of {len(pods)}", "tone": "calm"},
        {
            "label": "Jobs hurt",
            "value": str(len(jobs)),
            "note": words.listed([str(job.get("name")) for job in jobs], most=1),
            "tone": "calm",
        },
        {
            "label": "GPU-hours at stake",
            "value": "?" if hours is None else f"{hours:,.1f}",
            "note": _stake_note(jobs),
            "tone": "calm",
        },
        {"label": "Fits elsewhere", "value": room, "tone": tone},
        {
            "label": "Limits",
            "value": {"ok": "kept", "warned": "near", "refused": "refused"}.get(verdict, verdict),
            "tone": {"ok": "calm", "warned": "watch", "refused": "act"}.get(verdict, "blank"),
            "help": "\n".join(_limit_lines(limits)),
        },
    ]


def _stake_note(jobs: Sequence[Mapping[str, Any]]) -> str:
    """What the GPU-hours are reckoned from, as far as it holds for all jobs."""
    if not jobs:
        return "nothing runs here"
    bases = {
        "since the last checkpoint"
        if job.get("checkpoint_at")
        else str(job.get("stake_basis") or "not said from when")
        for job in jobs
    }
    return bases.pop() if len(bases) == 1 else "each from its own point, see below"


def notes_of(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    limits = plan.get("limits") or {}
    refused = limits.get("verdict") == "refused"
    notes = [
        parts.note(line, "act" if refused else "watch")
        for line in _limit_lines(limits)
        if refused or limits.get("verdict") == "warned"
    ]
    notes += [parts.note(str(blocker), "act") for blocker in plan.get("blockers", [])]
    warnings = [str(warning) for warning in plan.get("warnings", [])]
    notes += [parts.note(warning, "watch") for warning in warnings]
    for budget in plan.get("budgets", []):
        message = str(budget.get("message", ""))
        if message and not any(
            message in said for said in [*warnings, *map(str, plan.get("blockers", []))]
        ):
            notes.append(
                parts.note(
                    f"Budget {budget.get('namespace')}/{budget.get('name')}: {message}", "watch"
                )
            )
    return notes


def _limit_lines(limits: Mapping[str, Any]) -> list[str]:
    return [
        str(
            line.get("message")
            or f"{line.get('name')}: {line.get('now')} now, {line.get('after')} after, limit {line.get('limit')}"
        )
        for line in limits.get("lines", [])
    ]


def is_refused(plan: Mapping[str, Any]) -> bool:
    """A limit refuses it, for everyone: there is nothing to confirm."""
    return (plan.get("limits") or {}).get("verdict") == "refused"


def to_type(plan: Mapping[str, Any]) -> list[str]:
    """Names of the jobs that stop with no room elsewhere: typing them is the person's word that it is meant."""
    return (
        [
            str(job["name"])
            for job in plan.get("jobs", [])
            if (job.get("fit") or {}).get("verdict") in NO_ROOM
        ]
        if plan.get("blockers")
        else []
    )


def hard_blockers(plan: Mapping[str, Any]) -> list[str]:
    """The blockers that typing does not lift: they want another option, or something done elsewhere."""
    names = to_type(plan)
    return [
        str(said)
        for said in plan.get("blockers", [])
        if not any(f"type its name, {name}." in str(said) for name in names)
    ]


def expires_at(plan: Mapping[str, Any]) -> datetime | None:
    text = plan.get("expires_at")
    return datetime.fromisoformat(str(text)) if text else None


def _job_row(job: Mapping[str, Any]) -> dict[str, Any]:
    fit = job.get("fit") or {}
    word, tone = _FITS.get(str(fit.get("verdict")), _FITS["unknown"])
    said = [
        f"{'gang of ' if job.get('gang') else ''}{words.count(int(job.get('wanted_pods') or 0), 'pod')}, {words.count(int(job.get('gpus') or 0), 'GPU')}",
        _PATHS.get(str(job.get("restart_path")), str(job.get("restart_path") or "")),
    ]
    if job.get("refusal"):
        said.append(str(job["refusal"]))
    elif fit.get("reason") and fit.get("verdict") != "fits":
        said.append(str(fit["reason"]))
    if job.get("stake_basis"):
        said.append(f"lost: {job['stake_basis']}")
    hours = job.get("gpu_hours_at_stake")
    return parts.row(
        str(job.get("uid")),
        {
            "job": {
                "text": f"{job.get('namespace')}/{job.get('name')}",
                "second": "; ".join(filter(None, said)),
            },
            "ranks": words.ranks([int(rank) for rank in job.get("ranks_moved", [])]) or "none",
            "hours": None if hours is None else f"{hours:,.1f}",
            "fit": parts.state(word, tone),
        },
    )


def _pod_row(pod: Mapping[str, Any]) -> dict[str, Any]:
    action = str(pod.get("action"))
    word, tone = _ACTIONS.get(action, (action.replace("_", " "), "quiet"))
    why = "; ".join([*map(str, pod.get("reasons", [])), *map(str, pod.get("warnings", []))])
    return parts.row(
        str(pod.get("uid")),
        {
            "pod": {
                "text": f"{pod.get('namespace')}/{pod.get('name')}",
                "second": why or str(pod.get("owner") or ""),
            },
            "rank": None if pod.get("rank") is None else str(pod["rank"]),
            "gpus": pod.get("gpus") or 0,
            "action": parts.state(word, tone),
        },
    )
