"""Real Alertmanagers on free ports, one or several as a cluster, with a webhook that they tell."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

BINARY = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
START_SECONDS = 30.0
CONFIG = """
route:
  receiver: hook
  group_by: [alertname]
  group_wait: {wait}
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: hook
    webhook_configs:
      - url: {hook}
        send_resolved: true
inhibit_rules:
  - source_matchers: [scope="rack"]
    target_matchers: [scope="node"]
    equal: [rack]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


class Alertmanager:
    """One process; can be stopped and started again with what it kept."""

    def __init__(self, folder: Path, hook: str, *, peers: list["Alertmanager"], wait: str) -> None:
        self.port, self.cluster_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        folder.mkdir(parents=True)
        (folder / "config.yml").write_text(CONFIG.format(hook=hook, wait=wait))
        self._peers = [f"--cluster.peer=127.0.0.1:{one.cluster_port}" for one in peers]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert BINARY is not None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    BINARY,
                    f"--config.file={self._folder / 'config.yml'}",
                    f"--storage.path={self._folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    f"--cluster.listen-address=127.0.0.1:{self.cluster_port}",
                    "--cluster.gossip-interval=50ms",
                    "--cluster.settle-timeout=1s",
                    *self._peers,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/-/ready").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError((self._folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def alerts(self) -> list[dict]:
        return httpx.get(f"{self.url}/api/v2/alerts").json()  # type: ignore[no-any-return]

    def silences(self) -> list[dict]:
        return httpx.get(f"{self.url}/api/v2/silences").json()  # type: ignore[no-any-return]


@contextmanager
def alertmanagers(
    folder: Path, hook: str, *, count: int = 1, wait: str = "100ms"
) -> Iterator[list[Alertmanager]]:
    """So many, which know each other; skips where there is no Alertmanager."""
    if BINARY is None:
        pytest.skip("prometheus-alertmanager is not installed (Debian's package of that name)")
    running: list[Alertmanager] = []
    try:
        for number in range(count):
            one = Alertmanager(folder / f"am-{number}", hook, peers=list(running), wait=wait)
            running.append(one)
            one.start()
        yield running
    finally:
        for one in running:
            one.stop()
