"""What the simulator raises towards the person who starts it or asks it for something."""

from app.errors import PitwallError


class SimulatorError(PitwallError):
    """The simulator cannot do what was asked; the text is one sentence for a person."""


class FaultRefused(SimulatorError):
    """A fault was asked for that does not exist or on something that does not exist."""
