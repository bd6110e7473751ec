"""Connections to the API server: time-outs, impersonation, bounded retries of reads.

kubernetes.client does what it is good at (kubeconfig, exec plugins, in-cluster accounts, TLS); bodies
stay bytes, since its typed models cost 0.7 ms a node. urllib3 never retries here: it would replay
DELETE and PUT, and would sleep inside a GET for as long as Retry-After says.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import kubernetes.client
import kubernetes.config
import msgspec
import urllib3
from kubernetes.config.config_exception import ConfigException

from k8s.errors import ApiError, ConfigurationError, KubernetesError, UnreachableError

CONNECT_TIMEOUT_SECONDS = 5.0
# The API server ends a request after 60 s itself (--request-timeout's default is 1m).
READ_TIMEOUT_SECONDS = 30.0
READ_ATTEMPTS = 4
LONGEST_PAUSE_SECONDS = 10.0
BROKEN_PAUSE_SECONDS = 0.25
# What the API server answers when it is overloaded, starting or failing over; other 5xx are no passing states.
PASSING_STATUSES = frozenset({429, 500, 502, 503, 504})
# Watches hold a connection each; evictions run beside them.
POOL_CONNECTIONS = 64
FIELD_MANAGER = "pitwall"

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
JSON = "application/json"

Params = Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class Impersonation:
    """Whom the API server shall take the caller for; needs the verb impersonate on each part."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str | None = None
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """An answer below 300. Header names are as urllib3 keeps them (case-insensitive look-up)."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""
    field: str = ""


class _StatusBody(msgspec.Struct):
    reason: str = ""
    message: str = ""
    code: int = 0
    details: dict[str, Any] | None = None


def _retry_after(headers: Mapping[str, str], details: Mapping[str, Any]) -> float | None:
    for text in (headers.get("Retry-After"), details.get("retryAfterSeconds")):
        try:
            if text is not None and (seconds := float(text)) >= 0:
                return seconds
        except (TypeError, ValueError):
            continue  # an HTTP date, which the API server does not send
    return None


def read_error(status: int, headers: Mapping[str, str], body: bytes, *, request: str) -> ApiError:
    """The ApiError that an answer of 300 or more stands for; a body that is no Status is quoted."""
    try:
        said = msgspec.json.decode(body, type=_StatusBody)
    except msgspec.DecodeError:
        text = body[:300].decode(errors="replace").strip()
        return ApiError(
            status,
            message=text,
            retry_after_seconds=_retry_after(headers, {}),
            request=request,
        )
    details = said.details or {}
    causes = tuple(
        {str(key): str(value) for key, value in cause.items()}
        for cause in details.get("causes") or ()
        if isinstance(cause, dict)
    )
    return ApiError(
        status,
        said.reason,
        said.message,
        causes=causes,
        retry_after_seconds=_retry_after(headers, details),
        details=details,
        request=request,
    )


class Stream:
    """The lines of a watch; `interrupt` may be called from another thread to end a blocked read."""

    def __init__(self, response: urllib3.BaseHTTPResponse, *, request: str) -> None:
        self._response = response
        self._request = request
        self._interrupted = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        """Yields complete lines without their newline. Raises UnreachableError when the stream breaks."""
        pieces: list[bytes] = []
        try:
            while chunk := self._response.read1(1 << 16):
                *lines, rest = chunk.split(b"\n")
                for line in lines:
                    whole = b"".join([*pieces, line]) if pieces else line
                    pieces.clear()
                    if whole:
                        yield whole
                if rest:
                    pieces.append(rest)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            if not self._interrupted.is_set():
                raise UnreachableError(f"{self._request} broke off: {error}") from error
        finally:
            self.close()

    def interrupt(self) -> None:
        """Ends the stream: a reader blocked in it stops as if the server had closed it."""
        self._interrupted.set()
        # It may have been closed already, or be ending by itself.
        with contextlib.suppress(ValueError, RuntimeError, OSError, AttributeError):
            self._response.shutdown()

    def close(self) -> None:
        """Gives up the connection, which can not be used again in the middle of a body."""
        self._response.close()
        self._response.release_conn()


class Connection:
    """One API server as one caller; safe to use from many threads."""

    def __init__(
        self,
        api_client: kubernetes.client.ApiClient,
        *,
        impersonation: Impersonation | None = None,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api_client = api_client
        self._impersonation = impersonation
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds
        self._sleep = sleep
        self.url: str = api_client.configuration.host.rstrip("/")

    def get(self, path: str, params: Params | None = None) -> bytes:
        """The body at path ("/api/v1/nodes"). Asked READ_ATTEMPTS times at most on 429 and 5xx, honouring
        Retry-After up to LONGEST_PAUSE_SECONDS, and twice when the connection breaks.

        Raises ApiError, UnreachableError.
        """
        attempt = 1
        while True:
            try:
                return self.request("GET", path, params=params).body
            except ApiError as error:
                if error.status not in PASSING_STATUSES or attempt >= READ_ATTEMPTS:
                    raise
                pause = error.retry_after_seconds
            except UnreachableError:
                # A pooled connection that the server has closed breaks once; more is an outage,
                # and the caller's to wait out.
                if attempt > 1:
                    raise
                pause = random.uniform(0, BROKEN_PAUSE_SECONDS)
            if pause is None:  # Full jitter: many watchers must not come back in the same instant.
                pause = random.uniform(0, 0.5 * 2**attempt)
            self._sleep(min(pause, LONGEST_PAUSE_SECONDS))
            attempt += 1

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | list[Any] | bytes | None = None,
        params: Params | None = None,
        content_type: str | None = None,
        dry_run: bool = False,
        read_timeout_seconds: float | None = None,
    ) -> Response:
        """One request, sent once: no answer to a write is ever replayed.

        content_type: JSON for POST and PUT, merge patch for PATCH when left out. dry_run asks the API
        server to admit and validate without storing. Raises ApiError for an answer of 300 or more,
        UnreachableError without an answer (a write may then have happened: GET before trying again).
        """
        query = dict(params or {})
        if method in ("POST", "PUT", "PATCH"):
            query.setdefault("fieldManager", FIELD_MANAGER)
        if dry_run:
            query["dryRun"] = "All"
        said = f"{method} {path}"
        headers = self._headers()
        headers["Accept"] = JSON
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            headers["Content-Type"] = content_type or (MERGE_PATCH if method == "PATCH" else JSON)
        response = self._send(
            method, path, query, headers, data, self._read_timeout(read_timeout_seconds), said
        )
        try:
            content = response.read()
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            response.close()
            raise UnreachableError(f"{said} broke off in the middle of the answer: {error}") from (
                error
            )
        finally:
            response.release_conn()
        if response.status >= 300:
            raise read_error(response.status, response.headers, content, request=said)
        return Response(response.status, response.headers, content)

    def stream(
        self, path: str, params: Params | None = None, *, read_timeout_seconds: float
    ) -> Stream:
        """Opens a watch. read_timeout_seconds: silence after which the stream counts as broken.

        Raises ApiError (410 Gone among them), UnreachableError.
        """
        said = f"watch of {path}"
        headers = self._headers()
        headers["Accept"] = JSON
        response = self._send(
            "GET", path, dict(params or {}), headers, None, read_timeout_seconds, said
        )
        if response.status >= 300:
            try:
                content = response.read()
            except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError):
                content = b""
            finally:
                response.release_conn()
            raise read_error(response.status, response.headers, content, request=said)
        return Stream(response, request=said)

    def impersonating(self, impersonation: Impersonation | None) -> Connection:
        """The same connections and credentials, acting as somebody else."""
        return Connection(
            self._api_client,
            impersonation=impersonation,
            connect_timeout_seconds=self._connect_timeout_seconds,
            read_timeout_seconds=self._read_timeout_seconds,
            sleep=self._sleep,
        )

    def close(self) -> None:
        """Closes the idle connections."""
        self._api_client.rest_client.pool_manager.clear()

    def _read_timeout(self, seconds: float | None) -> float:
        return self._read_timeout_seconds if seconds is None else seconds

    def _headers(self) -> urllib3.HTTPHeaderDict:
        headers = urllib3.HTTPHeaderDict({"User-Agent": "pitwall"})
        # Reading the settings runs the refresh hook of expiring tokens.
        for setting in self._api_client.configuration.auth_settings().values():
            if setting.get("in") == "header" and setting.get("value"):
                headers[setting["key"]] = setting["value"]
        if (who := self._impersonation) is not None:
            headers["Impersonate-User"] = who.user
            for group in who.groups:
                headers.add("Impersonate-Group", group)
            if who.uid:
                headers["Impersonate-Uid"] = who.uid
            for key, values in who.extra.items():
                for value in values:
                    headers.add(f"Impersonate-Extra-{key}", value)
        return headers

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        headers: urllib3.HTTPHeaderDict,
        data: bytes | None,
        read_timeout_seconds: float,
        said: str,
    ) -> urllib3.BaseHTTPResponse:
        pairs = {
            key: (str(value).lower() if isinstance(value, bool) else value)
            for key, value in query.items()
            if value is not None
        }
        url = f"{self.url}{path}" + (f"?{urlencode(pairs)}" if pairs else "")
        try:
            response: urllib3.BaseHTTPResponse = self._api_client.rest_client.pool_manager.request(
                method,
                url,
                body=data,
                headers=headers,
                timeout=urllib3.Timeout(
                    connect=self._connect_timeout_seconds, read=read_timeout_seconds
                ),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise UnreachableError(
                f"{said} at {self.url} had no answer ({error}); check that the API server is up and reachable"
            ) from error
        return response


def connect(
    kubeconfig: Path | None = None,
    *,
    context: str | None = None,
    impersonate: str | Impersonation | None = None,
    connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
    read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
) -> Connection:
    """A connection by kubeconfig; without one KUBECONFIG, then the pod's own account, then ~/.kube/config.

    Opens nothing yet. Raises ConfigurationError naming the file that can not be used.
    """
    configuration = kubernetes.client.Configuration()
    configuration.connection_pool_maxsize = POOL_CONNECTIONS
    named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG")
    in_cluster = not named and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if in_cluster:
            kubernetes.config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes.config.load_kube_config(
                config_file=named, context=context, client_configuration=configuration
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
        source = "the pod's service account" if in_cluster else (named or "~/.kube/config")
        raise ConfigurationError(
            f"{source} can not be used: {error}. Set PITWALL_KUBECONFIG to a kubeconfig that kubectl accepts."
        ) from error
    if _is_loopback(configuration.host):
        configuration.proxy = None  # as Go's clients do; a proxy could only reach its own loopback
    who = Impersonation(impersonate) if isinstance(impersonate, str) else impersonate
    return Connection(
        kubernetes.client.ApiClient(configuration),
        impersonation=who,
        connect_timeout_seconds=connect_timeout_seconds,
        read_timeout_seconds=read_timeout_seconds,
    )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def version(connection: Connection) -> str:
    """The API server's version ("v1.36.1"). Raises KubernetesError."""
    try:
        return str(msgspec.json.decode(connection.get("/version"))["gitVersion"])
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise KubernetesError(
            f"{connection.url}/version names no gitVersion: is this a Kubernetes API server?"
        ) from error
