"""Signing in: by an OpenID Connect provider, and by a proxy's token; what a role may, and the way out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from app.store.engine import open_store
from app.store.requests import pending
from tests.browser.identity_provider import CLIENT, SECRET, IdentityProvider, identity_provider
from tests.browser.pages import (
    PageServer,
    assert_no_exception,
    free_port,
    keep,
    needs_chromium,
    serving,
)
from tests.browser.seed import Seeded, beat, seed

pytestmark = [needs_chromium, pytest.mark.browser]

ROLES = json.dumps({"viewer": ["staff"], "operator": ["gpu-oncall"], "approver": ["gpu-leads"]})
ANA = {"email": "ana@example.com", "email_verified": True, "groups": ["gpu-oncall"]}


class Site:
    """A seeded page behind a sign-in."""

    def __init__(
        self, server: PageServer, provider: IdentityProvider, url: str, seeded: Seeded
    ) -> None:
        self.server, self.provider, self.store_url, self.seeded = server, provider, url, seeded


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Seeded]:
    url = f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"
    return url, seed(url, 64)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, seeded: tuple[str, Seeded]) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("oidc"), free_port()
    with identity_provider(ANA) as provider:
        secrets = folder / "secrets.toml"
        secrets.write_text(
            f"""[auth]
redirect_uri = "http://127.0.0.1:{port}/oauth2callback"
cookie_secret = "{"k" * 48}"
client_id = "{CLIENT}"
client_secret = "{SECRET}"
server_metadata_url = "{provider.url}/.well-known/openid-configuration"
"""
        )
        secrets.chmod(0o600)
        settings = {
            "PITWALL_SIGN_IN": "oidc",
            "PITWALL_SIGN_IN_SECRETS": str(secrets),
            "PITWALL_ROLE_GROUPS": ROLES,
        }
        log = folder / "page.log"
        with serving(seeded[0], log=log, port=port, settings=settings) as server:
            yield Site(server, provider, *seeded)


@pytest.fixture
def visitor(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    context.close()


def sign_in(page: Any, site: Site, address: str, claims: dict[str, Any]) -> None:
    beat(site.store_url)
    site.provider.claims = claims
    page.goto(site.server.url + address)
    page.get_by_role("button", name="Sign in").click()


def test_who_has_not_signed_in_sees_the_door_and_nothing_else(visitor: Any, site: Site) -> None:
    beat(site.store_url)
    visitor.goto(site.server.url + f"/nodes?name={site.seeded.failing}")
    expect(visitor.get_by_role("button", name="Sign in")).to_be_visible()
    keep(visitor, "sign-in-light")
    assert site.seeded.failing not in visitor.content()
    expect(visitor.locator(".pw-pulse")).to_have_count(0)
    assert_no_exception(visitor)


def test_after_signing_in_the_address_that_was_asked_for_is_open(visitor: Any, site: Site) -> None:
    sign_in(visitor, site, f"/nodes?name={site.seeded.failing}", ANA)
    expect(visitor.get_by_role("heading", name=site.seeded.failing)).to_be_visible()
    expect(visitor.get_by_role("button", name="ana@example.com")).to_be_visible()
    keep(visitor, "signed-in-light")
    visitor.get_by_role("button", name="Drain").first.click()
    # The worker is not running here: what counts is whose request it is.
    visitor.wait_for_function("document.body.innerText.includes('Asking the worker')")
    request = pending(open_store(site.store_url), "default")[-1]
    assert (request.author, request.author_role) == ("ana@example.com", "operator")
    assert request.author_groups == ["gpu-oncall", "system:authenticated"]
    assert_no_exception(visitor)


def test_a_viewer_sees_all_and_is_told_why_not_to_drain(visitor: Any, site: Site) -> None:
    sign_in(
        visitor,
        site,
        f"/nodes?name={site.seeded.drained}",
        {**ANA, "email": "vic@example.com", "groups": ["staff"]},
    )
    expect(visitor.get_by_role("heading", name=site.seeded.drained)).to_be_visible()
    button = visitor.get_by_role("button", name="Uncordon…")
    if button.is_enabled():  # the dialog says why, where the button does not
        button.click()
    expect(visitor.get_by_text("takes the role operator").first).to_be_visible()
    expect(visitor.get_by_role("button", name="Uncordon 1 node")).to_have_count(0)


def test_who_has_no_role_is_told_so_and_can_sign_in_as_another(visitor: Any, site: Site) -> None:
    sign_in(visitor, site, "/", {**ANA, "email": "eve@example.com", "groups": ["sales"]})
    expect(visitor.get_by_text("eve@example.com has no role here")).to_be_visible()
    keep(visitor, "sign-in-no-role-light")
    expect(visitor.locator(".pw-pulse")).to_have_count(0)
    visitor.get_by_role("button", name="Sign out").click()
    expect(visitor.get_by_text("has no role here")).to_have_count(0)
    site.provider.claims = ANA
    visitor.get_by_role("button", name="Sign in").click()
    expect(visitor.locator(".pw-pulse")).to_be_visible()


def test_signing_out_shuts_the_door(visitor: Any, site: Site) -> None:
    sign_in(visitor, site, "/", ANA)
    visitor.get_by_role("button", name="ana@example.com").click()
    visitor.get_by_role("button", name="Sign out").click()
    expect(visitor.get_by_role("button", name="Sign in")).to_be_visible()
    visitor.goto(site.server.url)
    expect(visitor.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_proxys_token_lets_in_and_a_mere_header_does_not(
    browser: Any, seeded: tuple[str, Seeded], tmp_path: Path
) -> None:
    with identity_provider(ANA) as provider:
        settings = {
            "PITWALL_SIGN_IN": "proxy",
            "PITWALL_PROXY_ISSUER": provider.url,
            "PITWALL_PROXY_AUDIENCE": CLIENT,
            "PITWALL_ROLE_GROUPS": ROLES,
        }
        with serving(seeded[0], log=tmp_path / "page.log", settings=settings) as server:
            forged = IdentityProvider(provider.url, dict(ANA)).token()
            for headers, inside in (
                ({"Authorization": f"Bearer {provider.token()}"}, True),
                ({"X-Forwarded-Email": "ana@example.com", "X-Forwarded-User": "ana"}, False),
                ({"Authorization": f"Bearer {forged}"}, False),
            ):
                beat(seeded[0])
                context = browser.new_context(extra_http_headers=headers)
                page = context.new_page()
                page.set_default_timeout(20_000)
                page.goto(server.url)
                page.wait_for_selector(".pw-pulse" if inside else ".pw-door")
                if inside:
                    expect(page.get_by_role("button", name="ana@example.com")).to_be_visible()
                else:
                    expect(page.locator(".pw-notes")).to_be_visible()
                    expect(page.locator(".pw-pulse")).to_have_count(0)
                context.close()
