"""OpenAPI of the msgspec records: the schemas are those the answers are encoded with."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

REFERENCE = "#/components/schemas/{name}"

_ERRORS = {
    400: "The request can't be understood; the message names the field.",
    401: "No token, or one that is not valid.",
    403: "The token's owner may not do this.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    409: "The idempotency key was used for another request.",
    413: "The body is too large.",
    415: "The body's encoding is not known.",
    503: "The store or the API server can't answer now; come again after Retry-After seconds.",
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """A stable word for programs and one sentence for people."""

    code: str
    message: str


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What every answer of 400 or more holds."""

    error: ErrorDetail


def described(answer: Any, *errors: int, status: int = 200) -> dict[str, Any]:
    """Arguments of a route: its answer's schema and the errors it may give."""
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": "Done.", "content": _content(answer)}
    }
    for error in errors:
        responses[error] = {"description": _ERRORS[error], "content": _content(ErrorAnswer)}
    return {"responses": responses, "status_code": status, "response_model": None}


def install(app: FastAPI, types: list[Any]) -> None:
    """Let the app's OpenAPI hold the schemas of these types, and no error that it never gives."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            _, components = msgspec.json.schema_components(
                [*types, ErrorAnswer], ref_template=REFERENCE
            )
            parts = document.setdefault("components", {})
            parts["schemas"] = components
            parts["securitySchemes"] = {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token the cluster's API server knows; agents': bound to our audience.",
                }
            }
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    # A bad parameter is answered 400 here, not FastAPI's 422.
                    operation["responses"].pop("422", None)
                    if path.startswith(("/v1/", "/agent/")):
                        operation["security"] = [{"token": []}]
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _content(answer: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([answer], ref_template=REFERENCE)
    return {"application/json": {"schema": schema}}
