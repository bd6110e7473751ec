"""A real control plane on loopback, from the binaries in the folder that KUBEBUILDER_ASSETS names.

etcd and kube-apiserver must be there; kube-controller-manager and kube-scheduler are started when they
are. All state lives in one folder; everything is stopped by its own process.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k8s.client import Connection, connect
from k8s.errors import KubernetesError

START_SECONDS = 120.0
ADMIN_TOKEN = "admin-token"  # of a control plane that lives on loopback for some minutes


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class ControlPlane:
    """etcd, kube-apiserver and, where present, kube-controller-manager and kube-scheduler."""

    def __init__(self, folder: Path, assets: Path) -> None:
        self.folder, self.assets = folder, assets
        self.has_controllers = (assets / "kube-controller-manager").exists()
        self.has_scheduler = (assets / "kube-scheduler").exists()
        self.kubeconfig = folder / "kubeconfig"
        client, peer, self._api, self._manager, self._scheduler = free_ports(5)
        self._etcd_url = f"http://127.0.0.1:{client}"
        self._peer_url = f"http://127.0.0.1:{peer}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Starts everything and waits until each answers. Raises RuntimeError with the end of a log."""
        key = self.folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        users = [
            f'{ADMIN_TOKEN},admin,admin-uid,"system:masters"',
            "manager-token,system:kube-controller-manager,manager-uid",
            "scheduler-token,system:kube-scheduler,scheduler-uid",
        ]
        (self.folder / "tokens.csv").write_text("\n".join(users) + "\n")
        self._kubeconfig("kubeconfig", ADMIN_TOKEN)
        self._kubeconfig("manager.kubeconfig", "manager-token")
        self._kubeconfig("scheduler.kubeconfig", "scheduler-token")
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={self._etcd_url}",
            f"--advertise-client-urls={self._etcd_url}",
            f"--listen-peer-urls={self._peer_url}",
            f"--initial-advertise-peer-urls={self._peer_url}",
            f"--initial-cluster=default={self._peer_url}",
        )
        self.start_api_server()
        if self.has_controllers:
            self._run(
                "kube-controller-manager",
                *self._as("manager", self._manager),
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={key}",
                # A node must be declared dead within a test's patience.
                "--node-monitor-period=1s",
                "--node-monitor-grace-period=8s",
            )
        if self.has_scheduler:
            self._run("kube-scheduler", *self._as("scheduler", self._scheduler))

    def start_api_server(self) -> None:
        """Starts the API server (again) on the same port and waits for it."""
        key = self.folder / "sa.key"
        self._run(
            "kube-apiserver",
            f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={self._api}",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--allow-privileged=true",
            # Two cores are shared: no need to serve hundreds of requests at once.
            "--profiling=false",
        )
        self._await_ready()

    def stop_api_server(self) -> None:
        """Ends it as a crash would: asked politely, it waits for its watches for up to a minute."""
        self._end("kube-apiserver")

    def compact(self) -> None:
        """Makes etcd forget all versions but the last, as the API server does every five minutes."""
        revision = self._etcd("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
        self._etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    @contextmanager
    def holding_controllers(self) -> Iterator[None]:
        """The controller manager stands still while this lasts."""
        with self._holding("kube-controller-manager"):
            yield

    @contextmanager
    def holding_store(self) -> Iterator[None]:
        """etcd stands still while this lasts, so that writes time out."""
        with self._holding("etcd"):
            yield

    @contextmanager
    def _holding(self, name: str) -> Iterator[None]:
        process = self._processes[name]
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for name in list(self._processes)[::-1]:
            self._end(name)

    def connection(self) -> Connection:
        return connect(self.kubeconfig)

    def _as(self, who: str, port: int) -> list[str]:
        config = self.folder / f"{who}.kubeconfig"
        return [
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={self.folder / who}",
            "--leader-elect=false",
        ]

    def _kubeconfig(self, name: str, token: str) -> None:
        # What --cert-dir makes holds the certificate and the authority that signed it.
        cluster = {
            "server": f"https://127.0.0.1:{self._api}",
            "certificate-authority": str(self.folder / "certificates" / "apiserver.crt"),
        }
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        (self.folder / name).write_text(json.dumps(document))

    def _run(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self.assets / name, *flags], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(10)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        process = self._processes["kube-apiserver"]
        error: Exception | None = None
        while time.monotonic() < deadline and process.poll() is None:
            try:
                connection = self.connection()
                connection.request("GET", "/readyz")
                connection.request("GET", "/api/v1/namespaces/default")
                return
            except (KubernetesError, OSError) as failure:
                error = failure
            time.sleep(0.1)
        log = (self.folder / "kube-apiserver.log").read_text(errors="replace")
        raise RuntimeError(f"kube-apiserver did not start: {error}\n{log[-2000:]}")

    def _etcd(self, path: str, body: dict[str, object]) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(
            self._etcd_url + path,
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            said: dict[str, dict[str, str]] = json.load(answer)
        return said
