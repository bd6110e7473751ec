"""Conditions over named fields: one implementation for one row and for whole columns.

A value is a plain number, or anything that compares element by element and combines with &, |
and ^ (an array). So the agent, which has no numpy (it would be half of its memory), and what
judges a whole cluster run the same lines. What is not known is None, or NaN within a column.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Read = Callable[[str], Any]
"""Returns the value or the column of a field, None when nothing is known of it."""


@dataclass(frozen=True)
class Field:
    """Another field of the same row, times `factor`, as the right-hand side of a condition."""

    name: str
    factor: float = 1.0


def _has_bit(value: Any, bit: Any) -> Any:
    # By division, as a column that holds NaN is one of floats and knows no &.
    return (value // bit) % 2 == 1


COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "has bit": _has_bit,
}


@dataclass(frozen=True)
class Condition:
    """`field comparison limit`. `absent` stands in for None where None has a meaning.

    A condition with a `knob` has a limit that a site may set under this name (collectors/
    site_rules.py); the name carries the unit.
    """

    field: str
    comparison: str
    limit: float | bool | Field
    absent: float | None = None
    knob: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that it reads."""
        limit = self.limit
        return (self.field, limit.name) if isinstance(limit, Field) else (self.field,)

    def judge(self, read: Read) -> tuple[Any, Any]:
        """Return (known to hold, known not to hold); both are False where a value is unknown."""
        value = read(self.field)
        if value is None:
            value = self.absent
        limit: Any = self.limit
        if isinstance(limit, Field):
            other = read(limit.name)
            limit = None if other is None else other * limit.factor
        if value is None or limit is None:
            return False, False
        held = COMPARISONS[self.comparison](value, limit)
        if held is True or held is False:
            # NaN in a row is as unknown as None.
            known = value == value and limit == limit
            return held and known, known and not held
        known = (value == value) & (limit == limit)
        return held & known, known & (held ^ True)


def judge_all(conditions: Iterable[Condition], read: Read) -> tuple[Any, Any]:
    """Return (all are known to hold, one is known not to hold), as `Condition.judge` does.

    One that is known not to hold decides, whatever is unknown beside it.
    """
    held: Any = True
    refuted: Any = False
    for condition in conditions:
        holds, fails = condition.judge(read)
        if fails is True:
            return False, True
        held = held & holds
        refuted = refuted | fails
    return held, refuted
