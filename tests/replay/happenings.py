"""What happens on the site: faults that are found or are not, and noise that must accuse nobody.

Each takes its own way on the schedule: it breaks something, the job on it suffers, after a while it is
repaired, and the node comes back. Two things never happen to one node at the same time, and none where a
sticky finding was left: what is found must have one cause.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.replay.breaking import Breaking
from tests.replay.mix import Planned
from tests.replay.noise import NoiseMaking


class Happenings(Breaking, NoiseMaking):
    """Plays what was planned. `faults` and `noises` tell what came of it."""

    def plan(self, planned: Sequence[Planned]) -> None:
        """Put everything on the schedule."""
        for one in planned:
            if one.variant is None:
                self.site.after(one.at, lambda one=one: self._make_noise(one))  # type: ignore[misc]
            else:
                self.site.after(one.at, lambda one=one: self._break(one))  # type: ignore[misc]
