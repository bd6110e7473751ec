"""Ingest on a real socket, before the simulator's API server; on both databases where a test asks for `ingest`."""

import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn
from sqlalchemy import Engine

from app.ingest.server import create
from app.settings import Settings
from app.simulator.server import ServerThread, serve_in_thread
from app.store.engine import open_store
from collectors.report import Report, encode_report
from k8s.client import Connection, connect
from k8s.tokens import request_token
from tests.store_fixtures import (
    empty_store_url,
    engine,
    postgresql,
    sqlite_engine,
    sqlite_template,
    store_url,
)

__all__ = [
    "empty_store_url",
    "engine",
    "postgresql",
    "sqlite_engine",
    "sqlite_template",
    "store_url",
]

CLUSTER = "c"


@pytest.fixture(scope="session")
def simulator() -> Iterator[ServerThread]:
    """A simulated cluster of four nodes."""
    with serve_in_thread(nodes=4, with_jobs=False) as running:
        yield running


@pytest.fixture(scope="session")
def kubernetes(simulator: ServerThread) -> Connection:
    """The simulator's API server as its administrator."""
    return connect(simulator.kubeconfig)


@pytest.fixture(scope="session")
def node_uids(kubernetes: Connection) -> dict[str, str]:
    """UIDs of the simulated nodes by name."""
    items = msgspec.json.decode(kubernetes.get("/api/v1/nodes"))["items"]
    return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}


@pytest.fixture(scope="session")
def nodes(node_uids: dict[str, str]) -> list[str]:
    """Names of the simulated nodes."""
    return sorted(node_uids)


@pytest.fixture(scope="session")
def token_of(kubernetes: Connection, node_uids: dict[str, str]) -> Callable[..., str]:
    """Makes tokens: the agent's of a node, or of any account and audience."""

    def make(
        node: str | None = None, *, account: str = "pitwall-agent", audience: str | None = "pitwall"
    ) -> str:
        bound = (node, node_uids[node]) if node else None
        return request_token(kubernetes, "pitwall", account, audience, bound_node=bound).token

    return make


@dataclass
class Ingest:
    """A running ingest and a client of it."""

    url: str
    engine: Engine
    client: httpx.Client
    token_of: Callable[..., str]
    server: uvicorn.Server
    thread: threading.Thread
    tokens: dict[str, str] = field(default_factory=dict)

    def push(self, report: Report, *, token: str | None = None, **headers: str) -> httpx.Response:
        """Push a report as the agent of its node, or with another token."""
        if token is None:
            token = self.tokens.setdefault(report.node, "")
            if not token:
                token = self.tokens[report.node] = self.token_of(report.node)
        return self.push_body(encode_report(report), token=token, **headers)

    def push_body(self, body: bytes, *, token: str, **headers: str) -> httpx.Response:
        """Push any body."""
        sent = {"Authorization": f"Bearer {token}", "Content-Encoding": "gzip"} | headers
        return self.client.post("/agent/v1/reports", content=body, headers=sent)

    def metric(self, name: str, **labels: str) -> float:
        """The value of one of ingest's own metrics, 0 where it has none."""
        wanted = name + (
            "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}"
            if labels
            else ""
        )
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(wanted + " "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def stop(self) -> None:
        """End the process's server as a signal would."""
        self.server.should_exit = True
        self.thread.join(15)
        self.client.close()


def start_ingest(
    opened: Engine, simulator: ServerThread, token_of: Callable[..., str], **settings: object
) -> Ingest:
    """Start an ingest on a free port."""
    chosen = Settings(cluster=CLUSTER, _env_file=None, **settings)  # type: ignore[call-arg,arg-type]
    app = create(chosen, opened, lambda: connect(simulator.kubeconfig))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = threading.Event()
    while not server.started and thread.is_alive():
        deadline.wait(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    return Ingest(url, opened, httpx.Client(base_url=url, timeout=30), token_of, server, thread)


@pytest.fixture
def ingest(
    engine: Engine, simulator: ServerThread, token_of: Callable[..., str]
) -> Iterator[Ingest]:
    """An ingest on each database in turn."""
    running = start_ingest(engine, simulator, token_of)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def shared_ingest(
    tmp_path_factory: pytest.TempPathFactory,
    sqlite_template: Path,
    simulator: ServerThread,
    token_of: Callable[..., str],
) -> Iterator[Ingest]:
    """One ingest on SQLite for tests that only see what it refuses."""
    path = tmp_path_factory.mktemp("ingest") / "pitwall.db"
    shutil.copy(sqlite_template, path)
    opened = open_store(f"sqlite:///{path}")
    running = start_ingest(opened, simulator, token_of)
    yield running
    running.stop()
    opened.dispose()


def now() -> datetime:
    """The present."""
    return datetime.now(UTC)
