"""Simulators behind real sockets, and kubectl where the machine has it."""

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.simulator.server import ServerThread, serve_in_thread


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    """Eight nodes with jobs."""
    with serve_in_thread(nodes=8, seed=5) as running:
        yield running


@pytest.fixture(scope="module")
def kubernetes(server: ServerThread) -> Iterator[httpx.Client]:
    verify = ssl.create_default_context(cafile=str(server.certificate_authority))
    headers = {"Authorization": f"Bearer {server.admin_token}"}
    with httpx.Client(base_url=server.kubernetes_url, verify=verify, headers=headers) as client:
        yield client


@pytest.fixture(scope="module")
def control(server: ServerThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.control_url) as client:
        yield client


@pytest.fixture(scope="module")
def kubectl(server: ServerThread) -> Callable[..., str]:
    """Runs kubectl against the server; returns what it printed, fails on its failure."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")

    def run(*arguments: str, stdin: Any = None, fails: bool = False) -> str:
        done = subprocess.run(
            [program, "--kubeconfig", str(server.kubeconfig), *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return said

    return run
