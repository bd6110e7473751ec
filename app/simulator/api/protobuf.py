"""The few request bodies that kubectl's typed clients send as protobuf, read into plain objects.

Since 1.32 client-go writes built-in kinds as protobuf: evictions of `kubectl drain`, token
requests, reviews of one's own access. Answers stay JSON, which those clients accept. Field
numbers are those of the API's generated.proto files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.simulator.api import failures
from app.simulator.clock import as_rfc3339

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"


@dataclass(frozen=True)
class _Field:
    name: str
    read: Callable[[Any], Any]
    repeated: bool = False
    is_map: bool = False


_Message = Mapping[int, _Field]


def _text(raw: Any) -> str:
    return bytes(raw).decode()


def _whole(raw: Any) -> int:
    value = int(raw)
    return value - 2**64 if value >= 2**63 else value


def _message(fields: _Message) -> Callable[[Any], Any]:
    return lambda raw: _read(bytes(raw), fields)


def _time(raw: Any) -> str:
    found = _read(bytes(raw), {1: _Field("seconds", _whole)})
    return as_rfc3339(datetime.fromtimestamp(found.get("seconds", 0), UTC))


def _texts(*names: str) -> dict[int, _Field]:
    return {at: _Field(name, _text) for at, name in enumerate(names, start=1)}


_ENTRY: _Message = {1: _Field("key", _text), 2: _Field("value", _text)}
_OWNER: _Message = {
    1: _Field("kind", _text),
    3: _Field("name", _text),
    4: _Field("uid", _text),
    5: _Field("apiVersion", _text),
    6: _Field("controller", bool),
    7: _Field("blockOwnerDeletion", bool),
}
_META: _Message = {
    1: _Field("name", _text),
    2: _Field("generateName", _text),
    3: _Field("namespace", _text),
    5: _Field("uid", _text),
    6: _Field("resourceVersion", _text),
    7: _Field("generation", _whole),
    8: _Field("creationTimestamp", _time),
    9: _Field("deletionTimestamp", _time),
    11: _Field("labels", _message(_ENTRY), is_map=True),
    12: _Field("annotations", _message(_ENTRY), is_map=True),
    13: _Field("ownerReferences", _message(_OWNER), repeated=True),
    14: _Field("finalizers", _text, repeated=True),
}
_DELETE_OPTIONS: _Message = {
    1: _Field("gracePeriodSeconds", _whole),
    2: _Field("preconditions", _message(_texts("uid", "resourceVersion"))),
    3: _Field("orphanDependents", bool),
    4: _Field("propagationPolicy", _text),
    5: _Field("dryRun", _text, repeated=True),
}
_TOKEN_SPEC: _Message = {
    1: _Field("audiences", _text, repeated=True),
    3: _Field("boundObjectRef", _message(_texts("kind", "apiVersion", "name", "uid"))),
    4: _Field("expirationSeconds", _whole),
}
_ATTRIBUTES = _texts("namespace", "verb", "group", "version", "resource", "subresource", "name")
_ACCESS_SPEC: _Message = {
    1: _Field("resourceAttributes", _message(_ATTRIBUTES)),
    2: _Field("nonResourceAttributes", _message(_texts("path", "verb"))),
    3: _Field("user", _text),
    4: _Field("groups", _text, repeated=True),
    6: _Field("uid", _text),
}
_REVIEW_SPEC: _Message = {
    1: _Field("token", _text),
    2: _Field("audiences", _text, repeated=True),
}


def _with_spec(spec: _Message) -> _Message:
    return {1: _Field("metadata", _message(_META)), 2: _Field("spec", _message(spec))}


_KINDS: Mapping[str, _Message] = {
    "Eviction": {
        1: _Field("metadata", _message(_META)),
        2: _Field("deleteOptions", _message(_DELETE_OPTIONS)),
    },
    "DeleteOptions": _DELETE_OPTIONS,
    "TokenRequest": _with_spec(_TOKEN_SPEC),
    "TokenReview": _with_spec(_REVIEW_SPEC),
    "SubjectAccessReview": _with_spec(_ACCESS_SPEC),
    "SelfSubjectAccessReview": _with_spec(_ACCESS_SPEC),
    "SelfSubjectReview": {1: _Field("metadata", _message(_META))},
}


def decode_body(body: bytes) -> dict[str, Any]:
    """The object of a protobuf body. Raises ApiFailure 400, or 415 for a kind not read here."""
    if not body.startswith(_MAGIC):
        raise failures.bad_request("the body does not begin as Kubernetes' protobuf does")
    envelope: _Message = {
        1: _Field("type", _message(_texts("apiVersion", "kind"))),
        2: _Field("raw", bytes),
    }
    try:
        outer = _read(body[len(_MAGIC) :], envelope)
        kind = outer.get("type", {}).get("kind", "")
        if kind not in _KINDS:
            raise failures.unsupported_media_type(
                f"the simulator reads {kind or 'this kind'} as application/json only"
            )
        return {**outer["type"], **_read(outer.get("raw", b""), _KINDS[kind])}
    except (IndexError, ValueError) as error:
        raise failures.bad_request(f"the protobuf body cannot be read: {error}") from error


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at


def _read(raw: bytes, fields: _Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        value: Any
        match tag & 7:
            case 0:
                value, at = _varint(raw, at)
            case 2:
                length, at = _varint(raw, at)
                if at + length > len(raw):
                    raise ValueError("a field is cut short")
                value, at = raw[at : at + length], at + length
            case 1:
                value, at = raw[at : at + 8], at + 8
            case 5:
                value, at = raw[at : at + 4], at + 4
            case other:
                raise ValueError(f"wire type {other}")
        field = fields.get(tag >> 3)
        if field is None:
            continue
        if field.is_map:
            entry = field.read(value)
            found.setdefault(field.name, {})[entry.get("key", "")] = entry.get("value", "")
        elif field.repeated:
            found.setdefault(field.name, []).append(field.read(value))
        elif value not in (b"", 0) or field.name in ("gracePeriodSeconds", "orphanDependents"):
            # gogo-protobuf writes empty texts for fields that the JSON form leaves out.
            found[field.name] = field.read(value)
    return found
