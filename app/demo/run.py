"""Runs the demo from its start to Ctrl-C."""

import asyncio
import errno
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from app.demo.access import person_token
from app.demo.children import DEFAULTS, busy_node, environment, processes
from app.demo.directory import (
    ENV_FILE,
    LOGS,
    STORE,
    clear,
    hold,
    remove_addresses,
    write_environment,
    write_private,
)
from app.demo.errors import DemoError
from app.demo.ports import Ports, take_ports
from app.demo.supervisor import Supervisor

# Measured on 2 cores: 64 nodes are up in some 10 s, 2,000 in about a minute; thrice that on a busy one.
READY_SECONDS = 90.0
READY_SECONDS_A_NODE = 0.1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """What the demo is asked to be."""

    nodes: int
    seed: int
    directory: Path
    ports: Ports


def run_demo(demo: Demo, *, say: Say) -> None:
    """Starts everything, tells where it is, and returns when it was told to stop and has stopped.

    Raises DemoError in one sentence when it can't start or one of its processes ends.
    """
    with hold(demo.directory, nodes=demo.nodes) as path:
        ports = take_ports(demo.ports)
        clear(path)
        try:
            _make_store(path)
            asyncio.run(_supervise(demo, path, ports, say=say))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise DemoError(
                f"The disk of {path} is full; free some or give another --directory."
            ) from error
        finally:
            remove_addresses(path)


def _make_store(path: Path) -> None:
    from app.store.engine import migrate

    migrate(f"sqlite:///{path / STORE}")


async def _supervise(demo: Demo, path: Path, ports: Ports, *, say: Say) -> None:
    supervisor = Supervisor(path / LOGS)
    _stop_on_signals(supervisor)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            if await _start_all(demo, path, ports, supervisor=supervisor, client=client, say=say):
                say(_welcome(path, ports, node=await busy_node(client, path, ports)))
                await supervisor.until_stopped()
    finally:
        say("Stopping.")
        await supervisor.stop()
    say("Everything has stopped.")


async def _start_all(
    demo: Demo,
    path: Path,
    ports: Ports,
    *,
    supervisor: Supervisor,
    client: httpx.AsyncClient,
    say: Say,
) -> bool:
    """False when the demo was told to stop before all answered."""
    loop = asyncio.get_running_loop()
    timeout_seconds = READY_SECONDS + demo.nodes * READY_SECONDS_A_NODE
    children = processes(path, ports, nodes=demo.nodes, seed=demo.seed, client=client)
    for number, child in enumerate(children):
        begun = loop.time()
        await supervisor.start(child)
        if not await supervisor.until_ready(child, timeout_seconds=timeout_seconds):
            return False
        say(f"{child.name} is up ({loop.time() - begun:.1f} s)")
        if number == 0:
            write_private(path / "token", person_token(path / "kubeconfig") + "\n")
    write_environment(path, {**DEFAULTS, **environment(path, ports)})
    return True


def _stop_on_signals(supervisor: Supervisor) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, supervisor.stopping.set)


def _welcome(path: Path, ports: Ports, *, node: str) -> str:
    kubeconfig = path / "kubeconfig"
    pitwall = Path(sys.executable).with_name("pitwall")
    beside = path == Path(".demo").absolute()
    # Command lines in this folder find .demo/pitwall.env by themselves.
    load = "" if beside else f"set -a; . {path / ENV_FILE}; set +a\n  "
    where = "" if beside else f" --directory {path}"
    return f"""
Page        {ports.url("web")}
Kubeconfig  {kubeconfig}
Prometheus  {ports.url("prometheus")}
API         {ports.url("ingest")}/docs

Try, in another terminal in this folder:
  {load}{_short(pitwall)} simulate fault {node} xid-79{where}
  {_short(pitwall)} drain {node} --reason "XID 79"
  kubectl --kubeconfig {kubeconfig} get nodes,pods -A -o wide
Ctrl-C stops everything.
"""


def _short(program: Path) -> str:
    here = Path.cwd()
    return str(program.relative_to(here) if program.is_relative_to(here) else program)
