"""How a demo starts, stops, starts again, and what it says when it can't."""

import os
import signal
import socket
from pathlib import Path

from tests.integration.demo.conftest import STOP_SECONDS, Demo


def _sentence(demo: Demo) -> str:
    (line,) = [line for line in demo.said if line.startswith("pitwall: ")]
    assert "Traceback" not in demo.text
    return line


def test_ctrl_c_stops_everything_and_a_second_start_is_clean(tmp_path: Path) -> None:
    first = Demo(tmp_path, "--nodes", "4")
    first.wait_until_up()
    assert len(first.processes()) >= 5
    assert first.read("status")["counts"]["nodes"] == 4
    assert first.interrupt() == 0
    assert first.processes() == {}
    assert not (first.directory / "pitwall.env").exists()
    assert "Everything has stopped" in first.text

    second = Demo(tmp_path, "--nodes", "3", "--seed", "2")
    second.wait_until_up()
    assert second.read("status")["counts"]["nodes"] == 3
    assert second.read("operations", "--all") == []

    third = Demo(tmp_path, "--nodes", "3")
    assert third.wait_for_end() == 1
    assert str(second.process.pid) in _sentence(third)

    # One of its processes dies: it says so, stops the rest, and ends.
    victims = [
        pid for pid, words in second.processes().items() if words.rstrip().endswith(" worker")
    ]
    os.kill(victims[0], signal.SIGKILL)
    assert second.wait_for_end() == 1
    assert "worker ended by itself (killed by SIGKILL)" in _sentence(second)
    assert second.processes() == {}


def test_sigterm_while_starting_stops_what_was_started(tmp_path: Path) -> None:
    demo = Demo(tmp_path, "--nodes", "4")
    demo.wait_for("its first process", demo.processes, seconds=60)
    demo.process.terminate()
    assert demo.process.wait(timeout=STOP_SECONDS) == 0
    assert demo.processes() == {}


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        demo = Demo(tmp_path, "--port-web", port)
        assert demo.wait_for_end() == 1
    assert f"Port {port} of 127.0.0.1" in _sentence(demo)
    assert "--port-web" in _sentence(demo)
    assert demo.processes() == {}


def test_a_store_that_is_not_the_demos_is_one_sentence_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".demo").mkdir()
    (tmp_path / ".demo" / "pitwall.db").write_text("old")
    demo = Demo(tmp_path)
    assert demo.wait_for_end() == 1
    assert "was not made by a demo" in _sentence(demo)
    assert (tmp_path / ".demo" / "pitwall.db").read_text() == "old"
