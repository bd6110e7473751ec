"""Plays the worker at the page's edge: answers requests in the store as the worker would write it.

What the worker itself plans is proved elsewhere (tests/integration/operations) and by the run through the demo;
here the page is held to each kind of answer.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import update

from app.store import requests
from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.records import RequestRecord
from app.store.tables import Request

Answer = dict[str, Any]
EVERY_SECONDS = 0.05


@contextmanager
def answering(
    url: str, answer: Callable[[RequestRecord], Answer], *, cluster: str = "default"
) -> Iterator[list[RequestRecord]]:
    """While open, each pending request gets the columns that `answer` gives. Yields the requests seen, without those
    that waited before it."""
    seen: list[RequestRecord] = []
    stop = threading.Event()

    def work() -> None:
        engine, table = open_store(url), table_of(Request)
        left = {record.id for record in requests.pending(engine, cluster)}  # of an earlier test
        while not stop.wait(EVERY_SECONDS):
            for record in requests.pending(engine, cluster):
                if record.id in left:
                    continue
                columns = {"answered_at": datetime.now(UTC), **answer(record)}
                with write(engine) as connection:
                    connection.execute(
                        update(table).where(table.c.id == record.id).values(**columns)
                    )
                seen.append(record)
        engine.dispose()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def drain_plan(node: str, **changes: Any) -> dict[str, Any]:
    """A plan as the worker writes it (docs/json.md)."""
    now = datetime.now(UTC)
    pods = [
        _pod("p4", "pretrain", "llama-70b-pretrain-4-x7k2p", node, owner="Job/llama-70b-pretrain", rank=4, gpus=8, action="restart_with_gang"),
        _pod("pd", "gpu-operator", "nvidia-dcgm-exporter-7d2kq", node, owner="DaemonSet/nvidia-dcgm-exporter", rank=None, gpus=0, action="skip",
             reasons=["it belongs to a DaemonSet"]),
    ]  # fmt: skip
    job = {
        "uid": "j1", "kind": "Job", "namespace": "pretrain", "name": "llama-70b-pretrain", "team": "foundation", "gang": True, "ranks_moved": [4],
        "pods_moved": 1, "wanted_pods": 26, "gpus": 208, "restart_path": "suspend_resume", "refusal": None, "generation": 1,
        "checkpoint_at": (now - timedelta(minutes=38)).isoformat(), "gpu_hours_at_stake": 131.7, "stake_basis": "since the last checkpoint",
        "fit": {"verdict": "fits", "nodes": ["h100-b-r04-01"], "reason": ""}, "on_dead_nodes": [],
    }  # fmt: skip
    plan = {
        "version": 1, "action": "drain", "mode": "now", "options": {}, "pods": pods, "jobs": [job], "budgets": [],
        "nodes": [{"name": node, "block": "h100-a", "rack": "h100-a-r01", "health": "Failing", "service": "In service", "already_unschedulable": False}],
        "limits": {"verdict": "ok", "lines": [{"name": "nodes out of service", "limit": 6, "now": 3, "after": 4, "message": "4 of 64 nodes would be out of service; the limit is 6."}]},
        "gpu_hours_at_stake": 131.7, "blockers": [], "warnings": [], "hash": "sha256:1f2e3d", "created_at": now.isoformat(),
        "expires_at": (now + timedelta(minutes=10)).isoformat(),
    }  # fmt: skip
    return {**plan, **changes}


def _pod(uid: str, namespace: str, name: str, node: str, **more: Any) -> dict[str, Any]:
    return {
        "uid": uid,
        "namespace": namespace,
        "name": name,
        "node": node,
        "job_uid": None,
        "warnings": [],
        "reasons": [],
        **more,
    }
