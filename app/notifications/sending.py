"""One message to one receiver, and what its answer means: taken, to be tried again, or refused for good.

Webhooks, PagerDuty and Opsgenie are spoken to over HTTP here: apprise hides Retry-After, and its plugins know
neither acknowledge and resolve nor a stable deduplication key. All other services are apprise's.
Event names and fields: PagerDuty Events API v2, Opsgenie Alert API v2.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import apprise
import httpx

from app.notifications.addresses import scheme_of, scrub

TIMEOUT_SECONDS = 10.0
PASSING = frozenset({408, 425, 429})
"""Answers that a later try may better, beside those of 500 and above."""

LONGEST_WAIT = timedelta(hours=1)
PAGERDUTY_URL = "https://events.pagerduty.com/v2/enqueue"
OPSGENIE_URL = "https://api.opsgenie.com/v2/alerts"
TITLE_LENGTH, BODY_LENGTH = 250, 8000

# apprise says whole addresses in its log.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Message:
    """What is sent. key: the same over trigger, acknowledge and resolve; delivery_id: of this very message."""

    delivery_id: str
    key: str
    event: str
    title: str
    body: str
    severity: str = "warning"
    link: str = ""
    alerts: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Sent:
    """What became of a try. wait: how long the service asks to be left alone."""

    outcome: Literal["sent", "later", "refused"]
    error: str = ""
    wait: timedelta | None = None


class Sender:
    """Sends; holds one client for all HTTP. Safe to use from several threads."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        client: httpx.Client | None = None,
        pagerduty_url: str = PAGERDUTY_URL,
        opsgenie_url: str = OPSGENIE_URL,
    ) -> None:
        self._clock = clock
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._pagerduty_url, self._opsgenie_url = pagerduty_url, opsgenie_url

    def send(self, address: str, message: Message) -> Sent:
        """One try. Never raises for what the other side says or does not say; errors hold nothing of the address."""
        scheme = scheme_of(address)
        try:
            if scheme in ("json", "jsons", "http", "https"):
                return self._webhook(address, message)
            if scheme == "pagerduty":
                return self._pagerduty(address, message)
            if scheme == "opsgenie":
                return self._opsgenie(address, message)
            return _by_apprise(address, message)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return Sent("later", f"no answer: {scrub(str(error), address) or type(error).__name__}")

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _webhook(self, address: str, message: Message) -> Sent:
        scheme, _, rest = address.partition("://")
        url = f"{'https' if scheme in ('jsons', 'https') else 'http'}://{rest}"
        document = {
            "version": 1,
            "id": message.delivery_id,
            "key": message.key,
            "event": message.event,
            "severity": message.severity,
            "title": message.title,
            "body": message.body,
            "link": message.link,
            "alerts": list(message.alerts),
        }
        headers = {"Idempotency-Key": message.delivery_id}
        return self._answered(self._client.post(url, json=document, headers=headers))

    def _pagerduty(self, address: str, message: Message) -> Sent:
        action = {"acknowledge": "acknowledge", "resolve": "resolve"}.get(message.event, "trigger")
        document: dict[str, Any] = {
            "routing_key": _token(address),
            "event_action": action,
            "dedup_key": message.key,
        }
        if action == "trigger":
            severities = {"fatal": "critical", "critical": "error", "warning": "warning"}
            document |= {
                "payload": {
                    "summary": message.title[:1024],
                    "source": "pitwall",
                    "severity": severities.get(message.severity, "info"),
                    "custom_details": {"message": message.body[:BODY_LENGTH]},
                },
                "links": [{"href": message.link, "text": "Pitwall"}] if message.link else [],
            }
        return self._answered(self._client.post(self._pagerduty_url, json=document))

    def _opsgenie(self, address: str, message: Message) -> Sent:
        headers = {"Authorization": f"GenieKey {_token(address)}"}
        known = f"{self._opsgenie_url}/{quote(message.key, safe='')}"
        if message.event in ("acknowledge", "resolve"):
            verb = "acknowledge" if message.event == "acknowledge" else "close"
            url, document = (
                f"{known}/{verb}?identifierType=alias",
                {"note": message.body[:BODY_LENGTH]},
            )
        else:
            url = self._opsgenie_url
            priorities = {"fatal": "P1", "critical": "P2", "warning": "P3"}
            document = {
                "message": message.title[:130],
                "alias": message.key,
                "description": message.body[:BODY_LENGTH],
                "priority": priorities.get(message.severity, "P4"),
                "source": "pitwall",
            }
        return self._answered(self._client.post(url, json=document, headers=headers))

    def _answered(self, answer: httpx.Response) -> Sent:
        if answer.is_success:
            return Sent("sent")
        said = f"answered {answer.status_code}"
        if answer.status_code in PASSING or answer.status_code >= 500:
            return Sent(
                "later", said, retry_after(answer.headers.get("Retry-After"), self._clock())
            )
        return Sent("refused", said)


def retry_after(value: str | None, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for, as seconds or a date, an hour at most; None where it says neither."""
    if value is None:
        return None
    if value.strip().isdigit():
        return min(timedelta(seconds=min(int(value), 86_400)), LONGEST_WAIT)
    try:
        asked = parsedate_to_datetime(value) - now
    except (TypeError, ValueError):
        return None
    return max(timedelta(), min(asked, LONGEST_WAIT))


def _token(address: str) -> str:
    """The key in pagerduty://KEY and opsgenie://KEY, as apprise writes them."""
    parts = urlsplit(address)
    return (parts.username or parts.hostname or "") if "@" in parts.netloc else parts.netloc


def _by_apprise(address: str, message: Message) -> Sent:
    service = apprise.Apprise()
    if not service.add(address):
        return Sent("refused", f"{scheme_of(address)}:// is no address that apprise can read")
    kinds = {"resolve": apprise.NotifyType.SUCCESS, "test": apprise.NotifyType.INFO}
    grave = (
        apprise.NotifyType.FAILURE
        if message.severity in ("critical", "fatal")
        else apprise.NotifyType.WARNING
    )
    body = (
        f"{message.body}\n\n{message.link}"
        if message.link and message.link not in message.body
        else message.body
    )
    taken = service.notify(
        title=message.title[:TITLE_LENGTH],
        body=body[:BODY_LENGTH],
        notify_type=kinds.get(message.event, grave),
        body_format=apprise.NotifyFormat.TEXT,
    )
    return Sent("sent") if taken else Sent("later", f"{scheme_of(address)} did not take it")
