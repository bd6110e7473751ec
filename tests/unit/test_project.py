"""The project keeps its own rules: arrows, locks, and documents that are true."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from app.cli.program import build
from app.settings import Settings
from app.store import records
from collectors.settings import AgentSettings

ROOT = Path(__file__).parents[2]
PACKAGES = ("app", "collectors", "k8s")
LOCKS = sorted(ROOT.glob("requirements*.lock"))
PROSE = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def _pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.M))


def test_the_arrows_between_the_packages_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_modules_are_nouns_of_readable_length() -> None:
    vague = {"utils", "util", "helpers", "helper", "manager", "common", "misc"}
    sources = [path for path in _sources() if "versions" not in path.parts]  # migrations are lists
    assert [path for path in sources if path.stem in vague] == []
    assert [path for path in sources if len(path.read_text().splitlines()) > 400] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    assert not re.search(r"https?://|index-url|find-links|trusted-host|file:", text)
    for entry in re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", text, flags=re.M)):
        assert "--hash=sha256:" in entry, entry[:80]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_lock_pins_the_same_versions(lock: Path) -> None:
    assert _pins(lock).items() <= _pins(ROOT / "requirements.lock").items()


def test_the_agents_lock_holds_neither_page_nor_store() -> None:
    pins = _pins(ROOT / "requirements-agent.lock")
    assert {"nvidia-ml-py", "kubernetes"} <= pins.keys()
    assert pins.keys().isdisjoint(
        {"streamlit", "plotly", "sqlmodel", "sqlalchemy", "alembic", "numpy"}
    )


def _declared() -> set[str]:
    extras = PROJECT["optional-dependencies"].values()
    named = [*PROJECT["dependencies"], *(name for extra in extras for name in extra)]
    return {re.split(r"[\[<>=~!]", name)[0].lower() for name in named}


def test_each_dependency_is_locked_and_has_its_reason() -> None:
    reasons = (
        (ROOT / "docs" / "architecture.md").read_text().partition("## Dependencies")[2].lower()
    )
    for name in _declared():
        assert name in _pins(ROOT / "requirements.lock")
        assert re.search(rf"[|,;] *{re.escape(name)}\b", reasons), f"{name} has no reason"


def _commands() -> dict[str, Any]:
    return typer.main.get_command(build()).commands  # type: ignore[attr-defined]


def _typed() -> list[tuple[str, list[str]]]:
    found = []
    for path in PROSE:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.S):
            for command in re.split(r"&&|\n|(?<!\S)&(?!\S)", re.sub(r"\s#.*", "", block)):
                words = re.findall(r'"[^"]*"|\S+', command)
                if words and words[0].rpartition("/")[2] == "pitwall":
                    found.append((path.name, words[1:]))
    return found


def test_every_command_that_the_documents_type_exists_with_its_options() -> None:
    typed = _typed()
    assert len(typed) > 5
    for document, words in typed:
        command = _commands()[words[0]]
        rest = words[1:]
        if hasattr(command, "commands") and rest and not rest[0].startswith("-"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in rest:
            if word.startswith("-"):
                assert word in known, f"{document}: pitwall {' '.join(words)}"


def test_every_command_is_named_in_the_documents() -> None:
    prose = " ".join(path.read_text() for path in PROSE)
    written = set(re.findall(r"[a-z-]+", " ".join(re.findall(r"`[^`]*`|```.*?```", prose, re.S))))
    assert set(_commands()) - written == {"migrate"}


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text(), re.M))
    assert {"demo", "test", "lint", "types", "bench", "acceptance", "lock"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert (path.parent / link).exists(), link
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for anchor in re.findall(r"\]\(#([^)]+)\)", path.read_text()):
        assert anchor in anchors


RECORDS = {
    name.removesuffix("Record"): value
    for name, value in vars(records).items()
    if name.endswith("Record") and issubclass(value, msgspec.Struct)
}
NOT_LISTED = {"Event", "Frame", "Pod", "Rank"}  # the page's own; no listing writes them


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - NOT_LISTED))
def test_every_field_of_json_is_documented_and_no_other(name: str) -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section, f"docs/json.md has no section {name}"
    documented = re.findall(r"^\| `(\w+)` \| .+ \|$", section[1], re.M)
    assert documented == list(RECORDS[name].__struct_fields__)


@pytest.mark.parametrize("model", [Settings, AgentSettings], ids=lambda model: model.__name__)
def test_every_setting_is_documented_with_its_default(model: type) -> None:
    title = "Node agent" if model is AgentSettings else "Ingest, worker, page and command line"
    text = (ROOT / "docs" / "settings.md").read_text()
    section = text.partition(f"## {title}")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `PITWALL_(\w+)` \| (.*?) \| .+ \|$", section, re.M))
    fields = model.model_fields  # type: ignore[attr-defined]
    assert rows.keys() == {name.upper() for name in fields}
    for name, field in fields.items():
        if field.default_factory is None:
            expected = "none" if field.default is None else f"`{field.default}`"
            assert rows[name.upper()] == expected, name
