"""What a rule is: one frozen entry, from the condition to the words and the action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from collectors.conditions import Condition, Read, judge_all
from collectors.report import Severity

Scope = Literal["gpu", "node", "port", "condition", "job"]

SEVERITY_RANK: Mapping[str, int] = {
    "info": 0,
    "advice": 1,
    "warning": 2,
    "critical": 3,
    "fatal": 4,
}


@dataclass(frozen=True)
class Rule:
    """One kind of fault. All conditions must hold for `hold_seconds` before it opens; it
    closes when one has not held for `keep_firing_seconds`, or never by itself when `sticky`.

    `message` is a template over the row's fields. `source` says where the threshold is from.
    `fires` and `quiet` are rows of which the first must open it and the second must not.
    """

    name: str
    scope: Scope
    severity: Severity
    conditions: tuple[Condition, ...]
    message: str
    action: str
    source: str
    fires: Mapping[str, Any]
    quiet: Mapping[str, Any]
    changes_health: bool = True
    hold_seconds: float = 0.0
    keep_firing_seconds: float = 0.0
    sticky: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """The fields that its conditions read."""
        return frozenset(name for condition in self.conditions for name in condition.fields)

    def judge(self, read: Read) -> tuple[Any, Any]:
        """Return (known to hold, known not to hold) for a row or, element by element, columns."""
        return judge_all(self.conditions, read)

    def test(self, read: Read) -> bool | None:
        """Return for one row whether it holds, None when that cannot be known."""
        held, refuted = self.judge(read)
        if held:
            return True
        return False if refuted else None


def describe(rule: Rule, read: Read) -> str:
    """Return the rule's message filled in from the row; an unknown field shows as "?"."""
    return rule.message.format_map(_Shown(read))


class _Shown(dict[str, Any]):
    def __init__(self, read: Read) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, key: str) -> Any:
        value = self._read(key)
        if isinstance(value, tuple):
            return ", ".join(str(part) for part in value) or "none known"
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return "?" if value is None else value
