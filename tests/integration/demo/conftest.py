"""`pitwall demo` as people start it: a process, its words, and its command line beside it."""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
START_SECONDS = 180.0
STOP_SECONDS = 20.0
FREE_PORTS = [
    word
    for name in ("web", "ingest", "kubernetes", "prometheus", "control")
    for word in (f"--port-{name}", "0")
]


class Demo:
    """A running demo. `run` is its command line, typed in the folder that holds .demo."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.directory = folder / ".demo"
        self.said: list[str] = []
        inherited = {key: value for key, value in os.environ.items() if "PITWALL" not in key}
        self._environment = {**inherited, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "demo", *FREE_PORTS, *options],
            cwd=folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_up(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            line = self._lines.get(timeout=START_SECONDS)
            if line is None:
                pytest.fail(f"the demo ended while starting:\n{self.text}{self.logs()}")
            if "Ctrl-C stops everything" in line:
                return
        pytest.fail(f"the demo was not up in {START_SECONDS} s:\n{self.text}{self.logs()}")

    def wait_for_end(self) -> int:
        code = self.process.wait(timeout=START_SECONDS)
        self._reader.join()
        return code

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.wait_for_end()
        finally:
            self.process.kill()

    @property
    def text(self) -> str:
        return "".join(self.said)

    def logs(self) -> str:
        """The last of what each process said."""
        found = ""
        for log in sorted(self.directory.glob("logs/*.log")):
            found += f"\n--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-25:])
        return found

    def address(self, title: str) -> str:
        match = re.search(rf"^{title} +(\S+)$", self.text, re.M)
        assert match, self.text
        return match[1]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "app.cli", *words],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def read(self, *words: str) -> Any:
        """What a command writes with -o json."""
        done = self.run(*words, "-o", "json")
        assert done.returncode == 0, done.stderr + self.logs()
        return json.loads(done.stdout)

    def wait_for(self, what: str, look: Callable[[], Any], *, seconds: float) -> Any:
        """The first true answer of `look`, which is asked again and again."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > end:
                pytest.fail(f"{what} did not come within {seconds} s{self.logs()}")
            time.sleep(0.1)
        return found

    def processes(self) -> dict[int, str]:
        """Command lines of the processes that have anything to do with this demo's directory."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes()
                around = (path / "environ").read_bytes()
                if words and str(self.directory).encode() in words + around:
                    found[int(path.name)] = words.replace(b"\0", b" ").decode(errors="replace")
        return found

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            self._lines.put(line)
        self._lines.put(None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo of 16 nodes for the tests of a module."""
    running = Demo(tmp_path_factory.mktemp("demo"), "--nodes", "16")
    try:
        running.wait_until_up()
        yield running
    finally:
        running.interrupt()
