"""The demo's directory: one demo at a time, a fresh store at each start, and the addresses beside it."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from app.demo.errors import DemoError

STORE = "pitwall.db"
MARKER = "demo.json"  # says that the store beside it was made by a demo
ENV_FILE = "pitwall.env"
LOGS = "logs"
SPOOLS = "agents"  # what the fleet of `simulate-agents` keeps; of a cluster that is gone
STALE = (ENV_FILE, "simulator.json", "kubeconfig", "token")

# Measured: the store of 64 nodes stays under 50 MB in an hour, each further node adds some 100 kB;
# the rest is for the logs.
FREE_BYTES = 200 * 2**20
FREE_BYTES_A_NODE = 2**18


@contextmanager
def hold(directory: Path, *, nodes: int) -> Iterator[Path]:
    """The directory as an absolute path, made when it is not there, held against a second demo.

    Raises DemoError when another demo holds it, when it can't be written, or when its disk is full.
    """
    path = directory.absolute()
    with _told(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(lock, path)
        _check_space(path, nodes=nodes)
        yield path
    finally:
        os.close(lock)


def clear(path: Path) -> None:
    """Removes what an earlier demo left. Raises DemoError when the store there is not a demo's."""
    store = path / STORE
    if store.exists() and not _is_own(path):
        raise DemoError(
            f"{store} was not made by a demo, so it is left alone; move it away or give another "
            f"--directory."
        )
    with _told(path):
        if _is_own(path) and (path / SPOOLS).exists():
            shutil.rmtree(path / SPOOLS)
        for name in (*STALE, STORE, f"{STORE}-wal", f"{STORE}-shm"):
            (path / name).unlink(missing_ok=True)
        (path / LOGS).mkdir(exist_ok=True)
        for log in path.glob(f"{LOGS}/*.log"):
            log.unlink()
        # Before the store is made, so that what a killed demo leaves half made is its own.
        (path / MARKER).write_text(json.dumps({"store": STORE}) + "\n")


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """Leaves pitwall.env for command lines beside the demo; readable by its owner alone."""
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    write_private(path / ENV_FILE, text)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read."""
    with _told(path.parent):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)


def remove_addresses(path: Path) -> None:
    """Takes the addresses away again, so that nothing points at a demo that has ended."""
    for name in STALE:
        (path / name).unlink(missing_ok=True)


def _is_own(path: Path) -> bool:
    try:
        return json.loads((path / MARKER).read_text()).get("store") == STORE
    except (OSError, ValueError, AttributeError):
        return False


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise DemoError(
            f"A demo already runs in {path} (process {holder}); stop it or give another --directory."
        ) from error
    with _told(path):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _check_space(path: Path, *, nodes: int) -> None:
    needed = FREE_BYTES + nodes * FREE_BYTES_A_NODE
    free = shutil.disk_usage(path).free
    if free < needed:
        raise DemoError(
            f"The disk of {path} is full: {free // 2**20} MiB are free and a demo of {nodes} nodes "
            f"wants {needed // 2**20}; free some or give another --directory."
        )


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what the file system refuses into a sentence about the demo's directory."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "its disk is full; free some space"
        else:
            why = f"{error.strerror}: {error.filename or path}; make it writable"
        raise DemoError(
            f"The demo can't write to {path}: {why} or give another --directory."
        ) from error
