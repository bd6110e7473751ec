"""The supervisor with real processes: commands of the command line that end at once, or stay."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.demo.errors import DemoError
from app.demo.supervisor import STOP_SECONDS, Child, Supervisor


async def _is_up() -> str | None:
    return None


async def _is_not_up() -> str | None:
    return "still starting"


def _child(name: str, *command: str, ready: bool = False) -> Child:
    return Child(
        name=name,
        command=command,
        environment=dict(os.environ),
        ready=_is_up if ready else _is_not_up,
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# `--help` ends with 0, nonsense with 2: both are a process that should have stayed.
@pytest.mark.parametrize(("command", "status"), [("--help", 0), ("nonsense", 2)])
def test_a_process_that_ends_while_starting_is_told_with_its_last_words(
    tmp_path: Path, command: str, status: int
) -> None:
    async def start() -> None:
        supervisor = Supervisor(tmp_path)
        child = _child("ingest", command)
        await supervisor.start(child)
        try:
            await supervisor.until_ready(child, timeout_seconds=60)
        finally:
            await supervisor.stop()

    with pytest.raises(
        DemoError, match=rf"ingest ended by itself \(exit status {status}\), its last"
    ) as told:
        asyncio.run(start())
    assert str(tmp_path / "ingest.log") in str(told.value)


def test_a_process_that_stays_is_stopped_with_all_it_started_when_the_demo_is_told_to(
    tmp_path: Path,
) -> None:
    async def run() -> list[int]:
        supervisor = Supervisor(tmp_path)
        children = [
            _child(
                name, "simulate", "--nodes", "2", "--directory", str(tmp_path / name), ready=True
            )
            for name in ("one", "two")
        ]
        for child in children:
            await supervisor.start(child)
            assert await supervisor.until_ready(child, timeout_seconds=60)
        pids = supervisor.process_ids()
        assert all(_alive(pid) for pid in pids)
        asyncio.get_running_loop().call_later(0.5, supervisor.stopping.set)
        await supervisor.until_stopped()
        begun = asyncio.get_running_loop().time()
        await supervisor.stop()
        assert asyncio.get_running_loop().time() - begun < STOP_SECONDS + 2
        return pids

    pids = asyncio.run(run())
    assert len(pids) == 2
    assert not any(_alive(pid) for pid in pids)


def test_a_process_that_is_killed_ends_the_demo_and_is_named(tmp_path: Path) -> None:
    async def run() -> None:
        supervisor = Supervisor(tmp_path)
        child = _child("simulate", "simulate", "--directory", str(tmp_path), ready=True)
        await supervisor.start(child)
        (pid,) = supervisor.process_ids()
        asyncio.get_running_loop().call_later(0.2, os.kill, pid, signal.SIGKILL)
        try:
            await supervisor.until_stopped()
        finally:
            await supervisor.stop()

    with pytest.raises(DemoError, match=r"simulate ended by itself \(killed by SIGKILL"):
        asyncio.run(run())


def test_a_process_that_never_answers_is_told_with_what_is_missing(tmp_path: Path) -> None:
    async def run() -> None:
        supervisor = Supervisor(tmp_path)
        child = _child("simulate", "simulate", "--directory", str(tmp_path))
        await supervisor.start(child)
        try:
            await supervisor.until_ready(child, timeout_seconds=0.5)
        finally:
            await supervisor.stop()

    with pytest.raises(DemoError, match=r"simulate was not ready within 0 s \(still starting"):
        asyncio.run(run())


def test_being_told_to_stop_ends_the_waiting_for_a_process(tmp_path: Path) -> None:
    async def run() -> bool:
        supervisor = Supervisor(tmp_path)
        child = _child("simulate", "simulate", "--directory", str(tmp_path))
        await supervisor.start(child)
        asyncio.get_running_loop().call_later(0.3, supervisor.stopping.set)
        try:
            return await supervisor.until_ready(child, timeout_seconds=60)
        finally:
            await supervisor.stop()

    assert asyncio.run(run()) is False


def test_processes_end_also_when_the_demo_itself_is_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, os
from pathlib import Path
from app.demo.supervisor import Child, Supervisor

async def main():
    supervisor = Supervisor(Path({str(tmp_path)!r}))
    command = ["simulate", "--nodes", "2", "--directory", {str(tmp_path)!r}]
    await supervisor.start(Child("simulate", command, dict(os.environ), None))
    while not Path({str(tmp_path / "simulator.json")!r}).exists():
        await asyncio.sleep(0.05)
    print(supervisor.process_ids()[0], flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    demo = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert demo.stdout is not None
    pid = int(demo.stdout.readline())
    assert _alive(pid)
    demo.kill()
    demo.wait()
    end = time.monotonic() + 10
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _alive(pid)
