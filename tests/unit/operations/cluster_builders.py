"""Small clusters for tests: nodes of 8 GPUs, a gang Job with one rank a node, and what may be beside it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from app.operations.model import (
    Act,
    Decision,
    Memory,
    Observed,
    Operation,
    Options,
    StepRow,
)
from app.operations.reconciliation import next_step
from k8s.objects import Job, Node, Pod, PodDisruptionBudget
from k8s.resources import Bare
from k8s.view import ClusterView, view_of

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """So many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def stamp(moment: datetime) -> str:
    """As Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def node(
    name: str,
    *,
    ready: bool = True,
    cordoned: bool = False,
    hold: str = "",
    labels: dict[str, str] | None = None,
    made_at: datetime | None = None,
    given_up_by: str = "",
    boot_id: str = "boot-1",
    unready_since: datetime | None = None,
) -> Node:
    """A node of 8 GPUs; hold: text of our annotation; given_up_by: operation that tainted its boot-1."""
    annotations = {"pitwall.dev/operation": hold} if hold else {}
    taints = []
    if given_up_by:
        said = {"operation": given_up_by, "boot_id": "boot-1"}
        annotations["pitwall.dev/out-of-service"] = msgspec.json.encode(said).decode()
        taints = [
            {
                "key": "node.kubernetes.io/out-of-service",
                "value": "nodeshutdown",
                "effect": "NoExecute",
            }
        ]
    condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
    if unready_since is not None:
        condition["lastTransitionTime"] = stamp(unready_since)
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "uid": f"node-{name}",
                "labels": {"nvidia.com/gpu.count": "8", **(labels or {})},
                "annotations": annotations,
                "creationTimestamp": stamp(made_at) if made_at else None,
            },
            "spec": {"unschedulable": cordoned, "taints": taints},
            "status": {
                "conditions": [condition],
                "nodeInfo": {"bootID": boot_id},
                "allocatable": {"nvidia.com/gpu": "8"},
                "capacity": {"nvidia.com/gpu": "8"},
            },
        },
        Node,
    )


def job(
    name: str = "llm",
    *,
    ranks: int = 2,
    gang: bool = True,
    suspended_by: str | None = None,
    suspended: bool = False,
    active: int | None = None,
    terminating: int = 0,
    generation: int = 1,
    finished: str | None = None,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Job:
    """A batch/v1 Job, Indexed with as many ranks."""
    notes = dict(annotations or {})
    if suspended_by is not None:
        notes["pitwall.dev/suspended-by"] = msgspec.json.encode(
            {"operation": suspended_by, "was_suspended": False, "uid": f"job-{name}"}
        ).decode()
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "team-a",
                "uid": f"job-{name}",
                "generation": generation,
                "annotations": notes,
                "labels": labels or {},
            },
            "spec": {
                "parallelism": ranks,
                "completions": ranks,
                "completionMode": "Indexed" if gang else "NonIndexed",
                "suspend": suspended or suspended_by is not None,
                "podFailurePolicy": {
                    "rules": [
                        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
                    ]
                },
            },
            "status": {
                "active": ranks if active is None else active,
                "ready": ranks if active is None else active,
                "terminating": terminating,
                "conditions": [{"type": finished, "status": "True"}] if finished else [],
            },
        },
        Job,
    )


def pod(
    name: str,
    where: str,
    *,
    owner: str | None = "llm",
    rank: int | None = None,
    phase: str = "Running",
    ready: bool = True,
    deleted_at: datetime | None = None,
    grace_seconds: int = 30,
    uid: str = "",
    empty_dir: bool = False,
    daemonset: bool = False,
    unschedulable: str = "",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    gpus: int = 8,
    started_at: datetime | None = None,
    ready_at: datetime | None = None,
) -> Pod:
    """A pod with 8 GPUs; owner: name of its Job."""
    owners: list[dict[str, Any]] = []
    if daemonset:
        owners = [_owner("DaemonSet", "apps/v1", "exporter")]
    elif owner is not None:
        owners = [_owner("Job", "batch/v1", owner)]
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if ready_at is not None:
        conditions[0]["lastTransitionTime"] = stamp(ready_at)
    if unschedulable:
        conditions = [{"type": "PodScheduled", "status": "False", "message": unschedulable}]
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "team-a",
        "uid": uid or f"pod-{name}",
        "ownerReferences": owners,
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
    }
    if rank is not None:
        metadata["labels"]["batch.kubernetes.io/job-completion-index"] = str(rank)
    if deleted_at is not None:
        metadata["deletionTimestamp"] = stamp(deleted_at)
        metadata["deletionGracePeriodSeconds"] = grace_seconds
    spec: dict[str, Any] = {
        "nodeName": where,
        "terminationGracePeriodSeconds": grace_seconds,
        "containers": [{"name": "train", "resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}],
    }
    if daemonset:  # as agents of GPU nodes do
        spec["tolerations"] = [{"operator": "Exists"}]
    if empty_dir:
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    status: dict[str, Any] = {"phase": phase, "conditions": conditions}
    status["startTime"] = stamp(started_at or NOW - timedelta(hours=2))
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, Pod)


def _owner(kind: str, api_version: str, name: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "apiVersion": api_version,
        "name": name,
        "uid": f"{kind.lower()}-{name}",
        "controller": True,
    }


def budget(
    name: str, *, labels: dict[str, str], allowed: int, healthy: int = 1
) -> PodDisruptionBudget:
    """A budget with an integer minAvailable over pods with these labels."""
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "team-a", "uid": f"pdb-{name}"},
            "spec": {"minAvailable": healthy, "selector": {"matchLabels": labels}},
            "status": {
                "disruptionsAllowed": allowed,
                "currentHealthy": healthy,
                "desiredHealthy": healthy,
                "expectedPods": healthy,
            },
        },
        PodDisruptionBudget,
    )


def namespace(name: str, *, labels: dict[str, str]) -> Bare:
    """A namespace with these labels."""
    meta = {"name": name, "uid": f"namespace-{name}", "labels": labels}
    return msgspec.convert({"metadata": meta}, Bare)


def view(*objects: object, synced: bool = True) -> ClusterView:
    """A view of these objects, sorted by their type."""
    kinds: dict[type, list[Any]] = {Node: [], Pod: [], Job: [], PodDisruptionBudget: [], Bare: []}
    for item in objects:
        kinds[type(item)].append(item)
    made = view_of(
        nodes=kinds[Node],
        pods=kinds[Pod],
        jobs=kinds[Job],
        budgets=kinds[PodDisruptionBudget],
        namespaces=kinds[Bare],
        observed_at=NOW,
    )
    return made if synced else replace(made, synced=False)


def operation(
    *nodes: str,
    kind: str = "drain",
    mode: str = "now",
    done: tuple[tuple[str, str], ...] = (),
    rows: tuple[StepRow, ...] = (),
    memory: Memory | None = None,
    cancelled_by: str | None = None,
    deadline_at: datetime | None = None,
    options: Options | None = None,
) -> Operation:
    """An open operation; done: (step name, uid) that are done."""
    steps = {
        (name, uid): StepRow(name, f"X/{uid}", uid, "done", started_at=at(-20))
        for name, uid in done
    }
    steps.update({(row.name, row.uid): row for row in rows})
    return Operation(
        id="op1",
        cluster="test",
        kind=kind,
        subject=", ".join(nodes),
        nodes=tuple(nodes),
        options=options or Options(mode=mode),
        author="ada",
        created_at=at(-60),
        cancel_requested_by=cancelled_by,
        deadline_at=deadline_at,
        memory=memory or Memory(),
        steps=steps,
    )


def decide(
    work: Operation, seen: ClusterView, *, now: datetime = NOW, health: dict[str, str] | None = None
) -> Decision:
    """The next step."""
    return next_step(
        work, Observed(seen, {k: (v, "xid-79") for k, v in (health or {}).items()}), now
    )


def taken(decision: Decision) -> list[tuple[str, str]]:
    """(name, uid) of the steps of a decision; empty when it takes none."""
    return [(step.name, step.uid) for step in decision.steps] if isinstance(decision, Act) else []


def carry_on(work: Operation, decision: Decision, *, state: str = "done") -> Operation:
    """The operation after the decision was stored and its steps were answered."""
    steps = dict(work.steps)
    if isinstance(decision, Act):
        for step in decision.steps:
            steps[(step.name, step.uid)] = StepRow(
                step.name, step.target, step.uid, state, started_at=NOW
            )
    return msgspec.structs.replace(work, memory=decision.memory, steps=steps)
