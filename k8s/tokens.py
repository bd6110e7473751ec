"""Who is this, and may they: TokenReview, SubjectAccessReview, TokenRequest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from k8s.client import Connection
from k8s.errors import MalformedAnswerError
from k8s.objects import Narrow

# Extra fields that the API server puts into the review of a ServiceAccount token bound to a pod or a
# node: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/
NODE_NAME = "authentication.kubernetes.io/node-name"
NODE_UID = "authentication.kubernetes.io/node-uid"
POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"

# The shortest lifetime that the API server grants is 10 minutes; an hour is its default.
TOKEN_SECONDS = 3600

Answer = TypeVar("Answer", bound=Narrow)


@dataclass(frozen=True)
class TokenIdentity:
    """Whom a token stands for. Without authenticated nothing else counts, and error says why not.

    audiences: those of the asked ones that the token is meant for. node_name, pod_uid: what the token
    is bound to, None where it is not.
    """

    authenticated: bool
    username: str = ""
    groups: tuple[str, ...] = ()
    uid: str = ""
    node_name: str | None = None
    node_uid: str | None = None
    pod_name: str | None = None
    pod_uid: str | None = None
    audiences: tuple[str, ...] = ()
    error: str = ""
    extra: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class AccessAnswer:
    """Whether the identity may do it, and the authoriser's reason."""

    allowed: bool
    reason: str = ""


@dataclass(frozen=True)
class Token:
    """A ServiceAccount's token and the moment it ends (aware UTC)."""

    token: str
    expires_at: datetime


class _User(Narrow, frozen=True):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class _ReviewStatus(Narrow, frozen=True):
    authenticated: bool = False
    user: _User = _User()
    audiences: tuple[str, ...] = ()
    error: str = ""


class _TokenReview(Narrow, frozen=True):
    status: _ReviewStatus = _ReviewStatus()


class _AccessStatus(Narrow, frozen=True):
    allowed: bool = False
    denied: bool = False
    reason: str = ""
    evaluation_error: str = ""


class _AccessReview(Narrow, frozen=True):
    status: _AccessStatus = _AccessStatus()


class _RequestStatus(Narrow, frozen=True):
    token: str
    expiration_timestamp: datetime


class _TokenRequest(Narrow, frozen=True):
    status: _RequestStatus


def _first(extra: dict[str, tuple[str, ...]], key: str) -> str | None:
    values = extra.get(key)
    return values[0] if values else None


def _post(connection: Connection, path: str, body: dict[str, Any], answer: type[Answer]) -> Answer:
    content = connection.request("POST", path, body=body).body
    try:
        return msgspec.json.decode(content, type=answer)
    except msgspec.DecodeError as error:
        raise MalformedAnswerError(f"POST {path} answered no {body['kind']}: {error}") from error


def review_token(
    connection: Connection, token: str, audiences: Sequence[str] = ()
) -> TokenIdentity:
    """Whom the token stands for, if it is meant for one of the audiences (the API server's own without).

    An invalid token is an answer, not an error. Raises ApiError (403: our account may not create
    tokenreviews), UnreachableError, MalformedAnswerError.
    """
    if not token:  # which the API server calls a bad request
        return TokenIdentity(False, error="no token was given")
    spec: dict[str, Any] = {"token": token}
    if audiences:
        spec["audiences"] = list(audiences)
    review = _post(
        connection,
        "/apis/authentication.k8s.io/v1/tokenreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec},
        _TokenReview,
    )
    status = review.status
    if not status.authenticated:
        return TokenIdentity(False, error=status.error or "the token is not valid")
    # An authenticator that knows no audiences answers none: the token is the API server's own, and
    # nothing proves that it was meant for us.
    if audiences and not set(audiences) & set(status.audiences):
        return TokenIdentity(False, error=f"the token is not meant for {', '.join(audiences)}")
    user = status.user
    return TokenIdentity(
        True,
        username=user.username,
        groups=user.groups,
        uid=user.uid,
        node_name=_first(user.extra, NODE_NAME),
        node_uid=_first(user.extra, NODE_UID),
        pod_name=_first(user.extra, POD_NAME),
        pod_uid=_first(user.extra, POD_UID),
        audiences=status.audiences,
        extra=user.extra,
    )


def review_access(
    connection: Connection,
    identity: TokenIdentity,
    verb: str,
    group: str,
    resource: str,
    *,
    name: str | None = None,
    namespace: str | None = None,
) -> AccessAnswer:
    """Whether the person may do that: resource is the plural, "pods/eviction" with a subresource.

    Raises ApiError, UnreachableError, MalformedAnswerError.
    """
    if not identity.authenticated:
        return AccessAnswer(False, identity.error or "not authenticated")
    plural, _, subresource = resource.partition("/")
    attributes: dict[str, str] = {"verb": verb, "group": group, "resource": plural}
    if subresource:
        attributes["subresource"] = subresource
    if name:
        attributes["name"] = name
    if namespace:
        attributes["namespace"] = namespace
    spec: dict[str, Any] = {
        "resourceAttributes": attributes,
        "user": identity.username,
        "groups": list(identity.groups),
    }
    if identity.uid:
        spec["uid"] = identity.uid
    if identity.extra:
        spec["extra"] = {key: list(values) for key, values in identity.extra.items()}
    review = _post(
        connection,
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec},
        _AccessReview,
    )
    status = review.status
    reason = status.reason or status.evaluation_error
    return AccessAnswer(status.allowed and not status.denied, reason)


def request_token(
    connection: Connection,
    namespace: str,
    serviceaccount: str,
    audience: str | None,
    *,
    bound_node: tuple[str, str] | None = None,
    bound_pod: tuple[str, str] | None = None,
    lifetime_seconds: int = TOKEN_SECONDS,
) -> Token:
    """A token of the ServiceAccount for one audience (the API server's own with None).

    bound_node, bound_pod: (name, uid) of the object that the token dies with. Raises ApiError,
    UnreachableError, MalformedAnswerError.
    """
    spec: dict[str, Any] = {"expirationSeconds": lifetime_seconds}
    if audience is not None:
        spec["audiences"] = [audience]
    bound = ("Node", bound_node) if bound_node else ("Pod", bound_pod) if bound_pod else None
    if bound is not None and bound[1] is not None:
        kind, (bound_name, bound_uid) = bound
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": kind,
            "name": bound_name,
            "uid": bound_uid,
        }
    answer = _post(
        connection,
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{serviceaccount}/token",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        _TokenRequest,
    )
    return Token(answer.status.token, answer.status.expiration_timestamp)
