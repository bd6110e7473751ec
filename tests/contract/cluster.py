"""One cluster of the contract suite: a simulator or a real control plane, spoken to in the same words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from k8s.client import STRATEGIC_MERGE_PATCH, Connection, connect
from k8s.errors import ApiError
from k8s.objects import Job, Node, Pod, PodDisruptionBudget
from k8s.resources import BUDGETS, JOBS, NODES, PODS

# A two-core machine that runs a whole control plane beside the tests.
PATIENCE_SECONDS = 40.0
GPU = "nvidia.com/gpu"


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Cluster:
    """One of the two kinds of cluster.

    forget_history: drop all old versions. holding_controllers: while it lasts, no controller acts on
    budgets. holding_store: while it lasts, evictions are answered 504. disturb: the simulator's switches,
    None on a real one. stop_api_server, start_api_server: None where that can not be done.
    """

    kind: Literal["simulator", "real"]
    kubeconfig: Path
    connection: Connection
    forget_history: Callable[[], None]
    holding_controllers: Callable[[], AbstractContextManager[None]]
    holding_store: Callable[[], AbstractContextManager[None]]
    disturb: Callable[..., None] | None = None
    stop_api_server: Callable[[], None] | None = None
    start_api_server: Callable[[], None] | None = None
    has_controllers: bool = True
    has_scheduler: bool = True

    def connection_as(self, token: str) -> Connection:
        """A connection to the same server with another token."""
        document = yaml.safe_load(self.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": token}
        path = self.kubeconfig.with_name(f"kubeconfig-{abs(hash(token))}")
        path.write_text(yaml.safe_dump(document))
        return connect(path)

    # --- plain verbs ---

    def get(self, path: str, **params: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.connection.get(path, params))
        return said

    def find(self, path: str) -> dict[str, Any] | None:
        try:
            return self.get(path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Mapping[str, Any], **options: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            self.connection.request("POST", path, body=body, **options).body
        )
        return said

    def patch(self, path: str, body: Any, **options: Any) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(
            self.connection.request("PATCH", path, body=body, **options).body
        )
        return said

    def delete(self, path: str, **options: Any) -> None:
        """Deletes; what is gone already is as well."""
        try:
            self.connection.request("DELETE", path, body=options or None)
        except ApiError as error:
            if error.status != 404:
                raise

    # --- waiting ---

    def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Waits until holds() is true and returns what it said; fails naming what never came."""
        deadline = time.monotonic() + seconds
        while True:
            found = holds()
            if found:
                return found
            assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain until {what}"
            time.sleep(0.05)

    # --- kinds ---

    def pod(self, namespace: str, name: str) -> Pod:
        return self._read(PODS.path(name, namespace=namespace), Pod)

    def pods(self, namespace: str, **params: str) -> list[Pod]:
        body = self.connection.get(PODS.path(namespace=namespace), params)
        return self._items(body, Pod)

    def node(self, name: str) -> Node:
        return self._read(NODES.path(name), Node)

    def job(self, namespace: str, name: str) -> Job:
        return self._read(JOBS.path(name, namespace=namespace), Job)

    def budget(self, namespace: str, name: str) -> PodDisruptionBudget:
        return self._read(BUDGETS.path(name, namespace=namespace), PodDisruptionBudget)

    def _read(self, path: str, struct: type[Any]) -> Any:
        return msgspec.json.decode(self.connection.get(path), type=struct)

    def _items(self, body: bytes, struct: type[Any]) -> list[Any]:
        return [msgspec.convert(item, struct) for item in json.loads(body)["items"] or ()]

    def create_node(
        self, name: str, *, gpus: int = 8, labels: Mapping[str, str] | None = None
    ) -> Node:
        """A node that a kubelet would have registered, not yet Ready."""
        self.post(
            NODES.path(),
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "labels": {"kubernetes.io/hostname": name, "test": "yes", **(labels or {})},
                },
                "spec": {},
            },
        )
        self.say_ready(name, gpus=gpus)
        return self.node(name)

    def say_ready(self, name: str, *, gpus: int | None = None, ready: str = "True") -> None:
        """The kubelet's status of a node."""
        now = rfc3339(datetime.now(UTC))
        status: dict[str, Any] = {
            "conditions": [
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": "KubeletReady",
                    "message": "kubelet is posting ready status",
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": now,
                }
            ]
        }
        if gpus is not None:
            amounts = {"cpu": "192", "memory": "2048Gi", "pods": "110", GPU: str(gpus)}
            status["capacity"] = status["allocatable"] = amounts
        self.patch(
            NODES.path(name, subresource="status"),
            {"status": status},
            content_type=STRATEGIC_MERGE_PATCH,
        )

    def create_pod(
        self,
        namespace: str,
        name: str,
        *,
        node: str | None = None,
        labels: Mapping[str, str] | None = None,
        gpus: int = 1,
        grace_seconds: int = 5,
        **spec: Any,
    ) -> Pod:
        """A bare pod; with node it is bound at once, without a scheduler."""
        self.post(
            PODS.path(namespace=namespace),
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": dict(labels or {})},
                "spec": {**pod_spec(gpus=gpus, grace_seconds=grace_seconds), **spec}
                | ({"nodeName": node} if node else {}),
            },
        )
        return self.pod(namespace, name)

    def create_job(
        self,
        namespace: str,
        name: str,
        *,
        parallelism: int = 2,
        labels: Mapping[str, str] | None = None,
        gpus: int = 8,
        grace_seconds: int = 5,
        pod: Mapping[str, Any] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Job:
        """An Indexed Job whose pods are replaced once their predecessors have failed."""
        self.post(
            JOBS.path(namespace=namespace),
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {"name": name, "labels": dict(labels or {})},
                "spec": {
                    "parallelism": parallelism,
                    "completions": parallelism,
                    "completionMode": "Indexed",
                    "podReplacementPolicy": "Failed",
                    "template": {
                        "metadata": {"labels": {"app": name, **(pod_labels or {})}},
                        "spec": {
                            **pod_spec(gpus=gpus, grace_seconds=grace_seconds),
                            "restartPolicy": "Never",
                            "nodeSelector": {"test": "yes"},
                            **(pod or {}),
                        },
                    },
                    **spec,
                },
            },
        )
        return self.job(namespace, name)

    def create_budget(
        self, namespace: str, name: str, *, match: Mapping[str, str], **spec: Any
    ) -> PodDisruptionBudget:
        self.post(
            BUDGETS.path(namespace=namespace),
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": name},
                "spec": {"selector": {"matchLabels": dict(match)}, **spec},
            },
        )
        return self.budget(namespace, name)

    def settled_budget(
        self, namespace: str, name: str, *, match: Mapping[str, str], healthy: int, **spec: Any
    ) -> PodDisruptionBudget:
        """A budget whose status knows of that many healthy pods."""
        self.create_budget(namespace, name, match=match, **spec)

        def settled() -> PodDisruptionBudget | None:
            budget = self.budget(namespace, name)
            current = budget.status.observed_generation >= budget.metadata.generation > 0
            return budget if current and budget.status.current_healthy == healthy else None

        found: PodDisruptionBudget = self.until(settled, f"budget {name} is computed")
        return found


def pod_spec(*, gpus: int, grace_seconds: int) -> dict[str, Any]:
    container: dict[str, Any] = {"name": "train", "image": "registry.example/train:1"}
    if gpus:
        container["resources"] = {"requests": {GPU: str(gpus)}, "limits": {GPU: str(gpus)}}
    return {
        "containers": [container],
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": False,
    }
