"""A simulated cluster on a clock that stands still until a test moves it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from app.simulator.api.request import Request, Response
from app.simulator.clock import ManualClock
from app.simulator.simulation import Options, Simulation

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Cluster:
    """A simulation with the questions that tests ask of it."""

    def __init__(self, **options: Any) -> None:
        self.simulation = Simulation(Options(**options), clock=ManualClock(START))
        self.advance(0)

    def advance(self, seconds: float) -> None:
        self.simulation.schedule.advance(seconds)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        content_type: str = "application/json",
        **headers: str,
    ) -> tuple[int, Any]:
        """One request, as the admin unless a token is given; "" sends none."""
        path, _, query_text = path.partition("?")
        query = dict(one.split("=", 1) for one in query_text.split("&") if one)
        token = self.simulation.api.authenticator.admin_token if token is None else token
        sent = {"content-type": content_type} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        if token:
            sent["authorization"] = f"Bearer {token}"
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        )
        answer = self.simulation.api.handle(Request(method, path, query, sent, raw))
        assert isinstance(answer, Response), "a watch, not an answer"
        return answer.status, msgspec.json.decode(answer.body)

    def get(self, plural: str, name: str, namespace: str = "default") -> dict[str, Any]:
        record = self.simulation.registry.get(plural, (namespace, name))
        assert record is not None, f"no {plural} {namespace}/{name}"
        return record.object

    def node(self, name: str) -> dict[str, Any]:
        return self.get("nodes", name, "")

    def pods_of(self, job: str, namespace: str = "default") -> list[dict[str, Any]]:
        uid = self.get("jobs", job, namespace)["metadata"]["uid"]
        return self.simulation.registry.owned("pods", uid)

    def create_job(self, name: str, **spec: Any) -> dict[str, Any]:
        status, job = self.call(
            "POST", "/apis/batch/v1/namespaces/default/jobs", job_of(name, **spec)
        )
        assert status == 201, job
        self.advance(0)
        return job

    def evict(self, pod: dict[str, Any], **options: Any) -> tuple[int, Any]:
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
        }
        if options:
            body["deleteOptions"] = options
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        return self.call("POST", path, body)


def job_of(name: str, *, gpus: int = 8, pod: dict[str, Any] | None = None, **spec: Any) -> dict:
    """An Indexed Job of two pods unless `spec` says otherwise."""
    container = {
        "name": "trainer",
        "image": "trainer:1",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    template["spec"].update(pod or {})
    settings = {"completionMode": "Indexed", "parallelism": 2, "completions": 2, **spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **settings},
    }


@pytest.fixture
def make_cluster() -> Callable[..., Cluster]:
    return Cluster


@pytest.fixture
def cluster() -> Cluster:
    """Eight empty nodes."""
    return Cluster(nodes=8, with_jobs=False)


@pytest.fixture
def api() -> Cluster:
    """No nodes and no kubelets: the bare API with its controllers."""
    return Cluster(nodes=0, with_jobs=False, kubelets=False)
