"""The API's answers that are not success: metav1.Status in the shape that clients decide by."""

from typing import Any

from app.simulator.errors import SimulatorError

Cause = dict[str, str]


class ApiFailure(SimulatorError):
    """A request that is answered with a Status of failure."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata or {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }
        if details:
            self.status["details"] = details
        if not reason:
            del self.status["reason"]

    @property
    def retry_after_seconds(self) -> int | None:
        return self.status.get("details", {}).get("retryAfterSeconds")


def _details(plural: str, group: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name} if name else {}
    if group:
        found["group"] = group
    found["kind"] = plural
    return found


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(plural: str, group: str, name: str) -> ApiFailure:
    return ApiFailure(
        404,
        "NotFound",
        f'{_qualified(plural, group)} "{name}" not found',
        details=_details(plural, group, name),
    )


def no_such_path() -> ApiFailure:
    return ApiFailure(404, "NotFound", "the server could not find the requested resource")


def already_exists(plural: str, group: str, name: str) -> ApiFailure:
    return ApiFailure(
        409,
        "AlreadyExists",
        f'{_qualified(plural, group)} "{name}" already exists',
        details=_details(plural, group, name),
    )


def conflict(plural: str, group: str, name: str, why: str | None = None) -> ApiFailure:
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    return ApiFailure(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {_qualified(plural, group)} "{name}": {why}',
        details=_details(plural, group, name),
    )


def invalid(kind: str, group: str, name: str, causes: list[Cause]) -> ApiFailure:
    """422 with one cause a wrong field: {"reason", "message", "field"}."""
    qualified = f"{kind}.{group}" if group else kind
    said = [f"{cause['field']}: {cause['message']}" for cause in causes]
    text = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    details |= {"kind": kind, "causes": causes}
    return ApiFailure(422, "Invalid", f'{qualified} "{name}" is invalid: {text}', details=details)


def wrong_value(field: str, value: object, why: str) -> Cause:
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return {
        "reason": "FieldValueInvalid",
        "message": f"Invalid value: {shown}: {why}",
        "field": field,
    }


def required_value(field: str, why: str = "") -> Cause:
    message = "Required value" + (f": {why}" if why else "")
    return {"reason": "FieldValueRequired", "message": message, "field": field}


def forbidden_value(field: str, why: str) -> Cause:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {why}", "field": field}


def unsupported_value(field: str, value: object, supported: list[str]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in supported)
    return {
        "reason": "FieldValueNotSupported",
        "message": f'Unsupported value: "{value}": supported values: {listed}',
        "field": field,
    }


def bad_request(message: str) -> ApiFailure:
    return ApiFailure(400, "BadRequest", message)


def unauthorized() -> ApiFailure:
    return ApiFailure(401, "Unauthorized", "Unauthorized")


def forbidden(plural: str, group: str, name: str, why: str) -> ApiFailure:
    named = f' "{name}"' if name else ""
    return ApiFailure(
        403,
        "Forbidden",
        f"{_qualified(plural, group)}{named} is forbidden: {why}",
        details=_details(plural, group, name),
    )


def method_not_allowed() -> ApiFailure:
    return ApiFailure(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )


def expired(message: str, *, next_token: str | None = None) -> ApiFailure:
    """410 for a revision whose history is gone; `next_token` goes on without consistency."""
    metadata = {"continue": next_token} if next_token else None
    return ApiFailure(410, "Expired", message, metadata=metadata)


def unsupported_media_type(message: str) -> ApiFailure:
    return ApiFailure(415, "UnsupportedMediaType", message)


def too_many_requests(
    message: str, *, retry_after_seconds: int, causes: list[Cause] | None = None
) -> ApiFailure:
    """429; a cause's reason DisruptionBudget says that a budget is in the way."""
    details: dict[str, Any] = {}
    if causes:
        details["causes"] = causes
    if retry_after_seconds:
        details["retryAfterSeconds"] = retry_after_seconds
    return ApiFailure(429, "TooManyRequests", message, details=details)


def internal(message: str) -> ApiFailure:
    return ApiFailure(
        500,
        "InternalError",
        f"Internal error occurred: {message}",
        details={"causes": [{"message": message}]},
    )


def revision_ahead(asked: int, current: int) -> ApiFailure:
    return ApiFailure(
        504,
        "Timeout",
        f"Too large resource version: {asked}, current: {current}",
        details={
            "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ],
            "retryAfterSeconds": 1,
        },
    )
