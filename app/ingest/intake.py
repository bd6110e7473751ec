"""POST /agent/v1/reports: size, token, schema, clock and origin are checked before anything is stored."""

import asyncio
import zlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.ingest.errors import Refusal, unavailable
from app.ingest.identity import Doorkeeper, bearer
from app.ingest.metrics import IngestMetrics
from app.ingest.openapi import described
from app.ingest.writer import ReportWriter
from app.settings import Settings
from collectors.errors import ReportError, ReportTooLargeError, SchemaVersionError
from collectors.report import MAX_DECODED_BYTES, MAX_REPORT_BYTES, Report, decode_report

BODY_SECONDS = 10.0
"""A body of at most 256 kB that takes longer is a connection that hangs."""

STORED_SECONDS = 25.0
"""Waiting for the commit: longer than the store's own time-outs, after which the report may come again."""

NUL = b"\\u0000"


class ReportAnswer(msgspec.Struct, frozen=True):
    """What became of a report. `closed_episodes`: those it carries that are closed here."""

    outcome: str
    closed_episodes: list[str] = []


def create_router(
    settings: Settings,
    *,
    doorkeeper: Doorkeeper,
    writer: ReportWriter,
    metrics: IngestMetrics,
    now: Callable[[], datetime],
) -> APIRouter:
    """The agents' route."""
    router = APIRouter()

    @router.post(
        "/agent/v1/reports",
        tags=["agents"],
        summary="Take one report of a node's agent",
        openapi_extra={
            "requestBody": {
                "required": True,
                "description": "A report in JSON; Content-Encoding gzip or none.",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/Report"}}
                },
            }
        },
        **described(ReportAnswer, 400, 401, 403, 408, 413, 415, 503),
    )
    async def take_report(request: Request) -> Response:
        """Answered after the commit: 200 means stored, however often the same report is sent."""
        try:
            answer = await _take(request)
        except Refusal as refusal:
            metrics.refused.labels(refusal.code).inc()
            raise
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _take(request: Request) -> ReportAnswer:
        token = bearer(request.headers.get("authorization"))
        compressed = _is_gzip(request)
        identity = doorkeeper.recall_agent(token)
        if identity is None:
            identity = await run_in_threadpool(doorkeeper.agent, token)
        if not identity.authenticated:
            doorkeeper.check_agent(identity, node="")
        body = await _read_body(request)
        report = read_report(body, compressed=compressed)
        doorkeeper.check_agent(identity, node=report.node)
        check_report(report, settings, now())
        try:
            receipt = await asyncio.wait_for(
                asyncio.wrap_future(writer.submit(report)), STORED_SECONDS
            )
        except TimeoutError as error:
            raise unavailable("the store did not take the report in time: send it again") from error
        return ReportAnswer(receipt.outcome, list(receipt.closed_episodes))

    return router


def read_report(body: bytes, *, compressed: bool) -> Report:
    """The report of a body. Raises Refusal (400, 413) naming the field and what is wrong."""
    try:
        document = body
        if compressed:
            document = _unpack(body)
        report = decode_report(document, compressed=False)
    except ReportTooLargeError as error:
        raise Refusal(413, "too_large", str(error)) from error
    except SchemaVersionError as error:
        raise Refusal(400, "schema_version", str(error)) from error
    except ReportError as error:
        raise Refusal(400, "invalid", str(error)) from error
    if NUL in document:
        _refuse_nul(msgspec.to_builtins(report), "report")
    return report


def check_report(report: Report, settings: Settings, now: datetime) -> None:
    """Raises Refusal: 403 for another cluster's report, 400 for its clock or a GPU named twice."""
    if report.cluster != settings.cluster:
        raise Refusal(
            403,
            "forbidden",
            f"the report is of cluster {report.cluster}, this is {settings.cluster}: "
            "correct the agent's PITWALL_CLUSTER",
        )
    ahead = (report.observed_at - now).total_seconds()
    if ahead > settings.report_clock_skew_seconds:
        raise Refusal(
            400,
            "clock",
            f"observed_at is {ahead:.0f} s ahead of this clock, {settings.report_clock_skew_seconds:.0f} s "
            f"are allowed: set the clock of node {report.node}",
        )
    if now - report.observed_at > timedelta(seconds=settings.report_max_age_seconds):
        raise Refusal(
            400,
            "clock",
            f"observed_at is {-ahead:.0f} s ago, {settings.report_max_age_seconds:.0f} s are allowed: "
            f"set the clock of node {report.node}, or its spool is older than what is kept",
        )
    uuids = [gpu.uuid for gpu in report.gpus]
    if len(set(uuids)) != len(uuids):
        twice = next(uuid for uuid in uuids if uuids.count(uuid) > 1)
        raise Refusal(400, "invalid", f"report names the GPU {twice} twice - at `$.gpus`")


def _is_gzip(request: Request) -> bool:
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding == "gzip":
        return True
    if encoding in ("identity", ""):
        return False
    raise Refusal(415, "encoding", f"Content-Encoding {encoding} is not known: send gzip or none")


async def _read_body(request: Request) -> bytes:
    """The body, no more of it than may be taken. Raises Refusal (408, 413)."""
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and int(told) > MAX_REPORT_BYTES:
        raise _too_large(int(told))
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REPORT_BYTES:
                    raise _too_large(len(body))
    except TimeoutError as error:
        raise Refusal(
            408, "timeout", f"the report's body did not come within {BODY_SECONDS:.0f} s"
        ) from error
    except ClientDisconnect as error:
        # No fault of ours: after a pause, each agent that gave up waiting is found to have gone.
        raise Refusal(
            408, "disconnected", "the agent hung up before its report had come whole"
        ) from error
    return bytes(body)


def _too_large(size: int) -> Refusal:
    return Refusal(
        413, "too_large", f"the report has {size} bytes or more, {MAX_REPORT_BYTES} are taken"
    )


def _unpack(body: bytes) -> bytes:
    """The document in a gzip body, unpacked no further than MAX_DECODED_BYTES."""
    unpacker = zlib.decompressobj(31)
    try:
        document = unpacker.decompress(body, MAX_DECODED_BYTES + 1)
    except zlib.error as error:
        raise ReportError(f"report is not gzip: {error}") from error
    if len(document) > MAX_DECODED_BYTES:
        raise ReportTooLargeError(
            f"report unpacks to more than {MAX_DECODED_BYTES} bytes: refused unread"
        )
    if not unpacker.eof:
        raise ReportError("report is cut short: the gzip stream has no end")
    return document


def _refuse_nul(value: Any, where: str) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise Refusal(400, "invalid", f"report holds a NUL character - at `{where}`")
    elif isinstance(value, dict):
        for key, item in value.items():
            _refuse_nul(key, where)
            _refuse_nul(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _refuse_nul(item, f"{where}[{place}]")
