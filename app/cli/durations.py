"""Durations as people write and read them: "90", "90s", "15m", "1h30m", "2d"; ages such as "3m"."""

import re
from datetime import datetime

from app.cli.outcome import BadUse

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WRITTEN = re.compile(r"(?:\d+[dhms])+")
_PART = re.compile(r"(\d+)([dhms])")


def read_duration(text: str, *, option: str) -> float:
    """Seconds of a written duration. A bare number is seconds. Raises BadUse that names `option`."""
    if text.isdecimal():
        return float(text)
    if _WRITTEN.fullmatch(text):
        return float(sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
    raise BadUse(
        f"{option} {text!r} is no duration; write it as seconds or as 90s, 15m, 2h, 1h30m, 1d."
    )


def write_duration(seconds: float) -> str:
    """The largest fitting unit, or two below ten of it: 45s, 3m, 1h20m, 14h, 2d."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    if whole < 7_200:
        return f"{whole // 60}m"
    if whole < 36_000:
        hours, rest = divmod(whole, 3_600)
        return f"{hours}h{rest // 60}m" if rest >= 60 else f"{hours}h"
    if whole < 172_800:
        return f"{whole // 3_600}h"
    return f"{whole // 86_400}d"


def write_age(at: datetime | None, *, now: datetime) -> str:
    """How long ago `at` was; "-" when that is not known."""
    return "-" if at is None else write_duration((now - at).total_seconds())
