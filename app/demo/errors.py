"""Why a demo can't start or go on; each one sentence."""

from app.errors import PitwallError


class DemoError(PitwallError):
    """The demo did not start, or ended by itself."""
