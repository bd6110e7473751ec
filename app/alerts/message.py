"""A message that an engineer can act on at 3 a.m.: what, where, since when, whom it hurts, what to do, and the link. Pure.

Plain text. What came from the cluster is cleaned of control and direction characters and cut; a site's own
templates are Jinja2 in its sandbox, rendered once with samples at the start.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment

from app.alerts.config import Templates
from app.alerts.grouping import Notice
from app.alerts.model import Alert, Group, gravest

log = structlog.get_logger()

TITLE_LENGTH = 100
LINE_LENGTH = 400
BODY_LENGTH = 8000
ALERTS_TOLD = 10

_ENVIRONMENT = SandboxedEnvironment(
    undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False
)


def compose(
    notice: Notice, *, cluster: str, page_url: str, templates: Templates, strict: bool = False
) -> dict[str, Any]:
    """The document that the outbox keeps and the receiver is sent.

    A site's template that can't be rendered for this notice gives way to the built-in text, so that it holds up no
    alert; with `strict` it raises ValueError.
    """
    firing = [describe(one) for one in notice.firing]
    ended = [describe(one) for one in notice.ended]
    severity = gravest([one.severity for one in (*notice.firing, *notice.ended)])
    said: dict[str, Any] = {
        "cluster": cluster,
        "event": notice.event,
        "severity": severity,
        "group": dict(notice.group.labels),
        "alerts": firing,
        "ended": ended,
    }
    title, body = _title(said), _body(said)
    said |= {"title": title, "body": body}
    title = clean(_site_text("title", templates, said, title, strict))[:TITLE_LENGTH] or title
    body = _site_text("body", templates, said, body, strict)[:BODY_LENGTH] or body
    first = (firing or ended or [{}])[0]
    return {
        "title": title,
        "body": body,
        "severity": severity,
        "link": str(first.get("link") or page_url),
        "group": dict(notice.group.labels),
        "alerts": [*firing, *ended][:ALERTS_TOLD],
    }


def describe(alert: Alert) -> dict[str, Any]:
    """One alert as templates see it."""
    told = alert.annotations
    return {
        "name": alert.name,
        "severity": alert.severity,
        "summary": clean(told.get("summary") or alert.name),
        "description": clean(told.get("description", "")),
        "where": clean(told.get("where", "")),
        "since": f"{alert.started_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "ended": f"{alert.ended_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        if alert.ended_at
        else "",
        "hurts": clean(told.get("hurts", "")),
        "action": clean(told.get("action", "")),
        "link": str(told.get("link", "")),
        "with": clean(alert.acknowledged_by or ""),
        "labels": {name: clean(value) for name, value in alert.labels.items()},
    }


def check_templates(templates: Templates, *, cluster: str, page_url: str) -> None:
    """Renders samples of every event. Raises ValueError in one sentence, naming the template."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    labels = {"alertname": "NodeIncident", "cluster": cluster, "severity": "fatal", "node": "n1"}
    alert = Alert("a1", "f1", labels, {"summary": "n1: XID 79"}, "fatal", "firing", now, now)
    group = Group("sample", "key", {"alertname": "NodeIncident"}, now)
    for notice in (
        Notice(group, "trigger", (alert,)),
        Notice(group, "acknowledge", (alert,)),
        Notice(group, "resolve", (), (alert,)),
    ):
        for name in ("title", "body"):
            text = getattr(templates, name)
            if text is None:
                continue
            try:
                compose(
                    notice,
                    cluster=cluster,
                    page_url=page_url,
                    templates=Templates(**{name: text}),
                    strict=True,
                )
            except ValueError as error:
                raise ValueError(f"templates.{name}, {notice.event}: {error}") from error


def clean(text: object) -> str:
    """The text on one line, without control, format and direction characters, and cut."""
    spaced = " ".join(str(text).split())
    return "".join(
        sign for sign in spaced if unicodedata.category(sign) not in {"Cc", "Cf", "Co", "Cs"}
    )[:LINE_LENGTH]


def _site_text(
    name: str, templates: Templates, said: Mapping[str, Any], otherwise: str, strict: bool
) -> str:
    try:
        return _rendered(getattr(templates, name), said, otherwise)
    except ValueError as error:
        if strict:
            raise
        log.warning("template gives way to the built-in text", template=name, error=str(error))
        return otherwise


def _rendered(template: str | None, said: Mapping[str, Any], otherwise: str) -> str:
    if template is None:
        return otherwise
    try:
        return _ENVIRONMENT.from_string(template).render(**said).strip()
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
    ) as error:
        raise ValueError(f"it can't be rendered: {error}") from error


def _title(said: Mapping[str, Any]) -> str:
    firing, ended = said["alerts"], said["ended"]
    word = {"resolve": "Over", "acknowledge": "Taken up"}.get(
        said["event"], said["severity"].upper()
    )
    told: Sequence[Mapping[str, Any]] = firing or ended
    first = told[0]["summary"] if told else ""
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    head = f"[{word}] "
    return head + first[: TITLE_LENGTH - len(head) - len(more)] + more


def _body(said: Mapping[str, Any]) -> str:
    lines: list[str] = []
    for one in said["alerts"][:ALERTS_TOLD]:
        lines += [f"{one['severity'].upper()}: {one['summary']}"]
        for label, value in (
            ("Where", one["where"]),
            ("Since", one["since"]),
            ("Hurts", one["hurts"]),
            ("Do", one["action"]),
            ("With", one["with"]),
            ("See", one["link"]),
        ):
            if value:
                lines.append(f"{label}: {value}")
        lines.append("")
    left = len(said["alerts"]) - ALERTS_TOLD
    if left > 0:
        lines += [f"and {left} more.", ""]
    for one in said["ended"][:ALERTS_TOLD]:
        lines.append(f"Over: {one['summary']} (since {one['since']}, ended {one['ended']})")
    lines.append(f"Cluster {said['cluster']}")
    return "\n".join(lines)
