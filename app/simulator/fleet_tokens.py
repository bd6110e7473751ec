"""The token of a simulated node's agent, as the kubelet would fetch it: bound to the node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from collectors.errors import TokenError
from k8s.client import Connection
from k8s.errors import KubernetesError
from k8s.tokens import Token, request_token

NAMESPACE = "pitwall"
SERVICE_ACCOUNT = "pitwall-agent"
AUDIENCE = "pitwall"
RENEW_BEFORE = timedelta(minutes=12)
"""The kubelet renews a projected token of an hour at 80 % of its life."""


class _Metadata(msgspec.Struct):
    uid: str


class _Node(msgspec.Struct):
    metadata: _Metadata


class NodeToken:
    """Asks the API server for the token when it is needed, and again before it ends."""

    def __init__(self, connection: Connection, node: str) -> None:
        self._connection = connection
        self._node = node
        self._token: Token | None = None

    def read(self) -> str | None:
        """Return the token. Raises TokenError when the API server gives none."""
        token = self._token
        if token is None or token.expires_at - RENEW_BEFORE <= datetime.now(UTC):
            token = self._token = self._request()
        return token.token

    def renew(self) -> None:
        """Ask anew at the next use."""
        self._token = None

    def _request(self) -> Token:
        try:
            node = msgspec.json.decode(
                self._connection.get(f"/api/v1/nodes/{self._node}"), type=_Node
            )
            return request_token(
                self._connection,
                NAMESPACE,
                SERVICE_ACCOUNT,
                AUDIENCE,
                bound_node=(self._node, node.metadata.uid),
            )
        except (KubernetesError, msgspec.DecodeError) as error:
            raise TokenError(
                f"no token for {SERVICE_ACCOUNT} on node {self._node}: {error}"
            ) from error
