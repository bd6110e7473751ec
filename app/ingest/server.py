"""The ingest process: agents' reports, /v1, health and metrics. Any number of them may run beside each other."""

import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import msgspec
import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Engine
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import PitwallError, RequestRefused, StoreError
from app.ingest import api, intake
from app.ingest.errors import Refusal, unavailable
from app.ingest.identity import Doorkeeper
from app.ingest.metrics import IngestMetrics
from app.ingest.openapi import ErrorAnswer, ErrorDetail, install
from app.ingest.store_metrics import StoreMetrics
from app.ingest.writer import ReportWriter
from app.settings import Settings
from app.store.engine import check_schema, open_store
from collectors.report import Report
from k8s.client import Connection, connect

log = structlog.get_logger()

KEEP_ALIVE_SECONDS = 75
"""Agents push each 15 s over one connection: it must outlive some missed pushes."""

SCHEMA_CHECK_SECONDS = 5.0


def create(
    settings: Settings,
    engine: Engine,
    connection_factory: Callable[[], Connection],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """The app. Its writer starts and stops with the app's lifespan."""
    metrics = IngestMetrics()
    metrics.registry.register(StoreMetrics(engine, settings.cluster, now=now))
    writer = ReportWriter(
        engine,
        settings.cluster,
        metrics=metrics,
        silence_seconds=settings.silence_seconds,
        now=now,
    )
    doorkeeper = Doorkeeper(
        connection_factory,
        audience=settings.token_audience,
        agent_username=settings.agent_username,
        metrics=metrics,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        writer.start()
        try:
            yield
        finally:
            writer.stop()

    app = FastAPI(
        title="Pitwall",
        version=_version(),
        description="What is known of the fleet, and requests to the worker. Times are UTC; null is unknown.",
        lifespan=lifespan,
    )
    app.include_router(
        intake.create_router(
            settings, doorkeeper=doorkeeper, writer=writer, metrics=metrics, now=now
        )
    )
    app.include_router(api.create_router(engine, settings.cluster, doorkeeper=doorkeeper, now=now))
    _add_health(app, engine, writer, metrics)
    _add_errors(app)
    app.add_middleware(_RequestCounter, metrics=metrics)
    install(app, [*api.TYPES, intake.ReportAnswer, Report])
    return app


def run(settings: Settings) -> None:
    """Serve until the process is told to end. Raises PitwallError when the port or the store can't be used."""
    engine = open_store(settings.store_url)
    check_schema(engine)
    listener = _listen(settings.ingest_host, settings.ingest_port)
    app = create(settings, engine, lambda: connect(settings.kubeconfig))
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=10,
            server_header=False,
        )
    )
    host, port = listener.getsockname()[:2]
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn ends in good order and then raises the signal again, which would kill what is left to do.
        signal.signal(number, lambda *_: None)
    log.info("ingest serves", url=f"http://{host}:{port}", cluster=settings.cluster)
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        engine.dispose()
        log.info("ingest has ended")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named: 40 ms an answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PitwallError(
            f"Ingest can't listen on {host}:{port} ({error.strerror}): end what uses it, "
            "or set PITWALL_INGEST_PORT to another."
        ) from error
    return listener


def _add_health(app: FastAPI, engine: Engine, writer: ReportWriter, metrics: IngestMetrics) -> None:
    checked: dict[str, tuple[float, str]] = {}

    def store_trouble() -> str:
        """What is the matter with the store, "" if nothing; asked each few seconds."""
        known = checked.get("store")
        if known is not None and time.monotonic() - known[0] < SCHEMA_CHECK_SECONDS:
            return known[1]
        trouble = ""
        try:
            check_schema(engine)
        except StoreError as error:
            trouble = str(error)
        checked["store"] = (time.monotonic(), trouble)
        return trouble

    @app.get("/healthz", tags=["process"], response_model=None)
    def healthz() -> Response:
        """200 while the process and its writer live; not tied to the store or the cluster."""
        alive = writer.alive
        return Response("ok\n" if alive else "the writer has ended\n", 200 if alive else 503)

    @app.get("/readyz", tags=["process"], response_model=None)
    def readyz() -> Response:
        """200 when reports can be stored."""
        trouble = store_trouble()
        if not trouble and writer.trouble:
            trouble = "the store did not take the last reports"
        return Response(f"{trouble or 'ok'}\n", 503 if trouble or not writer.alive else 200)

    @app.get("/metrics", tags=["process"], response_model=None)
    def exposition() -> Response:
        """Ingest's own metrics for Prometheus, and what the store counts."""
        body, content_type = metrics.exposition()
        return Response(body, media_type=content_type)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return _error(error)

    @app.exception_handler(RequestRefused)
    def request_refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestRefused)
        return _error(api.refusal_of(error))

    @app.exception_handler(StoreError)
    def store_failed(_request: Request, error: Exception) -> Response:
        return _error(unavailable(str(error)))

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return _error(Refusal(400, "invalid", f"{name}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method"}.get(error.status_code, "invalid")
        said = {
            404: f"There is nothing at {request.url.path}.",
            405: "This is not a way to call it.",
        }
        return _error(Refusal(error.status_code, code, said.get(error.status_code, error.detail)))

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        log.error("a call failed", path=request.url.path, error=f"{type(error).__name__}: {error}")
        return _error(Refusal(500, "internal", "Ingest failed at this; its log says why."))


def _error(refusal: Refusal) -> Response:
    answer = ErrorAnswer(ErrorDetail(refusal.code, str(refusal)))
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(refusal.retry_after_seconds)
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        msgspec.json.encode(answer),
        status_code=refusal.status,
        media_type="application/json",
        headers=headers,
    )


class _RequestCounter:
    """Counts answers by route and status; plain ASGI, since it runs for every report."""

    def __init__(self, app: ASGIApp, metrics: IngestMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


def _version() -> str:
    try:
        return version("pitwall")
    except PackageNotFoundError:
        return "0"
