"""Text from the cluster is shown as it is, whatever it holds."""

import pytest

from app.ui.components.text import plain, visible, web_address

HOSTILE = [
    "<img src=x onerror=alert(1)>", "![x](http://evil.example/pixel)", "[click](javascript:alert(1))", ":red[fine] :material/delete: :smile:",
    "$\\frac{1}{2}$", "`code` *bold* _it_ ~~no~~", "# heading", "- item", "> quote", "a | b", "&lt;b&gt;", "http://evil.example", "<http://evil.example>",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_every_sign_of_markdown_is_escaped(text: str) -> None:
    escaped = plain(text)
    signs = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    at = 0
    while at < len(escaped):
        assert escaped[at] == "\\" or escaped[at] not in signs, escaped
        at += 2 if escaped[at] == "\\" else 1


@pytest.mark.parametrize("text", HOSTILE)
def test_escaping_loses_nothing(text: str) -> None:
    undone, at, escaped = "", 0, plain(text)
    while at < len(escaped):
        at += escaped[at] == "\\"
        undone += escaped[at]
        at += 1
    assert undone == text


def test_characters_that_reorder_or_hide_text_are_dropped() -> None:
    assert visible("node\u202e10\u200b\x00\x1b[2J") == "node10[2J"


def test_line_breaks_become_spaces_so_that_no_block_begins() -> None:
    assert visible("a\n\n# b\r\n\tc") == "a # b c"


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil",
        "file:///etc/passwd",
        "http:",
        "nonsense",
    ],
)
def test_only_web_addresses_are_addresses(text: str) -> None:
    assert web_address(text) is None


def test_a_web_address_is_one() -> None:
    assert web_address(" https://runbooks.example/xid-79 ") == "https://runbooks.example/xid-79"
