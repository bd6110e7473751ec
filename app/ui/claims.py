"""The claims of who is at the page, from a token that was verified: by Streamlit's sign-in, or here of a proxy's.

A header alone proves nothing, since whoever reaches the page can send it. So the proxy's token is verified by
the issuer's own keys, for our audience, at each run; nothing is taken from a header beside it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import streamlit as st
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from app.identity import SignInRefused
from app.settings import Settings

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA")
"""What the issuer signs with; none and those with a shared secret are not among them."""

KEYS_SECONDS = 3600.0
ASK_AGAIN_SECONDS = 30.0
"""A token signed by a key that is not known asks for the keys anew, at most so often: keys are rotated."""

LEEWAY_SECONDS = 60
MAX_TOKEN_BYTES = 16_384
TIMEOUT_SECONDS = 5.0


def claims_of_visitor(settings: Settings) -> Mapping[str, Any] | None:
    """The verified claims of who is at the page, None where nobody has signed in.

    Raises SignInRefused for a token that is not good, and where it can't be verified now.
    """
    if settings.sign_in == "oidc":
        user = st.user.to_dict()
        return user if user.get("is_logged_in") is True else None
    said = st.context.headers.get(settings.proxy_token_header) or ""
    token = said.removeprefix("Bearer ").strip()
    return _verifier(settings.proxy_issuer or "", settings.proxy_audience or "").verify(token)


@st.cache_resource(show_spinner=False)
def _verifier(issuer: str, audience: str) -> "TokenVerifier":
    return TokenVerifier(issuer, audience)


class TokenVerifier:
    """Verifies tokens of one issuer for one audience; holds its keys. Safe to use from several threads."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        clock: Callable[[], float] = time.time,
        client: httpx.Client | None = None,
    ) -> None:
        self._issuer, self._audience = issuer, audience
        self._clock = clock
        self._client = client or httpx.Client(timeout=TIMEOUT_SECONDS)
        self._keys: KeySet | None = None
        self._asked_at = 0.0
        self._lock = threading.Lock()

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims of a good token. Raises SignInRefused, saying what is wrong with it and no more."""
        if not token:
            raise SignInRefused("The proxy handed on no token: open the page through the proxy.")
        if len(token) > MAX_TOKEN_BYTES:
            raise SignInRefused(f"The proxy's token is over {MAX_TOKEN_BYTES} bytes.")
        claims = self._decode(token)
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._audience},
            exp={"essential": True},
        )
        try:
            registry.validate(claims)
        except JoseError as error:
            raise SignInRefused(f"The proxy's token is not good here: {error}.") from error
        return claims

    def _decode(self, token: str) -> dict[str, Any]:
        keys, asked_now = self._known_keys(KEYS_SECONDS)
        try:
            return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError) as first:
            # By a key of after the last rotation, perhaps.
            newer, asked_now = (keys, True) if asked_now else self._known_keys(ASK_AGAIN_SECONDS)
            if newer is not keys:
                try:
                    return dict(jwt.decode(token, newer, algorithms=ALGORITHMS).claims)
                except (JoseError, ValueError):
                    pass
            raise SignInRefused(
                f"The proxy's token is not signed by {self._issuer} as it should be."
            ) from first

    def _known_keys(self, at_most_seconds: float) -> tuple[KeySet, bool]:
        """The issuer's keys, and whether they were asked for now: when those known are older than that."""
        with self._lock:
            now = self._clock()
            if self._keys is not None and now - self._asked_at < at_most_seconds:
                return self._keys, False
            try:
                self._keys = self._ask()
            except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError) as error:
                if self._keys is None:
                    raise SignInRefused(
                        f"The keys of {self._issuer} can't be had now, so nobody can be let in: "
                        f"{type(error).__name__}. Try again."
                    ) from error
            self._asked_at = now
            return self._keys, True

    def _ask(self) -> KeySet:
        found = self._client.get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        found.raise_for_status()
        if found.json()["issuer"] != self._issuer:
            raise ValueError(f"that is the issuer {found.json()['issuer']}")
        keys = self._client.get(found.json()["jwks_uri"])
        keys.raise_for_status()
        return KeySet.import_key_set(keys.json())
