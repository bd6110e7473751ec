"""The suite plays the kubelets: heartbeats, pods that start, and phases written before pods go."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from cluster import Cluster, rfc3339

from k8s.client import STRATEGIC_MERGE_PATCH
from k8s.errors import ApiError, KubernetesError
from k8s.objects import Pod, is_terminal
from k8s.resources import JOBS, NODES, PODS

# The lease of a node is renewed every 10 s by a real kubelet, and must be within the manager's patience.
HEARTBEAT_SECONDS = 2.0
LOOK_SECONDS = 0.1
# Pods with this label start, but never become Ready.
UNREADY_LABEL = "test/unready"


class Kubelets:
    """Plays the kubelet of the nodes it has been given, for the pods of one namespace.

    dead: nodes that neither beat nor serve their pods. stubborn: UIDs of pods that do not end.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.dead: set[str] = set()
        self.stubborn: set[str] = set()
        self.reluctant = False  # no pod ends
        self.nodes: set[str] = set()
        self._cluster, self._namespace = cluster, namespace
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=f"kubelets {namespace}", daemon=True)
            for run in (self._serve, self._beat)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _beat(self) -> None:
        while not self._stop.is_set():
            for name in sorted(self.nodes - self.dead):
                try:
                    self._renew(name)
                except KubernetesError:
                    continue  # the API server restarts, or the node has just gone
            self._stop.wait(HEARTBEAT_SECONDS)

    def _renew(self, name: str) -> None:
        path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
        try:
            self._cluster.patch(f"{path}/{name}", {"spec": spec})
        except ApiError as error:
            if error.status != 404:
                raise
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name},
            }
            self._cluster.post(path, {**lease, "spec": spec})
        ready = next(
            (
                entry.status
                for entry in self._cluster.node(name).status.conditions
                if entry.type == "Ready"
            ),
            "",
        )
        if ready != "True":
            self._cluster.say_ready(name)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                for pod in self._cluster.pods(self._namespace):
                    if pod.spec.node_name in self.nodes - self.dead:
                        self._look_after(pod)
            except KubernetesError:
                pass  # seen again in the next round
            self._stop.wait(LOOK_SECONDS)

    def _look_after(self, pod: Pod) -> None:
        if pod.metadata.deletion_timestamp is not None:
            if pod.metadata.uid not in self.stubborn and not self.reluctant:
                self._end(pod)
        elif pod.status.phase == "Pending":
            self._start(pod)

    def _start(self, pod: Pod) -> None:
        now = rfc3339(datetime.now(UTC))
        ready = UNREADY_LABEL not in pod.metadata.labels
        self.write_status(
            pod,
            {
                "phase": "Running",
                "startTime": now,
                "conditions": [
                    {"type": "Initialized", "status": "True", "lastTransitionTime": now},
                    {
                        "type": "Ready",
                        "status": "True" if ready else "False",
                        "lastTransitionTime": now,
                    },
                    {
                        "type": "ContainersReady",
                        "status": "True" if ready else "False",
                        "lastTransitionTime": now,
                    },
                ],
                "containerStatuses": [
                    {
                        "name": "train",
                        "image": "registry.example/train:1",
                        "imageID": "",
                        "ready": ready,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": now}},
                    }
                ],
            },
        )

    def _end(self, pod: Pod) -> None:
        """Phase Failed first, then the final DELETE: what the Job controller waits for."""
        if not is_terminal(pod):
            self.finish(pod, "Failed", exit_code=143)
        try:
            self._cluster.connection.request(
                "DELETE",
                PODS.path(pod.metadata.name, namespace=self._namespace),
                body={"gracePeriodSeconds": 0, "preconditions": {"uid": pod.metadata.uid}},
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def finish(self, pod: Pod, phase: str, *, exit_code: int) -> None:
        """The containers have ended by themselves or by being told to."""
        now = rfc3339(datetime.now(UTC))
        self.write_status(
            pod,
            {
                "phase": phase,
                "conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": now},
                    {"type": "ContainersReady", "status": "False", "lastTransitionTime": now},
                ],
                "containerStatuses": [
                    {
                        "name": "train",
                        "image": "registry.example/train:1",
                        "imageID": "",
                        "ready": False,
                        "restartCount": 0,
                        "state": {
                            "terminated": {
                                "exitCode": exit_code,
                                "startedAt": now,
                                "finishedAt": now,
                            }
                        },
                    }
                ],
            },
        )

    def write_status(self, pod: Pod, status: dict[str, Any]) -> None:
        try:
            self._cluster.patch(
                PODS.path(pod.metadata.name, namespace=self._namespace, subresource="status"),
                {"metadata": {"uid": pod.metadata.uid}, "status": status},
                content_type=STRATEGIC_MERGE_PATCH,
            )
        except ApiError as error:
            if error.status not in (404, 409):
                raise


class Grounds:
    """A namespace of its own, nodes of its own, and kubelets that serve them."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.namespace = cluster, name
        cluster.post(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        )
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        cluster.until(lambda: cluster.find(account), "the namespace has its service account")
        self.kubelets = Kubelets(cluster, name)
        self.nodes: list[str] = []

    def add_nodes(self, count: int, *, gpus: int = 8, labels: dict[str, str] | None = None) -> None:
        """Adds Ready nodes that only this test's pods select."""
        for _ in range(count):
            name = f"{self.namespace}-n{len(self.nodes)}"
            self.cluster.create_node(
                name, gpus=gpus, labels={"pool": self.namespace, **(labels or {})}
            )
            self.nodes.append(name)
            self.kubelets.nodes.add(name)

        def untainted() -> bool:
            return not any(self.cluster.node(name).spec.taints for name in self.nodes)

        self.cluster.until(untainted, "the new nodes take pods")

    def running(self, name: str, **options: Any) -> Pod:
        """A bare pod, Running (and Ready unless labelled otherwise), on the first node."""
        self.cluster.create_pod(self.namespace, name, node=self.nodes[0], **options)
        found: Pod = self.cluster.until(
            lambda: self._if_running(name), f"pod {name} of {self.namespace} runs"
        )
        return found

    def _if_running(self, name: str) -> Pod | None:
        pod = self.cluster.pod(self.namespace, name)
        return pod if pod.status.phase == "Running" else None

    def job(self, name: str = "train", **options: Any) -> list[Pod]:
        """A Job whose pods all run, by rank."""
        self.cluster.create_job(
            self.namespace,
            name,
            pod={"nodeSelector": {"pool": self.namespace}, **options.pop("pod", {})},
            **options,
        )
        return self.running_ranks(name, options.get("parallelism", 2))

    def live(self, name: str) -> list[Pod]:
        """The Job's pods that have neither ended nor been told to, by rank."""
        label = "batch.kubernetes.io/job-completion-index"
        pods = [
            pod
            for pod in self.cluster.pods(self.namespace, labelSelector=f"app={name}")
            if not is_terminal(pod) and pod.metadata.deletion_timestamp is None
        ]
        return sorted(pods, key=lambda pod: int(pod.metadata.annotations[label]))

    def running_ranks(self, name: str, count: int) -> list[Pod]:
        def all_run() -> list[Pod] | None:
            pods = self.live(name)
            whole = len(pods) == count and all(pod.status.phase == "Running" for pod in pods)
            return pods if whole else None

        found: list[Pod] = self.cluster.until(all_run, f"all {count} pods of Job {name} run")
        return found

    def await_ready(self, name: str, count: int) -> None:
        """Waits until the Job's controller has counted that many ready pods."""
        job = self.cluster.job
        self.cluster.until(
            lambda: job(self.namespace, name).status.ready == count,
            f"Job {name} counts {count} ready pods",
        )

    def close(self) -> None:
        """Lets everything end and takes the nodes away."""
        self.kubelets.reluctant = False
        self.kubelets.stubborn.clear()
        self.kubelets.dead.clear()
        cluster, namespace = self.cluster, self.namespace
        for pod in cluster.pods(namespace):
            if pod.metadata.finalizers and not pod.metadata.owner_references:
                path = PODS.path(pod.metadata.name, namespace=namespace)
                cluster.patch(path, {"metadata": {"finalizers": None}})
        # The namespace controller starts only 5 s after the deletion: the rest is done here.
        for kind, options in ((JOBS, {"propagationPolicy": "Background"}), (PODS, {})):
            cluster.delete(kind.path(namespace=namespace), gracePeriodSeconds=0, **options)
        cluster.delete(f"/api/v1/namespaces/{namespace}")
        self.kubelets.stop()
        for name in self.nodes:
            cluster.delete(NODES.path(name))
