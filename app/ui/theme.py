"""The tokens: every colour, size and weight of the page, once.

Streamlit's theme options are filled from here and come back to the components as its own CSS variables
(`--st-red-color` and kin), so that light and dark follow one switch and no other file holds a colour.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Palette:
    """One mode's colours. A tone has a fill (cells, bars), a tint (grounds) and an ink (words, 4.5:1 on `ground`)."""

    ground: str
    panel: str
    line: str
    ink: str
    accent: str  # the primary button, under white words
    link: str
    calm: tuple[str, str, str]  # healthy: quiet grey-teal; the tint is a free GPU
    watch: tuple[str, str, str]  # degraded
    act: tuple[str, str, str]  # needs a person now, and nothing else
    busy: tuple[str, str, str]  # an operation is at work
    blank: tuple[str, str, str]  # unknown, drawn hatched
    kinds: tuple[
        str, ...
    ]  # jobs, teams, codes: told apart by each form of colour blindness, none of them red
    scale: tuple[str, ...]  # of a measured value, low to high: lightness alone tells the order


LIGHT = Palette(
    ground="#f7f9f9",
    panel="#edf2f2",
    line="#d3dddd",
    ink="#14252a",
    accent="#17686a",
    link="#17686a",
    calm=("#8db0ad", "#d3e1df", "#3c6765"),
    watch=("#d98f1f", "#faecd2", "#8a5200"),
    act=("#d1281d", "#fbe3e0", "#b51f15"),
    busy=("#3b7fc4", "#dfeaf7", "#1f5c9e"),
    blank=("#8b979b", "#e4e9ea", "#556267"),
    kinds=("#5c8ec2", "#dbb356", "#20244e", "#8dc5e4", "#8e7410", "#2d549f", "#624319"),
    scale=(
        "#d5e3e0",
        "#afced0",
        "#89b8c1",
        "#6aa1b6",
        "#4d8aab",
        "#3f709f",
        "#3d5491",
        "#383b7f",
        "#2e2964",
        "#24194a",
    ),
)

DARK = Palette(
    ground="#0f1617",
    panel="#172022",
    line="#2a383b",
    ink="#dbe5e5",
    accent="#2b7f7c",
    link="#66b7b2",
    calm=("#44716e", "#24393a", "#8bb5b1"),
    watch=("#d9952f", "#3a2c14", "#eab25a"),
    act=("#f2564a", "#43201d", "#ff8a7f"),
    busy=("#5b9be0", "#1a2d42", "#8fbdf0"),
    blank=("#78868a", "#252f31", "#9eabae"),
    kinds=("#6c82cf", "#c1ad7c", "#48d2f3", "#9b7434", "#3f4986", "#e8e99e", "#713e1f"),
    scale=(
        "#22383a",
        "#284b52",
        "#2e606b",
        "#397488",
        "#4889a6",
        "#629bc0",
        "#86acd7",
        "#a8beeb",
        "#ccd4f5",
        "#f0e9ff",
    ),
)

# Streamlit's names for our tones.
TONES = {"calm": "green", "watch": "orange", "act": "red", "busy": "blue", "blank": "gray"}


def theme_options() -> dict[str, Any]:
    """Streamlit's theme options, by their dotted names."""
    options: dict[str, Any] = {
        "theme.baseFontSize": 14,
        "theme.baseRadius": "4px",
        "theme.buttonRadius": "4px",
        "theme.headingFontSizes": ["1.5rem", "1.2rem", "1.05rem", "1rem", "1rem", "1rem"],
        "theme.headingFontWeights": [600, 600, 600, 600, 600, 600],
        "theme.codeFontSize": "0.93rem",
        "theme.showWidgetBorder": True,
        "theme.linkUnderline": False,
    }
    for mode, palette in (("light", LIGHT), ("dark", DARK)):
        options |= {f"theme.{mode}.{name}": value for name, value in _mode_options(palette).items()}
    return options


def _mode_options(palette: Palette) -> dict[str, str | list[str]]:
    options: dict[str, str | list[str]] = {
        "primaryColor": palette.accent,
        "backgroundColor": palette.ground,
        "secondaryBackgroundColor": palette.panel,
        "textColor": palette.ink,
        "linkColor": palette.link,
        "borderColor": palette.line,
        "dataframeBorderColor": palette.line,
        "chartCategoricalColors": list(palette.kinds),
        "chartSequentialColors": list(palette.scale),
    }
    for tone, name in TONES.items():
        fill, tint, ink = getattr(palette, tone)
        options |= {
            f"{name}Color": fill,
            f"{name}BackgroundColor": tint,
            f"{name}TextColor": ink,
        }
    return options
