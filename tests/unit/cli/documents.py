"""Documents of /v1 as a server writes them."""

from typing import Any

NODE: dict[str, Any] = {
    "name": "h100-a-1-1",
    "block": "a",
    "rack": "a-1",
    "kind": "NVIDIA-H100-80GB-HBM3",
    "driver_version": "570.1",
    "health": "Failing",
    "health_reason": "GPU 3 has fallen off the bus (XID 79)",
    "health_since": "2026-01-01T00:00:00Z",
    "service": "In service",
    "service_reason": "",
    "service_since": None,
    "kubernetes_ready": True,
    "unschedulable": False,
    "gpu_count": 7,
    "gpu_count_expected": 8,
    "gpu_allocatable": 8,
    "gpu_requested": 8,
    "operation_id": None,
    "score": 100,
    "observed_at": None,
    "kubernetes_observed_at": None,
}

PLAN: dict[str, Any] = {
    "version": 1,
    "action": "drain",
    "nodes": [
        {
            "name": "h100-a-1-1",
            "block": "a",
            "rack": "a-1",
            "health": "Failing",
            "service": "In service",
            "already_unschedulable": False,
        }
    ],
    "mode": "now",
    "options": {},
    "pods": [
        {
            "uid": "p1",
            "namespace": "train",
            "name": "llm-3-abcde",
            "node": "h100-a-1-1",
            "owner": "Job/llm",
            "job_uid": "j1",
            "rank": 3,
            "gpus": 8,
            "action": "restart_with_gang",
            "warnings": ["keeps /dev/shm in memory"],
            "reasons": [],
        }
    ],
    "jobs": [
        {
            "uid": "j1",
            "kind": "Job",
            "namespace": "train",
            "name": "llm",
            "team": "research",
            "gang": True,
            "ranks_moved": [3],
            "wanted_pods": 16,
            "gpus": 128,
            "restart_path": "suspend_resume",
            "refusal": None,
            "checkpoint_at": None,
            "gpu_hours_at_stake": 12.5,
            "stake_basis": "since its last checkpoint",
            "fit": {"verdict": "fits", "nodes": ["h100-a-1-2"], "reason": ""},
            "on_dead_nodes": [],
        }
    ],
    "budgets": [],
    "limits": {
        "verdict": "ok",
        "lines": [
            {"name": "unavailable nodes", "limit": 6, "now": 0, "after": 1, "message": "1 of 6"}
        ],
    },
    "gpu_hours_at_stake": 12.5,
    "blockers": [],
    "warnings": ["the job restarts from its last checkpoint"],
    "hash": "cafe01",
    "created_at": "2026-01-01T00:00:00Z",
    "expires_at": "2126-01-01T00:10:00Z",
}


def request(kind: str, state: str, **fields: Any) -> dict[str, Any]:
    """A request as /v1 answers it."""
    return {
        "id": f"r-{kind}",
        "kind": kind,
        "parameters": {},
        "author": "ann",
        "author_groups": None,
        "author_role": None,
        "reason": "",
        "state": state,
        "created_at": "2026-01-01T00:00:00Z",
        "answered_at": None,
        "answer": {},
        "refusal": "",
        "refusal_code": "",
        "operation_id": None,
        **fields,
    }


def operation(state: str, *, ended: bool, **fields: Any) -> dict[str, Any]:
    """An operation as /v1 answers it."""
    return {
        "id": "op-1",
        "kind": "drain",
        "subject": "h100-a-1-1",
        "mode": "now",
        "author": "ann",
        "reason": "XID 79",
        "state": state,
        "message": "evicting pods",
        "choices": [],
        "nodes_state": {"h100-a-1-1": "Draining"},
        "workloads_state": {"j1": {"name": "train/llm", "verdict": "Returned", "message": ""}},
        "pods_total": 1,
        "pods_done": 0,
        "plan": PLAN,
        "plan_hash": "cafe01",
        "cancel_requested_by": None,
        "deadline_at": None,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-01T00:01:00Z" if ended else None,
        "steps": [],
        **fields,
    }


INCIDENT: dict[str, Any] = {
    "id": "i-1",
    "episode": 1,
    "scope": "node",
    "subject": "n1",
    "severity": "fatal",
    "title": "n1: GPU 3 has fallen off the bus (XID 79)",
    "cause": "xid-79",
    "action": "Drain the node and power-cycle it.",
    "opened_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "resolved_at": None,
    "acknowledged_by": None,
    "owner": "ann",
    "jobs": [],
    "gpus_hurt": 0,
    "nodes": ["n1"],
    "first": {},
    "gpu_hours_lost": None,
}
