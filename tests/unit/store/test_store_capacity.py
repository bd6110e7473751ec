"""Capacity and audit as the page reads them, on both databases."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert

from app.store.engine import write
from app.store.reads.audit import audit_entries
from app.store.reads.capacity import capacity
from app.store.reads.history import stays_on_node
from app.store.reads.rows import table_of
from app.store.tables import AuditEntry, Job, Node, Placement, Pod

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def add(engine: Engine, model: Any, *rows: dict[str, Any]) -> None:
    with write(engine) as connection:
        for row in rows:
            connection.execute(insert(table_of(model)).values(cluster="c", **row))


def node(name: str, *, requested: int, **more: Any) -> dict[str, Any]:
    plain = {
        "name": name, "block": "a", "gpu_allocatable": 8, "gpu_requested": requested, "health": "Healthy",
        "health_reason": "", "service": "In service", "service_reason": "", "kubernetes_ready": True,
        "unschedulable": False, "score": 0,
    }  # fmt: skip
    return {**plain, **more}


def pod(
    uid: str, *, gpus: int, job: str | None, on: str | None, phase: str = "Running"
) -> dict[str, Any]:
    return {
        "uid": uid, "namespace": "t", "name": uid, "node": on, "phase": phase, "ready": True, "gpus": gpus,
        "job_uid": job, "owner": "", "observed_at": NOW,
    }  # fmt: skip


def job(uid: str, *, state: str, team: str | None, gpus: int, reason: str = "") -> dict[str, Any]:
    return {
        "uid": uid, "namespace": "t", "name": uid, "kind": "Job", "api_version": "batch/v1", "team": team,
        "queue": None, "state": state, "reason": reason, "gang": True, "wanted_pods": 2, "running_pods": 0,
        "gpus": gpus, "generation": 1, "observed_at": NOW,
    }  # fmt: skip


def test_room_is_counted_where_kubernetes_may_place_a_pod(engine: Engine) -> None:
    add(
        engine,
        Node,
        node("whole", requested=0),
        node("probation", requested=0, service="Probation"),
        node("part", requested=5),
        node("full", requested=8),
        node("over", requested=9),
        node("failing", requested=0, health="Failing"),
        node("cordoned", requested=0, unschedulable=True),
        node("down", requested=0, kubernetes_ready=False),
        node("unheard", requested=0, kubernetes_ready=None),
        node("other", requested=8, block=None),
    )
    found = capacity(engine, "c")
    rooms = {room.block: room for room in found.rooms}
    assert (rooms["a"].nodes, rooms["a"].nodes_usable) == (9, 5)
    assert rooms["a"].gpus_free == 8 + 8 + 3
    assert (rooms["a"].nodes_whole, rooms["a"].nodes_whole_on_probation) == (2, 1)
    assert rooms["no block known"].gpus_free == 0
    assert found.nodes_by_free_gpus == {0: 3, 3: 1, 8: 2}


def test_teams_hold_what_their_pods_ask_for_and_wait_for_what_is_not_placed(engine: Engine) -> None:
    add(
        engine,
        Job,
        job("one", state="Running", team="vision", gpus=16),
        job("two", state="Pending", team="vision", gpus=64, reason="no room"),
        job("three", state="Suspended", team=None, gpus=8),
        job("old", state="Complete", team="vision", gpus=8),
    )
    add(
        engine,
        Pod,
        pod("p1", gpus=8, job="one", on="whole"),
        pod("p2", gpus=8, job="one", on="part"),
        pod("p3", gpus=8, job="two", on=None, phase="Pending"),
        pod("p4", gpus=1, job=None, on="part"),
        pod("p5", gpus=8, job="old", on="part", phase="Succeeded"),
        pod("p6", gpus=0, job="one", on="part"),
    )
    found = capacity(engine, "c")
    assert [(team.name, team.jobs, team.gpus_held, team.gpus_pending) for team in found.teams] == [
        ("vision", 2, 16, 8),
        ("no team named", 0, 1, 0),
    ]
    assert [(one.uid, one.reason) for one in found.waiting] == [("two", "no room"), ("three", "")]


def test_audit_is_read_newest_first_by_pages_and_words(engine: Engine) -> None:
    add(
        engine,
        AuditEntry,
        *(
            {
                "at": NOW, "author": "ana" if number % 2 else "bo", "actor": "worker", "action": "evict",
                "target": f"t/pod-{number}", "target_uid": "", "operation_id": "op", "dry_run": False,
                "outcome": "done" if number else "refused", "message": "50% of it",
            }
            for number in range(7)
        ),
    )  # fmt: skip
    first = audit_entries(engine, "c", limit=3)
    assert [entry.target for entry in first] == ["t/pod-6", "t/pod-5", "t/pod-4"]
    rest = audit_entries(engine, "c", limit=10, after=first[-1].id)
    assert [entry.target for entry in rest] == ["t/pod-3", "t/pod-2", "t/pod-1", "t/pod-0"]
    assert {entry.author for entry in audit_entries(engine, "c", search="ANA")} == {"ana"}
    assert len(audit_entries(engine, "c", search="0%")) == 7
    assert audit_entries(engine, "c", search="_") == []
    assert [entry.target for entry in audit_entries(engine, "c", outcome="refused")] == ["t/pod-0"]
    assert audit_entries(engine, "other") == []


def test_the_jobs_that_were_on_a_node_are_told_with_when_they_came_and_went(engine: Engine) -> None:
    def held(pod: str, job: str | None, gpu: str, since: int, until: int | None) -> dict[str, Any]:
        end = None if until is None else NOW + timedelta(minutes=until)
        return {"pod_uid": pod, "gpu_uuid": gpu, "job_uid": job, "rank": 0, "node": "n1", "from_at": NOW + timedelta(minutes=since), "to_at": end}  # fmt: skip

    add(engine, Job, job("one", state="Running", team=None, gpus=16))
    add(
        engine,
        Placement,
        held("p1", "one", "g0", 0, 10),
        held("p1", "one", "g1", 0, 12),
        held("p2", "one", "g0", 20, None),
        held("p3", None, "g0", -90, -60),
        {**held("p4", "one", "g0", 0, 10), "node": "n2"},
    )
    found = stays_on_node(engine, "c", "n1", since=NOW, until=NOW + timedelta(minutes=30))
    assert [(one.name, one.gpus, one.to_at) for one in found] == [
        ("t/one", 2, NOW + timedelta(minutes=12)),
        ("t/one", 1, None),
    ]
    assert found[1].from_at == NOW + timedelta(minutes=20)
