"""The TOML of alerts: what it takes, and what it refuses in one sentence with the key's path."""

import re

import pytest

from app.alerts.config import parse_config, receiver_of_page
from app.alerts.model import Matcher, parse_matcher

RECEIVER = '[[receiver]]\nname = "chat"\nurl_env = "PITWALL_ALERT_SECRET_CHAT"\n'


def test_a_file_with_every_table_is_taken() -> None:
    config = parse_config(
        RECEIVER
        + """
[[route]]
match = ['team="llm"', 'severity=~"critical|fatal"']
receivers = ["chat"]
continue = true
[[route.route]]
match = ['rack!="r1"']
receivers = ["chat"]
[[quiet_hours]]
name = "night"
start = "22:00"
end = "07:00"
time_zone = "Europe/Berlin"
"""
    )
    assert config.route[0].go_on
    assert config.route[0].matchers()[1] == Matcher("severity", "=~", "critical|fatal")
    assert config.route[0].route[0].receivers == ("chat",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[[receiver]]\nname = "a"\nurl = "slack://x"', "url"),
        ('[[receiver]]\nname = "a"\nurl_file = "mailto://x"', "receiver[0] (a) holds an address"),
        ('[[receiver]]\nname = "a"', "receiver[0] (a) needs url_env or url_file"),
        ('[[route]]\nreceivers = ["x"]', "route[0].receivers names 'x'"),
        (RECEIVER + "[[route]]\nmatch = ['severity=~\"(\"']", "route[0].match[0]"),
        (RECEIVER + '[root]\ngroup_by = ["severity"]', "root.group_by has severity"),
        ('[[quiet_hours]]\nname="n"\nstart="25:00"\nend="07:00"', "quiet_hours[0]"),
        ("[root]\nrepeat_seconds = 0", "root.repeat_seconds"),
        ("x = [", "not TOML"),
    ],
)
def test_what_cant_be_used_is_named_with_its_key(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_config(text)


def test_regexes_match_the_whole_value() -> None:
    assert parse_matcher('rack=~"r1"').matches({"rack": "r1"})
    assert not parse_matcher('rack=~"r1"').matches({"rack": "r12"})
    assert parse_matcher('rack!~"r1|r2"').matches({"rack": "r12"})
    assert parse_matcher('rack=""').matches({})


def test_a_receiver_of_the_page_reaches_no_file_beside_its_folder(tmp_path) -> None:
    for secret in ("../token", "/etc/passwd", "HOME/x", ".hidden"):
        with pytest.raises(ValueError, match="no name of a file"):
            receiver_of_page("chat", secret, send_resolved=True, secrets_dir=tmp_path)
    made = receiver_of_page("chat", "chat.url", send_resolved=True, secrets_dir=tmp_path)
    assert made.url_file == tmp_path / "chat.url"
