"""Which groups and kinds an API server serves."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from k8s.client import Connection
from k8s.errors import ApiError, MalformedAnswerError
from k8s.objects import Narrow
from k8s.resources import Resource


class _Group(Narrow, frozen=True):
    name: str


class _Groups(Narrow, frozen=True):
    groups: tuple[_Group, ...] = ()


class _Served(Narrow, frozen=True):
    name: str
    kind: str = ""


class _Kinds(Narrow, frozen=True):
    resources: tuple[_Served, ...] = ()


def read_api_groups(connection: Connection) -> frozenset[str]:
    """Names of the API groups that are served ("batch", "kueue.x-k8s.io"); the core group is "".

    Raises ApiError, UnreachableError, MalformedAnswerError.
    """
    try:
        said = msgspec.json.decode(connection.get("/apis"), type=_Groups)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"{connection.url}/apis lists no groups: {error}") from error
    return frozenset({""} | {group.name for group in said.groups})


def is_served(connection: Connection, resource: Resource) -> bool:
    """True when the API server serves that kind in that version. Raises as read_api_groups."""
    try:
        body = connection.get(resource.base)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    try:
        kinds = msgspec.json.decode(body, type=_Kinds).resources
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"{resource.base} lists no kinds: {error}") from error
    return any(entry.name == resource.plural for entry in kinds)


def served_of(connection: Connection, resources: Iterable[Resource]) -> list[Resource]:
    """Those of the resources that are served: kinds that are not installed cost one request a group."""
    return [resource for resource in resources if is_served(connection, resource)]
