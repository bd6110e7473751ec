"""What can go wrong with Kubernetes, under one root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class KubernetesError(Exception):
    """Root of all errors of this package; the message says what was tried and what to do next."""


class ConfigurationError(KubernetesError):
    """The kubeconfig or the in-cluster account can not be used."""


class UnreachableError(KubernetesError):
    """No answer: connection refused, time-out, broken TLS. The effect of a write is unknown."""


class MalformedAnswerError(KubernetesError):
    """The API server's answer can not be read as what was asked for."""


class UnsupportedKindError(KubernetesError):
    """This workload kind can not be suspended, resumed or restarted by us; the message says why."""


class OwnershipError(KubernetesError):
    """An annotation of ours is missing, malformed, or names another operation: nothing was written."""


class ApiError(KubernetesError):
    """An HTTP answer of 300 or more, with what its Status object says.

    status: HTTP code; reason: the Status' reason ("Conflict", "TooManyRequests", "" when the body
    is no Status); causes: its details.causes ({"reason", "message", "field"}); retry_after_seconds:
    from the Retry-After header or details.retryAfterSeconds; details: the Status' details.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        causes: tuple[Mapping[str, str], ...] = (),
        retry_after_seconds: float | None = None,
        details: Mapping[str, Any] | None = None,
        request: str = "",
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.causes = causes
        self.retry_after_seconds = retry_after_seconds
        self.details: Mapping[str, Any] = details or {}
        self.request = request
        said = f"{status} {reason}".strip() + (f": {message}" if message else "")
        super().__init__(f"{request} answered {said}" if request else said)

    def has_cause(self, reason: str) -> bool:
        """True when one of the Status' causes has that reason (or field type)."""
        return any(cause.get("reason") == reason for cause in self.causes)
