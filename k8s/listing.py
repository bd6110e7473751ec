"""Lists in pages into narrow structs; an object that can not be read is counted, never fatal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from k8s.client import Connection, Params
from k8s.errors import ApiError, MalformedAnswerError
from k8s.objects import Narrow
from k8s.resources import Resource

PAGE_OBJECTS = 500  # as kubectl's --chunk-size
# A list whose continue token expires again and again (slow reader, quick compaction) is asked for whole.
PAGED_ATTEMPTS = 3

T = TypeVar("T")


class ListMeta(Narrow, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class Page(msgspec.Struct, Generic[T], frozen=True):
    items: list[T] | None = None
    metadata: ListMeta = ListMeta()


class LooseMeta(Narrow, frozen=True):
    uid: str = ""
    resource_version: str = ""
    name: str = ""
    namespace: str = ""


class LooseIdentity(Narrow, frozen=True):
    metadata: LooseMeta = LooseMeta()


@dataclass(frozen=True)
class Malformed:
    """An object that could not be read: who it is as far as could be seen, and why."""

    uid: str
    name: str
    error: str


@dataclass(frozen=True)
class Listing:
    """All objects of a list, at one resourceVersion."""

    items: list[Any]
    resource_version: str
    malformed: tuple[Malformed, ...] = ()


@lru_cache(maxsize=64)
def _page_decoder(struct: type[Narrow]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(Page[struct])  # type: ignore[valid-type]


@lru_cache(maxsize=64)
def object_decoder(struct: type[Narrow]) -> msgspec.json.Decoder[Any]:
    """The decoder of one object; made once a struct."""
    return msgspec.json.Decoder(struct)


_raw_page_decoder: msgspec.json.Decoder[Page[msgspec.Raw]] = msgspec.json.Decoder(Page[msgspec.Raw])
_loose_decoder = msgspec.json.Decoder(LooseIdentity)


def read_malformed(raw: bytes | msgspec.Raw, error: Exception) -> Malformed:
    """Says who an unreadable object is, as far as its metadata can be read."""
    try:
        meta = _loose_decoder.decode(raw).metadata
    except msgspec.DecodeError:
        return Malformed("", "", str(error))
    name = f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name
    return Malformed(meta.uid, name, str(error))


def read_page(body: bytes, struct: type[Narrow]) -> tuple[Page[Any], list[Malformed]]:
    """One page; when any object does not fit, each is read for itself and the unreadable ones told.

    Raises MalformedAnswerError when the page as a whole is no list.
    """
    try:
        return _page_decoder(struct).decode(body), []
    except msgspec.DecodeError:
        pass
    try:
        raw = _raw_page_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(
            f"a list of {struct.__name__} objects is no list: {error}"
        ) from error
    decoder = object_decoder(struct)
    items: list[Any] = []
    malformed: list[Malformed] = []
    for entry in raw.items or ():
        try:
            items.append(decoder.decode(entry))
        except msgspec.DecodeError as error:
            malformed.append(read_malformed(entry, error))
    return Page(items, raw.metadata), malformed


def list_objects(
    connection: Connection,
    resource: Resource,
    *,
    namespace: str | None = None,
    field_selector: str | None = None,
    label_selector: str | None = None,
    page_objects: int = PAGE_OBJECTS,
) -> Listing:
    """Lists in pages. A continue token that expires starts the list again, the last time unpaged.

    Raises ApiError, UnreachableError, MalformedAnswerError.
    """
    path = resource.path(namespace=namespace)
    selectors: Params = {"fieldSelector": field_selector, "labelSelector": label_selector}
    for attempt in range(1, PAGED_ATTEMPTS + 1):
        limit = page_objects if attempt < PAGED_ATTEMPTS else None
        try:
            return _list_once(connection, path, resource.struct, selectors, limit)
        except ApiError as error:
            if error.status != 410 or limit is None:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _list_once(
    connection: Connection,
    path: str,
    struct: type[Narrow],
    selectors: Params,
    limit: int | None,
) -> Listing:
    items: list[Any] = []
    malformed: list[Malformed] = []
    token = ""
    while True:
        body = connection.get(path, {**selectors, "limit": limit, "continue": token or None})
        page, broken = read_page(body, struct)
        items.extend(page.items or ())
        malformed.extend(broken)
        token = page.metadata.continue_
        if not token:
            return Listing(items, page.metadata.resource_version, tuple(malformed))


def get_object(
    connection: Connection, resource: Resource, name: str, *, namespace: str | None = None
) -> Any | None:
    """The object by name as its struct, None where there is none (404).

    Raises ApiError, UnreachableError, MalformedAnswerError.
    """
    path = resource.path(name, namespace=namespace)
    try:
        body = connection.get(path)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    try:
        return object_decoder(resource.struct).decode(body)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"{path} is no {resource.kind}: {error}") from error
