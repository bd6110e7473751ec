"""The ports of the demo: which, and whether each is free."""

import errno
import socket
from dataclasses import dataclass, fields, replace

from app.demo.errors import DemoError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """TCP ports on the loopback address; 0 asks for a free one."""

    web: int = 8501
    ingest: int = 8470
    kubernetes: int = 8480
    prometheus: int = 8481
    control: int = 8482

    def url(self, name: str) -> str:
        """The http address of the port of that name."""
        return f"http://{LOOPBACK}:{getattr(self, name)}"


def take_ports(wanted: Ports) -> Ports:
    """Checks that each port is free and fills in free ones for 0.

    All are held at once while checking, so that no two are the same. Raises DemoError that names the
    port, what wants it, and the option that moves it.
    """
    held: list[socket.socket] = []
    taken: dict[str, int] = {}
    try:
        for field in fields(wanted):
            listener = socket.socket()
            held.append(listener)
            # As servers do: a port in TIME_WAIT from the demo before is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken[field.name] = _bind(listener, getattr(wanted, field.name), name=field.name)
    finally:
        for listener in held:
            listener.close()
    return replace(wanted, **taken)


def _bind(listener: socket.socket, port: int, *, name: str) -> int:
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"can't be had ({error.strerror})"
        raise DemoError(
            f"Port {port} of {LOOPBACK}, meant for {name}, {why}; end what holds it or give "
            f"--port-{name} another (0 takes a free one)."
        ) from error
    except OverflowError as error:
        raise DemoError(f"--port-{name} {port} is no port; it is 0 to 65535.") from error
    return int(listener.getsockname()[1])
