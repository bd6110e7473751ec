"""Drains on either cluster: connections that go astray, and what a test asks again and again."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

import yaml
from cluster import Cluster
from kubelet import Grounds

from k8s.client import Connection, Impersonation
from k8s.errors import ApiError
from k8s.objects import Pod
from k8s.resources import NODES, PODS
from tests.integration.operations.operation_world import ENDED, Driver, RecordingConnection, World

Send = Callable[..., Any]
# What becomes of a call: (send, method, path, options) -> the response.
Way = Callable[[Send, str, str, dict[str, Any]], Any]
SHED = "pitwall-test-shed"


class Diverted(RecordingConnection):
    """A connection whose calls take another way to the same server, which answers them itself."""

    def __init__(self, connection: Connection, way: Way) -> None:
        super().__init__(connection)
        self._way = way
        self.most_at_once = 0
        self._at_once = 0
        self._counting = threading.Lock()

    def request(self, method: str, path: str, **options: Any) -> Any:
        with self._counting:
            self._at_once += method == "POST"
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self._way(super().request, method, path, options)
        finally:
            with self._counting:
                self._at_once -= method == "POST"


def straight(send: Send, method: str, path: str, options: dict[str, Any]) -> Any:
    """The way of every other call."""
    return send(method, path, **options)


def bare(field: Grounds, name: str, *, node: str | None = None, **options: Any) -> Pod:
    """A pod that nothing recreates, running on the node (the first without one)."""
    where = node or field.nodes[0]
    field.cluster.create_pod(field.namespace, name, node=where, **options)
    return running(field, name)


def running(field: Grounds, name: str) -> Pod:
    found: Pod = field.cluster.until(
        lambda: (pod := field.cluster.pod(field.namespace, name)).status.phase == "Running" and pod,
        f"pod {name} runs",
    )
    return found


def seen(world: World, *pods: Pod) -> None:
    """Waits until the worker's eyes have these pods as they are."""

    def all_seen(view: Any) -> bool:
        return all(
            (known := view.pods.get(pod.metadata.uid)) is not None
            and known.spec.node_name == pod.spec.node_name
            and known.status.phase == pod.status.phase
            for pod in pods
        ) and all(pod.spec.node_name in view.nodes for pod in pods if pod.spec.node_name)

    world.wait(all_seen)


def finish(world: World, driver: Driver, operation_id: str, *, seconds: float = 60) -> Any:
    """Drives the operation to its end."""
    driver.run_until(lambda: world.state(operation_id) in ENDED, seconds=seconds)
    return world.operation(operation_id)


def node_writes(world: World) -> list[Any]:
    """Bodies of what was written to nodes."""
    return [body for _, path, body in world.connection.writes if path.startswith(NODES.path())]


def as_administrator(cluster: Cluster, user: str) -> None:
    """Lets a person do all, where roles are kept; the simulator knows its own people."""
    if cluster.disturb is not None:
        return
    group = "rbac.authorization.k8s.io"
    name = user.replace(":", "-")
    cluster.post(
        f"/apis/{group}/v1/clusterrolebindings",
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        },
    )

    def is_known() -> bool:
        try:
            cluster.connection.impersonating(Impersonation(user, ())).get(
                NODES.path(), {"limit": 1}
            )
        except ApiError:
            return False
        return True

    cluster.until(is_known, "the role is bound")


def not_exempt(cluster: Cluster) -> Connection:
    """A connection of somebody who may do all, and whom the API server may make wait."""
    if cluster.disturb is not None:
        return cluster.connection
    as_administrator(cluster, SHED)  # the suite's own user is of system:masters, who are exempt
    return cluster.connection.impersonating(Impersonation(SHED, ()))


@contextmanager
def shedding(cluster: Cluster, namespace: str, *, asking: Connection) -> Iterator[None]:
    """The API server answers evictions in the namespace with 429 for its own sake, not a budget's.

    asking: a connection of somebody who is not exempt.
    """
    if cluster.disturb is not None:
        where = f"/api/v1/namespaces/{namespace}/pods/"
        fault = {"method": "POST", "path_prefix": where, "status": 429, "retry_after": 1}
        cluster.disturb(**fault, count=2)
        yield
        return
    base = "/apis/flowcontrol.apiserver.k8s.io/v1"
    api = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": SHED}}
    level = {
        "type": "Limited",
        "limited": {
            "nominalConcurrencyShares": 0,
            "lendablePercent": 0,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        },
    }
    rule = {
        "subjects": [{"kind": "User", "user": {"name": SHED}}],
        "resourceRules": [
            {
                "verbs": ["create"],
                "apiGroups": [""],
                "resources": ["pods/eviction"],
                "namespaces": [namespace],
            }
        ],
    }
    schema = {
        "priorityLevelConfiguration": {"name": SHED},
        "matchingPrecedence": 2,
        "rules": [rule],
    }
    levels, schemas = f"{base}/prioritylevelconfigurations", f"{base}/flowschemas"
    cluster.post(levels, {**api, "kind": "PriorityLevelConfiguration", "spec": level})
    cluster.post(schemas, {**api, "kind": "FlowSchema", "spec": schema})

    holding: list[HTTPSConnection] = []

    def sheds() -> bool:
        # One request is let in at a time, and this one does not end: its body never comes.
        holding.append(_unfinished(cluster, namespace))
        probe = PODS.path("nobody", namespace=namespace, subresource="eviction")
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "nobody"}}
        try:
            asking.request("POST", probe, body=eviction)
        except ApiError as error:
            return error.status == 429
        return False

    try:
        cluster.until(sheds, "evictions are shed")
        yield
    finally:
        for one in holding:
            one.close()
        cluster.delete(f"{schemas}/{SHED}")
        cluster.delete(f"{levels}/{SHED}")


def _unfinished(cluster: Cluster, namespace: str) -> HTTPSConnection:
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    where = document["clusters"][0]["cluster"]
    server = urlsplit(where["server"])
    trust = ssl.create_default_context(cafile=where["certificate-authority"])
    found = HTTPSConnection(server.hostname or "", server.port, context=trust)
    found.putrequest("POST", PODS.path("nobody", namespace=namespace, subresource="eviction"))
    token = document["users"][0]["user"]["token"]
    for name, value in (
        ("Authorization", f"Bearer {token}"),
        ("Impersonate-User", SHED),
        ("Content-Type", "application/json"),
        ("Content-Length", "100"),
    ):
        found.putheader(name, value)
    found.endheaders()
    return found
