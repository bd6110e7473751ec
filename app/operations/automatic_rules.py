"""The rules of automatic mode: validated entries of a site's TOML file. Without the file automatic mode is off."""

import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import msgspec

from app.errors import SettingsError
from app.operations.modes import CHECKPOINT, COMPLETE, DEADLINE, NOW

SEVERITIES = ("info", "advice", "warning", "critical", "fatal")
MODES = (NOW, CHECKPOINT, COMPLETE, DEADLINE)
LEAST_HOLD_SECONDS = 0.0
MOST_HOLD_SECONDS = 86_400.0


class AutomaticRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done about findings that have been open for so long.

    findings: names of health rules, with * and ?; severity: the least that counts. Both must hold.
    action: quarantine cordons the node and lets what runs there complete; drain moves it, as `mode` says;
    reschedule brings the jobs hurt elsewhere and leaves the node.
    """

    name: str
    acts: Literal["off", "dry-run", "act"] = "dry-run"
    action: Literal["quarantine", "drain", "reschedule"] = "quarantine"
    findings: tuple[str, ...] = ("*",)
    severity: Literal["info", "advice", "warning", "critical", "fatal"] = "critical"
    hold_seconds: float = 60.0
    mode: str = NOW
    deadline_seconds: float | None = None
    nodes: tuple[str, ...] = ("*",)
    blocks: tuple[str, ...] = ("*",)

    def covers(self, *, rule: str, severity: str, node: str, block: str) -> bool:
        """Whether a finding of that rule and severity on that node is this rule's."""
        return (
            SEVERITIES.index(severity) >= SEVERITIES.index(self.severity)
            and _any(self.findings, rule)
            and _any(self.nodes, node)
            and _any(self.blocks, block)
        )


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rule: tuple[AutomaticRule, ...] = ()


def _any(patterns: tuple[str, ...], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def load_automatic(path: Path | None) -> tuple[AutomaticRule, ...]:
    """The rules that are not off, in the file's order; none without a file.

    Raises SettingsError with one sentence that names the file, the rule and the field.
    """
    if path is None:
        return ()
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"PITWALL_AUTOMATIC={path} can't be read as TOML: {error}; correct it, or unset it to keep automatic "
            "mode off."
        ) from error
    rules = _converted(document, path)
    names: set[str] = set()
    for rule in rules:
        _check(rule, path)
        if rule.name in names:
            raise SettingsError(f"{path} has two rules named {rule.name!r}: name each once.")
        names.add(rule.name)
    return tuple(rule for rule in rules if rule.acts != "off")


def _converted(document: dict[str, Any], path: Path) -> tuple[AutomaticRule, ...]:
    try:
        return msgspec.convert(document, _File).rule
    except msgspec.ValidationError as error:
        raise SettingsError(
            f"{path} is no file of rules: {error}; see docs/automatic.md."
        ) from error


def _check(rule: AutomaticRule, path: Path) -> None:
    where = f"{path}, rule {rule.name!r}"
    if not rule.name.strip() or len(rule.name) > 100 or not rule.name.isprintable():
        raise SettingsError(f"{path} has a rule without a name that can be shown: give it one.")
    if not LEAST_HOLD_SECONDS <= rule.hold_seconds <= MOST_HOLD_SECONDS:
        raise SettingsError(
            f"{where}: hold_seconds is {rule.hold_seconds:g}, and must be from 0 to {MOST_HOLD_SECONDS:g}."
        )
    if rule.mode not in MODES:
        raise SettingsError(
            f"{where}: mode is {rule.mode!r}, and must be one of {', '.join(MODES)}."
        )
    if (rule.mode == DEADLINE) != (rule.deadline_seconds is not None):
        raise SettingsError(f"{where}: mode {DEADLINE!r} and deadline_seconds go together.")
    if rule.deadline_seconds is not None and rule.deadline_seconds <= 0:
        raise SettingsError(f"{where}: deadline_seconds must be above 0.")
    if rule.action != "drain" and rule.mode != NOW:
        raise SettingsError(f"{where}: mode is for the action drain alone.")
    for name in ("findings", "nodes", "blocks"):
        if not getattr(rule, name):
            raise SettingsError(f"{where}: {name} is empty, so nothing would match: leave it out.")
