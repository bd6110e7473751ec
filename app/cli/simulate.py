"""The simulated cluster, its agents and its faults."""

from pathlib import Path
from typing import Annotated

import typer


def register(program: typer.Typer) -> None:
    program.add_typer(_group(), name="simulate")
    program.command("simulate-agents")(simulate_agents)


def _group() -> typer.Typer:
    group = typer.Typer(help="The simulated cluster.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(simulate)
    return group


def simulate(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(help="Nodes of 8 GPUs.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed, the same history.")] = 1,
    port: Annotated[int, typer.Option(help="Kubernetes API; 0 takes a free one.")] = 0,
    port_prometheus: Annotated[int, typer.Option(help="Prometheus API; 0 takes a free one.")] = 0,
    port_control: Annotated[int, typer.Option(help="Control API; 0 takes a free one.")] = 0,
    directory: Annotated[Path, typer.Option(help="Gets kubeconfig and simulator.json.")] = Path(
        ".demo"
    ),
) -> None:
    """Serve a simulated cluster: the Kubernetes API, a Prometheus API and faults."""
    if context.invoked_subcommand is not None:
        return
    from app.simulator.server import serve

    serve(
        nodes=nodes,
        seed=seed,
        port=port,
        prometheus_port=port_prometheus,
        control_port=port_control,
        directory=directory,
    )


def simulate_agents(
    directory: Annotated[Path, typer.Option(help="Holds kubeconfig and simulator.json.")] = Path(
        ".demo"
    ),
) -> None:
    """Run the agents of a simulated cluster: the agent's own poll, judge and push code."""
    from app.simulator.fleet import run

    run(directory)
