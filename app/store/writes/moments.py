"""Times that a node tells, kept within reason."""

from datetime import datetime, timedelta

OLDEST_TOLD = timedelta(days=400)
"""A kernel log may speak of a boot long ago; what is older is a clock that was not set yet."""


def sane_time(told: datetime, observed_at: datetime) -> datetime:
    """`told`, or the report's own time where it lies after it or beyond reason before it."""
    if told > observed_at or observed_at - told > OLDEST_TOLD:
        return observed_at
    return told
