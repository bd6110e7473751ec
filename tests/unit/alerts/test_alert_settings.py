"""The file of alerts: what can't be used is one sentence with the key, and no secret is taken in it."""

from pathlib import Path

import pytest

from app.alerts.config import load_config, parse_config, receiver_of_page
from app.errors import SettingsError

ONE = '[[receiver]]\nname = "pager"\nurl_env = "X"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[receiver]\n", "not TOML"),
        ('[[receiver]]\nname = "a"\n', "needs url_env or url_file"),
        ('[[receiver]]\nname = "a"\nurl_env = "X"\nurl_file = "/y"\n', "one of both"),
        ('[[receiver]]\nname = "a"\nurl_file = "slack://a/b/c"\n', "holds an address"),
        ('[[receiver]]\nname = "a"\nurl = "slack://a/b/c"\n', "unknown field `url`"),
        (ONE + ONE, "a name that no other has"),
        (ONE + '[root]\nreceivers = ["chat"]\n', "names 'chat'"),
        (ONE + "[[route]]\nmatch = ['severity']\nreceivers = [\"pager\"]\n", "route[0].match[0]"),
        (ONE + '[root]\ngroup_by = ["severity"]\n', "severity, which may rise"),
        (ONE + "[root]\ngroup_interval_seconds = 0\n", "group_interval_seconds is 0"),
        ('[[quiet_hours]]\nname = "n"\nstart = "25:00"\nend = "07:00"\n', "times of day"),
        (
            '[[quiet_hours]]\nname = "n"\nstart = "22:00"\nend = "07:00"\ntime_zone = "Moon/Sea"\n',
            "not known here",
        ),
        ('[[escalation]]\nname = "x"\nreceivers = []\n', "needs receivers"),
    ],
)
def test_what_can_not_be_used_is_said_with_its_key(text: str, said: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the words are held below
        parse_config(text)
    assert said in str(caught.value)
    assert "b/c" not in str(caught.value)


def test_a_file_is_named_where_it_can_not_be_used(tmp_path: Path) -> None:
    path = tmp_path / "alerts.toml"
    path.write_text("x = 1\n")
    with pytest.raises(SettingsError, match=r"alerts\.toml: .*correct it"):
        load_config(path)
    with pytest.raises(SettingsError, match="PITWALL_ALERTS"):
        load_config(tmp_path / "none.toml")
    assert load_config(None).receiver == ()


@pytest.mark.parametrize("secret", ["../x", "/etc/passwd", ".hidden", "a/b", "", "a b"])
def test_a_receiver_of_the_page_reaches_no_file_outside_the_secrets_folder(
    secret: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no name of a file"):
        receiver_of_page("chat", secret, send_resolved=True, secrets_dir=tmp_path)


def test_a_receiver_of_the_page_is_a_file_or_a_variable_by_name(tmp_path: Path) -> None:
    assert (
        receiver_of_page("a", "chat", send_resolved=True, secrets_dir=tmp_path).url_file
        == tmp_path / "chat"
    )
    named = receiver_of_page("a", "PITWALL_ALERT_SECRET_A", send_resolved=False, secrets_dir=None)
    assert (named.url_env, named.send_resolved) == ("PITWALL_ALERT_SECRET_A", False)
    with pytest.raises(ValueError, match="is not set"):
        receiver_of_page("a", "chat", send_resolved=True, secrets_dir=None)
