"""Reads the Containerfile and replays a target's steps in folders instead of layers."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass
class Stage:
    """A stage: what it starts from, and its instructions in order."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


def read_stages(text: str) -> dict[str, Stage]:
    """The stages of a Containerfile by name."""
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    for line in filter(None, (line.strip() for line in joined.splitlines())):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = stages[name.strip()] = Stage(name.strip(), base.strip())
        elif current is not None:
            current.steps.append((word, rest.strip()))
    return stages


def copied(stages: dict[str, Stage], name: str) -> list[str]:
    """What of the build context a stage, with all it is made of, copies."""
    stage = stages[name]
    found = copied(stages, stage.base) if stage.base in stages else []
    for word, rest in stage.steps:
        if word != "COPY":
            continue
        if match := re.match(r"--from=(\S+)", rest):
            found += copied(stages, match[1])
        else:
            found += rest.split()[:-1]
    return found


class Replay:
    """Replays stages below a folder: a stage's file system is a folder, its Python an environment in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stages = read_stages((ROOT / "Containerfile").read_text())

    def run(self, name: str) -> Path:
        """Replays a stage, those it needs first; its folder."""
        root = self._folder / name
        if root.exists():
            return root
        stage = self._stages[name]
        if stage.base in self._stages:
            base = self.run(stage.base)
            shutil.copytree(base, root, symlinks=True)
            self._move_scripts(root, base)
        else:
            subprocess.run([sys.executable, "-m", "venv", root / "usr"], check=True)
        state = _State(root, self._variables(stage))
        for word, rest in stage.steps:
            self._step(state, word, rest)
        return root

    def _variables(self, stage: Stage) -> dict[str, str]:
        inherited = self._variables(self._stages[stage.base]) if stage.base in self._stages else {}
        own = [shlex.split(rest) for word, rest in stage.steps if word == "ENV"]
        return inherited | dict(pair.split("=", 1) for pairs in own for pair in pairs)

    def _step(self, state: "_State", word: str, rest: str) -> None:
        if word == "WORKDIR":
            state.folder = state.inside(rest)
            state.folder.mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self._copy(state, rest)
        elif word == "RUN" and not rest.startswith("useradd"):
            state.shell(rest)

    def _copy(self, state: "_State", rest: str) -> None:
        source_root, words = ROOT, rest.split()
        if words[0].startswith("--from="):
            source_root = self.run(words.pop(0).removeprefix("--from="))
        *sources, target = words
        destination = state.inside(target)
        for source in sources:
            origin = source_root / source.lstrip("/")
            if origin.is_dir():
                shutil.copytree(
                    origin, destination, dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"),
                )  # fmt: skip
            else:
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, destination)

    def _move_scripts(self, root: Path, base: Path) -> None:
        # An environment's scripts name its own path; a layer would have kept it.
        for script in [*root.glob("usr/bin/*"), *root.glob("opt/pitwall/bin/*")]:
            if script.is_file() and not script.is_symlink():
                raw = script.read_bytes()
                script.write_bytes(raw.replace(str(base).encode(), str(root).encode()))


@dataclass
class _State:
    root: Path
    variables: dict[str, str]
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = self.root

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith("/") else self.folder / path

    def shell(self, command: str) -> None:
        """Runs a command line with the image's folders in place of / and only its own Pythons in PATH."""
        moved = re.sub(r"(?<!\S)/(?=opt/|wheels|source)", f"{self.root}/", command)
        path = f"{self.root}/opt/pitwall/bin:{self.root}/usr/bin:/usr/bin:/bin"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        subprocess.run(
            moved,
            shell=True,
            check=True,
            cwd=self.folder,
            env={**kept, **self.variables, "PATH": path, "PIP_QUIET": "2"},
        )
