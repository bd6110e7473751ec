"""Answers that a test or a demo wants instead of the real ones: throttling, conflicts, time-outs."""

from dataclasses import dataclass
from typing import Any

from app.simulator.api import failures
from app.simulator.api.request import Request
from app.simulator.errors import FaultRefused

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass
class Interference:
    """One switch: the next `count` requests that match get `status`.

    `after_effect`: the request is carried out first, and only its answer is lost.
    """

    method: str
    path_prefix: str
    status: int
    retry_after: int | None
    count: int
    after_effect: bool

    def matches(self, request: Request) -> bool:
        return self.method in ("*", request.method) and request.path.startswith(self.path_prefix)

    def failure(self) -> failures.ApiFailure:
        details: dict[str, Any] = {}
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        message = "the simulator was told to answer so"
        return failures.ApiFailure(
            self.status, _REASONS.get(self.status, ""), message, details=details
        )


class Switchboard:
    """The switches that are on."""

    def __init__(self) -> None:
        self.active: list[Interference] = []

    def add(self, asked: dict[str, Any]) -> Interference:
        """Switch one on. Raises FaultRefused with what is wrong."""
        status = asked.get("status")
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise FaultRefused(f"status must be a number from 400 to 599, not {status!r}")
        count = asked.get("count", 1)
        if not isinstance(count, int) or count < 1:
            raise FaultRefused(f"count must be a whole number above 0, not {count!r}")
        retry_after = asked.get("retry_after")
        if retry_after is not None and not isinstance(retry_after, int):
            raise FaultRefused(f"retry_after must be whole seconds, not {retry_after!r}")
        one = Interference(
            method=str(asked.get("method", "*")).upper(),
            path_prefix=str(asked.get("path_prefix", "/")),
            status=status,
            retry_after=retry_after,
            count=count,
            after_effect=bool(asked.get("after_effect", False)),
        )
        self.active.append(one)
        return one

    def clear(self) -> None:
        self.active.clear()

    def take(self, request: Request) -> Interference | None:
        """The switch that `request` runs into, counted down."""
        for one in self.active:
            if one.matches(request):
                one.count -= 1
                if one.count <= 0:
                    self.active.remove(one)
                return one
        return None
