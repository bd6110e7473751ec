"""The command line: `pitwall ...`. Commands import what they start when they start it.

So `pitwall agent` runs where neither page nor store is installed.
"""

from app.cli.program import main

__all__ = ["main"]
