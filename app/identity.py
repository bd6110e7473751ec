"""Who a verified token's claims say is at the page. Pure; what verified them is app/ui/sign_in.py.

Names and groups are made as the API server's own OpenID Connect options make them, so that Kubernetes
knows the same person (--oidc-username-claim, --oidc-groups-claim and their prefixes).
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from app.errors import PitwallError
from app.roles import role_of
from app.settings import Settings

MAX_NAME_LENGTH = 200
MAX_GROUPS = 500


class SignInRefused(PitwallError):
    """The token is good, and yet its bearer may not come in: one sentence says why."""


class Identity(msgspec.Struct, frozen=True):
    """A person at the page. groups: None where no token proved the name; role: None where there are no roles."""

    username: str
    groups: tuple[str, ...] | None = None
    role: str | None = None


def identity_of(claims: Mapping[str, Any], settings: Settings, *, now: datetime) -> Identity:
    """The person of an ID token's claims.

    Raises SignInRefused without a name, with an address that nobody verified, when the sign-in is older than
    settings.sign_in_max_age_seconds, or when no group of theirs has a role.
    """
    claim = settings.sign_in_username_claim
    name = _text(claims.get(claim))
    if not name:
        raise SignInRefused(
            f"The token has no claim {claim}: set PITWALL_SIGN_IN_USERNAME_CLAIM to one that it has."
        )
    if claim == "email" and claims.get("email_verified", True) is not True:
        raise SignInRefused(
            f"{name} is an address that the provider has not verified: verify it there."
        )
    signed_at = claims.get("auth_time") or claims.get("iat")
    if not isinstance(signed_at, int | float):
        raise SignInRefused(
            "The token does not say when it was issued (iat), so its age is unknown."
        )
    if now.timestamp() - signed_at > settings.sign_in_max_age_seconds:
        raise SignInRefused(f"{name} signed in too long ago: sign in again.")
    told = _groups(claims.get(settings.sign_in_groups_claim))
    role = role_of(told, settings.role_groups)
    if role is None:
        raise SignInRefused(
            f"{name} has no role here: no group in the token ({', '.join(told[:5]) or 'it lists none'}) is one "
            "that PITWALL_ROLE_GROUPS names. Ask for one, or sign in as somebody else."
        )
    return Identity(
        (settings.sign_in_username_prefix or "") + name,
        (
            *((settings.sign_in_groups_prefix or "") + group for group in told),
            "system:authenticated",
        ),
        role,
    )


def _text(value: object) -> str:
    """A claim as a name, "" where it is none: rows and headers take no control characters."""
    if not isinstance(value, str) or len(value) > MAX_NAME_LENGTH or not value.isprintable():
        return ""
    return value.strip()


def _groups(value: object) -> tuple[str, ...]:
    """The groups of a claim, a name alone being one. system: is Kubernetes's own and proven by nobody else."""
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    named = [_text(entry) for entry in listed[:MAX_GROUPS]]
    return tuple(name for name in named if name and not name.startswith("system:"))
