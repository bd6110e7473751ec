"""The rules of GPUs over the columns of a whole cluster: the same hold and keep times as on a node.

For sources that are read centrally (dcgm-exporter through Prometheus). A column is an array of
floats in the order of `keys`, NaN where nothing is known; a field without a column is unknown
for all. Needs numpy, which the agent does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.health import GPU_RULES
from collectors.rule import Rule

Column = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Change:
    """A rule that opened or closed on the GPU `key`; `since_seconds` is when it began to hold."""

    rule: Rule
    key: str
    opened: bool
    since_seconds: float


@dataclass
class _State:
    """One rule's: since when it holds (NaN where it does not), when it last held, where open."""

    since: Column
    last_true: Column
    open: Mask


class ColumnJudge:
    """Keeps which rules are open on which GPUs from one poll of the cluster to the next.

    Not for two threads. Times are seconds of any one clock.
    """

    def __init__(self, rules: tuple[Rule, ...] = GPU_RULES) -> None:
        self._rules = rules
        self._keys: tuple[str, ...] = ()
        self._states: dict[str, _State] = {}

    def step(
        self, keys: Sequence[str], columns: Mapping[str, Any], *, at_seconds: float
    ) -> list[Change]:
        """Return what opened and what closed with this poll.

        What is not known neither opens nor closes. A GPU that is no longer among the keys is
        forgotten, its open rules with it: that it is missing is another rule's to say.
        """
        self.keep(keys)
        changes: list[Change] = []
        for rule in self._rules:
            held, refuted = rule.judge(columns.get)
            if held is False and refuted is False:
                continue
            state = self._states[rule.name]
            changes += self._apply(
                rule, state, self._spread(held), self._spread(refuted), at=at_seconds
            )
        return changes

    def open_keys(self, name: str) -> list[str]:
        """Return the GPUs on which a rule is open."""
        return [self._keys[place] for place in np.flatnonzero(self._states[name].open)]

    def adopt(self, opened: Iterable[tuple[str, str, float]], *, at_seconds: float) -> None:
        """Take as open (rule, GPU, since) what was so before a restart, of GPUs among the keys.

        What then is known not to hold closes as if it had held until now.
        """
        place_of = {key: place for place, key in enumerate(self._keys)}
        for name, key, since_seconds in opened:
            state, place = self._states.get(name), place_of.get(key)
            if state is not None and place is not None:
                state.open[place] = True
                state.since[place], state.last_true[place] = since_seconds, at_seconds

    def close(self, closed: Iterable[tuple[str, str]]) -> None:
        """Take (rule, GPU) as closed, as a person said. A fault still there opens anew."""
        places = {key: place for place, key in enumerate(self._keys)}
        for name, key in closed:
            if name in self._states and key in places:
                self._states[name].open[places[key]] = False
                self._states[name].since[places[key]] = np.nan

    def _apply(
        self, rule: Rule, state: _State, held: Mask, refuted: Mask, *, at: float
    ) -> list[Change]:
        state.since[held & np.isnan(state.since)] = at
        state.last_true[held] = at
        opens = held & ~state.open & (at - state.since >= rule.hold_seconds)
        closes = refuted & state.open & (at - state.last_true >= rule.keep_firing_seconds)
        if rule.sticky:
            closes[:] = False
        state.open |= opens
        state.open &= ~closes
        changes = [
            Change(rule, self._keys[place], place_opens, float(state.since[place]))
            for mask, place_opens in ((opens, True), (closes, False))
            for place in np.flatnonzero(mask)
        ]
        # While a rule is open the time it began at stays, so that a return within its keep time
        # is the same episode.
        state.since[refuted & ~state.open] = np.nan
        return changes

    def _spread(self, mask: Any) -> Mask:
        spread: Mask = np.broadcast_to(np.asarray(mask, dtype=bool), len(self._keys))
        return spread

    def keep(self, keys: Sequence[str]) -> None:
        """Judge these GPUs from here on; what is known of those that stay stays."""
        keys = tuple(keys)
        if keys == self._keys and self._states:
            return
        places = find_places(self._keys, keys)
        for rule in self._rules:
            old = self._states.get(rule.name)
            before = old or _State(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool))
            self._states[rule.name] = _State(
                since=take_places(before.since, places, np.nan),
                last_true=take_places(before.last_true, places, np.nan),
                open=take_places(before.open, places, False),
            )
        self._keys = keys


def find_places(before: Sequence[str], keys: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return for each of `keys` its place in `before`, -1 where it was not there."""
    place_of = {key: place for place, key in enumerate(before)}
    return np.array([place_of.get(key, -1) for key in keys], dtype=np.intp)


def take_places(column: Any, places: npt.NDArray[np.intp], new: Any) -> Any:
    """Return the column in another order, `new` where a place is -1."""
    taken = np.full(len(places), new, dtype=column.dtype)
    known = places >= 0
    taken[known] = column[places[known]]
    return taken
