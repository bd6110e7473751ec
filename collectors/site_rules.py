"""What a site sets about the rules: a TOML file named in PITWALL_RULES, checked when it is read.

[rules.temperature-margin-low]
margin_celsius = 8        # the limit of a condition, by its knob's name
severity = "critical"
hold_seconds = 60
keep_firing_seconds = 120

[rules.persistence-off]
enabled = false
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from collectors.conditions import Condition, Field
from collectors.errors import RulesError
from collectors.health import BUILT_IN, RULES, RuleSet
from collectors.rule import SEVERITY_RANK, Rule

LONGEST_SECONDS = 7 * 86_400.0
"""Hold times above a week are taken for a mistake."""


@dataclass(frozen=True)
class _Field:
    """A field that every rule's entry may set: what it must be, and whether a value is that."""

    must_be: str
    is_valid: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_SECONDS = _Field(
    "seconds from 0 to a week", lambda value: _is_number(value) and 0 <= value <= LONGEST_SECONDS
)
_LIMIT = _Field("a finite number", _is_number)

FIELDS: Mapping[str, _Field] = {
    "enabled": _Field("true or false", lambda value: isinstance(value, bool)),
    "severity": _Field(
        "one of " + ", ".join(SEVERITY_RANK),
        lambda value: isinstance(value, str) and value in SEVERITY_RANK,
    ),
    "hold_seconds": _SECONDS,
    "keep_firing_seconds": _SECONDS,
}


def load_rules(path: Path | None) -> RuleSet:
    """Return the rules as the site's file has them, the built-in ones without a file.

    Raises RulesError naming the file, the entry and the field that cannot be used.
    """
    if path is None:
        return BUILT_IN
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RulesError(
            f"{path} cannot be read: {error.strerror or error}; check PITWALL_RULES"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesError(f"{path} is not TOML: {error}") from error
    try:
        return apply_settings(document)
    except RulesError as error:
        raise RulesError(f"{path}: {error}") from error


def apply_settings(document: Mapping[str, Any]) -> RuleSet:
    """Return the rules with a site's settings. Raises RulesError naming entry and field."""
    for section in document:
        if section != "rules":
            raise RulesError(f"section [{section}] is not known; there is [rules.NAME]")
    entries = document.get("rules", {})
    if not isinstance(entries, Mapping):
        raise RulesError("rules must be tables: [rules.NAME]")
    by_name = {rule.name: rule for rule in RULES}
    for name, settings in entries.items():
        if name not in by_name:
            raise RulesError(
                f"[rules.{name}] names no rule; there are {', '.join(sorted(by_name))}"
            )
        if not isinstance(settings, Mapping):
            raise RulesError(f"[rules.{name}] must be a table of fields")

    def adapt(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(
            _adapt(rule, entries.get(rule.name, {}))
            for rule in rules
            if entries.get(rule.name, {}).get("enabled", True) is not False
        )

    return RuleSet(
        gpu=adapt(BUILT_IN.gpu),
        node=adapt(BUILT_IN.node),
        port=adapt(BUILT_IN.port),
        kubernetes=adapt(BUILT_IN.kubernetes),
        training=adapt(BUILT_IN.training),
    )


def _adapt(rule: Rule, settings: Mapping[str, Any]) -> Rule:
    knobs = {condition.knob for condition in rule.conditions if condition.knob}
    for name, value in settings.items():
        field = FIELDS.get(name) or (_LIMIT if name in knobs else None)
        if field is None:
            known = ", ".join([*FIELDS, *sorted(knobs)])
            raise RulesError(f"[rules.{rule.name}] has no field {name}; it has {known}")
        if not field.is_valid(value):
            raise RulesError(f"[rules.{rule.name}] {name} must be {field.must_be}, it is {value!r}")
    if not settings:
        return rule
    return replace(
        rule,
        severity=settings.get("severity", rule.severity),
        hold_seconds=float(settings.get("hold_seconds", rule.hold_seconds)),
        keep_firing_seconds=float(settings.get("keep_firing_seconds", rule.keep_firing_seconds)),
        conditions=tuple(_set(condition, settings) for condition in rule.conditions),
    )


def _set(condition: Condition, settings: Mapping[str, Any]) -> Condition:
    if condition.knob is None or condition.knob not in settings:
        return condition
    value = settings[condition.knob]
    limit = condition.limit
    if isinstance(limit, Field):
        return replace(condition, limit=replace(limit, factor=float(value)))
    return replace(condition, limit=value)
