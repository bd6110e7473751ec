"""The process as it is started: it ends in good order, and says in one sentence why it can't start."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.store.engine import open_store, read
from tests.integration.ingest.conftest import now
from tests.reports import report

START = "from app.settings import read_settings; from app.ingest.server import run; run(read_settings())"


def start(store_url: str, kubeconfig: Path, port: int, tmp_path: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PITWALL_STORE_URL": store_url,
        "PITWALL_KUBECONFIG": str(kubeconfig),
        "PITWALL_INGEST_PORT": str(port),
        "PITWALL_CLUSTER": "c",
    }
    return subprocess.Popen(
        [sys.executable, "-c", START],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def url(tmp_path: Path, sqlite_template: Path) -> str:
    path = tmp_path / "pitwall.db"
    path.write_bytes(sqlite_template.read_bytes())
    return f"sqlite:///{path}"


def test_process_told_to_end_stores_its_history_and_ends_well(
    url: str, simulator: Any, token_of: Any, nodes: list[str], free_port: int, tmp_path: Path
) -> None:
    process = start(url, simulator.kubeconfig, free_port, tmp_path)
    try:
        transport = httpx.HTTPTransport(retries=8)
        with httpx.Client(
            base_url=f"http://127.0.0.1:{free_port}", transport=transport, timeout=20
        ) as client:
            assert client.get("/readyz").status_code == 200
            from collectors.report import encode_report

            headers = {
                "Authorization": f"Bearer {token_of(nodes[0])}",
                "Content-Encoding": "gzip",
            }
            sent = encode_report(report(nodes[0], observed_at=now()))
            answer = client.post("/agent/v1/reports", content=sent, headers=headers)
            assert answer.status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, output
    with read(open_store(url)) as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM gpu_minute")).scalar_one() == 1


def test_port_in_use_is_one_sentence(
    url: str, simulator: Any, free_port: int, tmp_path: Path
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        process = start(url, simulator.kubeconfig, free_port, tmp_path)
        output, _ = process.communicate(timeout=20)
    assert process.returncode != 0
    assert f"Ingest can't listen on 127.0.0.1:{free_port}" in output
    assert "PITWALL_INGEST_PORT" in output


def test_store_without_tables_is_one_sentence(
    simulator: Any, free_port: int, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    process = start(url, simulator.kubeconfig, free_port, tmp_path)
    output, _ = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "run `pitwall migrate`" in output
