"""Who asks: bearer tokens, ServiceAccount tokens with audience and bound objects, impersonation."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import msgspec

from app.simulator.api import failures
from app.simulator.registry import Registry
from app.simulator.store import Object

ISSUER = "https://kubernetes.default.svc.cluster.local"
DEFAULT_AUDIENCE = ISSUER
# What a kube-apiserver takes: 10 minutes to 2^32 seconds; without a wish it gives an hour.
SHORTEST_TOKEN_SECONDS = 600
DEFAULT_TOKEN_SECONDS = 3600
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_UID = "authentication.kubernetes.io/node-uid"
_CREDENTIAL = "authentication.kubernetes.io/credential-id"


@dataclass(frozen=True)
class User:
    """An authenticated caller."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def as_user_info(self) -> dict[str, Any]:
        found: dict[str, Any] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            found["uid"] = self.uid
        if self.extra:
            found["extra"] = {key: list(values) for key, values in self.extra.items()}
        return found


ADMIN = User("pitwall-demo-admin", ("system:masters", "system:authenticated"))


class TokenInvalid(Exception):
    """The token proves nothing; says why."""


class Authenticator:
    """Issues and checks tokens; the signing key and the admin's token live as long as the process."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._key = secrets.token_bytes(32)
        self.admin_token = secrets.token_urlsafe(32)

    def authenticate(self, headers: Mapping[str, str]) -> User | None:
        """The caller of a request, None without credentials. Raises ApiFailure 401."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        try:
            user, _ = self.verify(token.strip(), (DEFAULT_AUDIENCE,))
        except TokenInvalid as error:
            raise failures.unauthorized() from error
        return user

    def verify(self, token: str, audiences: tuple[str, ...]) -> tuple[User, tuple[str, ...]]:
        """Who holds `token`, and which of `audiences` it is for. Raises TokenInvalid."""
        if hmac.compare_digest(token.encode(), self.admin_token.encode()):
            if DEFAULT_AUDIENCE not in audiences:
                raise TokenInvalid("token audiences do not match")
            return ADMIN, (DEFAULT_AUDIENCE,)
        claims = self._claims_of(token)
        held = tuple(one for one in audiences if one in claims["aud"])
        if not held:
            wanted, given = list(audiences), claims["aud"]
            raise TokenInvalid(
                f"token audiences {given} is invalid for the target audiences {wanted}"
            )
        if claims["exp"] <= self._registry.clock.now().timestamp():
            raise TokenInvalid("service account token has expired")
        return self._user_of(claims), held

    def _claims_of(self, token: str) -> dict[str, Any]:
        parts = token.split(".")
        if len(parts) != 3:
            raise TokenInvalid("invalid bearer token")
        try:
            signature = _decode(parts[2])
            claims = msgspec.json.decode(_decode(parts[1]))
        except (ValueError, msgspec.DecodeError) as error:
            raise TokenInvalid("invalid bearer token") from error
        signed = f"{parts[0]}.{parts[1]}".encode()
        if not hmac.compare_digest(signature, hmac.digest(self._key, signed, hashlib.sha256)):
            raise TokenInvalid("invalid bearer token")
        return dict(claims)

    def _user_of(self, claims: dict[str, Any]) -> User:
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        self._expect("serviceaccounts", namespace, account)
        extra: dict[str, tuple[str, ...]] = {_CREDENTIAL: (f"JTI={claims['jti']}",)}
        if pod := bound.get("pod"):
            self._expect("pods", namespace, pod)
            extra |= {_POD_NAME: (pod["name"],), _POD_UID: (pod["uid"],)}
        if node := bound.get("node"):
            if not bound.get("pod"):
                self._expect("nodes", "", node)
            extra |= {_NODE_NAME: (node["name"],), _NODE_UID: (node["uid"],)}
        groups = (
            "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
            "system:authenticated",
        )
        name = f"system:serviceaccount:{namespace}:{account['name']}"
        return User(name, groups, account["uid"], extra)

    def _expect(self, plural: str, namespace: str, wanted: Mapping[str, str]) -> Object:
        record = self._registry.get(plural, (namespace, wanted["name"]))
        if record is None or record.object["metadata"]["uid"] != wanted["uid"]:
            raise TokenInvalid(f"the bound object {plural}/{wanted['name']} is no longer there")
        return record.object

    def request_token(self, namespace: str, name: str, asked: Object) -> Object:
        """Answer a TokenRequest. Raises ApiFailure 404, 409, 422."""
        record = self._registry.get("serviceaccounts", (namespace, name))
        if record is None:
            raise failures.not_found("serviceaccounts", "", name)
        spec = dict(asked.get("spec") or {})
        audiences = [str(one) for one in spec.get("audiences") or ()] or [DEFAULT_AUDIENCE]
        seconds = int(spec.get("expirationSeconds") or DEFAULT_TOKEN_SECONDS)
        if seconds < SHORTEST_TOKEN_SECONDS:
            why = "may not specify a duration less than 10 minutes"
            cause = failures.wrong_value("spec.expirationSeconds", seconds, why)
            raise failures.invalid("TokenRequest", "authentication.k8s.io", name, [cause])
        bound: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": record.object["metadata"]["uid"]},
        }
        if reference := spec.get("boundObjectRef"):
            bound |= self._bind(namespace, reference)
        now = self._registry.clock.now()
        expires = now + timedelta(seconds=seconds)
        claims = {
            "aud": audiences,
            "exp": int(expires.timestamp()),
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "iss": ISSUER,
            "jti": secrets.token_hex(16),
            "kubernetes.io": bound,
            "sub": f"system:serviceaccount:{namespace}:{name}",
        }
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {
                "token": self._sign(claims),
                "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }

    def _bind(self, namespace: str, reference: Mapping[str, str]) -> dict[str, Any]:
        kind, name = reference.get("kind"), reference.get("name", "")
        plural = {"Pod": "pods", "Node": "nodes"}.get(kind or "")
        if plural is None:
            why = "cannot bind token to object of this type"
            cause = failures.unsupported_value("spec.boundObjectRef.kind", kind, ["Node", "Pod"])
            raise failures.invalid("TokenRequest", "authentication.k8s.io", why, [cause])
        record = self._registry.get(plural, ("" if plural == "nodes" else namespace, name))
        if record is None:
            raise failures.not_found(plural, "", name)
        uid = record.object["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            why = f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})"
            raise failures.conflict(plural, "", name, why)
        found: dict[str, Any] = {plural[:-1]: {"name": name, "uid": uid}}
        if plural == "pods" and (node := record.object["spec"].get("nodeName")):
            host = self._registry.get("nodes", ("", node))
            if host is not None:
                found["node"] = {"name": node, "uid": host.object["metadata"]["uid"]}
        return found

    def _sign(self, claims: dict[str, Any]) -> str:
        head = _encode(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
        signed = f"{head}.{_encode(msgspec.json.encode(claims))}"
        return f"{signed}.{_encode(hmac.digest(self._key, signed.encode(), hashlib.sha256))}"


def impersonated(user: User, headers: Mapping[str, str]) -> User:
    """The user a request acts as. Raises ApiFailure 403 unless the caller is a master."""
    name = headers.get("impersonate-user")
    if not name:
        return user
    if "system:masters" not in user.groups:
        why = f'User "{user.name}" cannot impersonate resource "users" in API group "" at the cluster scope'
        raise failures.forbidden("users", "", name, why)
    asked = headers.get("impersonate-group", "")
    groups = tuple(one.strip() for one in asked.split(",") if one.strip())
    return User(name, (*groups, "system:authenticated"))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
