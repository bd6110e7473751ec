"""The command line's side of /v1: one call, its retries, and answers turned into records or one sentence."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx
import msgspec
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
)

from app.cli.outcome import BadUse, CommandFailed, NoAnswer, Refused
from app.settings import Settings
from app.store.records import RequestRecord

Record = TypeVar("Record")

ATTEMPTS = 4
CONNECT_TIMEOUT_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 10.0  # a longer Retry-After is not obeyed by a person's command
PASSING_STATUSES = frozenset({429, 502, 503, 504})
REQUEST_POLL_SECONDS = 0.2
PAGE_ITEMS = 20_000


class _Passing(Exception):
    """An answer or a broken connection that another try may mend."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Api:
    """An open connection to /v1. `request` keys are the caller's, so that a retried POST is one request."""

    client: httpx.Client
    settings: Settings

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The decoded answer of GET /v1/`path`."""
        return self._call("GET", path, params=_given(params or {}))

    def items(self, path: str, params: Mapping[str, Any], *, limit: int) -> Iterator[dict]:
        """The items of a listing over all its pages, `limit` at most (0: all)."""
        left = limit or None
        after: str | None = None
        while True:
            size = PAGE_ITEMS if left is None else min(PAGE_ITEMS, left)
            page = self.get(path, {**params, "limit": size, "after": after})
            yield from page["items"]
            after = page.get("next")
            if left is not None:
                left -= len(page["items"])
            if after is None or (left is not None and left <= 0):
                return

    def submit(self, kind: str, parameters: dict, *, reason: str, key: str) -> RequestRecord:
        """Posts a request once, however often it must be sent: the idempotency key stays."""
        body = {"kind": kind, "parameters": parameters, "reason": reason, "idempotency_key": key}
        return read_record(self._call("POST", "requests", body=body), RequestRecord)

    def answer(self, record: RequestRecord, *, timeout_seconds: float) -> RequestRecord:
        """Waits until the worker has answered `record`. Raises CommandFailed when none does."""
        end = time.monotonic() + timeout_seconds
        while record.state == "pending":
            if time.monotonic() > end:
                raise CommandFailed(
                    f"No worker answered the {record.kind} request {record.id} within "
                    f"{timeout_seconds:.0f} s; it stays asked for, so see `pitwall status` for the "
                    f"worker before asking again."
                )
            time.sleep(REQUEST_POLL_SECONDS)
            record = read_record(self.get(f"requests/{record.id}"), RequestRecord)
        return record

    def _call(
        self, method: str, path: str, *, params: dict | None = None, body: dict | None = None
    ) -> Any:
        retrying = Retrying(
            retry=retry_if_exception_type(_Passing),
            # A server that hangs is not asked again for minutes: one that refuses answers fast.
            stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(READ_TIMEOUT_SECONDS),
            wait=_pause_seconds,
            reraise=True,
        )
        what = f"{method} {self.settings.url.rstrip('/')}/v1/{path}"
        try:
            for attempt in retrying:
                with attempt:
                    return self._call_once(method, path, params=params, body=body)
        except _Passing as error:
            tries = retrying.statistics["attempt_number"]
            raise NoAnswer(
                f"{what} got no answer in {tries} {'try' if tries == 1 else 'tries'} ({error}); start Pitwall (`make demo`), "
                f"forward its port, or set PITWALL_URL to where it is."
            ) from error
        raise AssertionError("tenacity either returns or raises")

    def _call_once(self, method: str, path: str, *, params: dict | None, body: dict | None) -> Any:
        try:
            response = self.client.request(
                method, f"/v1/{path}", params=params, json=body, headers=_headers(self.settings)
            )
        except httpx.TransportError as error:
            raise _Passing(str(error) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise BadUse(f"PITWALL_URL {self.settings.url!r} is no address: {error}.") from error
        if response.status_code in PASSING_STATUSES:
            raise _Passing(
                f"{response.status_code}: {_message(response)}",
                retry_after_seconds=_retry_after_seconds(response),
            )
        if response.status_code >= 400:
            raise _refusal(response, f"{method} {self.settings.url.rstrip('/')}/v1/{path}")
        try:
            return msgspec.json.decode(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandFailed(
                f"{self.settings.url} answered {path} with something that is no JSON; "
                f"set PITWALL_URL to the address of `pitwall ingest`."
            ) from error


def open_api(settings: Settings) -> Api:
    """Opens the connection. Raises BadUse when PITWALL_URL is no http address."""
    if not settings.url.startswith(("http://", "https://")):
        raise BadUse(
            f"PITWALL_URL {settings.url!r} is no address; it looks like http://127.0.0.1:8470."
        )
    timeout = httpx.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    return Api(httpx.Client(base_url=settings.url.rstrip("/"), timeout=timeout), settings)


def read_record(document: Any, kind: type[Record]) -> Record:
    """The record of a decoded document. Raises CommandFailed when the server speaks otherwise."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise CommandFailed(
            f"The answer of /v1 is no {kind.__name__} as this version knows it ({error}); "
            f"use the command line of the server's own version."
        ) from error


def now_utc() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


def _headers(settings: Settings) -> dict[str, str]:
    token = settings.token
    if token is None and settings.token_file is not None:
        try:
            token = settings.token_file.read_text().strip()
        except OSError as error:
            raise BadUse(
                f"PITWALL_TOKEN_FILE {settings.token_file} can't be read ({error.strerror}); "
                f"write a token there or set PITWALL_TOKEN."
            ) from error
    return {"Authorization": f"Bearer {token}"} if token else {}


def _given(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _pause_seconds(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after_seconds if isinstance(error, _Passing) else None
    if asked is not None:
        return min(asked, LONGEST_PAUSE_SECONDS)
    return 0.2 * 2 ** (state.attempt_number - 1)


def _retry_after_seconds(response: httpx.Response) -> float | None:
    written = response.headers.get("Retry-After", "")
    return float(written) if written.isdecimal() else None


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase or "no reason given"


def _refusal(response: httpx.Response, what: str) -> CommandFailed:
    message = _message(response)
    if response.status_code == 401:
        return CommandFailed(
            f"{what} did not take the token ({message}); make a new one with `kubectl create token` "
            f"and set PITWALL_TOKEN or PITWALL_TOKEN_FILE."
        )
    try:
        code = response.json()["error"].get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        code = None
    return error_for(code, f"{what}: {response.status_code}, {message}.")


def error_for(code: str | None, message: str) -> CommandFailed:
    """The error, and with it the exit code, that a refusal's code word stands for."""
    if code in ("limit", "budget"):
        return Refused(message)
    if code == "invalid":
        return BadUse(message)
    return CommandFailed(message)
