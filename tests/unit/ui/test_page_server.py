"""How the page is started: the settings that keep it safe, and clear words when it can't start."""

import socket

import pytest
from streamlit import config

from app.errors import PitwallError, SettingsError
from app.settings import Settings
from app.ui import server


def test_every_security_setting_is_set_and_known_to_streamlit() -> None:
    options = server.streamlit_options(Settings(web_port=8601))
    wanted = {
        "server.address": "127.0.0.1", "server.port": 8601, "server.enableCORS": True, "server.enableXsrfProtection": True,
        "client.showErrorDetails": "none", "client.toolbarMode": "minimal", "browser.gatherUsageStats": False, "runner.postScriptGC": False,
    }  # fmt: skip
    assert {name: options[name] for name in wanted} == wanted
    assert "127.0.0.1" in options["server.allowedHosts"]
    known = config.get_config_options()
    assert not set(options) - set(known)


def test_the_network_is_not_served_without_sign_in() -> None:
    with pytest.raises(SettingsError, match=r"PITWALL_WEB_HOST=0\.0\.0\.0 .* without sign-in"):
        server.run(Settings(web_host="0.0.0.0"))


@pytest.mark.parametrize(("host", "inside"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.1.2.3", False), ("pitwall.example", False)])  # fmt: skip
def test_loopback_is_known(host: str, inside: bool) -> None:
    assert server.is_loopback(host) is inside


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PitwallError,
            match=f"Port {port} on 127.0.0.1 is in use: stop what listens there, or set PITWALL_WEB_PORT",
        ):
            server.run(Settings(web_port=port))
