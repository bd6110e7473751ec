"""One request and its answer, free of any web framework, and the paths of the Kubernetes API."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from app.simulator.api import failures, protobuf
from app.simulator.resources import BY_ADDRESS, Resource, Subresource


@dataclass(frozen=True)
class Request:
    """What a client sent. Header names are in lower case; the last of a repeated query wins."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def dry_run(self) -> bool:
        """Raises ApiFailure 400 for a dryRun that is not All."""
        asked = self.query.get("dryRun", "")
        if asked not in ("", "All"):
            raise failures.bad_request(f'invalid dryRun: "{asked}": supported values: "All"')
        return asked == "All"

    def json(self) -> Any:
        """The body. Raises ApiFailure 400 when it is no JSON, 415 when it says it is not."""
        content_type = self.headers.get("content-type", "application/json").split(";")[0]
        if content_type == protobuf.MEDIA_TYPE:
            return protobuf.decode_body(self.body)
        if content_type not in ("application/json", "") and not content_type.endswith("+json"):
            raise failures.unsupported_media_type(
                f"the body of the request was in an unknown format - {content_type}: "
                "the simulator takes application/json"
            )
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError as error:
            raise failures.bad_request(f"the body is not JSON: {error}") from error

    def json_object(self) -> dict[str, Any]:
        found = self.json()
        if not isinstance(found, dict):
            raise failures.bad_request("the body is not a JSON object")
        return found


@dataclass(frozen=True)
class Response:
    """What goes back in one piece."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def json_response(document: Any, *, status: int = 200, **more: Any) -> Response:
    return Response(status, msgspec.json.encode(document), **more)


def failure_response(failure: failures.ApiFailure) -> Response:
    headers: tuple[tuple[str, str], ...] = ()
    if failure.retry_after_seconds is not None:
        headers = (("retry-after", str(failure.retry_after_seconds)),)
    if failure.code == 401:
        headers += (("www-authenticate", 'Bearer realm="pitwall-simulator"'),)
    return json_response(failure.status, status=failure.code, headers=headers)


@dataclass(frozen=True)
class Target:
    """What a resource path addresses."""

    resource: Resource
    namespace: str | None
    name: str | None
    subresource: Subresource | None

    def verb(self, request: Request) -> str:
        """The API verb, as authorisation names it."""
        match request.method:
            case "GET" | "HEAD":
                if self.name:
                    return "get"
                return "watch" if request.query.get("watch") in ("1", "true") else "list"
            case "POST" if self.name is None or self.subresource is not None:
                return "create"
            case "PUT" if self.name:
                return "update"
            case "PATCH" if self.name:
                return "patch"
            case "DELETE":
                return "delete" if self.name else "deletecollection"
            case _:
                raise failures.method_not_allowed()


def parse_target(path: str) -> Target:
    """Read a resource path. Raises ApiFailure 404 for a path that leads nowhere."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise failures.no_such_path()
    namespace = None
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    resource = BY_ADDRESS.get((group, version, rest[0]))
    if resource is None or len(rest) > 3 or (namespace is not None and not resource.namespaced):
        raise failures.no_such_path()
    name = rest[1] if len(rest) > 1 else None
    if name is not None and resource.namespaced and namespace is None:
        raise failures.no_such_path()
    subresource = None
    if len(rest) == 3:
        subresource = next((one for one in resource.subresources if one.name == rest[2]), None)
        if subresource is None:
            raise failures.no_such_path()
    return Target(resource, namespace, name, subresource)
