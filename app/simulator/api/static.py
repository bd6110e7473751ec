"""The paths of the API that do not depend on what is stored."""

from app.simulator.api import discovery, failures
from app.simulator.api.request import Request, Response, json_response

_HEALTH = ("/healthz", "/livez", "/readyz")


def open_to_all(path: str) -> bool:
    """Whether a path answers without credentials, as system:public-info-viewer allows."""
    return path.startswith(_HEALTH) or path.rstrip("/") == "/version"


def answer_static(request: Request) -> Response:
    """Answer discovery, version, health and OpenAPI. Raises ApiFailure 404, 405."""
    if request.method not in ("GET", "HEAD"):
        raise failures.method_not_allowed()
    path = request.path.rstrip("/")
    parts = [part for part in path.split("/") if part]
    if path.startswith(_HEALTH):
        return Response(200, b"ok", "text/plain; charset=utf-8")
    if path == "/version":
        return json_response(discovery.VERSION)
    if path == "":
        paths = [
            "/api",
            "/api/v1",
            "/apis",
            "/healthz",
            "/livez",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        return json_response({"paths": paths})
    if parts[:2] == ["openapi", "v3"]:
        return _openapi(parts[2:])
    if path in ("/api", "/apis"):
        if discovery.wants_aggregated(request.headers.get("accept", "")):
            found = discovery.aggregated(core=path == "/api")
            return json_response(found, content_type=discovery.AGGREGATED_TYPE)
        return json_response(discovery.core_versions() if path == "/api" else discovery.groups())
    answer = None
    if parts[0] == "api" and len(parts) == 2:
        answer = discovery.resources("", parts[1])
    elif parts[0] == "apis" and len(parts) == 2:
        answer = discovery.group(parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        answer = discovery.resources(parts[1], parts[2])
    if answer is None:
        raise failures.no_such_path()
    return json_response(answer)


def _openapi(parts: list[str]) -> Response:
    answer = None
    if not parts:
        answer = discovery.openapi_paths()
    elif parts[0] == "api" and len(parts) == 2:
        answer = discovery.openapi_document("", parts[1])
    elif parts[0] == "apis" and len(parts) == 3:
        answer = discovery.openapi_document(parts[1], parts[2])
    if answer is None:
        raise failures.no_such_path()
    return json_response(answer)
