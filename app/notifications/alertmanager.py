"""Alertmanager's v2 API at one peer: alerts pushed, silences read and written, its state. Pure of the store.

endsAt is far enough ahead that a worker which dies does not resolve everything before the Watchdog's receiver
speaks (facts/alerting.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from app.errors import PitwallError

PUSH_SECONDS = 30.0
OUTLIVES = timedelta(minutes=15)
"""endsAt = now + the larger of four push intervals and this."""

RESOLVED_FOR = timedelta(minutes=15)
"""What ended is sent for so long, so that a peer that was down hears it."""

TIMEOUT_SECONDS = 5.0


class PeerError(PitwallError):
    """A peer did not do what it was asked: names it and what was tried."""


class PeerRefused(PeerError):
    """A peer answered that what it was asked is wrong (4xx): the next thing may still be asked of it."""


@dataclass(frozen=True)
class Outgoing:
    """An alert as it is pushed; ended_at None while it is firing or unknown."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    started_at: datetime
    ended_at: datetime | None
    link: str = ""


@dataclass(frozen=True)
class PeerSilence:
    """A silence as a peer has it. matchers: [{"label", "op", "value"}]."""

    id: str
    matchers: tuple[dict[str, str], ...]
    author: str
    reason: str
    starts_at: datetime
    ends_at: datetime
    is_over: bool


class Peer:
    """One Alertmanager, never a balancer before several."""

    def __init__(self, url: str, *, token: str = "", client: httpx.Client | None = None) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.url = url.rstrip("/")
        self.name = urlsplit(url).netloc.rpartition("@")[2]
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS, headers=headers)

    def push(self, alerts: Sequence[Outgoing], *, now: datetime) -> None:
        """Sends all of them, the ended ones with their end. Raises PeerError."""
        self._call(
            "POST", "/api/v2/alerts", "push alerts", json=[document_of(one, now) for one in alerts]
        )

    def silences(self) -> list[PeerSilence]:
        """All that it knows, those that are over too. Raises PeerError."""
        return [
            _silence_of(one)
            for one in self._call("GET", "/api/v2/silences", "read silences").json()
        ]

    def put_silence(self, silence: PeerSilence) -> str:
        """Writes one, with an empty id a new one; gives its id. Raises PeerError."""
        document = {
            "matchers": [_matcher_out(one) for one in silence.matchers],
            "startsAt": _written(silence.starts_at),
            "endsAt": _written(silence.ends_at),
            "createdBy": silence.author,
            "comment": silence.reason,
            **({"id": silence.id} if silence.id else {}),
        }
        answer = self._call("POST", "/api/v2/silences", "write a silence", json=document)
        return str(answer.json()["silenceID"])

    def end_silence(self, silence_id: str) -> None:
        """Expires one; done where it is not known any more. Raises PeerError."""
        self._call("DELETE", f"/api/v2/silence/{silence_id}", "end a silence", missing_is_fine=True)

    def status(self) -> str:
        """Its version and what it says of its cluster, in a few words. Raises PeerError."""
        said = self._call("GET", "/api/v2/status", "read its status").json()
        version = (said.get("versionInfo") or {}).get("version", "?")
        cluster = said.get("cluster") or {}
        peers = len(cluster.get("peers") or ())
        return f"version {version}, cluster {cluster.get('status', '?')}" + (
            f", {peers} peers" if peers else ""
        )

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _call(
        self, method: str, path: str, what: str, *, missing_is_fine: bool = False, **how: Any
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, self.url + path, **how)
        except httpx.HTTPError as error:
            raise PeerError(
                f"Alertmanager {self.name} does not answer ({type(error).__name__}); tried to {what}."
            ) from error
        # 0.28 answers 500 for a silence that it does not know.
        if missing_is_fine and (answer.status_code == 404 or "not found" in answer.text):
            return answer
        if not answer.is_success:
            kind = PeerRefused if answer.is_client_error else PeerError
            raise kind(
                f"Alertmanager {self.name} answered {answer.status_code} when asked to {what}: {answer.text[:200]}"
            )
        return answer


def document_of(alert: Outgoing, now: datetime) -> dict[str, Any]:
    """The alert as Alertmanager takes it."""
    ends_at = alert.ended_at or now + max(timedelta(seconds=4 * PUSH_SECONDS), OUTLIVES)
    return {
        "labels": {name: str(value) for name, value in alert.labels.items() if value},
        "annotations": {name: str(value) for name, value in alert.annotations.items() if value},
        "startsAt": _written(alert.started_at),
        "endsAt": _written(ends_at),
        **({"generatorURL": alert.link} if alert.link else {}),
    }


def _written(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _matcher_out(matcher: Mapping[str, str]) -> dict[str, Any]:
    op = matcher["op"]
    return {
        "name": matcher["label"],
        "value": matcher["value"],
        "isRegex": op in ("=~", "!~"),
        "isEqual": op in ("=", "=~"),
    }


def _silence_of(document: Mapping[str, Any]) -> PeerSilence:
    return PeerSilence(
        id=str(document["id"]),
        matchers=tuple(
            {
                "label": str(one["name"]),
                "op": ("=" if one.get("isEqual", True) else "!")
                + ("~" if one.get("isRegex") else "" if one.get("isEqual", True) else "="),
                "value": str(one["value"]),
            }
            for one in document.get("matchers") or ()
        ),
        author=str(document.get("createdBy", "")),
        reason=str(document.get("comment", "")),
        starts_at=datetime.fromisoformat(str(document["startsAt"])),
        ends_at=datetime.fromisoformat(str(document["endsAt"])),
        is_over=(document.get("status") or {}).get("state") == "expired",
    )
