"""The processes of a demo in the order of their start, and how each is asked whether it is up."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from app.demo.directory import STORE
from app.demo.ports import LOOPBACK, Ports
from app.demo.supervisor import Child

CLUSTER = "demo"
CHECK_TIMEOUT_SECONDS = 5.0
# A person at the demo drains one node after another: two an hour of 64 would end the fun at once.
DEFAULTS = {"PITWALL_MAX_DRAINS_PER_HOUR_RATIO": "0.25"}

Check = Callable[[], Awaitable[str | None]]


def environment(path: Path, ports: Ports) -> dict[str, str]:
    """What the demo's processes, and command lines beside it, are told: PITWALL_* variables."""
    return {
        "PITWALL_CLUSTER": CLUSTER,
        "PITWALL_STORE_URL": f"sqlite:///{path / STORE}",
        "PITWALL_KUBECONFIG": str(path / "kubeconfig"),
        "PITWALL_PROMETHEUS_URL": ports.url("prometheus"),
        "PITWALL_INGEST_HOST": LOOPBACK,
        "PITWALL_INGEST_PORT": str(ports.ingest),
        "PITWALL_INGEST_URL": ports.url("ingest"),
        "PITWALL_WEB_HOST": LOOPBACK,
        "PITWALL_WEB_PORT": str(ports.web),
        "PITWALL_URL": ports.url("ingest"),
        "PITWALL_TOKEN_FILE": str(path / "token"),
        # Whom the simulated cluster takes who is at the page for (app.simulator.api.access).
        "PITWALL_LOCAL_USER": "pitwall:demo",
    }


def processes(
    path: Path, ports: Ports, *, nodes: int, seed: int, client: httpx.AsyncClient
) -> list[Child]:
    """The children in the order of their start; the simulated cluster is the first."""
    variables = {**DEFAULTS, **_inherited(), **environment(path, ports)}

    def child(name: str, command: list[str], ready: Check) -> Child:
        return Child(name=name, command=command, environment=variables, ready=ready)

    simulate = [
        "simulate",
        *("--nodes", str(nodes)),
        *("--seed", str(seed)),
        *("--port", str(ports.kubernetes)),
        *("--port-prometheus", str(ports.prometheus)),
        *("--port-control", str(ports.control)),
        *("--directory", str(path)),
    ]
    status = ports.url("ingest") + "/v1/status"
    return [
        child("simulate", simulate, _simulator_answers(path)),
        child("ingest", ["ingest"], _answers(client, ports.url("ingest") + "/readyz")),
        child("worker", ["worker"], _nodes_are_known(client, status, path, nodes=nodes)),
        child(
            "simulate-agents",
            ["simulate-agents", "--directory", str(path)],
            _agents_are_heard(client, status, path),
        ),
        child("web", ["web"], _answers(client, ports.url("web") + "/_stcore/health")),
    ]


async def busy_node(client: httpx.AsyncClient, path: Path, ports: Ports) -> str:
    """A node all of whose GPUs a job holds, for people to try things on; "NODE" where there is none."""
    url = ports.url("ingest") + "/v1/nodes"
    answer = await _get(client, url, token=path / "token")
    if isinstance(answer, str):
        return "NODE"
    nodes = json.loads(answer.content)["items"]
    full = (node["name"] for node in nodes if node["gpu_requested"] == node["gpu_count"])
    return next(full, "NODE")


def _inherited() -> dict[str, str]:
    # A person's own token and address are for their own cluster; other settings may shape the demo.
    foreign = ("PITWALL_TOKEN", "PITWALL_NODE", "KUBECONFIG")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _answers(client: httpx.AsyncClient, url: str, *, token: Path | None = None) -> Check:
    async def check() -> str | None:
        response = await _get(client, url, token=token)
        return response if isinstance(response, str) else None

    return check


def _simulator_answers(path: Path) -> Check:
    kubeconfig = path / "kubeconfig"

    def ask() -> str | None:
        # As kubectl and the worker reach it: by its kubeconfig.
        from k8s.client import connect, version
        from k8s.errors import KubernetesError

        try:
            connection = connect(kubeconfig, read_timeout_seconds=CHECK_TIMEOUT_SECONDS)
            version(connection)
        except KubernetesError as error:
            return str(error)
        return None

    async def check() -> str | None:
        if not kubeconfig.exists() or not (path / "simulator.json").exists():
            return "its kubeconfig is not written yet"
        return await asyncio.to_thread(ask)

    return check


def _nodes_are_known(client: httpx.AsyncClient, url: str, path: Path, *, nodes: int) -> Check:
    async def check() -> str | None:
        status = await _status(client, url, path)
        if isinstance(status, str):
            return status
        known = status["counts"]["nodes"]
        return None if known >= nodes else f"{known} of {nodes} nodes are known"

    return check


def _agents_are_heard(client: httpx.AsyncClient, url: str, path: Path) -> Check:
    async def check() -> str | None:
        status = await _status(client, url, path)
        if isinstance(status, str):
            return status
        counts = status["counts"]
        unknown = counts["nodes_by_health"].get("Unknown", 0)
        if counts["nodes"] and not unknown:
            return None
        return f"{unknown} of {counts['nodes']} nodes have sent no report"

    return check


async def _status(client: httpx.AsyncClient, url: str, path: Path) -> dict | str:
    response = await _get(client, url, token=path / "token")
    if isinstance(response, str):
        return response
    document: dict = json.loads(response.content)
    return document


async def _get(client: httpx.AsyncClient, url: str, *, token: Path | None) -> httpx.Response | str:
    """The answer, or in words why there is none yet."""
    headers = {} if token is None else {"Authorization": f"Bearer {token.read_text().strip()}"}
    try:
        response = await client.get(url, headers=headers, timeout=CHECK_TIMEOUT_SECONDS)
    except httpx.TransportError as error:
        return f"{url} does not answer: {error or type(error).__name__}"
    if response.status_code != 200:
        return f"{url} answers {response.status_code}: {response.text[:200].strip()}"
    return response
