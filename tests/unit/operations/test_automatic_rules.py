"""Rules of automatic mode: what is taken, and what is said of a file that can't be."""

from pathlib import Path

import pytest

from app.errors import SettingsError
from app.operations.automatic_rules import load_automatic

DOCUMENT = Path(__file__).parents[3] / "docs" / "automatic.md"


def load(path: Path, text: str) -> tuple:
    path.write_text(text)
    return load_automatic(path)


def test_without_a_file_there_are_no_rules() -> None:
    assert load_automatic(None) == ()


def test_the_documents_example_is_taken(tmp_path: Path) -> None:
    example = DOCUMENT.read_text().split("```toml\n")[1].split("```")[0]
    first, second = load(tmp_path / "rules.toml", example)
    assert (first.action, first.acts, first.hold_seconds) == ("drain", "dry-run", 60)
    assert first.covers(rule="xid-79", severity="fatal", node="n1", block="a")
    assert not first.covers(rule="xid-79", severity="critical", node="n1", block="a")
    assert not first.covers(rule="xid-63", severity="fatal", node="n1", block="a")
    assert second.covers(rule="ecc-uncorrected", severity="critical", node="n1", block="")


def test_a_rule_that_is_off_is_none(tmp_path: Path) -> None:
    assert load(tmp_path / "rules.toml", '[[rule]]\nname = "a"\nacts = "off"\n') == ()


def test_a_rule_acts_only_where_it_says_so(tmp_path: Path) -> None:
    (rule,) = load(tmp_path / "rules.toml", '[[rule]]\nname = "a"\n')
    assert (rule.acts, rule.action, rule.severity) == ("dry-run", "quarantine", "critical")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]", "can't be read as TOML"),
        ("[[rule]]\n", "missing required field `name`"),
        ('[[rule]]\nname = "a"\nhold = 3\n', "unknown field `hold`"),
        ('[[rule]]\nname = "a"\nacts = "yes"\n', "acts"),
        ('[[rule]]\nname = "a"\nseverity = "bad"\n', "severity"),
        ('[[rule]]\nname = "a"\nhold_seconds = -1\n', "rule 'a': hold_seconds is -1"),
        ('[[rule]]\nname = "a"\naction = "drain"\nmode = "soon"\n', "rule 'a': mode is 'soon'"),
        (
            '[[rule]]\nname = "a"\naction = "drain"\nmode = "deadline"\n',
            "deadline_seconds go together",
        ),
        ('[[rule]]\nname = "a"\nmode = "checkpoint"\n', "for the action drain alone"),
        ('[[rule]]\nname = "a"\nfindings = []\n', "findings is empty"),
        ('[[rule]]\nname = "a"\n[[rule]]\nname = "a"\n', "two rules named 'a'"),
        ('[[rule]]\nname = ""\n', "without a name"),
        ("rules = 1\n", "unknown field `rules`"),
    ],
)
def test_a_file_that_can_not_be_taken_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "rules.toml", text)
    assert said in str(caught.value)
    assert str(tmp_path / "rules.toml") in str(caught.value)
    assert "\n" not in str(caught.value).split("; correct")[0].strip()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml"):
        load_automatic(tmp_path / "none.toml")
