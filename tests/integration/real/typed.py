"""README's lines for a real cluster, and a terminal to type them on."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"


def lines_for_a_real_cluster() -> list[str]:
    """The commands under README's heading "A real cluster", one a line."""
    section = README.read_text().split("\n## A real cluster\n", 1)[1].split("\n## ", 1)[0]
    block = re.search(r"^```sh\n(.*?)^```", section, re.S | re.M)
    assert block, "README shows no commands for a real cluster"
    return [line for line in block[1].splitlines() if line and not line.startswith("#")]


def fill_in(line: str, words: Mapping[str, str]) -> str:
    """The line with its capitals, such as NODE, replaced; each must be in it."""
    for name, value in words.items():
        assert name in line, f"README's line no longer has {name}: {line}"
        line = line.replace(name, value)
    return line


def type_on_terminal(
    line: str,
    *,
    answer: str,
    question: str,
    environment: dict[str, str],
    folder: Path,
    seconds: float,
) -> tuple[int, str]:
    """Runs the line in a shell on a terminal and answers its question; the exit status and all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["/bin/sh", "-c", line],
        cwd=folder,
        env={**environment, "TERM": "dumb", "COLUMNS": "200"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown, answered = "", False
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    piece = os.read(ours, 65536)
                except OSError:  # Linux says so when the other side is closed
                    break
                shown += piece.decode(errors="replace").replace("\r\n", "\n")
            if question in shown and not answered:
                os.write(ours, f"{answer}\n".encode())
                answered = True
        return process.wait(max(0.1, end - time.monotonic())), shown
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{line} did not end in {seconds} s; it showed:\n{shown}") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        os.close(ours)
