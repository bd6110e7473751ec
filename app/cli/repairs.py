"""A node's way back, as commands: under repair, and returned from it or from probation."""

from typing import Annotated

import typer

from app.cli.asking import Ask, Manner, ask_at_once
from app.cli.outcome import BadUse
from app.cli.output import Output, OutputOption

Nodes = Annotated[list[str], typer.Argument(metavar="NODE", help="Names of nodes.")]


def register(program: typer.Typer) -> None:
    program.command("repair")(repair)
    program.command("return")(give_back)


def repair(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="What is repaired, for those who read it later.")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Note that drained or cordoned nodes are under repair. They stay so until they return."""
    if not reason.strip():
        raise BadUse("--reason is empty; say what is repaired, others will read it.")
    parameters = {"nodes": list(dict.fromkeys(nodes)), "text": reason}
    ask = Ask("repair", parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=False, wait_timeout="5m", output=output))


def give_back(
    nodes: Nodes,
    reason: Annotated[str, typer.Option(help="Why, for those who read it later.")] = "",
    confirm: Annotated[
        str, typer.Option(help="Names of nodes that Failing or a foreign cordon stands against.")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when the uncordon has ended.")
    ] = False,
    wait_timeout: Annotated[
        str, typer.Option(help="How long --wait waits, then exit code 4.")
    ] = "5m",
    output: OutputOption = Output.TABLE,
) -> None:
    """Uncordon repaired nodes, which puts them on probation; end the probation of those on it."""
    parameters: dict[str, object] = {"nodes": list(dict.fromkeys(nodes))}
    if confirm:
        parameters["confirmation"] = confirm
    ask = Ask("return", parameters, reason=reason)
    ask_at_once(ask, Manner(yes=True, wait=wait, wait_timeout=wait_timeout, output=output))
