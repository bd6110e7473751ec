"""Which silences hide an alert now; they expire by themselves and hide nothing from the counts. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from app.alerts.model import Matcher, match_all


@dataclass(frozen=True)
class ActiveSilence:
    """A silence or maintenance window as far as deciding goes. One without matchers hides nothing."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    ended_by: str | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is in force."""
        return self.ended_by is None and self.starts_at <= now < self.ends_at


def silencers(
    labels: Mapping[str, str], silences: Iterable[ActiveSilence], now: datetime
) -> tuple[str, ...]:
    """Ids of the silences that hide it, sorted."""
    return tuple(
        sorted(
            one.id
            for one in silences
            if one.holds(now) and one.matchers and match_all(one.matchers, labels)
        )
    )
