"""Start of a process of the demo: `python -m app.demo.child COMMAND...`, which ends when the demo does.

The supervisor stops its children itself; this is for the case that it is killed and can't.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(parent_pid: int) -> None:
    """Asks Linux for a SIGTERM when the parent ends. Elsewhere it does nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:  # it ended before the line above
        sys.exit(0)


def main() -> None:
    """The first argument is the supervisor's process id, the rest is for the command line."""
    end_with_parent(int(sys.argv[1]))
    from app.cli import main as run_command

    run_command(sys.argv[2:])


if __name__ == "__main__":
    main()
