"""kubectl drain, as a person would run it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster import Cluster


@dataclass(frozen=True)
class Drained:
    """What kubectl said, and how long it took."""

    status: int
    said: str
    seconds: float


def kubectl_drain(cluster: Cluster, node: str, *flags: str, timeout_seconds: int = 60) -> Drained:
    """Drains a node with kubectl, as a person would; a time-out of kubectl's own ends it."""
    found = find_kubectl()
    begun = time.monotonic()
    done = subprocess.run(
        [
            *(str(found), "--kubeconfig", str(cluster.kubeconfig), "drain", node),
            *(f"--timeout={timeout_seconds}s", *flags),
        ],
        capture_output=True,
        text=True,
        timeout=timeout_seconds + 30,
    )
    return Drained(done.returncode, done.stdout + done.stderr, time.monotonic() - begun)


def find_kubectl() -> Path:
    """The control plane's own where there is one. Skips the test where there is none at all."""
    beside = Path(os.environ.get("KUBEBUILDER_ASSETS") or "/nowhere", "kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    return Path(found)
