"""The three patch formats of the Kubernetes API, as pure functions of (document, patch).

Merge keys follow the patchMergeKey tags of the API types: a list that carries none (taints and
tolerations among them) is replaced whole, on a real API server too.
"""

from typing import Any

from app.simulator.api.failures import bad_request

# Field name to merge key. A key may depend on the field around it: "parent.field" goes first.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "imagePullSecrets": "name",
    "secrets": "name",
    "resourceClaims": "name",
    "hostAliases": "ip",
    "podIPs": "ip",
    "hostIPs": "ip",
    "topologySpreadConstraints": "topologyKey",
    "conditions": "type",
    "addresses": "type",
    "ownerReferences": "uid",
    "containers.ports": "containerPort",
    "initContainers.ports": "containerPort",
    "spec.ports": "port",
}
_MERGED_SCALAR_LISTS = frozenset({"finalizers", "podCIDRs"})


def merge_patch(document: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_merge_patch(document: Any, patch: dict[str, Any]) -> Any:
    """Kubernetes' strategic merge: lists of objects merge by their key, with $-directives."""
    return _merge_map(document if isinstance(document, dict) else {}, patch, "")


def _merge_map(document: dict[str, Any], patch: dict[str, Any], around: str) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {key: _plain(value) for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    result = dict(document)
    if (retained := patch.get("$retainKeys")) is not None:
        result = {key: value for key, value in result.items() if key in retained}
    for key, value in patch.items():
        if key == "$patch" or key == "$retainKeys" or key.startswith("$setElementOrder/"):
            continue
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.split("/", 1)[1]
            result[field] = [one for one in result.get(field) or [] if one not in value]
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = _merge_map(result.get(key) or {}, value, key)
        elif isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, field=key, around=around)
        else:
            result[key] = value
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            field = key.split("/", 1)[1]
            if isinstance(result.get(field), list):
                result[field] = _in_order(result[field], order, _merge_key(field, around))
    return result


def _merge_key(field: str, around: str) -> str | None:
    return _MERGE_KEYS.get(f"{around}.{field}") or _MERGE_KEYS.get(field)


def _merge_list(document: list[Any], patch: list[Any], *, field: str, around: str) -> list[Any]:
    if field in _MERGED_SCALAR_LISTS:
        return document + [one for one in patch if one not in document]
    key = _merge_key(field, around)
    if key is None or not all(isinstance(one, dict) for one in patch):
        return _plain(patch)
    if any(one.get("$patch") == "replace" and len(one) == 1 for one in patch):
        return [_plain(one) for one in patch if one.get("$patch") != "replace"]
    result = list(document)
    for one in patch:
        if key not in one:
            raise bad_request(f"map: {one} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(result) if old.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_merge_map({}, one, field))
        else:
            result[at] = _merge_map(result[at], one, field)
    return result


def _in_order(values: list[Any], order: list[Any], key: str | None) -> list[Any]:
    def place(value: Any) -> Any:
        return value.get(key) if key and isinstance(value, dict) else value

    wanted = [place(one) for one in order]
    listed = [one for one in values if place(one) in wanted]
    listed.sort(key=lambda one: wanted.index(place(one)))
    return listed + [one for one in values if place(one) not in wanted]


def _plain(value: Any) -> Any:
    """A patch's own value without directives and nulls."""
    if isinstance(value, dict):
        return {
            key: _plain(one)
            for key, one in value.items()
            if one is not None and not key.startswith("$")
        }
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902.

    Raises:
        ApiFailure: 400 for a malformed patch, 422 where it does not fit the document.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is an array of operations")
    result = document
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise bad_request(f"not an operation of a JSON patch: {operation}")
        result = _apply_operation(result, operation)
    return result


def _apply_operation(document: Any, operation: dict[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _set(document, path, operation.get("value"), insert=True)
        case "replace":
            _get(document, path)
            return _set(document, path, operation.get("value"), insert=False)
        case "remove":
            return _remove(document, path)
        case "test":
            if _get(document, path) != operation.get("value"):
                raise PatchMismatch(f"testing value {operation['path']} failed")
            return document
        case "move":
            source = _pointer(operation.get("from", ""))
            value = _get(document, source)
            return _set(_remove(document, source), path, value, insert=True)
        case "copy":
            return _set(document, path, _get(document, _pointer(operation["from"])), insert=True)
        case other:
            raise bad_request(f"unexpected kind of operation in a JSON patch: {other}")


class PatchMismatch(Exception):
    """The patch is well formed and does not fit this document."""


def _pointer(text: str) -> list[str]:
    if text == "":
        return []
    if not text.startswith("/"):
        raise bad_request(f"not a JSON pointer: {text!r}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/")]


def _position(values: list[Any], part: str, *, end_allowed: bool) -> int:
    if part == "-" and end_allowed:
        return len(values)
    if not part.isdigit() or int(part) > len(values) - (0 if end_allowed else 1):
        raise PatchMismatch(f"no position {part} in an array of {len(values)}")
    return int(part)


def _get(document: Any, path: list[str]) -> Any:
    value = document
    for part in path:
        if isinstance(value, list):
            value = value[_position(value, part, end_allowed=False)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise PatchMismatch(f"the path /{'/'.join(path)} does not exist")
    return value


def _set(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(document, list):
        at = _position(document, part, end_allowed=insert and not rest)
        if rest:
            changed = _set(document[at], rest, value, insert=insert)
            return [*document[:at], changed, *document[at + 1 :]]
        return [*document[:at], value, *document[at + (0 if insert else 1) :]]
    if not isinstance(document, dict) or (rest and part not in document):
        raise PatchMismatch(f"there is nothing at {part} to hold the value")
    return {**document, part: _set(document[part], rest, value, insert=insert) if rest else value}


def _remove(document: Any, path: list[str]) -> Any:
    _get(document, path)
    if not path:
        return None
    part, rest = path[0], path[1:]
    if isinstance(document, list):
        at = _position(document, part, end_allowed=False)
        kept = [_remove(document[at], rest)] if rest else []
        return [*document[:at], *kept, *document[at + 1 :]]
    if rest:
        return {**document, part: _remove(document[part], rest)}
    return {key: value for key, value in document.items() if key != part}
