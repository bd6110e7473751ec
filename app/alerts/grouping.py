"""When a receiver is told what of a group: wait, interval, repeat, and against what it was told before. Pure.

An alert stays in the group in which a receiver was told of it, whatever routes or severity become, so that
trigger, acknowledge and resolve go under one key. A silence or an inhibitor holds back what is new and never
the end of what was told; quiet hours hold both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from app.alerts.model import MOMENTS, Alert, Event, Group, rank
from app.alerts.routing import Timing, Way

Told = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Notice:
    """A message to write to the outbox. `ended`: told as over in it."""

    group: Group
    event: Event
    firing: tuple[Alert, ...]
    ended: tuple[Alert, ...] = ()


@dataclass
class Turn:
    """What becomes of the groups: rows to write, rows to remove, messages."""

    groups: list[Group] = field(default_factory=list)
    gone: list[Group] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """An alert's place in a group at a receiver. `is_held`: quiet hours; `is_muted`: silenced or inhibited."""

    alert: Alert
    way: Way
    is_held: bool = False

    @property
    def is_muted(self) -> bool:
        """Whether it is not to be told anew."""
        return bool(self.alert.silenced_by or self.alert.inhibited_by)


def take_turn(
    places: Iterable[Place],
    groups: Sequence[Group],
    *,
    ended: Mapping[str, Alert],
    resolving: Mapping[str, bool],
    held: Iterable[tuple[str, str]] = (),
    default: Timing,
    now: datetime,
) -> Turn:
    """What to tell now. ended: alerts that are over, by id, of those that groups were told of.

    resolving: send_resolved of each receiver there is; a group of none is left as it is. held: (receiver,
    alert id) of what quiet hours hold. default: the times of a group whose route is gone from the file.
    """
    rows = {(group.receiver, group.key): group for group in groups}
    homes = {
        (group.receiver, alert_id): group.key
        for group in groups
        for alert_id, told in group.told.items()
        if told["event"] != "resolve"
    }
    members: dict[tuple[str, str], list[Place]] = {}
    labels: dict[tuple[str, str], dict[str, str]] = {}
    for place in places:
        receiver = place.way.receiver
        key = homes.get((receiver, place.alert.id), place.way.key(place.alert))
        labels.setdefault((receiver, key), place.way.group_labels(place.alert))
        members.setdefault((receiver, key), []).append(place)
    turn = Turn()
    quiet = frozenset(held)
    for name in sorted(rows.keys() | members.keys()):
        receiver, key = name
        if receiver not in resolving:
            continue
        here = members.get(name, [])
        timing = next(
            (place.way.timing for place in here if place.way.key(place.alert) == key), default
        )
        known = rows.get(name)
        group = known or _open(receiver, key, labels[name], here, timing, now)
        _tell(
            turn,
            group,
            known,
            here,
            ended=ended,
            sends_end=resolving[receiver],
            quiet=quiet,
            timing=timing,
            now=now,
        )
    return turn


def _open(
    receiver: str,
    key: str,
    labels: Mapping[str, str],
    here: Sequence[Place],
    timing: Timing,
    now: datetime,
) -> Group:
    begun = min(place.alert.started_at for place in here)
    due_at = max(now, begun + timedelta(seconds=timing.wait_seconds))
    return Group(receiver, key, labels, opened_at=now, due_at=due_at)


def _tell(
    turn: Turn,
    group: Group,
    known: Group | None,
    here: Sequence[Place],
    *,
    ended: Mapping[str, Alert],
    sends_end: bool,
    quiet: frozenset[tuple[str, str]],
    timing: Timing,
    now: datetime,
) -> None:
    told: Told = {name: dict(entry) for name, entry in group.told.items()}
    over = [
        ended[name]
        for name in sorted(told)
        if name in ended and (group.receiver, name) not in quiet
    ]
    if not here and not told:
        if known is not None:
            turn.gone.append(known)
        return
    is_due = group.due_at is None or now >= group.due_at
    shown = [place.alert for place in here if not place.is_muted and not place.is_held]
    active = shown if is_due else []
    over = over if is_due else []
    new = [one for one in active if one.id not in told]
    risen = [
        one
        for one in active
        if one.id in told and rank(one.severity) > rank(told[one.id]["severity"])
    ]
    spoken = [one for one in over if sends_end and one.name not in MOMENTS]
    last = group.notified_at
    late = last is not None and now - last >= timedelta(seconds=timing.repeat_seconds)
    again = late and any(one.acknowledged_at is None for one in active)
    for one in over:
        del told[one.id]
    still = [place.alert for place in here if place.alert.id in told]
    triggered = [one for one in still if told[one.id]["event"] == "trigger"]
    event: Event | None = None
    if new or risen or again:
        event = "trigger"
    elif spoken:
        event = "trigger" if told else "resolve"
    elif triggered and all(one.acknowledged_at is not None for one in still):
        event = "acknowledge"
    for one in new:
        told[one.id] = {"event": "trigger", "first_at": now.isoformat()}
    told_now = {one.id for one in (*shown, *(still if event == "acknowledge" else ()))}
    firing = [place.alert for place in here if place.alert.id in told_now & told.keys()]
    for one in firing if event is not None else ():
        mark = "acknowledge" if event == "acknowledge" else told[one.id]["event"]
        told[one.id] |= {"event": mark, "at": now.isoformat(), "severity": one.severity}
    speaks = event in ("trigger", "resolve")
    # A look that found nothing to say costs no interval: what comes next is new to the receiver.
    after = replace(
        group,
        told=told,
        due_at=now + timedelta(seconds=timing.interval_seconds) if speaks else group.due_at,
        notified_at=now if speaks else last,
    )
    if event is not None:
        turn.notices.append(Notice(after, event, _worst_first(firing), _worst_first(spoken)))
    if not told and not here:
        if known is not None:
            turn.gone.append(known)
    elif known != after:
        turn.groups.append(after)


def _worst_first(alerts: Iterable[Alert]) -> tuple[Alert, ...]:
    return tuple(sorted(alerts, key=lambda one: (-rank(one.severity), one.started_at, one.id)))
