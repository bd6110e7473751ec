"""What the agent remembers of its node over a restart: one JSON file, replaced whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec
import structlog

from collectors.errors import SpoolError
from collectors.folding import Folding
from collectors.inventory import Inventory
from collectors.kernel_log import Place
from collectors.ledger import Ledger
from collectors.ports import Tracks

log = structlog.get_logger()

FILE_NAME = "memory.json"


class Memory(msgspec.Struct, frozen=True, omit_defaults=True):
    """Open findings with their episodes, XIDs that may still be told twice, the GPUs ever
    seen, the place in the kernel log, and what InfiniBand ports did."""

    ledger: Ledger = Ledger()
    folding: Folding = Folding()
    inventory: Inventory = Inventory()
    place: Place = Place()
    ports: Tracks = {}


def load_memory(directory: Path) -> Memory:
    """Return what was remembered; a broken file is put aside and said, not fatal."""
    path = directory / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Memory()
    except OSError as error:
        raise SpoolError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return msgspec.json.decode(data, type=Memory)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.error(
            "the agent's memory is broken and begins anew: open findings get new episodes",
            path=str(path),
            error=str(error),
        )
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".broken"))
        return Memory()


def save_memory(directory: Path, memory: Memory, *, sync: bool = True) -> None:
    """Replace the file. Raises SpoolError when it cannot be written; the old one then stays."""
    path = directory / FILE_NAME
    fresh = path.with_suffix(".new")
    try:
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(memory))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise SpoolError(f"{path} cannot be written: {error.strerror or error}") from error
