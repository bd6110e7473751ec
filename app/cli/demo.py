"""`pitwall demo`."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.simulate import DEMO_DIRECTORY


def register(program: typer.Typer) -> None:
    program.command("demo")(demo)


def demo(
    nodes: Annotated[int, typer.Option(min=1, help="Nodes of 8 GPUs.")] = 64,
    seed: Annotated[int, typer.Option(help="The same seed, the same history.")] = 1,
    directory: Annotated[
        Path, typer.Option(help="Holds the store, the kubeconfig, and the logs.")
    ] = DEMO_DIRECTORY,
    port_web: Annotated[
        int, typer.Option(help="Of the page. 0 takes a free one, as below.")
    ] = 8501,
    port_ingest: Annotated[int, typer.Option(help="Of agents' reports and /v1.")] = 8470,
    port_kubernetes: Annotated[int, typer.Option(help="Of the Kubernetes API.")] = 8480,
    port_prometheus: Annotated[int, typer.Option(help="Of the Prometheus API.")] = 8481,
    port_control: Annotated[int, typer.Option(help="Of the simulator's faults.")] = 8482,
) -> None:
    """Run everything before a simulated cluster on this machine, until Ctrl-C."""
    from app.demo.ports import Ports
    from app.demo.run import Demo, run_demo

    ports = Ports(
        web=port_web,
        ingest=port_ingest,
        kubernetes=port_kubernetes,
        prometheus=port_prometheus,
        control=port_control,
    )
    run_demo(
        Demo(nodes=nodes, seed=seed, directory=directory, ports=ports),
        say=lambda line: typer.echo(line),
    )
