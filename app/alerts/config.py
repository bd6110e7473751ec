"""What a site sets about alerts: the TOML file named by PITWALL_ALERTS, checked when it is read (docs/alerts.md).

It holds names of secrets and never a secret: a receiver's address is in an environment variable or a file.
"""

import re
import tomllib
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from app.alerts.model import Matcher, parse_matcher
from app.errors import SettingsError

GROUP_WAIT_SECONDS = 30.0
GROUP_INTERVAL_SECONDS = 300.0
REPEAT_SECONDS = 14_400.0
"""Alertmanager's defaults (facts/alerting.md)."""

SECRET_PREFIX = "PITWALL_ALERT_SECRET_"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EACH = "..."
"""As group_by: every alert is a group of its own."""

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: a key that is not known is refused."""


class Receiver(Strict, frozen=True):
    """Who is told. Its address, an apprise URL, is in the variable url_env or the file url_file."""

    name: str
    url_env: str | None = None
    url_file: Path | None = None
    send_resolved: bool = True


class Route(Strict, frozen=True):
    """What goes to whom; None takes the value of the route around it."""

    match: tuple[str, ...] = ()
    receivers: tuple[str, ...] = ()
    go_on: bool = msgspec.field(default=False, name="continue")
    group_by: tuple[str, ...] | None = None
    group_wait_seconds: float | None = None
    group_interval_seconds: float | None = None
    repeat_seconds: float | None = None
    also_with_alertmanager: bool = False
    route: "tuple[Route, ...]" = ()

    def matchers(self) -> tuple[Matcher, ...]:
        """Its conditions, all of which must hold."""
        return tuple(parse_matcher(one) for one in self.match)


class Root(Strict, frozen=True):
    """What no [[route]] takes, and what routes take where they say nothing. receivers: none named, all."""

    receivers: tuple[str, ...] | None = None
    group_by: tuple[str, ...] = ("cluster", "alertname")
    group_wait_seconds: float = GROUP_WAIT_SECONDS
    group_interval_seconds: float = GROUP_INTERVAL_SECONDS
    repeat_seconds: float = REPEAT_SECONDS
    also_with_alertmanager: bool = False


class Inhibition(Strict, frozen=True):
    """An open alert that matches `source` mutes those that match `target` and have the same `equal` labels."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    equal: tuple[str, ...] = ()


class QuietHours(Strict, frozen=True):
    """From `start` to `end` on `days` what matches is held; over midnight the day is that of the start."""

    name: str
    start: str
    end: str
    days: tuple[str, ...] = DAYS
    time_zone: str = "UTC"
    match: tuple[str, ...] = ('severity=~"info|warning"',)
    receivers: tuple[str, ...] = ()


class Escalation(Strict, frozen=True):
    """What matches and nobody acknowledged so long after it was first told goes to these receivers too."""

    name: str
    receivers: tuple[str, ...]
    after_seconds: float = 900.0
    match: tuple[str, ...] = ('severity=~"critical|fatal"',)


class Templates(Strict, frozen=True):
    """Jinja2, plain text; None is the built-in message."""

    title: str | None = None
    body: str | None = None


class AlertConfig(Strict, frozen=True):
    """The file as a whole."""

    receiver: tuple[Receiver, ...] = ()
    root: Root = Root()
    route: tuple[Route, ...] = ()
    inhibit: tuple[Inhibition, ...] = ()
    quiet_hours: tuple[QuietHours, ...] = ()
    escalation: tuple[Escalation, ...] = ()
    templates: Templates = Templates()

    def named(self) -> dict[str, Receiver]:
        """The receivers by name."""
        return {one.name: one for one in self.receiver}


DEFAULT = AlertConfig()


def load_config(path: Path | None) -> AlertConfig:
    """The site's settings of alerts; without a file the defaults, with no receivers.

    Raises SettingsError naming the file and the key that can't be used.
    """
    if path is None:
        return DEFAULT
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} can't be read ({error}): check PITWALL_ALERTS.") from error
    try:
        return parse_config(text)
    except ValueError as error:
        raise SettingsError(f"{path}: {error}; correct it and start again.") from error


def parse_config(text: str) -> AlertConfig:
    """The settings of a TOML text. Raises ValueError in one sentence with the key's path."""
    try:
        config = msgspec.convert(tomllib.loads(text), AlertConfig, dec_hook=_as_path)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
    _check(config)
    return config


def receiver_of_page(
    name: str, secret: str, *, send_resolved: bool, secrets_dir: Path | None
) -> Receiver:
    """The receiver that a person made on the page: `secret` names a variable or a file of the secrets' folder.

    Raises ValueError where the name is neither: a path would reach any file of the worker.
    """
    if secret.startswith(SECRET_PREFIX):
        return Receiver(name=name, url_env=secret, send_resolved=send_resolved)
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", secret):
        raise ValueError(f"{secret!r} is no name of a file in PITWALL_ALERT_SECRETS_DIR")
    if secrets_dir is None:
        raise ValueError(
            f"{name} names the file {secret}, and PITWALL_ALERT_SECRETS_DIR is not set"
        )
    return Receiver(name=name, url_file=secrets_dir / secret, send_resolved=send_resolved)


def _as_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is no text")


def _check(config: AlertConfig) -> None:
    names = [one.name for one in config.receiver]
    for at, one in enumerate(config.receiver):
        where = f"receiver[{at}] ({one.name})"
        if (one.url_env is None) == (one.url_file is None):
            raise ValueError(f"{where} needs url_env or url_file, one of both")
        if ":/" in f"{one.url_env}{one.url_file}":
            raise ValueError(
                f"{where} holds an address: put it into a file or a variable and name that here"
            )
        if not one.name or names.count(one.name) > 1:
            raise ValueError(f"{where} must have a name that no other has")
    known = frozenset(names)
    _check_group_by("root", config.root.group_by)
    _check_times("root", config.root)
    _check_receivers("root.receivers", config.root.receivers or (), known)
    _check_routes("route", config.route, known)
    for at, inhibit in enumerate(config.inhibit):
        _check_matchers(f"inhibit[{at}].source", inhibit.source)
        _check_matchers(f"inhibit[{at}].target", inhibit.target)
    for at, quiet in enumerate(config.quiet_hours):
        _check_quiet(f"quiet_hours[{at}]", quiet, known)
    for at, escalation in enumerate(config.escalation):
        _check_matchers(f"escalation[{at}].match", escalation.match)
        _check_receivers(f"escalation[{at}].receivers", escalation.receivers, known)
        if not escalation.receivers or escalation.after_seconds < 0:
            raise ValueError(f"escalation[{at}] needs receivers, and after_seconds of 0 or more")


def _check_routes(where: str, routes: tuple[Route, ...], known: frozenset[str]) -> None:
    for at, route in enumerate(routes):
        here = f"{where}[{at}]"
        _check_matchers(f"{here}.match", route.match)
        _check_receivers(f"{here}.receivers", route.receivers, known)
        _check_group_by(here, route.group_by or ())
        _check_times(here, route)
        _check_routes(f"{here}.route", route.route, known)


def _check_matchers(where: str, matchers: tuple[str, ...]) -> None:
    for at, one in enumerate(matchers):
        try:
            parse_matcher(one)
        except ValueError as error:
            raise ValueError(f"{where}[{at}]: {error}") from error


def _check_receivers(where: str, receivers: tuple[str, ...], known: frozenset[str]) -> None:
    for one in receivers:
        if one not in known:
            raise ValueError(f"{where} names {one!r}, and there is no such [[receiver]]")


def _check_group_by(where: str, group_by: tuple[str, ...]) -> None:
    if "severity" in group_by:
        raise ValueError(
            f"{where}.group_by has severity, which may rise: one trouble would be told under two keys"
        )


def _check_times(where: str, route: Root | Route) -> None:
    for name in ("group_wait_seconds", "group_interval_seconds", "repeat_seconds"):
        value = getattr(route, name)
        if value is not None and not (0 if name == "group_wait_seconds" else 1) <= value <= 604_800:
            raise ValueError(f"{where}.{name} is {value}: give seconds up to a week")


def _check_quiet(where: str, quiet: QuietHours, known: frozenset[str]) -> None:
    _check_matchers(f"{where}.match", quiet.match)
    _check_receivers(f"{where}.receivers", quiet.receivers, known)
    if not (_CLOCK.fullmatch(quiet.start) and _CLOCK.fullmatch(quiet.end)):
        raise ValueError(f"{where}: start and end are times of day like 22:00")
    if unknown := set(quiet.days) - set(DAYS):
        raise ValueError(f"{where}.days has {sorted(unknown)}: there are {', '.join(DAYS)}")
    try:
        ZoneInfo(quiet.time_zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{where}.time_zone {quiet.time_zone!r} is not known here") from error
