"""Puts the commands together and turns an error into one sentence and an exit code."""

import sys

import typer

from app.cli import (
    alerts,
    automatic,
    controls,
    demo,
    incidents,
    inspect,
    listings,
    operations,
    processes,
    repairs,
    simulate,
)
from app.cli.outcome import FAILED
from app.errors import PitwallError, SettingsError
from collectors.errors import CollectorError
from k8s.errors import KubernetesError

HELP = (
    "The control room of an H100 training cluster. Commands of people speak to /v1 at PITWALL_URL."
)


def build() -> typer.Typer:
    """The whole command line."""
    program = typer.Typer(
        name="pitwall",
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    processes.register(program)
    demo.register(program)
    simulate.register(program)
    listings.register(program)
    incidents.register(program)
    operations.register(program)
    controls.register(program)
    alerts.register(program)
    automatic.register(program)
    repairs.register(program)
    inspect.register(program)
    return program


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and exits: 0 done, 1 failed, 2 bad use, 3 refused, 4 --wait ran out."""
    try:
        build()(args=arguments, prog_name="pitwall")
    except (PitwallError, CollectorError, KubernetesError) as error:
        typer.echo(f"pitwall: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 2 if isinstance(error, SettingsError) else FAILED))
    except KeyboardInterrupt:
        sys.exit(130)
