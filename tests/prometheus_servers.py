"""Servers that speak Prometheus' protocol for tests: one that answers from what a test gives it, and
an exporter whose text a real Prometheus scrapes."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.simulator.api.request import Request
from app.simulator.prometheus import PrometheusFace, parameters_of

Answer = tuple[int, bytes]
_LINE = re.compile(r"(\w+)\{(.*)\} (\S+)$")
_GREATEST = re.compile(r"max by \(([^)]*)\) \((.*)\)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@contextmanager
def serving(answer: Callable[[str], Answer]) -> Iterator[str]:
    """A server on a free port; `answer` gives status and body for a path with its query. Yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header(
                "Content-Type",
                "application/json" if body[:1] == b"{" else "text/plain; version=0.0.4",
            )
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def answer_of_face(face: PrometheusFace) -> Callable[[str], Answer]:
    """The simulator's Prometheus face, on whatever clock its simulation has."""

    def answer(path: str) -> Answer:
        url = urlsplit(path)
        request = Request("GET", url.path)
        response = face.answer(request, parameters_of(request, url.query))
        return response.status, response.body

    return answer


def answer_of_scrape(text: str, *, at: float) -> Callable[[str], Answer]:
    """Instant queries over the text that an exporter gave."""
    vectors = read_exposition(text, at=at)

    def answer(path: str) -> Answer:
        found = answer_query(vectors, parse_qs(urlsplit(path).query)["query"][0])
        data = {"resultType": "vector", "result": found}
        return 200, json.dumps({"status": "success", "data": data}).encode()

    return answer


def answer_query(vectors: dict[str, list[dict[str, Any]]], query: str) -> list[dict[str, Any]]:
    """The instant vector of a name, its timestamp() (5 s ago, where none is given under that text), or
    max by (labels) of these."""
    greatest = _GREATEST.match(query)
    if greatest is not None:
        kept = [name.strip() for name in greatest[1].split(",")]
        short: dict[str, dict[str, Any]] = {}
        for one in answer_query(vectors, greatest[2]):
            labels = {name: one["metric"][name] for name in kept if name in one["metric"]}
            short[json.dumps(labels)] = {**one, "metric": labels}
        return list(short.values())
    if query in vectors or not query.startswith("timestamp("):
        return vectors.get(query, [])
    found = vectors.get(query.removeprefix("timestamp(").removesuffix(")"), [])
    return [{**one, "value": [one["value"][0], str(one["value"][0] - 5)]} for one in found]


def read_exposition(text: str, *, at: float) -> dict[str, list[dict[str, Any]]]:
    """Vectors by metric of an exporter's text."""
    vectors: dict[str, list[dict[str, Any]]] = {}
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is not None:
            labels = {"__name__": match[1], **dict(_LABEL.findall(match[2]))}
            vectors.setdefault(match[1], []).append({"metric": labels, "value": [at, match[3]]})
    return vectors
