"""Pitwall's processes as a cluster would run them: environment from the applied manifests, logs in files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
STOP_SECONDS = 30.0

Kubectl = Callable[..., str]


class Processes:
    """Starts `pitwall` with an environment that holds nothing but what it is given; stops what it started."""

    def __init__(self, folder: Path, *, path: tuple[Path, ...] = ()) -> None:
        self.folder = folder
        self._search = os.pathsep.join(map(str, (*path, BIN, "/usr/bin", "/bin")))
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def environment(self, **settings: object) -> dict[str, str]:
        inherited = {"PATH": self._search, "HOME": str(self.folder), "LANG": "C.UTF-8"}
        return inherited | {name: str(value) for name, value in settings.items()}

    def start(self, name: str, *words: str, environment: dict[str, str]) -> None:
        with self.log(name).open("ab") as log:
            self._running[name] = subprocess.Popen(
                [BIN / "pitwall", *words],
                cwd=self.folder,
                env=self.environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, *words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """A command that ends by itself."""
        return subprocess.run(
            [BIN / "pitwall", *words],
            cwd=self.folder,
            env=self.environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )

    def stop(self, name: str) -> int:
        """Ends one as kubelet would; its exit status."""
        process = self._running.pop(name)
        process.terminate()
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait(STOP_SECONDS)

    def stop_all(self) -> dict[str, int]:
        return {name: self.stop(name) for name in list(self._running)[::-1]}

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def ended(self) -> list[str]:
        """Those that are no longer there though nobody stopped them."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def logs(self) -> str:
        """The last of what each said, for a failure's message."""
        found = ""
        for log in sorted(self.folder.glob("*.log")):
            found += f"\n--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-15:])
        return found


def environment_of(kubectl: Kubectl, workload: str, *, node: str = "") -> dict[str, str]:
    """The environment that a pod of the workload ("deployment/pitwall-ingest") would get.

    Config maps and secrets are read from the cluster, as the kubelet does.
    """
    template = json.loads(kubectl("-n", "pitwall", "get", workload, "-o", "json"))["spec"]
    container = template["template"]["spec"]["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= _read(kubectl, "configmap", source["configMapRef"]["name"])["data"]
    for entry in container.get("env", ()):
        found[entry["name"]] = _value(kubectl, entry, node)
    return found


def _value(kubectl: Kubectl, entry: dict[str, Any], node: str) -> str:
    if "value" in entry:
        return str(entry["value"])
    source = entry["valueFrom"]
    if "secretKeyRef" in source:
        secret = source["secretKeyRef"]
        data = _read(kubectl, "secret", secret["name"])["data"]
        return base64.b64decode(data[secret["key"]]).decode()
    assert source["fieldRef"]["fieldPath"] == "spec.nodeName", entry
    return node


def _read(kubectl: Kubectl, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("-n", "pitwall", "get", kind, name, "-o", "json"))
    return found
