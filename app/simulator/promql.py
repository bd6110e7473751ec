"""The part of PromQL that the Prometheus face reads: selectors, timestamp(), max by (), numbers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.simulator.errors import SimulatorError


class QueryInvalid(SimulatorError):
    """A query that is not read here; the text goes out as Prometheus' bad_data."""


@dataclass(frozen=True)
class Matcher:
    """One label matcher: =, !=, =~ or !~."""

    label: str
    operator: str
    value: str

    def holds(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.label, "")
        match self.operator:
            case "=":
                return found == self.value
            case "!=":
                return found != self.value
            case "=~":
                return re.fullmatch(self.value, found) is not None
            case _:
                return re.fullmatch(self.value, found) is None


@dataclass(frozen=True)
class Selector:
    """Matchers that all must hold; __name__ is a label like the others."""

    matchers: tuple[Matcher, ...]

    def holds(self, labels: Mapping[str, str]) -> bool:
        return all(one.holds(labels) for one in self.matchers)

    def name(self) -> str | None:
        """The metric's name where it is demanded outright."""
        for one in self.matchers:
            if one.label == "__name__" and one.operator == "=":
                return one.value
        return None


_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SELECTOR = re.compile(rf"^\s*(?P<name>{_NAME})?\s*(?:\{{(?P<matchers>.*)\}})?\s*$", re.DOTALL)
_MATCHER = re.compile(
    r"\s*(?P<label>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*(?:,|$)"
)


@dataclass(frozen=True)
class Timestamp:
    """The function timestamp over a selector: when each sample was scraped."""

    of: Selector


@dataclass(frozen=True)
class Greatest:
    """max by (labels): the greatest of the series that agree in these labels."""

    by: tuple[str, ...]
    of: Selector | Timestamp


_TIMESTAMP = re.compile(r"^\s*timestamp\s*\((?P<selector>.*)\)\s*$", re.DOTALL)
_GREATEST = re.compile(r"^\s*max\s+by\s*\((?P<labels>[\w\s,]*)\)\s*\((?P<of>.*)\)\s*$", re.DOTALL)


def parse_query(text: str) -> Selector | Timestamp | Greatest | float:
    """Read a query. Raises QueryInvalid for what is not a selector, timestamp() of one, max by () of
    these, or a number."""
    try:
        return float(text)
    except ValueError:
        pass
    greatest = _GREATEST.match(text)
    if greatest is None:
        return _parse_vector(text)
    labels = tuple(name.strip() for name in greatest["labels"].split(",") if name.strip())
    return Greatest(labels, _parse_vector(greatest["of"]))


def _parse_vector(text: str) -> Selector | Timestamp:
    function = _TIMESTAMP.match(text)
    return Timestamp(parse_selector(function["selector"])) if function else parse_selector(text)


def parse_selector(text: str) -> Selector:
    """Read a selector. Raises QueryInvalid."""
    match = _SELECTOR.match(text)
    if match is None or (match["name"] is None and match["matchers"] is None):
        raise QueryInvalid(
            f'invalid parameter "query": the simulator reads selectors like '
            f'NAME{{label="value"}} and numbers only, not {text!r}'
        )
    matchers = []
    if match["name"]:
        matchers.append(Matcher("__name__", "=", match["name"]))
    rest = match["matchers"] or ""
    at = 0
    while rest[at:].strip():
        one = _MATCHER.match(rest, at)
        if one is None:
            raise QueryInvalid(f'invalid parameter "query": cannot read {rest[at:]!r}')
        at = one.end()
        value = re.sub(r"\\(.)", r"\1", one["value"][1:-1])
        if "~" in one["operator"]:
            try:
                re.compile(value)
            except re.error as error:
                raise QueryInvalid(f'invalid parameter "query": {value!r}: {error}') from error
        matchers.append(Matcher(one["label"], one["operator"], value))
    if all(one.operator in ("!=", "!~") or one.value == "" for one in matchers):
        raise QueryInvalid(
            'invalid parameter "query": a selector must contain at least one non-empty matcher'
        )
    return Selector(tuple(matchers))
