"""Starts the page: Streamlit in this process, with every security setting written out."""

import errno
import ipaddress
import socket
import stat
import tomllib
from pathlib import Path
from typing import Any

from app.errors import PitwallError, SettingsError
from app.settings import Settings
from app.ui import context
from app.ui.theme import theme_options

SCRIPT = Path(__file__).parent / "dashboard.py"
LEAST_COOKIE_SECRET = 32
"""Characters: who guesses it signs in as anybody."""

_AUTH_KEYS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")


def run(settings: Settings) -> None:
    """Serves the page at settings.web_host and web_port until the process is told to stop.

    Raises SettingsError for an address that is not loopback without a sign-in (whoever opens the page may drain
    nodes) and for a sign-in that lacks a setting, and PitwallError when the port can't be had.
    """
    check_sign_in(settings)
    claim_port(settings.web_host, settings.web_port)
    # Streamlit reads its configuration at import; it is kept out of the other commands' start.
    from streamlit.web import bootstrap

    context.use(settings)
    options = {name.replace(".", "_"): value for name, value in streamlit_options(settings).items()}
    bootstrap.load_config_options(options)
    bootstrap.run(str(SCRIPT), False, [], options)


def streamlit_options(settings: Settings) -> dict[str, Any]:
    """Streamlit's options by dotted name: what must hold for safety, what was measured, and the theme."""
    return {
        "server.address": settings.web_host,
        "server.port": settings.web_port,
        "server.headless": True,
        "secrets.files": [str(settings.sign_in_secrets)] if settings.sign_in_secrets else [],
        "server.showEmailPrompt": False,
        # An empty list lets a foreign name that resolves to loopback through (DNS rebinding).
        "server.allowedHosts": sorted(
            {"localhost", "127.0.0.1", "::1", settings.web_host, *settings.web_names}
        ),
        "server.enableCORS": True,  # this, not the XSRF cookie, guards the websocket
        "server.enableXsrfProtection": True,
        "server.enableStaticServing": False,
        "server.enableAgentApi": False,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.maxUploadSize": 1,
        "client.showErrorDetails": "none",
        "client.showErrorLinks": False,
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": False,
        "runner.postScriptGC": False,  # a full collection after each run costs 40-84 ms
        "runner.magicEnabled": False,
        "logger.level": "warning",
        "logger.hideWelcomeMessage": True,
        **theme_options(),
    }


def check_sign_in(settings: Settings) -> None:
    """Raises SettingsError, naming the variable, where the page would be open to whom it should not be."""
    if settings.sign_in == "none":
        if not is_loopback(settings.web_host):
            raise SettingsError(
                f"PITWALL_WEB_HOST={settings.web_host} would open the page to the network without sign-in; set "
                "PITWALL_SIGN_IN, or keep 127.0.0.1 and reach it by `kubectl port-forward` or `ssh -L`."
            )
        return
    if not any(settings.role_groups.values()):
        raise SettingsError(
            "PITWALL_ROLE_GROUPS names no group, so nobody who signs in could look: name some, as JSON."
        )
    if settings.sign_in == "proxy":
        for name in ("proxy_issuer", "proxy_audience"):
            if not getattr(settings, name):
                raise SettingsError(
                    f"PITWALL_SIGN_IN=proxy needs PITWALL_{name.upper()}, to verify the proxy's token."
                )
        return
    _check_secrets(settings.sign_in_secrets)


def _check_secrets(path: Path | None) -> None:
    if path is None:
        raise SettingsError(
            "PITWALL_SIGN_IN=oidc needs PITWALL_SIGN_IN_SECRETS, a TOML file with an [auth] section."
        )
    try:
        section = tomllib.loads(path.read_text()).get("auth", {})
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"PITWALL_SIGN_IN_SECRETS={path} can't be read as TOML: {type(error).__name__}."
        ) from error
    if missing := [key for key in _AUTH_KEYS if not section.get(key)]:
        raise SettingsError(
            f"{path} lacks {', '.join(missing)} under [auth]: the sign-in needs them."
        )
    if len(str(section["cookie_secret"])) < LEAST_COOKIE_SECRET:
        raise SettingsError(
            f"cookie_secret in {path} is shorter than {LEAST_COOKIE_SECRET} characters: take a random one."
        )
    if mode & stat.S_IRWXO:
        raise SettingsError(f"{path} can be read by everybody on this machine: chmod 600 it.")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def claim_port(host: str, port: int) -> None:
    """Raises PitwallError with one sentence when the port can't be bound; Streamlit would only log it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = (
                "is in use"
                if error.errno == errno.EADDRINUSE
                else f"can't be bound ({error.strerror})"
            )
            raise PitwallError(
                f"Port {port} on {host} {why}: stop what listens there, or set PITWALL_WEB_PORT to another."
            ) from error
