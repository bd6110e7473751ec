"""The page's files keep to the rules that Streamlit and the design ask for."""

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from app.ui import navigation, theme

UI = Path(navigation.__file__).parent


def test_no_file_shadows_a_module_since_streamlit_puts_the_folder_first() -> None:
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) - {
        "app",
        "collectors",
        "k8s",
    }
    mine = {path.stem for path in UI.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not mine & taken


def test_every_view_is_registered() -> None:
    modules = {f"app.ui.views.{path.stem}" for path in (UI / "views").glob("*.py")} - {
        "app.ui.views.__init__"
    }
    shown = {view.show.__module__ for view in navigation.VIEWS}
    inside = {
        "app.ui.views.node",
        "app.ui.views.incident",
        "app.ui.views.asking",
        "app.ui.views.node_history",
        "app.ui.views.saying",
        "app.ui.views.silencing",
        "app.ui.views.standing",
    }  # parts of the nodes view, of the incidents view and of every view
    assert modules == shown | inside


def test_nothing_lets_the_clusters_text_be_html() -> None:
    for path in UI.rglob("*"):
        if path.suffix in {".py", ".js"}:
            text = path.read_text()
            assert "unsafe_allow_html" not in text, path
            assert not re.search(
                r"\.(innerHTML|outerHTML)\b|insertAdjacentHTML|document\.write", text
            ), path


def test_colours_are_in_the_theme_alone() -> None:
    for path in UI.rglob("*"):
        if path.suffix in {".py", ".js", ".css"} and path.name != "theme.py":
            found = re.findall(r"#[0-9a-fA-F]{6}\b", path.read_text())
            assert not found, f"{path.name}: {found}"


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_words_can_be_read(palette: theme.Palette) -> None:
    """4.5 to 1, WCAG 2.1's contrast for text, on the ground and on the tone's own tint."""
    assert _contrast(palette.ink, palette.panel) >= 7
    assert _contrast("#ffffff", palette.accent) >= 4.5
    assert _contrast(palette.link, palette.ground) >= 4.5
    for tone in theme.TONES:
        _, tint, ink = getattr(palette, tone)
        assert _contrast(ink, palette.ground) >= 4.5, tone
        assert _contrast(ink, palette.panel) >= 4.5, tone
        assert _contrast(ink, tint) >= 4.5, tone


def _contrast(one: str, other: str) -> float:
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
