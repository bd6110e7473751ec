"""How a command can end otherwise than well: the exit codes of docs/json.md and their errors."""

from app.errors import PitwallError

DONE = 0
FAILED = 1
BAD_USE = 2
REFUSED = 3  # by a limit or a budget
WAIT_RAN_OUT = 4


class CommandFailed(PitwallError):
    """The command did not do what was asked; nothing more precise applies."""

    exit_code = FAILED


class NoAnswer(CommandFailed):
    """/v1 did not answer: refused, hung, or said that it can't for now."""


class BadUse(CommandFailed):
    """The command was called in a way that can't be carried out."""

    exit_code = BAD_USE


class Refused(CommandFailed):
    """A limit or a budget stands against it."""

    exit_code = REFUSED


class WaitRanOut(CommandFailed):
    """`--wait` ended before the operation did; the operation goes on."""

    exit_code = WAIT_RAN_OUT
