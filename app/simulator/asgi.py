"""From ASGI to the faces of the simulator and back; the one place that knows sockets are slow."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, unquote

import structlog

from app.simulator.api.failures import internal
from app.simulator.api.handlers import Api
from app.simulator.api.request import Request, Response, failure_response
from app.simulator.api.watch import BOOKMARK_INTERVAL_SECONDS, Watch

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = Callable[[Request, str], Awaitable[Response | Watch]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = structlog.get_logger()
# Larger than any object that an API server takes (etcd's limit is 1.5 MiB).
LARGEST_BODY_BYTES = 3 * 1024 * 1024


async def read_request(scope: MutableMapping[str, Any], receive: Receive) -> Request | None:
    """The whole request, None when the client went away or sent too much."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY_BYTES:
            return None
        if not message.get("more_body"):
            break
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
    return Request(scope["method"], unquote(scope["path"]), query, headers, bytes(body))


async def send_response(response: Response, send: Send) -> None:
    headers = [
        (b"content-type", response.content_type.encode()),
        (b"content-length", str(len(response.body)).encode()),
        (b"cache-control", b"no-cache, private"),
        *((name.encode(), value.encode()) for name, value in response.headers),
    ]
    start = {"type": "http.response.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": response.body})


async def send_watch(watch: Watch, receive: Receive, send: Send) -> None:
    """Stream a watch until its time is over, the client leaves or the server closes it."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + watch.timeout_seconds
    next_bookmark = loop.time() + BOOKMARK_INTERVAL_SECONDS
    gone = asyncio.create_task(_until_gone(receive, watch))
    headers = [(b"content-type", watch.content_type.encode()), (b"cache-control", b"no-cache")]
    try:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        # An empty chunk makes the headers go out now: clients wait for them, not for an event.
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        while True:
            watch.ready.clear()
            if watch.pending:
                lines = b"".join(watch.pending)
                watch.pending.clear()
                await send({"type": "http.response.body", "body": lines, "more_body": True})
                continue
            if watch.closed or gone.done():
                break
            now = loop.time()
            if now >= ends_at:
                watch.bookmark()
                watch.close()
                continue
            if now >= next_bookmark:
                next_bookmark = now + BOOKMARK_INTERVAL_SECONDS
                watch.bookmark()
                continue
            await _wait(watch.ready, min(ends_at, next_bookmark) - now)
        if not gone.done():
            await send({"type": "http.response.body", "body": b""})
    finally:
        watch.close()
        gone.cancel()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


async def _until_gone(receive: Receive, watch: Watch) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    watch.close()


def application_of(answer: Answer) -> Application:
    """An ASGI application of what answers a request; `raw_query` keeps repeated parameters."""

    async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = await read_request(scope, receive)
        if request is None:
            return
        try:
            found = await answer(request, scope["query_string"].decode())
        except Exception as error:
            log.exception("simulator_request_failed", method=request.method, path=request.path)
            found = failure_response(internal(repr(error)))
        if isinstance(found, Watch):
            await send_watch(found, receive, send)
        else:
            await send_response(found, send)

    return application


def kubernetes_application(api: Api) -> Application:
    """The Kubernetes face as an ASGI application."""

    async def answer(request: Request, raw_query: str) -> Response | Watch:
        return api.handle(request)

    return application_of(answer)
