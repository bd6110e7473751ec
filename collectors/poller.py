"""The child process that holds NVML: answers polls, tells of NVML's events, and may hang.

Run as `python -m collectors.poller` with its questions on standard input and its answers on
standard output, each a four-byte length and a msgpack document. The parent
(collectors/child.py) never calls NVML itself and gives this process up when it hangs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import threading
from datetime import UTC, datetime
from typing import Any, BinaryIO

import msgspec

from collectors.errors import NvmlUnavailableError
from collectors.inventory import Inventory
from collectors.nvml import NodePoller, start
from collectors.nvml_events import EventWatch
from collectors.readings import Poll

MAX_FRAME_BYTES = 8 * 1024 * 1024
_LENGTH = struct.Struct("<I")
_PR_SET_PDEATHSIG = 1


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """First word of the parent: what was known of the node's GPUs before."""

    inventory: Inventory
    slow_interval_seconds: float


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Poll now."""

    number: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """NVML is initialised."""


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """The poll asked for."""

    number: int
    poll: Poll


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """NVML says that it cannot be used; the child ends after this."""

    message: str


class NvmlXid(msgspec.Struct, frozen=True, tag="xid"):
    """An XID from NVML's event queue."""

    at: datetime
    xid: int
    gpu_uuid: str | None
    pci_bus_id: str | None


class Nudge(msgspec.Struct, frozen=True, tag="nudge"):
    """NVML told of something other than an XID: worth a poll at once."""


Question = Begin | Ask
Told = Ready | Answer | Failure | NvmlXid | Nudge

_ENCODER = msgspec.msgpack.Encoder()


def write_frame(stream: BinaryIO, message: msgspec.Struct) -> None:
    """Write one message and flush."""
    body = _ENCODER.encode(message)
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """Return the next message's bytes, None at the end of the stream or of its sense."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME_BYTES:
        return None
    body = stream.read(length)
    return body if len(body) == length else None


def main() -> None:
    """Serve the parent until it closes the pipe or dies."""
    _die_with_parent()
    # A library that prints must not print into the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    lock = threading.Lock()

    def tell(message: msgspec.Struct) -> None:
        with lock:
            write_frame(answers, message)

    try:
        _serve(sys.stdin.buffer, tell)
    except (BrokenPipeError, KeyboardInterrupt):
        pass
    finally:
        # Nothing of NVML's own shutdown: it may hang as well.
        os._exit(0)


def _serve(questions: BinaryIO, tell: Any) -> None:
    ask_decoder = msgspec.msgpack.Decoder(Question)
    poller: NodePoller | None = None
    watch: EventWatch | None = None
    while (body := read_frame(questions)) is not None:
        question = ask_decoder.decode(body)
        try:
            if isinstance(question, Begin):
                start()
                poller = NodePoller(
                    question.inventory, slow_interval_seconds=question.slow_interval_seconds
                )
                tell(Ready())
            elif poller is not None:
                poll = poller.poll(datetime.now(UTC))
                tell(Answer(question.number, poll))
                if watch is None:
                    watch = EventWatch(
                        on_xid=lambda at, xid, uuid, pci: tell(NvmlXid(at, xid, uuid, pci)),
                        on_other=lambda: tell(Nudge()),
                    )
                watch.cover(poller.handles())
        except NvmlUnavailableError as error:
            tell(Failure(str(error)))
            return


def _die_with_parent() -> None:
    """Ask the kernel to end this process with its parent: a hung NVML would not notice."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: the closed pipe ends it


if __name__ == "__main__":
    main()
