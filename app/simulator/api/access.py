"""What a caller may do: a small table of roles, and the reviews that ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.simulator.api import failures
from app.simulator.api.identities import (
    DEFAULT_AUDIENCE,
    Authenticator,
    TokenInvalid,
    User,
)
from app.simulator.store import Object

READ = ("get", "list", "watch")


@dataclass(frozen=True)
class Rule:
    """Verbs on resources; a subresource is named resource/subresource, * is any."""

    verbs: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass(frozen=True)
class Attributes:
    """What somebody wants to do."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""


_VIEW = (
    Rule(
        READ,
        (
            "nodes",
            "pods",
            "pods/log",
            "events",
            "namespaces",
            "jobs.batch",
            "poddisruptionbudgets.policy",
            "leases.coordination.k8s.io",
            "daemonsets.apps",
            "deployments.apps",
            "replicasets.apps",
            "statefulsets.apps",
        ),
    ),
)
_OPERATE = (
    *_VIEW,
    Rule(("patch",), ("nodes", "jobs.batch")),
    Rule(("create",), ("pods/eviction", "events", "subjectaccessreviews.authorization.k8s.io")),
    Rule(("patch",), ("events",)),
    Rule(("create", "update", "patch"), ("leases.coordination.k8s.io",)),
)
_REVIEW = (
    Rule(
        ("create",),
        ("tokenreviews.authentication.k8s.io", "subjectaccessreviews.authorization.k8s.io"),
    ),
)
_ANYBODY = (
    Rule(
        ("create",),
        (
            "selfsubjectreviews.authentication.k8s.io",
            "selfsubjectaccessreviews.authorization.k8s.io",
        ),
    ),
)

# By user name or group. A name that is not here may do what everybody may.
ROLES: Mapping[str, tuple[Rule, ...]] = {
    "system:masters": (Rule(("*",), ("*",)),),
    "system:authenticated": _ANYBODY,
    "system:serviceaccount:pitwall:pitwall-worker": _OPERATE,
    "system:serviceaccount:pitwall:pitwall-ingest": _REVIEW,
    # What only power-off allows (k8s/manifests/break-glass): the worker acts as this account for it.
    "system:serviceaccount:pitwall:pitwall-break-glass": (
        Rule(("get",), ("nodes", "pods")),
        Rule(("patch",), ("nodes", "pods/status")),
        Rule(("delete",), ("pods",)),
    ),
    "system:serviceaccount:pitwall:pitwall-automatic": _OPERATE,
    "pitwall:demo": (*_OPERATE, Rule(("delete",), ("pods",))),
    "pitwall:operators": _OPERATE,
    "pitwall:viewers": _VIEW,
}


def may(user: User, wanted: Attributes) -> tuple[bool, str]:
    """Whether `user` may do what is wanted, and why."""
    resource = wanted.resource
    if wanted.subresource:
        resource += f"/{wanted.subresource}"
    if wanted.group:
        resource = f"{wanted.resource}.{wanted.group}"
        if wanted.subresource:
            resource += f"/{wanted.subresource}"
    for who in (user.name, *user.groups):
        for rule in ROLES.get(who, ()):
            if ("*" in rule.verbs or wanted.verb in rule.verbs) and (
                "*" in rule.resources or resource in rule.resources
            ):
                return True, f'the simulator\'s role of "{who}" allows it'
    return False, ""


def authorize(user: User, wanted: Attributes) -> None:
    """Raises ApiFailure 403 when `user` may not do what is wanted."""
    allowed, _ = may(user, wanted)
    if allowed:
        return
    resource = wanted.resource + (f"/{wanted.subresource}" if wanted.subresource else "")
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    why = (
        f'User "{user.name}" cannot {wanted.verb} resource "{resource}" '
        f'in API group "{wanted.group}" {where}'
    )
    raise failures.forbidden(wanted.resource, wanted.group, wanted.name, why)


def review_token(authenticator: Authenticator, review: Object) -> Object:
    """Answer a TokenReview."""
    spec = review.get("spec") or {}
    token = spec.get("token")
    if not token:
        raise failures.bad_request("token is required for TokenReview in authentication")
    audiences = tuple(spec.get("audiences") or (DEFAULT_AUDIENCE,))
    try:
        user, held = authenticator.verify(token, audiences)
    except TokenInvalid as error:
        said = str(error)
        text = f"[invalid bearer token, {said}]" if said != "invalid bearer token" else said
        status: Object = {"authenticated": False, "user": {}, "error": text}
    else:
        status = {"authenticated": True, "user": user.as_user_info(), "audiences": list(held)}
    return {**review, "metadata": {}, "status": status}


def review_access(review: Object) -> Object:
    """Answer a SubjectAccessReview."""
    spec = review.get("spec") or {}
    if not spec.get("user") and not spec.get("groups"):
        cause = failures.wrong_value(
            "spec.user", "", "at least one of user or group must be specified"
        )
        raise failures.invalid("SubjectAccessReview", "authorization.k8s.io", "", [cause])
    user = User(spec.get("user") or "", tuple(spec.get("groups") or ()))
    return _answer(review, user)


def review_own_access(user: User, review: Object) -> Object:
    """Answer a SelfSubjectAccessReview."""
    return _answer(review, user)


def _answer(review: Object, user: User) -> Object:
    asked = (review.get("spec") or {}).get("resourceAttributes")
    if asked is None:
        allowed, reason = "system:masters" in user.groups, ""
    else:
        wanted = Attributes(
            verb=asked.get("verb", ""),
            group=asked.get("group", ""),
            resource=asked.get("resource", ""),
            subresource=asked.get("subresource", ""),
            namespace=asked.get("namespace", ""),
            name=asked.get("name", ""),
        )
        allowed, reason = may(user, wanted)
    status: Object = {"allowed": allowed}
    if reason:
        status["reason"] = reason
    return {**review, "metadata": {}, "status": status}
