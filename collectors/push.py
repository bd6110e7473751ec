"""From the spool to ingest, oldest first, over one connection that is kept open.

http.client and not a larger library: the same code pushes for thousands of simulated nodes.
"""

from __future__ import annotations

import http.client
import random
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec
import structlog

from collectors.errors import CollectorError, SpoolError, TokenError
from collectors.spool import Spool

log = structlog.get_logger()

REPORTS_PATH = "/agent/v1/reports"
RETRIED_STATUSES = frozenset({408, 425, 429})
MAX_ANSWER_BYTES = 64 * 1024
TOKEN_READ_SECONDS = 60.0
"""The kubelet renews a projected token long before its end; reading it is cheap."""

IDLE_SECONDS = 30.0
"""The spool is looked at so often even when nothing woke the pusher."""

Kind = Literal["taken", "rejected", "denied", "retry"]


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What ingest may answer with: episodes that a person closed, a lowered GPU count."""

    closed_episodes: tuple[str, ...] = ()
    expected_gpus: int | None = None


NOTHING_SAID = Receipt()


@dataclass(frozen=True)
class Outcome:
    """How one push ended. `retry_after_seconds` is what the server asked for, if it did."""

    kind: Kind
    status: int | None
    text: str
    retry_after_seconds: float | None = None
    receipt: Receipt = NOTHING_SAID


def classify(status: int, body: bytes, retry_after: str | None) -> Outcome:
    """Return what an answer means: 2xx taken; 401 and 403 denied (the token is read anew);
    408, 425, 429 and 5xx tried again; any other 4xx rejected, never to be sent again."""
    text = body[:300].decode(errors="replace").strip()
    if 200 <= status < 300:
        return Outcome("taken", status, text, receipt=_read_receipt(body))
    if status in (401, 403):
        return Outcome("denied", status, text)
    if 400 <= status < 500 and status not in RETRIED_STATUSES:
        return Outcome("rejected", status, text)
    try:
        wait = min(max(float(retry_after), 0.0), 300.0) if retry_after else None
    except ValueError:
        wait = None  # a date: the back-off will do
    return Outcome("retry", status, text, retry_after_seconds=wait)


def back_off(
    failures: int, *, first_seconds: float, longest_seconds: float, chance: float
) -> float:
    """Return the pause after so many failures in a row: half fixed, half by `chance` (0..1)."""
    whole: float = min(first_seconds * 2 ** min(failures - 1, 30), longest_seconds)
    return whole * (0.5 + 0.5 * chance)


class TokenSource(Protocol):
    """Gives the bearer token, None where none is needed; `renew` after it was denied."""

    def read(self) -> str | None: ...

    def renew(self) -> None: ...


class TokenFile:
    """A token in a file, read anew each minute and after it was denied."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._token: str | None = None
        self._read_at = 0.0

    def read(self) -> str | None:
        """Return the token. Raises TokenError when the file is not there or empty."""
        if self._path is None:
            return None
        now = time.monotonic()
        if self._token is None or now - self._read_at > TOKEN_READ_SECONDS:
            try:
                token = self._path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise TokenError(
                    f"the token file {self._path} cannot be read: {error}; "
                    "check the pod's projected volume"
                ) from error
            if not token:
                raise TokenError(f"the token file {self._path} is empty")
            self._token, self._read_at = token, now
        return self._token

    def renew(self) -> None:
        """Read the file again at the next use."""
        self._token = None


def _read_receipt(body: bytes) -> Receipt:
    try:
        return msgspec.json.decode(body, type=Receipt)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return NOTHING_SAID  # an answer without a body that we know is an answer all the same


class Sender:
    """One keep-alive connection to ingest. Not for two threads at once."""

    def __init__(
        self, url: str, *, timeout_seconds: float = 10.0, ca_file: Path | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CollectorError(f"PITWALL_INGEST_URL {url!r} is not an http(s) address")
        self._path = parts.path.rstrip("/") + REPORTS_PATH
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_seconds, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout_seconds
            )

    def send(self, body: bytes, token: str | None) -> Outcome:
        """Push one report; a broken connection or a silent server is a "retry"."""
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # The server may have closed an idle connection: one more try on a fresh one.
        fresh = self._connection.sock is None
        for last in (False, True) if not fresh else (True,):
            try:
                self._connection.request("POST", self._path, body, headers)
                answer = self._connection.getresponse()
                content = answer.read(MAX_ANSWER_BYTES)
                if not answer.isclosed():
                    self._connection.close()  # more than we read: not to be reused
                return classify(answer.status, content, answer.getheader("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                if last or isinstance(error, TimeoutError):
                    return Outcome("retry", None, f"{type(error).__name__}: {error}")
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass
class PushState:
    """Where one spool's pushing stands: failures in a row, and when the next try is due."""

    failures: int = 0
    not_before: float = 0.0
    trouble: str | None = None
    denied: bool = False


def push_oldest(
    spool: Spool,
    state: PushState,
    *,
    sender: Sender,
    token: TokenSource,
    at: float,
    first_seconds: float,
    longest_seconds: float,
    on_receipt: Callable[[Receipt], None] = lambda receipt: None,
    node: str = "",
) -> bool:
    """Push the oldest report of a spool; True when one left it (taken or rejected).

    After a failure `state.not_before` (monotonic seconds) says when to try again. Trouble is
    logged once, and its end once.
    """
    entry = spool.oldest()
    if entry is None:
        return False
    sequence, body = entry
    try:
        outcome = sender.send(body, token.read())
    except TokenError as error:
        outcome = Outcome("denied", None, str(error))
    if outcome.kind in ("taken", "rejected"):
        if state.trouble is not None:
            log.info("reports are taken again", node=node, after_failures=state.failures)
        state.failures, state.not_before, state.trouble, state.denied = 0, 0.0, None, False
        if outcome.kind == "taken":
            spool.remove(sequence)
            on_receipt(outcome.receipt)
        else:
            spool.reject(sequence, body)
            log.error(
                "ingest refused a report for good; it is kept in the spool's rejected folder",
                node=node,
                sequence=sequence,
                status=outcome.status,
                answer=outcome.text,
            )
        return True
    state.failures += 1
    state.denied = outcome.kind == "denied"
    if state.denied:
        token.renew()
    pause = back_off(
        state.failures,
        first_seconds=first_seconds,
        longest_seconds=longest_seconds,
        chance=random.random(),
    )
    if outcome.retry_after_seconds is not None:
        pause = max(pause, outcome.retry_after_seconds)
    state.not_before = at + pause
    if state.trouble is None:
        log.warning(
            "reports cannot be delivered; they wait in the spool",
            node=node,
            status=outcome.status,
            answer=outcome.text,
        )
    state.trouble = outcome.text or f"status {outcome.status}"
    return False


class PushThread:
    """Pushes one spool for as long as the agent lives. `wake` after each append."""

    def __init__(
        self,
        spool: Spool,
        *,
        sender: Sender,
        token: TokenSource,
        first_seconds: float,
        longest_seconds: float,
        on_receipt: Callable[[Receipt], None],
        node: str,
    ) -> None:
        self.state = PushState()
        self.pushed_total = 0
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._push = partial(
            push_oldest,
            spool,
            self.state,
            sender=sender,
            token=token,
            first_seconds=first_seconds,
            longest_seconds=longest_seconds,
            on_receipt=on_receipt,
            node=node,
        )
        self._sender = sender
        self._thread = threading.Thread(target=self._run, name="push", daemon=True)

    def start(self) -> None:
        """Begin with what an earlier run left in the spool."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new report. A back-off under way is kept."""
        self._wake.set()

    def stop(self, *, timeout_seconds: float) -> None:
        """Stop after the push under way, or leave it after `timeout_seconds`."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            try:
                while not self._stopped.is_set() and self._push(at=time.monotonic()):
                    self.pushed_total += 1
            except SpoolError as error:
                self.state.failures += 1
                self.state.not_before = time.monotonic() + IDLE_SECONDS
                if self.state.trouble is None:
                    log.error("reports cannot be read from the spool", error=str(error))
                self.state.trouble = str(error)
            pause = self.state.not_before - time.monotonic()
            if pause > 0:
                self._stopped.wait(pause)
            else:
                self._wake.wait(IDLE_SECONDS)
        self._sender.close()
