"""Real controllers of workload kinds, beside the real control plane, from the folder PITWALL_CONTROLLERS.

One folder a controller in it: NAME/controller (its binary) and NAME/crds/*.yaml (its CRDs). None of that is
part of this repository: docs/kinds.md says what it was built from. Webhooks are registered of those that
have NAME/webhooks/*.yaml; objects of the others are created with what their webhooks would fill in.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import Cluster
from control_plane import free_ports

from k8s.errors import ApiError

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def install_crds(cluster: Cluster, documents: list[dict[str, Any]]) -> None:
    """Creates CRDs that are not there yet and waits until they are served."""
    names = []
    for document in documents:
        if document.get("kind") != "CustomResourceDefinition":
            continue
        names.append(document["metadata"]["name"])
        try:
            cluster.post(CRDS, document)
        except ApiError as error:
            if error.status != 409:
                raise
    for name in names:

        def established(name: str = name) -> bool:
            said = cluster.get(f"{CRDS}/{name}").get("status", {}).get("conditions") or ()
            return any(
                entry["type"] == "Established" and entry["status"] == "True" for entry in said
            )

        cluster.until(established, f"CRD {name} is established")


def _configuration(name: str, webhook: int, certificates: Path) -> dict[str, Any] | None:
    address = {"bindAddress": "0"}
    common: dict[str, Any] = {
        "metrics": address,
        "health": {"healthProbeBindAddress": "0"},
        "webhook": {
            "port": webhook,
            "host": "127.0.0.1",
            **({"certDir": str(certificates)} if name in ("lws", "kueue") else {}),
        },
        "leaderElection": {"leaderElect": False},
    }
    match name:
        case "jobset" | "lws":
            return {
                "apiVersion": f"config.{name}.x-k8s.io/v1alpha1",
                "kind": "Configuration",
                "internalCertManagement": {"enable": False},
                **common,
            }
        case "trainer":
            return {
                "apiVersion": "config.trainer.kubeflow.org/v1alpha1",
                "kind": "Configuration",
                "certManagement": {"enable": False},
                **common,
            }
        case "kueue":
            return {
                "apiVersion": "config.kueue.x-k8s.io/v1beta2",
                "kind": "Configuration",
                "internalCertManagement": {"enable": False},
                "integrations": {
                    "frameworks": [
                        "batch/job",
                        "jobset.x-k8s.io/jobset",
                        "trainer.kubeflow.org/trainjob",
                    ]
                },
                **common,
            }
    return None


def _flags(name: str, webhook: int) -> list[str]:
    match name:
        case "training-operator":
            return [
                "--metrics-bind-address=0",
                "--health-probe-bind-address=0",
                f"--webhook-server-port={webhook}",
            ]
        case "kueue":
            return ["--feature-gates=VisibilityOnDemand=false"]
        case "ray":
            return [
                "--metrics-addr=0",
                "--health-probe-bind-address=0",
                "--enable-leader-election=false",
            ]
        case "volcano":
            return [
                "--leader-elect=false",
                "--scheduler-name=default-scheduler",
                "--controllers=job-controller,queue-controller,podgroup-controller",
                f"--listen-address=127.0.0.1:{webhook}",
            ]
    return []


@dataclass
class Controllers:
    """Those that are there, started once each when first asked for."""

    cluster: Cluster
    folder: Path
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def need(self, *names: str) -> None:
        """Makes sure that these run; skips the test where one is not there."""
        named = os.environ.get("PITWALL_CONTROLLERS")
        if not named:
            pytest.skip("PITWALL_CONTROLLERS names no folder with controllers of workload kinds")
        for name in names:
            if not (Path(named) / name / "controller").exists():
                pytest.skip(f"{named} (PITWALL_CONTROLLERS) holds no {name}/controller")
        for name in names:  # their CRDs first: a controller may look for another's when it starts
            files = sorted((Path(named) / name / "crds").glob("*.yaml"))
            documents = [each for file in files for each in yaml.safe_load_all(file.read_text())]
            install_crds(self.cluster, [each for each in documents if each])
        for name in names:
            if name not in self._processes:
                self._start(name, Path(named) / name / "controller")

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start(self, name: str, binary: Path) -> None:
        (webhook,) = free_ports(1)
        temporary = self.folder / name
        certificates = temporary / "k8s-webhook-server" / "serving-certs"
        certificates.mkdir(parents=True)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", certificates / "tls.key", "-out", certificates / "tls.crt"),
            ],
            check=True,
            capture_output=True,
        )
        flags = [f"--kubeconfig={self.cluster.kubeconfig}", *_flags(name, webhook)]
        configuration = _configuration(name, webhook, certificates)
        if configuration is not None:
            path = temporary / "configuration.yaml"
            path.write_text(yaml.safe_dump(configuration))
            flags.append(f"--config={path}")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [binary, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": str(temporary), "POD_NAMESPACE": "default"},
            )
        self._register(name, binary.parent / "webhooks", webhook, certificates / "tls.crt")

    def _register(self, name: str, folder: Path, port: int, certificate: Path) -> None:
        """Lets the API server call the controller's webhooks, of those that have some in their folder."""
        files = sorted(folder.glob("*.yaml"))
        if not files:
            return

        def listens() -> bool:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                return False
            return True

        self.cluster.until(listens, f"the webhooks of {name} listen")
        trust = base64.b64encode(certificate.read_bytes()).decode()
        for document in (one for file in files for one in yaml.safe_load_all(file.read_text())):
            for entry in document["webhooks"]:
                path = entry["clientConfig"]["service"]["path"]
                entry["clientConfig"] = {
                    "url": f"https://127.0.0.1:{port}{path}",
                    "caBundle": trust,
                }
            document["metadata"]["name"] = f"{name}-{document['kind'].lower()}"
            self.cluster.post(
                f"/apis/admissionregistration.k8s.io/v1/{document['kind'].lower()}s", document
            )
