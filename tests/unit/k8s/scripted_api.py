"""A small HTTP server that speaks lists, pages, watches, bookmarks and 410 for one kind, with switches."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

END = object()


def status_body(code: int, reason: str, message: str = "", **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message or reason,
        "details": details,
    }


class ScriptedApi:
    """Objects by name at /api/v1/nodes; each change raises the resourceVersion by one."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.version = 10
        self.oldest_watchable = 0
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, dict[str, str], Any]] = []  # instead of the next answers
        self.expire_tokens = 0
        self.silent_watches = 0
        self.watches_opened = 0
        self.watches: list[queue.Queue[Any]] = []
        self.lock = threading.RLock()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self._sockets: set[socket.socket] = set()
        self.start()

    # --- life ---

    def start(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api._sockets.add(self.connection)

            def do_GET(self) -> None:
                api.serve(self)

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients go away in the middle on purpose

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        with self.lock:
            for watch in self.watches:
                watch.put(END)
        for one in list(self._sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._sockets.clear()

    def kubeconfig(self, folder: Path) -> Path:
        path = folder / "kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
                    ],
                    "users": [{"name": "u", "user": {"token": "secret-token"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "c",
                }
            )
        )
        return path

    # --- changes ---

    def put(self, name: str, *, uid: str | None = None, **extra: Any) -> dict[str, Any]:
        with self.lock:
            self.version += 1
            known = self.objects.get(name)
            metadata = {
                "name": name,
                "uid": uid or (known["metadata"]["uid"] if known else f"uid-{name}"),
                "resourceVersion": str(self.version),
            }
            item = {"metadata": metadata, **extra}
            self.objects[name] = item
            self._emit("MODIFIED" if known else "ADDED", item)
            return item

    def remove(self, name: str, *, silently: bool = False) -> None:
        with self.lock:
            self.version += 1
            item = self.objects.pop(name)
            item["metadata"]["resourceVersion"] = str(self.version)
            if not silently:
                self._emit("DELETED", item)

    def bookmark(self) -> None:
        with self.lock:
            self.version += 1
            self._emit(
                "BOOKMARK",
                {"kind": "Node", "metadata": {"resourceVersion": str(self.version)}},
            )

    def send(self, event: dict[str, Any] | bytes) -> None:
        with self.lock:
            for watch in self.watches:
                watch.put(event)

    def forget_history(self) -> None:
        with self.lock:
            self.oldest_watchable = self.version + 1

    def end_watches(self) -> None:
        with self.lock:
            for watch in self.watches:
                watch.put(END)

    def _emit(self, kind: str, item: dict[str, Any]) -> None:
        event = {"type": kind, "object": json.loads(json.dumps(item))}
        if kind != "BOOKMARK":
            self.events.append((self.version, event))
        self.send(event)

    # --- serving ---

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        split = urlsplit(handler.path)
        params = {key: values[0] for key, values in parse_qs(split.query).items()}
        length = int(handler.headers.get("Content-Length") or 0)
        handler.rfile.read(length)
        with self.lock:
            self.requests.append((f"{handler.command} {split.path}", params))
            answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            self._reply(handler, *answer)
        elif params.get("watch") == "true":
            self._watch(handler, params)
        else:
            self._list(handler, params)

    def _list(self, handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        with self.lock:
            names = sorted(self.objects)
            start = int(params.get("continue") or 0)
            if start and self.expire_tokens:
                self.expire_tokens -= 1
                self._reply(handler, 410, {}, status_body(410, "Expired", "token is too old"))
                return
            limit = int(params.get("limit") or 0) or len(names)
            chosen = names[start : start + limit]
            metadata: dict[str, Any] = {"resourceVersion": str(self.version)}
            if start + limit < len(names):
                metadata["continue"] = str(start + limit)
            body = {"kind": "NodeList", "metadata": metadata}
            body["items"] = [self.objects[name] for name in chosen]
        self._reply(handler, 200, {}, body)

    def _watch(self, handler: BaseHTTPRequestHandler, params: dict[str, str]) -> None:
        version = int(params["resourceVersion"])
        inbox: queue.Queue[Any] = queue.Queue()
        with self.lock:
            if version < self.oldest_watchable:
                self._reply(handler, 410, {}, status_body(410, "Expired", "too old"))
                return
            for at, event in self.events:
                if at > version:
                    inbox.put(event)
            silent = self.silent_watches > 0
            self.silent_watches -= silent
            self.watches.append(inbox)
            self.watches_opened += 1
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.flush()
        ends_at = time.monotonic() + float(params.get("timeoutSeconds") or 60)
        try:
            while (left := ends_at - time.monotonic()) > 0 or silent:
                try:
                    event = inbox.get(timeout=max(left, 0.05) if not silent else 1)
                except queue.Empty:
                    continue
                if event is END:
                    break
                if silent:
                    continue
                line = event if isinstance(event, bytes) else json.dumps(event).encode()
                data = line + b"\n"
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
        finally:
            with self.lock:
                self.watches.remove(inbox)

    def _reply(
        self, handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: Any
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(code)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.end_headers()
        handler.wfile.write(data)
