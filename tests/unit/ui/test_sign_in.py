"""Who may come in at the page: claims to a person, roles, a proxy's token, and what the page refuses to start with."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from app import roles
from app.errors import RequestRefused, SettingsError
from app.identity import SignInRefused, identity_of
from app.settings import Settings
from app.store import requests
from app.ui.claims import KEYS_SECONDS, TokenVerifier
from app.ui.server import check_sign_in

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "https://id.example.com", "pitwall"
GROUPS = {"viewer": ("*",), "operator": ("gpu-oncall",), "admin": ("gpu-admins",)}
SITE = Settings(sign_in="oidc", role_groups=GROUPS, sign_in_groups_prefix="oidc:")
CLAIMS: dict[str, Any] = {
    "email": "ana@example.com",
    "iat": NOW.timestamp() - 60,
    "groups": ["gpu-oncall", "all"],
}


def test_a_person_is_named_as_the_api_server_names_them() -> None:
    found = identity_of(CLAIMS, SITE, now=NOW)
    assert found.username == "ana@example.com"
    assert found.groups == ("oidc:gpu-oncall", "oidc:all", "system:authenticated")
    assert found.role == "operator"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"email": None}, "no claim email"),
        ({"email": "ana\nroot"}, "no claim email"),
        ({"email_verified": False}, "has not verified"),
        ({"iat": None}, "its age is unknown"),
        ({"iat": NOW.timestamp() - 50_000}, "sign in again"),
    ],
)
def test_claims_that_do_not_say_who_or_since_when_are_refused(
    changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(SignInRefused, match=said):
        identity_of({**CLAIMS, **changed}, SITE, now=NOW)


def test_who_has_no_role_is_not_let_in() -> None:
    with pytest.raises(SignInRefused, match="no role here"):
        identity_of(CLAIMS, Settings(role_groups={"admin": ("gpu-admins",)}), now=NOW)


def test_no_provider_can_put_a_person_into_a_group_of_kubernetes_itself() -> None:
    claims = {**CLAIMS, "groups": ["system:masters", "gpu-oncall"]}
    found = identity_of(claims, Settings(role_groups=GROUPS), now=NOW)
    assert found.groups == ("gpu-oncall", "system:authenticated")


def test_each_role_may_what_those_below_it_may() -> None:
    for kind in requests.KINDS:
        may = [roles.may(role, kind) for role in roles.ROLES]
        assert may == sorted(may), kind
        assert may[-1], kind
    assert not roles.may("viewer", "drain")
    assert roles.may("viewer", "preview")
    assert not roles.may("operator", "approve")
    assert not roles.may("approver", "receiver_add")
    assert not roles.may("stranger", "preview")
    assert roles.may(None, "approve")
    with pytest.raises(RequestRefused, match="takes the role operator"):
        roles.refuse_unless("ana", "viewer", "drain")


def test_every_kind_that_is_not_the_operators_is_a_kind() -> None:
    assert set(roles._NEEDS) - set(requests.KINDS) <= {"receiver_add", "receiver_disable"}


class Issuer:
    """An OpenID Connect provider's two documents, over HTTP's own client."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.answers = True
        self.asked = 0
        self.now = time.time()

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.answers:
            return httpx.Response(503)
        if request.url.path == "/.well-known/openid-configuration":
            return httpx.Response(200, json={"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"})
        return httpx.Response(200, json={"keys": [self.key.as_dict(private=False)]})

    def token(self, **changed: Any) -> str:
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "exp": int(self.now) + 300,
            "email": "ana@example.com",
        }
        header = {"alg": "RS256", "kid": self.key.kid}
        return jwt.encode(header, {**claims, **changed}, self.key)


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def verifier(issuer: Issuer) -> Iterator[TokenVerifier]:
    with httpx.Client(transport=httpx.MockTransport(issuer.handle)) as client:
        yield TokenVerifier(ISSUER, AUDIENCE, clock=lambda: issuer.now, client=client)


def test_a_good_token_of_the_proxy_tells_who(issuer: Issuer, verifier: TokenVerifier) -> None:
    assert verifier.verify(issuer.token())["email"] == "ana@example.com"
    verifier.verify(issuer.token())
    assert issuer.asked == 2, "the keys are kept"


@pytest.mark.parametrize(
    "make",
    [
        lambda issuer: "",
        lambda issuer: "ana@example.com",
        lambda issuer: issuer.token(aud="another"),
        lambda issuer: issuer.token(iss="https://elsewhere.example.com"),
        lambda issuer: issuer.token(exp=int(issuer.now) - 3600),
        lambda issuer: jwt.encode(
            {"alg": "RS256", "kid": "one"}, {"iss": ISSUER, "aud": AUDIENCE}, issuer.key
        ),
        lambda issuer: jwt.encode(
            {"alg": "RS256", "kid": "one"},
            {"iss": ISSUER, "aud": AUDIENCE, "exp": int(issuer.now) + 300},
            RSAKey.generate_key(2048, {"kid": "one"}),
        ),
        lambda issuer: jwt.encode(
            {"alg": "HS256", "kid": "one"},
            {"iss": ISSUER, "aud": AUDIENCE, "exp": int(issuer.now) + 300},
            OctKey.import_key("what-is-known-to-others-is-no-secret"),
        ),
        lambda issuer: issuer.token().rpartition(".")[0] + ".",
        lambda issuer: "x" * 20_000,
    ],
    ids=[
        "none",
        "a name",
        "audience",
        "issuer",
        "expired",
        "endless",
        "forged",
        "shared",
        "bare",
        "long",
    ],
)
def test_a_token_that_is_not_good_lets_nobody_in(
    make: Callable[[Issuer], str], issuer: Issuer, verifier: TokenVerifier
) -> None:
    with pytest.raises(SignInRefused):
        verifier.verify(make(issuer))


def test_keys_that_the_issuer_has_changed_are_asked_for_anew(
    issuer: Issuer, verifier: TokenVerifier
) -> None:
    verifier.verify(issuer.token())
    issuer.key = RSAKey.generate_key(2048, {"kid": "two"})
    issuer.now += 31
    assert verifier.verify(issuer.token())["aud"] == AUDIENCE


def test_forged_tokens_do_not_make_the_page_ask_the_issuer_each_time(
    issuer: Issuer, verifier: TokenVerifier
) -> None:
    good, asked = issuer.token(), issuer.asked
    verifier.verify(good)
    for _ in range(20):
        with pytest.raises(SignInRefused):
            verifier.verify(good[:-4] + "AAAA")
    assert issuer.asked - asked == 2


def test_an_issuer_that_is_down_locks_nobody_out_whose_key_is_known(
    issuer: Issuer, verifier: TokenVerifier
) -> None:
    verifier.verify(issuer.token())
    issuer.answers, issuer.now = False, issuer.now + KEYS_SECONDS + 1
    assert verifier.verify(issuer.token())["aud"] == AUDIENCE


def test_before_the_keys_were_ever_had_nobody_is_let_in(
    issuer: Issuer, verifier: TokenVerifier
) -> None:
    issuer.answers = False
    with pytest.raises(SignInRefused, match="can't be had now"):
        verifier.verify(issuer.token())


SECRETS = """[auth]
redirect_uri = "http://127.0.0.1/oauth2callback"
cookie_secret = "{cookie}"
client_id = "pitwall"
client_secret = "s"
server_metadata_url = "http://127.0.0.1/.well-known/openid-configuration"
"""


def test_the_page_does_not_start_half_open(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(SECRETS.format(cookie="c" * 40))
    secrets.chmod(0o600)
    good: dict[str, Any] = {
        "sign_in": "oidc",
        "sign_in_secrets": secrets,
        "role_groups": GROUPS,
        "web_host": "0.0.0.0",
    }
    check_sign_in(Settings(**good))
    for changed, named in (
        ({"sign_in": "none"}, "PITWALL_WEB_HOST"),
        ({"role_groups": {}}, "PITWALL_ROLE_GROUPS"),
        ({"sign_in_secrets": None}, "PITWALL_SIGN_IN_SECRETS"),
        ({"sign_in_secrets": tmp_path / "none.toml"}, "none.toml"),
        ({"sign_in": "proxy"}, "PITWALL_PROXY_ISSUER"),
        ({"sign_in": "proxy", "proxy_issuer": ISSUER}, "PITWALL_PROXY_AUDIENCE"),
    ):
        with pytest.raises(SettingsError, match=named):
            check_sign_in(Settings(**{**good, **changed}))
    secrets.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        check_sign_in(Settings(**good))
    secrets.chmod(0o600)
    secrets.write_text(SECRETS.format(cookie="short"))
    with pytest.raises(SettingsError, match="cookie_secret"):
        check_sign_in(Settings(**good))
    with pytest.raises(ValueError, match="role_groups"):
        Settings(role_groups={"boss": ("x",)})
