"""The token of a simulated node's agent, as the kubelet would fetch it: bound to the node."""

from __future__ import annotations

import time

import msgspec

from collectors.errors import TokenError
from k8s.client import Connection
from k8s.errors import KubernetesError

NAMESPACE = "pitwall"
SERVICE_ACCOUNT = "pitwall-agent"
AUDIENCE = "pitwall"
LIFETIME_SECONDS = 3600
RENEW_RATIO = 0.8
"""The kubelet renews a projected token at 80 % of its life."""


class _Status(msgspec.Struct):
    token: str


class _TokenRequest(msgspec.Struct):
    status: _Status


class _Metadata(msgspec.Struct):
    uid: str


class _Node(msgspec.Struct):
    metadata: _Metadata


class NodeToken:
    """Asks the API server for the token when it is needed, and again before it ends."""

    def __init__(self, connection: Connection, node: str) -> None:
        self._connection = connection
        self._node = node
        self._token: str | None = None
        self._renew_at = 0.0

    def read(self) -> str | None:
        """Return the token. Raises TokenError when the API server gives none."""
        if self._token is None or time.monotonic() >= self._renew_at:
            self._token = self._request()
            self._renew_at = time.monotonic() + RENEW_RATIO * LIFETIME_SECONDS
        return self._token

    def renew(self) -> None:
        """Ask anew at the next use."""
        self._token = None

    def _request(self) -> str:
        try:
            node = msgspec.json.decode(
                self._connection.get(f"/api/v1/nodes/{self._node}"), type=_Node
            )
            answer = self._connection.request(
                "POST",
                f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}/token",
                body={
                    "apiVersion": "authentication.k8s.io/v1",
                    "kind": "TokenRequest",
                    "spec": {
                        "audiences": [AUDIENCE],
                        "expirationSeconds": LIFETIME_SECONDS,
                        "boundObjectRef": {
                            "apiVersion": "v1",
                            "kind": "Node",
                            "name": self._node,
                            "uid": node.metadata.uid,
                        },
                    },
                },
            )
            return msgspec.json.decode(answer.body, type=_TokenRequest).status.token
        except (KubernetesError, msgspec.DecodeError) as error:
            raise TokenError(
                f"no token for {SERVICE_ACCOUNT} on node {self._node}: {error}"
            ) from error
