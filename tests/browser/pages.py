"""Starts the page on a store and a headless Chromium on the page."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ARTIFACTS = ROOT / "tests" / "artifacts"
CHROMIUM = (
    os.environ.get("PITWALL_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
)
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
START_SECONDS = 30.0

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None,
    reason="no chromium on this machine: install the system's chromium, or name one in PITWALL_CHROMIUM",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PageServer:
    """A running page: its address and its process id."""

    def __init__(self, url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.url, self.process, self.log = url, process, log

    def cpu_seconds(self) -> float:
        """CPU that the process has used so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(
    store_url: str,
    *,
    log: Path,
    cluster: str = "default",
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PageServer]:
    """The page in a process of its own, as `pitwall web` starts it, until the block ends."""
    port = port or free_port()
    environment = {
        **os.environ, "PITWALL_STORE_URL": store_url, "PITWALL_CLUSTER": cluster, "PITWALL_WEB_HOST": "127.0.0.1",
        "PITWALL_WEB_PORT": str(port), "PYTHONPATH": str(ROOT),
        **(settings or {}),
    }  # fmt: skip
    code = "from app.settings import read_settings; from app.ui import server; server.run(read_settings())"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=sink, stderr=sink
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _await_health(url, process, log)
        yield PageServer(url, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_health(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"The page did not start: {log.read_text()[-2000:]}")


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def open_page(
    browser: Any, url: str, *, dark: bool = False, width: int = 1440, height: int = 900
) -> Any:
    """A page in a context of its own, on `url`, once its first part is there."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(url)
    page.wait_for_selector(".pw-pulse")
    return page


def keep(page: Any, name: str) -> Path:
    """Keeps a screenshot under tests/artifacts."""
    ARTIFACTS.mkdir(exist_ok=True)
    path = ARTIFACTS / f"{name}.png"
    page.screenshot(path=str(path))
    return path


def assert_no_exception(page: Any) -> None:
    """Streamlit shows an uncaught exception as a box of its own."""
    boxes = page.locator('[data-testid="stException"]')
    assert boxes.count() == 0, boxes.first.inner_text()
    broken = page.get_by_text("This part could not be drawn")
    assert broken.count() == 0, broken.first.inner_text()
