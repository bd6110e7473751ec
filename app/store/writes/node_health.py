"""The health of a node out of all that is known of it: its own reports, and what other sources find. Pure."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from collectors.health import SEVERITY_RANK

RANK = {"Healthy": 0, "Degraded": 1, "Unknown": 2, "Failing": 3}
"""From well to broken: what is known to fail is worse than what nobody sees."""

SCORES = {"Healthy": 0, "Degraded": 100, "Unknown": 200, "Failing": 300}
FATAL_SCORE = 400
MOST_FINDINGS = 99


class Beside(NamedTuple):
    """An open finding that changes a node's health and is not of the node's own reports."""

    severity: str
    message: str
    opened_at: datetime | Any  # as the driver gives it; only compared


def combine_health(
    reported: str | None, reported_reason: str | None, beside: Iterable[Beside]
) -> tuple[str, str]:
    """The health of a node and why: the worse of what it reports and of what others find.

    `reported` is None while it has never reported: Unknown, whatever nobody else finds.
    """
    health, reason = reported or "Unknown", reported_reason or "no report yet"
    counted = [one for one in beside if SEVERITY_RANK[one.severity] >= SEVERITY_RANK["warning"]]
    if not counted:
        return health, reason
    worst = min(counted, key=lambda one: (-SEVERITY_RANK[one.severity], one.opened_at, one.message))
    found = "Failing" if SEVERITY_RANK[worst.severity] >= SEVERITY_RANK["critical"] else "Degraded"
    if RANK[found] <= RANK[health]:
        return health, reason
    more = f" (and {len(counted) - 1} more)" if len(counted) > 1 else ""
    return found, f"{worst.message}{more}"


def score(health: str, severities: Iterable[str] = ()) -> int:
    """How bad a node is: its health first, a fatal finding above all, then how many findings change it.

    `severities`: of the open findings that change its health.
    """
    counted = [one for one in severities if SEVERITY_RANK[one] >= SEVERITY_RANK["warning"]]
    base = SCORES[health]
    if health == "Failing" and "fatal" in counted:
        base = FATAL_SCORE
    return base + min(len(counted), MOST_FINDINGS)
