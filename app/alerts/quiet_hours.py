"""Hours in which what can wait is held. Pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from app.alerts.config import DAYS, QuietHours
from app.alerts.model import match_all, parse_matcher


def is_quiet(quiet: QuietHours, now: datetime) -> bool:
    """Whether these hours are on. What begins on a day and goes past midnight belongs to that day."""
    local = now.astimezone(ZoneInfo(quiet.time_zone))
    at = f"{local:%H:%M}"
    if quiet.start <= quiet.end:
        return quiet.start <= at < quiet.end and DAYS[local.weekday()] in quiet.days
    if at >= quiet.start:
        return DAYS[local.weekday()] in quiet.days
    return at < quiet.end and DAYS[(local - timedelta(days=1)).weekday()] in quiet.days


def is_held(
    labels: Mapping[str, str], receiver: str, hours: Iterable[QuietHours], now: datetime
) -> bool:
    """Whether an alert waits at this receiver until the hours are over."""
    return any(
        (not quiet.receivers or receiver in quiet.receivers)
        and match_all([parse_matcher(one) for one in quiet.match], labels)
        and is_quiet(quiet, now)
        for quiet in hours
    )
