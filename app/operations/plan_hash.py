"""What an approval binds to: the hash of a plan, and in words what has changed since.

Hashed: nodes; pods' UIDs with action and mode; workloads' UIDs with generation and restart path;
budgets that block; what is protected; the fit verdict; which limits refuse. GPU-hours, counts and candidate nodes are
shown but change with every look, so they are not hashed (issue of trust in facts/safety-and-peers.md:
an approval that binds to less can approve something else than was read).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

CHANGES_SHOWN = 5
HASH_LENGTH = 16  # hexadecimal digits, short enough to type


def hash_plan(plan: Mapping[str, Any]) -> str:
    """The hash of a plan's binding facts; the same facts give the same hash in any order."""
    encoded = msgspec.json.encode(binding_facts(plan), order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:HASH_LENGTH]


def binding_facts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What the hash is made over, in a settled order."""
    options = plan["options"]
    return {
        "action": plan["action"],
        "mode": plan["mode"],
        "options": {
            "delete_emptydir_data": options["delete_emptydir_data"],
            "force": options["force"],
            "deadline_seconds": options.get("deadline_seconds"),
            "modes": dict(sorted(plan.get("modes", {}).items())),
        },
        "nodes": sorted(node["name"] for node in plan["nodes"]),
        "pods": sorted(
            [pod["uid"], pod["action"]] for pod in plan["pods"] if pod["action"] != "skip"
        ),
        "jobs": sorted(
            [job["uid"], job["generation"], job["restart_path"], job["fit"]["verdict"]]
            for job in plan["jobs"]
        ),
        "budgets": sorted(
            [budget["namespace"], budget["name"], budget["kind"]] for budget in plan["budgets"]
        ),
        "protected": sorted(f"{one['kind']} {one['name']}" for one in plan.get("protected", ())),
        # What is over a limit, whether or not its name was typed: typing it must not void the plan.
        "over_limits": sorted(
            {line["name"] for line in plan["limits"]["lines"] if line["after"] > line["limit"]}
        ),
    }


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """In words, what of the binding facts differs between two plans; [] when nothing does."""
    said: list[str] = []
    old, new = binding_facts(before), binding_facts(after)
    for key in ("action", "mode", "options"):
        if old[key] != new[key]:
            said.append(f"the {key} asked for is not the same")
    said += _changed_names(old["nodes"], new["nodes"], "node")
    said += _changed_pods(before, after)
    said += _changed_jobs(before, after)
    said += _changed_names(
        [f"{entry[0]}/{entry[1]} ({entry[2]})" for entry in old["budgets"]],
        [f"{entry[0]}/{entry[1]} ({entry[2]})" for entry in new["budgets"]],
        "budget in the way",
    )
    said += _changed_names(old["protected"], new["protected"], "the protection of")
    said += [
        f"the limit {name} refuses it now"
        for name in new["over_limits"]
        if name not in old["over_limits"]
    ]
    said += [
        f"the limit {name} does not refuse it any more"
        for name in old["over_limits"]
        if name not in new["over_limits"]
    ]
    return said


def void_text(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> str:
    """Why an approval is void: what has changed since, in one sentence."""
    said = changes(before, after) if before is not None else []
    more = f" and {len(said) - CHANGES_SHOWN} more changes" if len(said) > CHANGES_SHOWN else ""
    what = "; ".join(said[:CHANGES_SHOWN]) or "it was made for something else"
    return f"The plan has changed since it was approved: {what}{more}."


def _changed_names(old: list[str], new: list[str], what: str) -> list[str]:
    return [f"{what} {name} is gone" for name in old if name not in new] + [
        f"{what} {name} is new" for name in new if name not in old
    ]


def _changed_pods(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old = {pod["uid"]: pod for pod in before["pods"] if pod["action"] != "skip"}
    new = {pod["uid"]: pod for pod in after["pods"] if pod["action"] != "skip"}
    said = [
        f"pod {pod['namespace']}/{pod['name']} is gone"
        for uid, pod in old.items()
        if uid not in new
    ]
    said += [
        f"pod {pod['namespace']}/{pod['name']} is new" for uid, pod in new.items() if uid not in old
    ]
    said += [
        f"pod {pod['namespace']}/{pod['name']} would be {_word(new[uid])} instead of {_word(pod)}"
        for uid, pod in old.items()
        if uid in new and new[uid]["action"] != pod["action"]
    ]
    return said


def _changed_jobs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old = {job["uid"]: job for job in before["jobs"]}
    new = {job["uid"]: job for job in after["jobs"]}
    said = [f"job {_job(job)} is no longer concerned" for uid, job in old.items() if uid not in new]
    said += [f"job {_job(job)} is concerned now" for uid, job in new.items() if uid not in old]
    for uid, job in old.items():
        now = new.get(uid)
        if now is None:
            continue
        if now["generation"] != job["generation"]:
            said.append(f"job {_job(job)} was edited")
        if now["restart_path"] != job["restart_path"]:
            said.append(f"job {_job(job)} would be restarted another way")
        if now["fit"]["verdict"] != job["fit"]["verdict"]:
            said.append(
                f"job {_job(job)}: {_word_of(now['fit']['verdict'])} now, {_word_of(job['fit']['verdict'])} before"
            )
    return said


def _job(job: Mapping[str, Any]) -> str:
    return f"{job['namespace']}/{job['name']}"


def _word(pod: Mapping[str, Any]) -> str:
    return {
        "evict": "evicted",
        "restart_with_gang": "restarted with its gang",
        "block": "blocked",
        "let_complete": "left to complete",
        "at_deadline": "moved at the deadline",
        "at_checkpoint": "moved at its next checkpoint",
    }.get(pod["action"], str(pod["action"]))


def _word_of(verdict: str) -> str:
    return verdict.replace("_", " ")
