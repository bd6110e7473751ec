"""A simulated fleet, ingest and worker in processes of their own, as on one machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from sqlalchemy import Engine

from app.store.engine import migrate, open_store
from k8s.client import Connection, connect
from k8s.errors import KubernetesError

ROOT = Path(__file__).parents[3]
START_SECONDS = 90.0
CLUSTER = "test"
RAISED_LIMITS = {
    "PITWALL_MAX_UNAVAILABLE_NODES_RATIO": "1.0",
    "PITWALL_MAX_DRAINS_PER_HOUR": "5000",
    "PITWALL_MAX_DRAINS_PER_HOUR_RATIO": "1.0",
    "PITWALL_MIN_USABLE_NODES_RATIO": "0.0",
    "PITWALL_MAX_UNAVAILABLE_BLOCK_NODES_RATIO": "1.0",
}
_SERVE = """
import signal, threading
from pathlib import Path
from app.simulator.server import serve_in_thread
with serve_in_thread(nodes={nodes}, with_jobs={with_jobs}, directory=Path({folder!r})):
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
"""
_RUN = "from app.settings import read_settings; from app.{which} import run; run(read_settings())"


class Fleet:
    """What a test needs of them; connection is the administrator's."""

    def __init__(self, folder: Path, nodes: int, *, with_jobs: bool = True) -> None:
        self.folder = folder
        self.kubeconfig = folder / "simulator" / "kubeconfig"
        store = f"sqlite:///{folder / 'store.db'}"
        migrate(store)
        self.engine: Engine = open_store(store)
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
        self.ingest_url = f"http://127.0.0.1:{port}"
        self._settings = {
            "PITWALL_CLUSTER": CLUSTER,
            "PITWALL_STORE_URL": store,
            "PITWALL_KUBECONFIG": str(self.kubeconfig),
            "PITWALL_INGEST_PORT": str(port),
            "PITWALL_LOCAL_USER": "pitwall:demo",
            **RAISED_LIMITS,
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        serve = _SERVE.format(nodes=nodes, with_jobs=with_jobs, folder=str(self.kubeconfig.parent))
        self._start("simulator", serve)
        _until(self._answers, "the simulator answers")
        self.connection: Connection = connect(self.kubeconfig)

    def start_ingest(self) -> None:
        self._start("ingest", _RUN.format(which="ingest.server"))

        def ready() -> bool:
            try:
                return httpx.get(f"{self.ingest_url}/readyz").status_code == 200
            except httpx.HTTPError:
                return False

        _until(ready, "ingest answers")

    def start_worker(self, **settings: str) -> None:
        self._settings |= settings
        self._start("worker", _RUN.format(which="worker"))

    def _answers(self) -> bool:
        try:
            connect(self.kubeconfig).get("/api/v1/nodes", {"limit": 1})
        except (KubernetesError, OSError):
            return False
        return True

    def _start(self, name: str, code: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._settings}
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", code],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.engine.dispose()

    def node_names(self) -> list[str]:
        """All nodes of the cluster, by name."""
        items = msgspec.json.decode(self.connection.get("/api/v1/nodes"))["items"]
        return sorted(item["metadata"]["name"] for item in items)

    def logs(self) -> str:
        return "\n".join(
            f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-10:])
            for log in sorted(self.folder.glob("*.log"))
        )


def _until(met: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not met():
        assert time.monotonic() < end, f"waited {START_SECONDS:.0f} s in vain until {what}"
        time.sleep(0.1)


@contextmanager
def fleet_of(folder: Path, nodes: int, *, with_jobs: bool = True) -> Iterator[Fleet]:
    """A fleet for as long as the block lasts; its logs are told when it fails."""
    fleet = Fleet(folder, nodes, with_jobs=with_jobs)
    try:
        yield fleet
    except BaseException:
        print(fleet.logs())
        raise
    finally:
        fleet.close()
