"""What the cluster is like: status, nodes, gpus, jobs."""

from typing import Annotated

import typer

from app.cli.api import now_utc, open_api, read_record
from app.cli.columns import GPUS, JOBS, NODES
from app.cli.controls import status_lines
from app.cli.durations import write_age
from app.cli.output import Output, OutputOption, print_json, print_listing
from app.cli.tables import align, printable
from app.settings import read_settings
from app.store.records import GpuRecord, JobRecord, NodeRecord, StatusRecord

Health = Annotated[
    str | None, typer.Option(help="Only Healthy, Degraded, Failing or Unknown ones.")
]
Limit = Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")]


def register(program: typer.Typer) -> None:
    for command in (status, nodes, gpus, jobs):
        program.command(command.__name__)(command)


def status(output: OutputOption = Output.TABLE) -> None:
    """Counts of the fleet, and whether each source is heard."""
    document = open_api(read_settings()).get("status")
    if output is Output.JSON:
        print_json(document)
        return
    for line in _status_lines(read_record(document, StatusRecord)):
        typer.echo(line)


def nodes(
    health: Health = None,
    service: Annotated[
        str | None, typer.Option(help='Only of this service state, such as "In service".')
    ] = None,
    block: Annotated[str | None, typer.Option(help="Only of this block.")] = None,
    rack: Annotated[str | None, typer.Option(help="Only of this rack.")] = None,
    search: Annotated[str | None, typer.Option(help="Only names that contain this.")] = None,
    limit: Limit = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """The GPU nodes: health, service, and why."""
    where = {"health": health, "service": service, "block": block, "rack": rack, "search": search}
    documents = list(open_api(read_settings()).items("nodes", where, limit=limit))
    print_listing(documents, NodeRecord, NODES, output=output, empty="No such node.")


def gpus(
    node: Annotated[str | None, typer.Option(help="Only of this node.")] = None,
    health: Health = None,
    limit: Limit = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """The GPUs with their latest reading."""
    where = {"node": node, "health": health}
    documents = list(open_api(read_settings()).items("gpus", where, limit=limit))
    print_listing(documents, GpuRecord, GPUS, output=output, empty="No such GPU.")


def jobs(
    state: Annotated[str | None, typer.Option(help="Only of this state, such as Running.")] = None,
    node: Annotated[str | None, typer.Option(help="Only with a rank on this node.")] = None,
    limit: Limit = 0,
    output: OutputOption = Output.TABLE,
) -> None:
    """The training jobs and how many of their pods run."""
    where = {"state": state, "node": node}
    documents = list(open_api(read_settings()).items("jobs", where, limit=limit))
    print_listing(documents, JobRecord, JOBS, output=output, empty="No such job.")


def _status_lines(record: StatusRecord) -> list[str]:
    counts = record.counts
    rows = [
        ["Cluster", record.cluster],
        ["Nodes", f"{counts.nodes}: {_counted(counts.nodes_by_health)}"],
        ["Service", _counted(counts.nodes_by_service)],
        ["GPUs", f"{counts.gpus}: {_counted(counts.gpus_by_health)}"],
        [
            "Capacity",
            f"{counts.gpus_requested} GPUs requested, {counts.gpus_free} free"
            + (f" ({counts.gpus_on_probation} on probation)" if counts.gpus_on_probation else "")
            + f" of {counts.gpus_usable} usable",
        ],
        ["Jobs", f"{counts.jobs_running} running, {counts.jobs_at_risk} at risk"],
        ["Incidents", f"{counts.incidents_open} open"],
        ["Operations", f"{counts.operations_open} open"],
    ]
    lines = align(rows)
    sources = [["SOURCE", "STATE", "HEARD", "MESSAGE"]]
    sources += [
        [
            source.source,
            source.state,
            write_age(source.last_ok_at, now=now_utc()),
            printable(source.message) or "-",
        ]
        for source in record.sources
    ]
    held = status_lines(record)
    return [*lines, *(["", *held] if held else []), "", *align(sources)]


def _counted(counts: dict[str, int]) -> str:
    shown = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join(shown) or "none"
