"""The simulator as a process: three faces on loopback, and a kubeconfig for the first."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
import uvicorn
import yaml

from app.simulator.asgi import Application, kubernetes_application
from app.simulator.certificate import Certificate, make_certificate
from app.simulator.control import control_application
from app.simulator.errors import SimulatorError
from app.simulator.prometheus import prometheus_application
from app.simulator.simulation import Options, Simulation

log = structlog.get_logger()
HOST = "127.0.0.1"
# Calls made in one go before requests get their turn again.
CALLS_AT_ONCE = 50
START_SECONDS = 120.0


class _Server(uvicorn.Server):
    """uvicorn without hands on the process's signals: there are three in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(port: int) -> socket.socket:
    """A listening socket on loopback, port 0 for any. Raises SimulatorError when it is taken."""
    # asyncio turns Nagle's algorithm off only where the protocol is named: 40 ms an answer.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise SimulatorError(
            f"The simulator cannot listen on {HOST}:{port} ({error.strerror}): end what uses the "
            "port or choose another."
        ) from error
    found.listen(512)
    return found


class Face:
    """One application on one socket, over TLS where it has a certificate."""

    def __init__(
        self,
        listening: socket.socket,
        application: Application,
        *,
        certificate: Certificate | None = None,
    ) -> None:
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://{HOST}:{listening.getsockname()[1]}"
        self._socket = listening
        config = uvicorn.Config(
            application,  # type: ignore[arg-type]
            log_config=None,
            log_level="critical",  # failures of requests are logged where they are answered
            access_log=False,
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_keep_alive=90,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        if certificate is not None:
            config.load()
            config.ssl = _tls_context(certificate)
        self._server = _Server(config)

    @property
    def started(self) -> bool:
        return self._server.started

    async def serve(self) -> None:
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        self._server.should_exit = True


def _tls_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix="pitwall-simulator-") as folder:
        chain, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        _write_private(chain, certificate.certificate)
        _write_private(key, certificate.key)
        context.load_cert_chain(chain, key)
    return context


class SimulatorServer:
    """A simulation behind its faces, in the running event loop."""

    def __init__(self, simulation: Simulation, *, ports: tuple[int, int, int]) -> None:
        """`ports`: Kubernetes, Prometheus, control; 0 for any. Raises SimulatorError."""
        self.simulation = simulation
        sockets: list[socket.socket] = []
        try:
            for port in ports:
                sockets.append(bind(port))
        except SimulatorError:
            for listening in sockets:
                listening.close()
            raise
        self.certificate = make_certificate()
        applications = faces_of(simulation)
        # kubectl and its kin send a token over TLS only; the other faces are spoken to plainly.
        certificates = (self.certificate, None, None)
        self.faces = [
            Face(one, application, certificate=certificate)
            for one, application, certificate in zip(
                sockets, applications, certificates, strict=True
            )
        ]
        self.kubernetes_url, self.prometheus_url, self.control_url = (
            face.url for face in self.faces
        )

    def write_files(self, directory: Path) -> Path:
        """Write kubeconfig, ca.crt and simulator.json; returns the kubeconfig's path."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "kubeconfig"
        token = self.simulation.api.authenticator.admin_token
        _write_private(path, yaml.safe_dump(self._kubeconfig(token)))
        addresses = {
            "kubernetes_url": self.kubernetes_url,
            "prometheus_url": self.prometheus_url,
            "control_url": self.control_url,
        }
        _write_private(directory / "ca.crt", self.certificate.certificate)
        _write_private(directory / "simulator.json", json.dumps(addresses, indent=2) + "\n")
        return path

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        name = "pitwall-simulator"
        authority = base64.b64encode(self.certificate.certificate.encode()).decode()
        cluster = {"server": self.kubernetes_url, "certificate-authority-data": authority}
        context = {"cluster": name, "user": name, "namespace": "default"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": context}],
            "current-context": name,
        }

    async def run(self, stop: asyncio.Event, started: threading.Event | None = None) -> None:
        """Serve until `stop` is set."""
        driver = asyncio.create_task(drive(self.simulation))
        serving = [asyncio.create_task(face.serve()) for face in self.faces]
        while not all(face.started for face in self.faces):
            await asyncio.sleep(0.01)
        if started is not None:
            started.set()
        await stop.wait()
        for watch in tuple(self.simulation.api.watches):
            watch.close()
        for face in self.faces:
            face.stop()
        await asyncio.gather(*serving, return_exceptions=True)
        driver.cancel()
        await asyncio.gather(driver, return_exceptions=True)


def faces_of(simulation: Simulation) -> tuple[Application, Application, Application]:
    """The applications of the Kubernetes, Prometheus and control faces."""
    return (
        kubernetes_application(simulation.api),
        prometheus_application(simulation),
        control_application(simulation),
    )


async def drive(simulation: Simulation) -> None:
    """Make the schedule's calls when they are due, leaving room for requests in between."""
    schedule, wake = simulation.schedule, asyncio.Event()
    schedule.on_earlier = wake.set
    while True:
        wake.clear()
        try:
            schedule.run_due(most=CALLS_AT_ONCE)
        except Exception:
            log.exception("simulator_call_failed")
        due = schedule.next_due()
        now = simulation.clock.now()
        if due is not None and due <= now:
            await asyncio.sleep(0)
            continue
        wait = (due - now if due is not None else timedelta(seconds=60)).total_seconds()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await wake.wait()


def _write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by its owner alone."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    fresh.replace(path)


def serve(
    *,
    nodes: int,
    seed: int,
    port: int,
    directory: Path,
    prometheus_port: int = 0,
    control_port: int = 0,
) -> None:
    """Run the simulator until SIGINT or SIGTERM. Raises SimulatorError when it cannot start."""
    simulation = Simulation(Options(nodes=nodes, seed=seed))
    server = SimulatorServer(simulation, ports=(port, prometheus_port, control_port))
    try:
        server.write_files(directory)
    except OSError as error:
        raise SimulatorError(
            f"The simulator cannot write to {directory} ({error.strerror}): free some space or "
            "choose another --directory."
        ) from error

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(one, stop.set)
        log.info("simulator_started", nodes=nodes, seed=seed, kubernetes_url=server.kubernetes_url)
        await server.run(stop)

    asyncio.run(main())


class ServerThread:
    """A simulator in a thread of this process, for tests. A context manager."""

    def __init__(self, options: Options, *, directory: Path | None = None) -> None:
        self._own_directory = (
            tempfile.TemporaryDirectory(prefix="pitwall-simulator-") if directory is None else None
        )
        self.directory = directory or Path(self._own_directory.name)  # type: ignore[union-attr]
        self.simulation = Simulation(options)
        self._server = SimulatorServer(self.simulation, ports=(0, 0, 0))
        self.kubeconfig = self._server.write_files(self.directory)
        self.certificate_authority = self.directory / "ca.crt"
        self.kubernetes_url = self._server.kubernetes_url
        self.prometheus_url = self._server.prometheus_url
        self.control_url = self._server.control_url
        self.admin_token = self.simulation.api.authenticator.admin_token
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="pitwall-simulator", daemon=True)
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise SimulatorError(f"The simulator did not start within {START_SECONDS:.0f} s.")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._server.run(self._stop, self._started))
        finally:
            self._loop.close()

    def stop(self) -> None:
        """End the server; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(timeout=15)
        if self._own_directory is not None:
            self._own_directory.cleanup()

    def __enter__(self) -> "ServerThread":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def serve_in_thread(
    *,
    nodes: int = 64,
    seed: int = 1,
    with_jobs: bool = True,
    kubelets: bool = True,
    directory: Path | None = None,
) -> ServerThread:
    """Start a simulator in a thread; nodes=0 and kubelets=False leave the nodes to the caller."""
    options = Options(nodes=nodes, seed=seed, with_jobs=with_jobs, kubelets=kubelets)
    return ServerThread(options, directory=directory)
