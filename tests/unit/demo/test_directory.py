import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.demo.directory import clear, hold, remove_addresses, write_environment
from app.demo.errors import DemoError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB; needs root."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", mounted], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


def test_a_second_demo_in_the_same_directory_is_refused_and_told_who_holds_it(
    tmp_path: Path,
) -> None:
    with (
        hold(tmp_path / "d", nodes=1),
        pytest.raises(DemoError, match=str(os.getpid())),
        hold(tmp_path / "d", nodes=1),
    ):
        pass
    with hold(tmp_path / "d", nodes=1) as again:
        assert again == tmp_path / "d"


def test_a_demo_removes_what_an_earlier_one_left(tmp_path: Path) -> None:
    clear(tmp_path)
    for name in ("pitwall.db", "pitwall.db-wal", "pitwall.db-shm", "pitwall.env", "simulator.json"):
        (tmp_path / name).write_text("old")
    (tmp_path / "logs" / "web.log").write_text("old")
    (tmp_path / "agents" / "node-1").mkdir(parents=True)
    clear(tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["demo.json", "logs"]


def test_a_store_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pitwall.db").write_text("somebody's")
    with pytest.raises(DemoError, match=r"pitwall\.db was not made by a demo"):
        clear(tmp_path)
    assert (tmp_path / "pitwall.db").read_text() == "somebody's"


def test_a_full_disk_is_one_sentence(small_disk: Path) -> None:
    with pytest.raises(DemoError, match=r"full: [01] MiB are free"), hold(small_disk, nodes=64):
        pass


def test_a_disk_that_fills_while_starting_is_one_sentence(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 2**20)
    with pytest.raises(DemoError, match="its disk is full"):
        clear(small_disk)


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DemoError, match="can't write"), hold(tmp_path / "file" / "d", nodes=1):
        pass


def test_addresses_are_for_their_owner_and_are_taken_away_again(tmp_path: Path) -> None:
    write_environment(tmp_path, {"PITWALL_URL": "http://127.0.0.1:1"})
    path = tmp_path / "pitwall.env"
    assert path.read_text() == "PITWALL_URL='http://127.0.0.1:1'\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    remove_addresses(tmp_path)
    assert not path.exists()
