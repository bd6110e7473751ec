"""A server that speaks /v1 over HTTP as a test tells it to, and a way to run the command line against it."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from app import settings
from app.cli import main

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class V1:
    """Scripted answers of /v1. The last answer of a path stays; (status, document) or a callable of Asked."""

    url: str = ""
    answers: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def on(self, method: str, path: str, *answers: Any) -> None:
        self.answers[method, path] = list(answers)

    def posted(self, kind: str | None = None) -> list[Any]:
        posts = [one.body for one in self.asked if one.method == "POST"]
        return [body for body in posts if kind is None or body["kind"] == kind]

    def answer(self, asked: Asked) -> tuple[int, Any]:
        self.asked.append(asked)
        queue = self.answers.get((asked.method, asked.path))
        if queue is None:
            return 404, {"error": {"code": "not_found", "message": f"no {asked.path} here"}}
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        return answer(asked) if isinstance(answer, Callable) else answer


@pytest.fixture
def v1() -> Iterator[V1]:
    script = V1()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            asked = Asked(
                self.command,
                parts.path.removeprefix("/v1/"),
                dict(parse_qsl(parts.query)),
                {name.lower(): value for name, value in self.headers.items()},
                body,
            )
            status, document = script.answer(asked)
            raw = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = _serve  # noqa: N815
        do_POST = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing: the tests look at `asked`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield script
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def pitwall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """Runs `pitwall ...` in an empty folder: in this process without a terminal, in its own with one."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, url: str = "", typed: str | None = None, **variables: str) -> Ended:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("PITWALL")]:
                patch.delenv(name)
            for name, value in {**variables, **({"PITWALL_URL": url} if url else {})}.items():
                patch.setenv(name, value)
            if typed is not None:
                return _run_on_terminal(arguments, typed, folder=tmp_path)
            # A process reads its settings once; this one stands for many.
            settings._settings.cache_clear()
            capfd.readouterr()
            with Path(os.devnull).open() as nothing:
                patch.setattr(sys, "stdin", nothing)
                with pytest.raises(SystemExit) as ended:
                    main(list(arguments))
            out, err = capfd.readouterr()
            return Ended(int(ended.value.code or 0), out, err)

    yield run
    settings._settings.cache_clear()


def _run_on_terminal(arguments: tuple[str, ...], typed: str, *, folder: Path) -> Ended:
    master, slave = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(master, typed.encode())
        out, err = process.communicate(timeout=60)
    finally:
        os.close(slave)
        os.close(master)
    return Ended(process.returncode, out, err)
