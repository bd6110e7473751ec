"""Text from the cluster on its way into Markdown: every sign that Streamlit's Markdown reads is made plain.

Labels, captions, titles, toasts and dialogs are Markdown in Streamlit: links, images fetched from anywhere,
:red[...] and :material/...: directives, $formulas$. What a node, a pod or a person named must pass `plain` first;
better still it goes to the page as data (a table's cell, a component's text), where nothing reads it as markup.
"""

import re
import unicodedata
from urllib.parse import urlsplit

# ASCII signs that CommonMark lets a backslash escape; the colon, the dollar and the bracket cover Streamlit's own.
_SIGNS = re.compile(r"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~])")
_SPACES = re.compile(r"\s+")


def plain(text: object) -> str:
    """The text as Markdown that shows exactly it, on one line.

    Control and direction-changing characters are dropped (a name must not reorder the words about it), and line
    breaks become spaces, so that it can't start a block.
    """
    return _SIGNS.sub(r"\\\1", visible(text))


def visible(text: object) -> str:
    """The text without control, format and direction characters, on one line; for where nothing is markup."""
    spaced = _SPACES.sub(" ", str(text))
    return "".join(
        sign for sign in spaced if unicodedata.category(sign) not in {"Cc", "Cf", "Co", "Cs"}
    ).strip()


def web_address(text: str) -> str | None:
    """The text if it is an http or https address, else None."""
    parts = urlsplit(text.strip())
    return text.strip() if parts.scheme in {"http", "https"} and parts.netloc else None
