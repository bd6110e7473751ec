"""What people ask for about alerts: silences, maintenance, receivers, dead letters. Needs no view of Kubernetes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection

from app.alerts.config import AlertConfig, receiver_of_page
from app.alerts.model import parse_matcher
from app.errors import RequestRefused
from app.settings import Settings
from app.store.records import RequestRecord
from app.store.requests import MAX_REASON_LENGTH
from app.store.writes import alert_deliveries, silences

KINDS = (
    *("silence", "maintenance", "unsilence"),
    *("send_again", "drop_delivery", "test_receiver", "receiver_add", "receiver_disable"),
)
ON = {
    "node": "node",
    "rack": "rack",
    "block": "block",
    "job": "job",
    "rule": "rule",
    "team": "team",
}
"""What a silence may be on, and the label that says it."""

MAX_MATCHERS = 10
MAX_NAME_LENGTH = 100


class AlertParameters(msgspec.Struct, frozen=True):
    """Parameters of these requests. on: one of ON, or "all" with an empty value; starts_at: now where it is not given."""

    on: str = ""
    value: str = ""
    matchers: list[str] | None = None
    seconds: float = 0.0
    starts_at: datetime | None = None
    silence_id: str = ""
    delivery_id: str = ""
    receiver: str = ""
    secret: str = ""
    send_resolved: bool = True
    text: str = ""


def answer(
    connection: Connection,
    cluster: str,
    request: RequestRecord,
    *,
    config: AlertConfig,
    settings: Settings,
    now: datetime,
) -> dict[str, Any]:
    """Does what is asked and says about what it was. Raises RequestRefused, nothing being kept then."""
    asked = _read(request.parameters)
    author = request.author
    match request.kind:
        case "silence" | "maintenance":
            reason = (asked.text or request.reason).strip()
            if not reason or len(reason) > MAX_REASON_LENGTH or "\x00" in reason:
                raise RequestRefused(
                    "Say why (a reason of up to 2,000 characters): others will read it."
                )
            starts_at = asked.starts_at or now
            if starts_at.tzinfo is None:
                starts_at = starts_at.replace(tzinfo=UTC)
            if not 0 < asked.seconds <= 10**8:
                raise RequestRefused(
                    "Say for how long (seconds): a silence without an end is forgotten."
                )
            made = silences.add_silence(
                connection,
                cluster,
                kind=request.kind,
                matchers=matchers_of(asked),
                author=author,
                reason=reason,
                starts_at=starts_at,
                ends_at=starts_at + timedelta(seconds=asked.seconds),
                now=now,
            )
            return {"silence_id": made}
        case "unsilence":
            silences.end_silence(connection, cluster, asked.silence_id, by=author, now=now)
            return {"silence_id": asked.silence_id}
        case "send_again":
            alert_deliveries.send_again(connection, cluster, asked.delivery_id, now=now)
            return {"delivery_id": asked.delivery_id}
        case "drop_delivery":
            alert_deliveries.drop(connection, cluster, asked.delivery_id)
            return {"delivery_id": asked.delivery_id}
        case "test_receiver":
            name = _name(asked.receiver)
            made = silences.write_test_message(
                connection, cluster, name, by=author, page_url=settings.page_url, now=now
            )
            return {"delivery_id": made}
        case "receiver_add":
            _add_receiver(connection, cluster, asked, author, config, settings, now)
            return {"receiver": asked.receiver}
        case "receiver_disable":
            silences.disable_receiver(connection, cluster, _name(asked.receiver), now=now)
            return {"receiver": asked.receiver}
    raise RequestRefused(f"There is no request of kind {request.kind} about alerts.")


def matchers_of(asked: AlertParameters) -> list[dict[str, str]]:
    """The matchers of a silence. Raises RequestRefused for none, and for one that is none."""
    if asked.on == "all":
        return [{"label": "alertname", "op": "!=", "value": "Watchdog"}]
    if asked.on:
        if asked.on not in ON:
            raise RequestRefused(f"A silence is on {', '.join(ON)} or all, not on {asked.on}.")
        value = asked.value.strip()
        if not value or len(value) > 300 or "\x00" in value:
            raise RequestRefused(f"Name the {asked.on} that is to be silent.")
        return [{"label": ON[asked.on], "op": "=", "value": value}]
    found = asked.matchers or []
    if not 0 < len(found) <= MAX_MATCHERS:
        raise RequestRefused(
            f"Say what is to be silent: from 1 to {MAX_MATCHERS} matchers, or all."
        )
    made = []
    for text in found:
        try:
            matcher = parse_matcher(text)
        except ValueError as error:
            raise RequestRefused(f"{error}.") from error
        made.append({"label": matcher.label, "op": matcher.op, "value": matcher.value})
    return made


def _add_receiver(
    connection: Connection,
    cluster: str,
    asked: AlertParameters,
    author: str,
    config: AlertConfig,
    settings: Settings,
    now: datetime,
) -> None:
    name = _name(asked.receiver)
    if name in config.named():
        raise RequestRefused(
            f"The file PITWALL_ALERTS has a receiver {name} already: take another name.",
            code="conflict",
        )
    if "://" in asked.secret or "/" in asked.secret:
        raise RequestRefused(
            "That is an address, which is a secret: put it into a file of PITWALL_ALERT_SECRETS_DIR or a variable "
            "PITWALL_ALERT_SECRET_..., and give that name here."
        )
    try:
        receiver_of_page(
            name,
            asked.secret,
            send_resolved=asked.send_resolved,
            secrets_dir=settings.alert_secrets_dir,
        )
    except ValueError as error:
        raise RequestRefused(f"{error}.") from error
    matchers = matchers_of(asked) if asked.on or asked.matchers else []
    silences.add_receiver(
        connection,
        cluster,
        name=name,
        secret=asked.secret,
        matchers=matchers,
        send_resolved=asked.send_resolved,
        by=author,
        now=now,
    )


def _name(name: str) -> str:
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise RequestRefused(
            f"A receiver's name has from 1 to {MAX_NAME_LENGTH} characters that can be shown."
        )
    return name.strip()


def _read(document: Mapping[str, Any]) -> AlertParameters:
    try:
        return msgspec.convert(document, AlertParameters)
    except msgspec.ValidationError as error:
        raise RequestRefused(f"The request can't be read: {error}.") from error
