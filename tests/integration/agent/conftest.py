"""An agent as a real process on a C library in NVML's place, pushing to a real HTTP server."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from collectors.report import Report, decode_report

SOURCE = Path(__file__).parent / "nvml" / "libnvidia_ml.c"

# The layout of `struct machine` in libnvidia_ml.c.
HEAD = struct.Struct("<8I")
EVENT = struct.Struct("<IIQ")
EVENTS = 64
GPU = struct.Struct("<16I8I4Q")
GPUS = 16
HEAD_FIELDS = ("gpus", "init_error", "hang", "count_error", "events_written", "mig", "no_gpm")
GPU_FIELDS = (
    *("removed", "error", "open_error", "temperature"),
    *("margin", "memory_temperature", "power_milliwatts", "utilization"),
    *("remap_pending", "remap_failure", "recovery_action", "links_down"),
    *("processes", "ecc_off", "persistence_off", "field_error"),
)
GPU_COUNTERS = ("energy_millijoules", "ecc_corrected", "ecc_uncorrected", "calls")
FIRST_GPU = HEAD.size + EVENTS * EVENT.size


class Driver:
    """The shared memory that the C library answers from. `number` sets a node's GPUs apart."""

    def __init__(self, directory: Path, library: Path, *, number: int = 0) -> None:
        self.library_directory = library.parent
        self.number = number
        self.state = directory / "nvml.state"
        self.state.write_bytes(bytes(FIRST_GPU + GPUS * GPU.size))
        with self.state.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.set(gpus=8)
        for index in range(GPUS):
            self.set_gpu(
                index,
                temperature=35,
                margin=52,
                memory_temperature=41,
                power_milliwatts=70_000,
                energy_millijoules=10**9,
            )

    def set(self, **values: int) -> None:
        for name, value in values.items():
            struct.pack_into("<I", self._memory, 4 * HEAD_FIELDS.index(name), value)

    def set_gpu(self, index: int, *, pids: tuple[int, ...] | None = None, **values: int) -> None:
        start = FIRST_GPU + index * GPU.size
        for name, value in values.items():
            if name in GPU_COUNTERS:
                offset = start + 24 * 4 + 8 * GPU_COUNTERS.index(name)
                struct.pack_into("<Q", self._memory, offset, value)
            else:
                struct.pack_into("<I", self._memory, start + 4 * GPU_FIELDS.index(name), value)
        if pids is not None:
            struct.pack_into(f"<{len(pids)}I", self._memory, start + 16 * 4, *pids)
            self.set_gpu(index, processes=len(pids))

    def raise_xid(self, index: int, xid: int) -> None:
        (written,) = struct.unpack_from("<I", self._memory, 4 * HEAD_FIELDS.index("events_written"))
        EVENT.pack_into(self._memory, HEAD.size + (written % EVENTS) * EVENT.size, index, 0x8, xid)
        self.set(events_written=written + 1)

    def calls(self, index: int) -> int:
        start = FIRST_GPU + index * GPU.size + 24 * 4 + 8 * GPU_COUNTERS.index("calls")
        return int(struct.unpack_from("<Q", self._memory, start)[0])

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process find this library and this memory."""
        return {
            "LD_LIBRARY_PATH": str(self.library_directory),
            "PITWALL_TEST_NVML_STATE": str(self.state),
            "PITWALL_TEST_NVML_NODE": str(self.number),
        }

    def uuid(self, index: int) -> str:
        return f"GPU-00000000-0000-0000-{self.number:04d}-{index:012d}"


class Ingest:
    """A small HTTP server in ingest's place: keeps what it took, and fails as it is told.

    `plan` holds how the next requests end: a status, or "drop" for a connection closed without
    an answer, or "lose" for a report that is taken but whose answer never arrives.
    """

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.tokens: list[str | None] = []
        self.plan: list[int | str] = []
        self.always: int | str | None = None
        self.refused: list[Report] = []
        self.closed_episodes: tuple[str, ...] = ()
        self._arrived = threading.Condition()
        ingest = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                ingest._take(self, body)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def _take(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        report = decode_report(body)
        with self._arrived:
            self.tokens.append(handler.headers["Authorization"])
            verdict = self.plan.pop(0) if self.plan else self.always
            if verdict is None or verdict == "lose":
                self.reports.append(report)
            else:
                self.refused.append(report)
            self._arrived.notify_all()
        if verdict in ("drop", "lose"):
            handler.close_connection = True
            handler.connection.close()
            return
        answer = json.dumps({"closed_episodes": list(self.closed_episodes)}).encode()
        handler.send_response(verdict if isinstance(verdict, int) else 202)
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)

    def wait(self, wanted: Callable[[Report], bool], *, timeout: float = 10.0) -> Report:
        """The first report that was taken and is `wanted`."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._arrived:
            while True:
                for report in self.reports[seen:]:
                    if wanted(report):
                        return report
                seen = len(self.reports)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"no such report in {timeout} s; {seen} came, the last: "
                        f"{self.reports[-1] if self.reports else None}"
                    )
                self._arrived.wait(left)

    def wait_refused(self, count: int, *, timeout: float = 10.0) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.refused) >= count, timeout)


@dataclass
class Node:
    """The agent's process and all that is around it."""

    directory: Path
    driver: Driver
    ingest: Ingest
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    metrics_port: int = 0

    @property
    def kernel_log(self) -> Path:
        return self.directory / "kern.log"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    def start(self, **settings: object) -> None:
        self.settings.update({name: str(value) for name, value in settings.items()})
        log = (self.directory / "agent.log").open("ab")
        start_of_log = log.tell()
        environment = {
            **os.environ,
            **self.driver.environment,
            "PITWALL_CLUSTER": "test",
            "PITWALL_NODE": "node-1",
            "PITWALL_INGEST_URL": self.ingest.url,
            "PITWALL_SPOOL_DIR": str(self.spool),
            "PITWALL_KMSG_PATH": str(self.kernel_log),
            "PITWALL_PODRESOURCES_SOCKET": str(self.directory / "no.sock"),
            "PITWALL_METRICS_HOST": "127.0.0.1",
            "PITWALL_METRICS_PORT": "0",
            "PITWALL_POLL_INTERVAL_SECONDS": "0.2",
            "PITWALL_PUSH_INTERVAL_SECONDS": "0.5",
            "PITWALL_NVML_SLOW_INTERVAL_SECONDS": "0",
            "PITWALL_BACKOFF_FIRST_SECONDS": "0.05",
            "PITWALL_BACKOFF_LONGEST_SECONDS": "0.2",
            **self.settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collectors.agent"], env=environment, stderr=log
        )
        self.metrics_port = self._read_port(start_of_log)

    def _read_port(self, start: int) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in self.log_lines(start):
                if line.get("event") == "the agent has started":
                    return int(line["metrics_port"])
            assert self.process is not None
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError((self.directory / "agent.log").read_text())

    def log_lines(self, start: int = 0) -> list[dict[str, Any]]:
        data = (self.directory / "agent.log").read_bytes()[start:]
        return [json.loads(line) for line in data.splitlines() if line.startswith(b"{")]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5
        ) as answer:
            return str(answer.read().decode())

    def kill(self) -> None:
        """What no program can catch."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def write_kernel(self, *lines: str) -> None:
        with self.kernel_log.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


def _build(directory: Path, *options: str) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing: the library in NVML's place cannot be built")
    library = directory / "libnvidia-ml.so.1"
    subprocess.run(
        [
            *("gcc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1"),
            *options,
            *("-o", str(library), str(SOURCE)),
        ],
        check=True,
        timeout=60,
    )
    return library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as of a recent driver."""
    return _build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library as of a driver without the newer symbols."""
    return _build(tmp_path_factory.mktemp("nvml-old"), "-DWITHOUT_NEW_SYMBOLS")


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    server = Ingest()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture
def node(tmp_path: Path, library: Path, ingest: Ingest) -> Iterator[Node]:
    """A node whose kernel log is there and empty; the agent is started by the test."""
    made = Node(tmp_path, Driver(tmp_path, library), ingest)
    made.kernel_log.touch()
    yield made
    made.stop()


@pytest.fixture
def old_node(tmp_path: Path, old_library: Path, ingest: Ingest) -> Iterator[Node]:
    made = Node(tmp_path, Driver(tmp_path, old_library), ingest)
    made.kernel_log.touch()
    yield made
    made.stop()
