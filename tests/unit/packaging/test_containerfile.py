"""The images' contents, without an engine: what is copied, and what the agent's code then imports."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.packaging.containerfile import ROOT, Replay, copied, read_stages

PAGE_AND_STORE = {"streamlit", "plotly", "sqlmodel", "sqlalchemy", "alembic", "fastapi", "numpy"}
STAGES = read_stages((ROOT / "Containerfile").read_text())
LOADED = """
import json, sys
import collectors.agent
from app.cli.program import build
build()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
print(collectors.agent.__file__)
"""


def _check_agent(python: Path | str, *, folder: Path, **variables: str) -> None:
    done = subprocess.run(
        [python, "-c", LOADED],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    modules, origin = done.stdout.splitlines()
    assert PAGE_AND_STORE.isdisjoint(json.loads(modules))
    assert not origin.startswith(str(ROOT)), "the tree's own code was loaded, not the image's"


def test_there_is_an_image_for_the_agent_and_one_for_the_server() -> None:
    assert {"agent", "server"} <= STAGES.keys()


@pytest.mark.parametrize("target", ["agent", "server"])
def test_all_that_an_image_copies_is_there(target: str) -> None:
    paths = copied(STAGES, target)
    assert f"requirements-{target}.lock" in paths
    for path in paths:
        assert path.startswith("/wheels") or (ROOT / path).exists(), path


def test_the_server_runs_as_nobody_in_particular_and_each_starts_pitwall() -> None:
    assert ("USER", "10001:10001") in STAGES["server"].steps
    for target in ("agent", "server"):
        assert ("ENTRYPOINT", '["pitwall"]') in STAGES[target].steps


def test_what_the_agents_image_copies_is_enough_for_the_agent_and_holds_no_page(
    tmp_path: Path,
) -> None:
    for path in copied(STAGES, "agent"):
        if not path.startswith(("k8s", "collectors", "app")):
            continue
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, target, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / path, target)
    assert not (tmp_path / "app" / "ui").exists()
    assert not (tmp_path / "app" / "store" / "tables").exists()
    _check_agent(sys.executable, folder=tmp_path, PYTHONPATH=str(tmp_path))


@pytest.mark.acceptance
def test_the_agents_image_built_from_its_lock_starts_and_has_neither_page_nor_store(
    tmp_path: Path,
) -> None:
    root = Replay(tmp_path).run("agent")
    python = root / "opt/pitwall/bin/python"
    _check_agent(python, folder=tmp_path)
    for name in sorted(PAGE_AND_STORE):
        assert subprocess.run([python, "-c", f"import {name}"], capture_output=True).returncode == 1
    done = subprocess.run(
        [root / "opt/pitwall/bin/pitwall", "agent", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.acceptance
def test_the_servers_image_built_from_its_lock_makes_a_store(tmp_path: Path) -> None:
    root = Replay(tmp_path).run("server")
    done = subprocess.run(
        [root / "opt/pitwall/bin/pitwall", "migrate"],
        env={**os.environ, "PITWALL_STORE_URL": f"sqlite:///{tmp_path}/pitwall.db"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pitwall.db").stat().st_size > 0
