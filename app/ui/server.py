"""Starts the page: Streamlit in this process, with every security setting written out."""

import errno
import ipaddress
import socket
from pathlib import Path
from typing import Any

from app.errors import PitwallError, SettingsError
from app.settings import Settings
from app.ui import context
from app.ui.theme import theme_options

SCRIPT = Path(__file__).parent / "dashboard.py"


def run(settings: Settings) -> None:
    """Serves the page at settings.web_host and web_port until the process is told to stop.

    Raises SettingsError for an address that is not loopback (there is no sign-in yet, and whoever opens the page
    may drain nodes), and PitwallError when the port can't be had.
    """
    if not is_loopback(settings.web_host):
        raise SettingsError(
            f"PITWALL_WEB_HOST={settings.web_host} would open the page to the network without sign-in; "
            "keep 127.0.0.1 and reach it by `kubectl port-forward` or `ssh -L`."
        )
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
        "server.showEmailPrompt": False,
        # An empty list lets a foreign name that resolves to loopback through (DNS rebinding).
        "server.allowedHosts": sorted({"localhost", "127.0.0.1", "::1", settings.web_host}),
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
