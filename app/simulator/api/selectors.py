"""Label and field selectors, from their text to a test of an object."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from app.simulator.api.failures import bad_request

Object = dict[str, Any]


@dataclass(frozen=True)
class Requirement:
    """One term of a selector: a key, an operator of {in, notin, exists, missing}, values."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, value: str | None) -> bool:
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case _:
                return value is None


_SET = re.compile(r"^\s*(?P<key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(
    r"^\s*(?P<key>[^\s!=,()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s!=,()]*)\s*$"
)
_EXISTS = re.compile(r"^\s*(?P<no>!?)\s*(?P<key>[^\s!=,()]+)\s*$")


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Parse a labelSelector. Raises ApiFailure 400."""
    found = []
    for term in re.split(r",(?![^()]*\))", text):
        if not term.strip():
            continue
        if match := _SET.match(term):
            values = frozenset(value.strip() for value in match["values"].split(","))
            found.append(Requirement(match["key"], match["operator"], values))
        elif match := _EQUAL.match(term):
            operator = "notin" if match["operator"] == "!=" else "in"
            found.append(Requirement(match["key"], operator, frozenset([match["value"]])))
        elif match := _EXISTS.match(term):
            found.append(Requirement(match["key"], "missing" if match["no"] else "exists"))
        else:
            raise bad_request(f'unable to parse requirement: "{term.strip()}"')
    return tuple(found)


def labels_match(requirements: tuple[Requirement, ...], labels: Mapping[str, str] | None) -> bool:
    found = labels or {}
    return all(one.holds(found.get(one.key)) for one in requirements)


def parse_label_selector(selector: Mapping[str, Any] | None) -> tuple[Requirement, ...] | None:
    """A metav1.LabelSelector as requirements; None selects nothing, {} everything."""
    if selector is None:
        return None
    found = [
        Requirement(key, "in", frozenset([value]))
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "missing"}
    for term in selector.get("matchExpressions") or ():
        operator = operators.get(term.get("operator", ""))
        if operator is None:
            raise bad_request(f"{term.get('operator')!r} is not a valid label selector operator")
        found.append(Requirement(term["key"], operator, frozenset(term.get("values") or ())))
    return tuple(found)


@dataclass(frozen=True)
class FieldTerm:
    """One term of a field selector, over a field that the kind can be selected by."""

    name: str
    equal: bool
    value: str


def parse_fields(text: str, allowed: Mapping[str, tuple[str, ...]]) -> tuple[FieldTerm, ...]:
    """Parse a fieldSelector over the fields in `allowed` (name to path). Raises ApiFailure 400."""
    found = []
    for term in text.split(","):
        if not term.strip():
            continue
        match = _EQUAL.match(term)
        if match is None:
            raise bad_request(f"invalid field selector: {term!r}")
        if match["key"] not in allowed:
            raise bad_request(f"field label not supported: {match['key']}")
        found.append(FieldTerm(match["key"], match["operator"] != "!=", match["value"]))
    return tuple(found)


def field_text(obj: Object, path: tuple[str, ...]) -> str:
    """A field as selectors compare it: text, booleans as true/false, absent as ""."""
    value: Any = obj
    for part in path:
        if not isinstance(value, dict):
            return ""
        value = value.get(part)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def selector_test(
    labels: tuple[Requirement, ...],
    fields: tuple[FieldTerm, ...],
    paths: Mapping[str, tuple[str, ...]],
    boolean_fields: frozenset[str] = frozenset(),
) -> Callable[[Object], bool] | None:
    """A test of an object, or None when everything passes."""
    if not labels and not fields:
        return None

    def passes(obj: Object) -> bool:
        if labels and not labels_match(labels, obj["metadata"].get("labels")):
            return False
        for term in fields:
            text = field_text(obj, paths[term.name])
            if not text and term.name in boolean_fields:
                text = "false"
            if (text == term.value) != term.equal:
                return False
        return True

    return passes
