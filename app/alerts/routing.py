"""Who is told of an alert: a tree of routes, and who comes next when nobody acknowledged. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.alerts.config import EACH, AlertConfig, Escalation, Root, Route
from app.alerts.model import WATCHDOG, Alert, match_all, parse_matcher


@dataclass(frozen=True)
class Timing:
    """How a group is told. Seconds."""

    wait_seconds: float
    interval_seconds: float
    repeat_seconds: float


@dataclass(frozen=True)
class Way:
    """One receiver's way to be told. `path`: of the route, part of the group's key."""

    receiver: str
    path: str
    group_by: tuple[str, ...]
    timing: Timing
    also_with_alertmanager: bool = False

    def group_labels(self, alert: Alert) -> dict[str, str]:
        """The values it groups this alert by."""
        names = sorted(alert.labels) if EACH in self.group_by else sorted(self.group_by)
        return {name: alert.labels.get(name, "") for name in names if name != "severity"}

    def key(self, alert: Alert) -> str:
        """The group of this alert: of the route and the values it groups by."""
        return f"{self.path}:{json.dumps(self.group_labels(alert), sort_keys=True)}"


def ways_of(
    alert: Alert, config: AlertConfig, extra: Sequence[tuple[str, Route]] = ()
) -> tuple[Way, ...]:
    """Every way by which this alert is told, one a receiver. extra: (name, route) of the page's receivers."""
    root = _root_way(config.root)
    found: list[Way] = []
    for route in config.route:
        ways = _walk(route, root, alert, "")
        found.extend(ways or ())
        if ways is not None and not route.go_on:
            break
    if not found and alert.name != WATCHDOG:
        names = config.root.receivers
        everyone = [one.name for one in config.receiver] if names is None else names
        found = [replace(root, receiver=name) for name in everyone]
    for name, route in extra:
        if alert.name != WATCHDOG or _names_watchdog(route):
            found.extend(_walk(replace_receivers(route, name), root, alert, f"page/{name}") or ())
    first: dict[str, Way] = {}
    for way in found:
        # A receiver that cannot be reached is not told so over itself.
        if not (alert.name == "DeliveriesDead" and alert.labels.get("receiver") == way.receiver):
            first.setdefault(way.receiver, way)
    return tuple(first.values())


def escalations_of(
    alert: Alert, config: AlertConfig, *, told_at: datetime | None, now: datetime
) -> tuple[Way, ...]:
    """The further ways of what was told at `told_at` and nobody has acknowledged since."""
    if told_at is None or alert.acknowledged_at is not None or not alert.is_open:
        return ()
    root = _root_way(config.root)
    timing = replace(root.timing, wait_seconds=0.0)
    return tuple(
        replace(root, receiver=name, path=f"escalation/{one.name}", timing=timing)
        for one in config.escalation
        if is_due(one, alert, told_at=told_at, now=now)
        for name in one.receivers
    )


def is_due(escalation: Escalation, alert: Alert, *, told_at: datetime, now: datetime) -> bool:
    """Whether it has waited long enough for the next receivers."""
    waited = now - told_at >= timedelta(seconds=escalation.after_seconds)
    return waited and match_all([parse_matcher(one) for one in escalation.match], alert.labels)


def root_timing(config: AlertConfig) -> Timing:
    """The times of what no route takes."""
    return _root_way(config.root).timing


def replace_receivers(route: Route, name: str) -> Route:
    """The route with this one receiver."""
    return Route(match=route.match, receivers=(name,))


def _walk(route: Route, above: Way, alert: Alert, path: str) -> list[Way] | None:
    """The ways of this branch; None where the alert does not match it."""
    if not match_all(route.matchers(), alert.labels):
        return None
    if alert.name == WATCHDOG and not (_names_watchdog(route) or path):
        return None
    here = _inherit(route, above, f"{path}/{{{','.join(route.match)}}}")
    found: list[Way] = []
    matched = False
    for child in route.route:
        ways = _walk(child, here, alert, here.path)
        if ways is None:
            continue
        matched = True
        found.extend(ways)
        if not child.go_on:
            break
    if not matched:
        found.extend(replace(here, receiver=name) for name in route.receivers)
    return found


def _inherit(route: Route, above: Way, path: str) -> Way:
    timing = Timing(
        _either(route.group_wait_seconds, above.timing.wait_seconds),
        _either(route.group_interval_seconds, above.timing.interval_seconds),
        _either(route.repeat_seconds, above.timing.repeat_seconds),
    )
    return replace(
        above,
        path=path,
        group_by=above.group_by if route.group_by is None else route.group_by,
        timing=timing,
        also_with_alertmanager=route.also_with_alertmanager or above.also_with_alertmanager,
    )


def _either(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _root_way(root: Root) -> Way:
    timing = Timing(root.group_wait_seconds, root.group_interval_seconds, root.repeat_seconds)
    return Way("", "", root.group_by, timing, root.also_with_alertmanager)


def _names_watchdog(route: Route) -> bool:
    labels: Mapping[str, str] = {"alertname": WATCHDOG}
    return any(one.label == "alertname" and one.matches(labels) for one in route.matchers())
