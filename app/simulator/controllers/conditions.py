"""Conditions in an object's status."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.simulator.clock import as_rfc3339

Object = dict[str, Any]


def find_condition(status: Mapping[str, Any] | None, type_: str) -> Object | None:
    for condition in (status or {}).get("conditions") or ():
        if condition["type"] == type_:
            return dict(condition)
    return None


def condition_is(status: Mapping[str, Any] | None, type_: str, value: str = "True") -> bool:
    found = find_condition(status, type_)
    return found is not None and found["status"] == value


def put_condition(
    status: Object,
    type_: str,
    value: str,
    *,
    now: datetime,
    reason: str | None = None,
    message: str | None = None,
) -> None:
    """Set a condition in `status`, which must be the caller's own copy.

    The transition's time moves only when the value changes.
    """
    conditions = status.setdefault("conditions", [])
    condition: Object = next((one for one in conditions if one["type"] == type_), {})
    if not condition:
        condition = {"type": type_}
        conditions.append(condition)
    if condition.get("status") != value:
        condition["lastTransitionTime"] = as_rfc3339(now)
    condition["status"] = value
    for field, text in (("reason", reason), ("message", message)):
        if text is None:
            condition.pop(field, None)
        else:
            condition[field] = text
