"""Lists: selectors, pages that belong to one revision, and where a watch begins."""

import base64
import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from app.simulator.api import failures
from app.simulator.api.request import Request, Target
from app.simulator.api.selectors import FieldTerm, parse_fields, parse_labels, selector_test
from app.simulator.registry import Registry
from app.simulator.store import Compacted, Key, Object, Record


@dataclass(frozen=True)
class Page:
    """Some records of a list and what its metadata says."""

    records: list[Record]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Selection:
    """What a request selects of a kind; `passes` None is everything in `namespace`."""

    namespace: str | None
    fields: tuple[FieldTerm, ...]
    passes: Callable[[Object], bool] | None

    def value_of(self, name: str) -> str | None:
        """The value that a field is demanded to have."""
        return next((one.value for one in self.fields if one.name == name and one.equal), None)


def selection_of(target: Target, request: Request) -> Selection:
    """Read the selectors of a request. Raises ApiFailure 400."""
    paths = target.resource.selectable_fields()
    labels = parse_labels(request.query.get("labelSelector", ""))
    fields = parse_fields(request.query.get("fieldSelector", ""), paths)
    if target.name:  # a watch of one object by its path
        fields = (*fields, FieldTerm("metadata.name", True, target.name))
    passes = selector_test(labels, fields, paths, target.resource.boolean_fields)
    return Selection(target.namespace, fields, passes)


def within_namespace(selection: Selection) -> Callable[[Object], bool] | None:
    """The selection's test with its namespace."""
    namespace, passes = selection.namespace, selection.passes
    if namespace is None:
        return passes

    def inside(obj: Object) -> bool:
        return obj["metadata"].get("namespace") == namespace and (passes is None or passes(obj))

    return inside


def read_page(registry: Registry, target: Target, request: Request) -> Page:
    """One page of a list.

    Raises:
        ApiFailure: 400 for what cannot be read, 410 for a token too old, 504 for a revision ahead.
    """
    selection = selection_of(target, request)
    limit = _whole(request.query.get("limit", "0"), "limit")
    token = request.query.get("continue", "")
    store, plural = registry.store, target.resource.plural
    if token:
        revision, start = _read_token(token)
        try:
            records = store.at_revision(plural, revision)
        except Compacted as error:
            fresh = _write_token(store.revision, start)
            raise failures.expired(
                "The provided continue parameter is too old to display a consistent list result. "
                "Start a new list without it, or go on inconsistently with the token given here.",
                next_token=fresh,
            ) from error
        records = records[bisect.bisect_left(records, start, key=lambda one: one.key) :]
        candidates = _in_namespace(records, selection)
    else:
        revision = _revision_asked(registry, plural, request)
        if revision == store.revision:
            candidates = _candidates(registry, plural, selection)
        else:
            candidates = _in_namespace(store.at_revision(plural, revision), selection)
    return _cut(registry, plural, candidates, selection=selection, limit=limit, revision=revision)


def _cut(
    registry: Registry,
    plural: str,
    candidates: list[Record],
    *,
    selection: Selection,
    limit: int,
    revision: int,
) -> Page:
    passes = selection.passes
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    chosen = candidates if passes is None else [one for one in candidates if passes(one.object)]
    if limit and len(chosen) > limit:
        if revision == registry.store.revision:
            registry.store.snapshot(plural)
        last = chosen[limit - 1].key
        metadata["continue"] = _write_token(revision, (last[0], last[1] + "\0"))
        if passes is None:
            metadata["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    return Page(chosen, metadata)


def _candidates(registry: Registry, plural: str, selection: Selection) -> list[Record]:
    """The records that can match, by the narrowest index."""
    collection = registry.collection(plural)
    node = selection.value_of("spec.nodeName")
    about = selection.value_of("involvedObject.uid")
    name = selection.value_of("metadata.name")
    if plural == "pods" and node:
        return _in_namespace(collection.by_index("node", node), selection)
    if plural == "events" and about:
        return _in_namespace(collection.by_index("involved", about), selection)
    if name and (selection.namespace is not None or not _namespaced(plural)):
        record = collection.records.get((selection.namespace or "", name))
        return [record] if record else []
    if selection.namespace is not None:
        return collection.by_index("namespace", selection.namespace)
    return collection.in_order()


def _namespaced(plural: str) -> bool:
    return plural not in ("nodes", "namespaces")


def _in_namespace(records: list[Record], selection: Selection) -> list[Record]:
    if selection.namespace is None:
        return records
    return [one for one in records if one.key[0] == selection.namespace]


def _revision_asked(registry: Registry, plural: str, request: Request) -> int:
    asked = _whole(request.query.get("resourceVersion", "") or "0", "resourceVersion")
    match = request.query.get("resourceVersionMatch", "")
    current = registry.store.revision
    if match not in ("", "Exact", "NotOlderThan"):
        raise failures.bad_request(f"resourceVersionMatch: {match!r} is not supported")
    if match and not request.query.get("resourceVersion"):
        raise failures.bad_request("resourceVersionMatch is forbidden without resourceVersion")
    if asked > current:
        raise failures.revision_ahead(asked, current)
    if match != "Exact" or asked == current:
        return current
    try:
        registry.store.at_revision(plural, asked)
    except Compacted as error:
        raise failures.expired(f"The resourceVersion {asked} is too old.") from error
    return asked


def watch_start(registry: Registry, request: Request) -> int | None:
    """The revision after which a watch begins; None: with the present objects.

    Raises:
        ApiFailure: 400 for no number, 504 for a revision ahead of the store.
    """
    text = request.query.get("resourceVersion", "")
    revision = _whole(text or "0", "resourceVersion")
    if revision > registry.store.revision:
        raise failures.revision_ahead(revision, registry.store.revision)
    return revision or None


def _whole(text: str, called: str) -> int:
    try:
        value = int(text or "0")
    except ValueError as error:
        raise failures.bad_request(f"{called}: {text!r} is not a number") from error
    if value < 0:
        raise failures.bad_request(f"{called}: {text!r} is negative")
    return value


def _write_token(revision: int, start: Key) -> str:
    raw = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": list(start)})
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read_token(token: str) -> tuple[int, Key]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        found = msgspec.json.decode(raw)
        namespace, name = found["start"]
        return int(found["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError, msgspec.DecodeError) as error:
        raise failures.bad_request("continue key is not valid") from error
