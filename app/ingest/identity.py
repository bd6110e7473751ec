"""Who calls: agents by a token bound to our audience and their node, people by a token the API server knows.

Answers are kept for a while by the token's hash, never the token itself. Of many calls with one
token only one asks the API server.
"""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from app.ingest.errors import Refusal, unavailable
from app.ingest.metrics import IngestMetrics
from k8s.client import Connection
from k8s.errors import KubernetesError
from k8s.tokens import TokenIdentity, review_access, review_token

AGENT_SECONDS = 60.0
PERSON_SECONDS = 30.0
INVALID_SECONDS = 5.0
"""An invalid token is asked about again soon: it may have been told to the API server since."""

MOST_KEPT = 100_000
"""Twice the nodes of the largest fleet, whose tokens change each hour."""

Answer = TypeVar("Answer")


@dataclass
class _Kept(Generic[Answer]):
    answer: Answer
    until: float


class _Memory(Generic[Answer]):
    """Answers by key until their time is over; asks once for callers that come together."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept[Answer]] = OrderedDict()
        self._asking: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def recall(self, key: Hashable) -> Answer | None:
        """What is known of the key and still counts."""
        with self._lock:
            kept = self._kept.get(key)
            return None if kept is None or kept.until <= self._clock() else kept.answer

    def get(self, key: Hashable, ask: Callable[[], tuple[Answer, float]]) -> Answer:
        """The answer known, else that of `ask` with the seconds it counts."""
        known = self.recall(key)
        if known is not None:
            return known
        with self._lock:
            asking = self._asking.setdefault(key, threading.Lock())
        try:
            with asking:
                known = self.recall(key)
                if known is not None:
                    return known
                answer, seconds = ask()
                with self._lock:
                    self._kept[key] = _Kept(answer, self._clock() + seconds)
                    self._kept.move_to_end(key)
                    while len(self._kept) > MOST_KEPT:
                        self._kept.popitem(last=False)
                return answer
        finally:
            with self._lock:
                self._asking.pop(key, None)


class Doorkeeper:
    """Proves callers through one API server. Safe to use from many threads."""

    def __init__(
        self,
        connection_factory: Callable[[], Connection],
        *,
        audience: str,
        agent_username: str,
        metrics: IngestMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connection_factory
        self._audience = audience
        self._agent_username = agent_username
        self._metrics = metrics
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._agents: _Memory[TokenIdentity] = _Memory(clock)
        self._people: _Memory[TokenIdentity] = _Memory(clock)
        self._access: _Memory[tuple[bool, str]] = _Memory(clock)

    def recall_agent(self, token: str) -> TokenIdentity | None:
        """What is known of an agent's token without asking anybody."""
        return self._agents.recall(_hash(token))

    def agent(self, token: str) -> TokenIdentity:
        """Whom an agent's token stands for. Raises Refusal: 503 when nobody can say."""
        return self._agents.get(
            _hash(token), lambda: self._review(token, (self._audience,), AGENT_SECONDS)
        )

    def check_agent(self, identity: TokenIdentity, *, node: str) -> None:
        """Raises Refusal: 401 for a token that is not valid, 403 for another's account or node."""
        if not identity.authenticated:
            raise Refusal(
                401, "unauthenticated", f"the agent's token is not taken: {identity.error}"
            )
        if identity.username != self._agent_username:
            raise Refusal(
                403,
                "forbidden",
                f"the token is of {identity.username}; reports are taken from {self._agent_username}",
            )
        if identity.node_name is None:
            raise Refusal(
                403,
                "forbidden",
                "the token is bound to no node: use a projected token of the agent's own pod "
                "(Kubernetes 1.30 or newer names its node)",
            )
        if identity.node_name != node:
            raise Refusal(
                403,
                "forbidden",
                f"the token is of node {identity.node_name}, the report of node {node}",
            )

    def person(self, token: str) -> TokenIdentity:
        """Whom a person's token stands for. Raises Refusal: 401, 503."""
        identity = self._people.get(_hash(token), lambda: self._review(token, (), PERSON_SECONDS))
        if not identity.authenticated:
            raise Refusal(401, "unauthenticated", f"the token is not taken: {identity.error}")
        return identity

    def may(self, identity: TokenIdentity, verb: str) -> tuple[bool, str]:
        """Whether a person may `verb` nodes, and the API server's reason. Raises Refusal: 503."""
        key = (identity.username, identity.uid, identity.groups, verb)
        return self._access.get(key, lambda: self._ask_access(identity, verb))

    def check(self, identity: TokenIdentity, verb: str) -> None:
        """Raises Refusal (403) unless the person may `verb` nodes."""
        allowed, reason = self.may(identity, verb)
        if not allowed:
            said = f" ({reason})" if reason else ""
            raise Refusal(
                403,
                "forbidden",
                f"{identity.username} may not {verb} nodes in the cluster, which this needs{said}",
            )

    def _review(
        self, token: str, audiences: tuple[str, ...], seconds: float
    ) -> tuple[TokenIdentity, float]:
        try:
            identity = review_token(self._api(), token, audiences)
        except KubernetesError as error:
            self._metrics.token_reviews.labels("failed").inc()
            raise unavailable(f"the token can't be proved now: {error}") from error
        self._metrics.token_reviews.labels("valid" if identity.authenticated else "invalid").inc()
        return identity, seconds if identity.authenticated else INVALID_SECONDS

    def _ask_access(self, identity: TokenIdentity, verb: str) -> tuple[tuple[bool, str], float]:
        try:
            answer = review_access(self._api(), identity, verb, "", "nodes")
        except KubernetesError as error:
            raise unavailable(f"the right to do this can't be proved now: {error}") from error
        return (answer.allowed, answer.reason), PERSON_SECONDS

    def _api(self) -> Connection:
        with self._lock:
            if self._connection is None:
                self._connection = self._connect()
            return self._connection


def bearer(authorization: str | None) -> str:
    """The token of an Authorization header. Raises Refusal (401)."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(401, "unauthenticated", "send a token: Authorization: Bearer TOKEN")
    return token.strip()


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
