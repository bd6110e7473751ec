"""What ingest answers instead of a result: a status, a stable word and one clear sentence."""

from app.errors import PitwallError


class Refusal(PitwallError):
    """An answer of 400 or more. `code` is a stable word for programs, `reason` the metric's label."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_seconds = retry_after_seconds


RETRY_AFTER_SECONDS = 5
"""When the store or the API server can't answer, a caller comes again after so long."""


def unavailable(message: str) -> Refusal:
    """503: nothing was stored, come again."""
    return Refusal(503, "unavailable", message, retry_after_seconds=RETRY_AFTER_SECONDS)
