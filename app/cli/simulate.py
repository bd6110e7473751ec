"""The simulated cluster, its agents and its faults."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import print_json
from app.cli.simulator_control import call_simulator

DEMO_DIRECTORY = Path(".demo")
Directory = Annotated[Path, typer.Option(help="Where kubeconfig and simulator.json are.")]


def register(program: typer.Typer) -> None:
    program.add_typer(_group(), name="simulate")
    program.command("simulate-agents")(simulate_agents)


def _group() -> typer.Typer:
    group = typer.Typer(help="The simulated cluster.", rich_markup_mode=None)
    group.callback(invoke_without_command=True)(simulate)
    group.command("fault")(fault)
    group.command("faults")(faults)
    group.command("repair")(repair)
    return group


def simulate(
    context: typer.Context,
    nodes: Annotated[int, typer.Option(help="Nodes of 8 GPUs.", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed, the same history.")] = 1,
    port: Annotated[int, typer.Option(help="Kubernetes API; 0 takes a free one.")] = 0,
    port_prometheus: Annotated[int, typer.Option(help="Prometheus API; 0 takes a free one.")] = 0,
    port_control: Annotated[int, typer.Option(help="Control API; 0 takes a free one.")] = 0,
    directory: Directory = DEMO_DIRECTORY,
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
    directory: Directory = DEMO_DIRECTORY,
) -> None:
    """Run the agents of a simulated cluster: the agent's own poll, judge and push code."""
    from app.simulator.fleet import run

    run(directory)


def fault(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    kind: Annotated[str, typer.Argument(help="xid-N, gpu-lost, nvml-hang, node-dead, ...")],
    gpu: Annotated[
        int | None, typer.Option(min=0, help="Index of the GPU; else the first.")
    ] = None,
    directory: Directory = DEMO_DIRECTORY,
) -> None:
    """Break something: a GPU, its driver, or the whole node."""
    body = {"node": node, "kind": kind}
    call_simulator(
        directory, "POST", "/simulator/faults", body=body if gpu is None else {**body, "gpu": gpu}
    )
    where = node if gpu is None else f"GPU {gpu} of {node}"
    typer.echo(f"{kind} is on {where}; `pitwall simulate repair {node}` ends it.")


def faults(directory: Directory = DEMO_DIRECTORY) -> None:
    """Say what is broken, as JSON."""
    print_json(call_simulator(directory, "GET", "/simulator/faults"))


def repair(
    node: Annotated[str, typer.Argument(help="Name of the node.")],
    directory: Directory = DEMO_DIRECTORY,
) -> None:
    """Repair a node: its faults end, and it boots anew."""
    call_simulator(directory, "DELETE", "/simulator/faults", params={"node": node})
    typer.echo(f"{node} is repaired and boots.")
