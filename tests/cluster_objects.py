"""Objects of a cluster for tests, as the API server would send them, read by the narrow structs."""

from __future__ import annotations

from typing import Any

import msgspec

from k8s.objects import Job, Node, Pod, PodDisruptionBudget

H100 = "NVIDIA-H100-80GB-HBM3"
SPINE = "network.topology.nvidia.com/spine"
LEAF = "network.topology.nvidia.com/leaf"


def node_object(
    name: str,
    *,
    gpus: int = 8,
    ready: str = "True",
    unschedulable: bool = False,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    uid: str | None = None,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"uid-{name}",
            "resourceVersion": "1",
            "labels": {
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.product": H100,
                "nvidia.com/gpu.count": "8",
                **(labels or {}),
            },
            "annotations": annotations or {},
        },
        "spec": {"unschedulable": unschedulable, "taints": taints or []},
        "status": {
            "allocatable": {"cpu": "192", "memory": "2Ti", "nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletReady"}],
        },
    }


def make_node(name: str, **options: Any) -> Node:
    return msgspec.convert(node_object(name, **options), Node)


def make_pod(
    name: str,
    *,
    node: str = "",
    gpus: int = 8,
    phase: str = "Running",
    ready: bool = True,
    owner: tuple[str, str, str] | None = ("batch/v1", "Job", "uid-job"),
    rank: int | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    deletion: str | None = None,
    uid: str | None = None,
    namespace: str = "default",
    **spec: Any,
) -> Pod:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": "1",
        "labels": dict(labels or {}),
        "annotations": dict(annotations or {}),
    }
    if rank is not None:
        metadata["labels"]["batch.kubernetes.io/job-completion-index"] = str(rank)
    if owner is not None:
        api_version, kind, owner_uid = owner
        metadata["ownerReferences"] = [
            {
                "apiVersion": api_version,
                "kind": kind,
                "name": owner_uid.removeprefix("uid-"),
                "uid": owner_uid,
                "controller": True,
            }
        ]
    if deletion is not None:
        metadata["deletionTimestamp"] = deletion
    container: dict[str, Any] = {"name": "train"}
    if gpus:
        amount = {"nvidia.com/gpu": str(gpus)}
        container["resources"] = {"requests": amount, "limits": amount}
    return msgspec.convert(
        {
            "metadata": metadata,
            "spec": {"nodeName": node, "containers": [container], **spec},
            "status": {
                "phase": phase,
                "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            },
        },
        Pod,
    )


def make_job(
    name: str = "job",
    *,
    parallelism: int | None = 4,
    completions: int | None = 4,
    mode: str = "Indexed",
    suspend: bool = False,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    owner: tuple[str, str, str] | None = None,
    status: dict[str, Any] | None = None,
    gpus: int = 8,
    generation: int = 1,
    **spec: Any,
) -> Job:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "generation": generation,
        "labels": labels or {},
        "annotations": annotations or {},
    }
    if owner is not None:
        api_version, kind, owner_uid = owner
        metadata["ownerReferences"] = [
            {
                "apiVersion": api_version,
                "kind": kind,
                "name": owner_uid.removeprefix("uid-"),
                "uid": owner_uid,
                "controller": True,
            }
        ]
    amount = {"nvidia.com/gpu": str(gpus)}
    container = {"name": "train", "resources": {"limits": amount}}
    return msgspec.convert(
        {
            "metadata": metadata,
            "spec": {
                "parallelism": parallelism,
                "completions": completions,
                "completionMode": mode,
                "suspend": suspend,
                "template": {"spec": {"containers": [container]}},
                **spec,
            },
            "status": status or {},
        },
        Job,
    )


def make_budget(
    name: str = "budget",
    *,
    match: dict[str, str] | None = None,
    allowed: int = 0,
    healthy: int = 0,
    desired: int = 0,
    generation: int = 1,
    observed: int = 1,
    conditions: list[dict[str, str]] | None = None,
    **spec: Any,
) -> PodDisruptionBudget:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "generation": generation,
            },
            "spec": {"selector": {"matchLabels": match or {}}, **spec},
            "status": {
                "disruptionsAllowed": allowed,
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "observedGeneration": observed,
                "conditions": conditions or [],
            },
        },
        PodDisruptionBudget,
    )
