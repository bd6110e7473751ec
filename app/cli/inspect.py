"""`pitwall inspect`: a capture judged offline, by the rules that the agent has."""

import itertools
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from app.cli.output import Output, OutputOption, print_json
from app.cli.tables import align, printable
from collectors.inspection import Inspection, inspect_all, record_of
from collectors.log_capture import BOOT
from collectors.report import Finding, XidEvent
from collectors.site_rules import load_rules
from collectors.xid import find_entry


def register(program: typer.Typer) -> None:
    program.command("inspect")(inspect)


def inspect(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Kernel logs, nvidia-smi -q -x files, copies of /sys/class/infiniband."
        ),
    ],
    window_seconds: Annotated[
        float, typer.Option(min=0, help="Repeats of an XID within this are one event.")
    ] = 5.0,
    rules: Annotated[
        Path | None, typer.Option(envvar="PITWALL_RULES", help="Site's thresholds, a TOML file.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Judge captures offline and print the findings; nothing is asked of the cluster."""
    found = inspect_all(files, window_seconds=window_seconds, rules=load_rules(rules))
    if output is Output.JSON:
        print_json([record_of(one) for one in found])
        return
    for number, inspection in enumerate(found):
        if number:
            typer.echo()
        for line in describe_inspection(inspection, wide=output is Output.WIDE):
            typer.echo(line)


def describe_inspection(inspection: Inspection, *, wide: bool) -> list[str]:
    """One capture as lines: what it is, its health, its findings, and its events when wide."""
    lines = [
        printable(f"{inspection.path}: {inspection.kind}, {inspection.summary}"),
        printable(f"{inspection.health}: {inspection.reason}"),
    ]
    events = {(str(event.kind), event.xid): event for event in inspection.events}
    for _, alike in itertools.groupby(
        inspection.findings, key=lambda finding: (finding.severity, finding.rule, finding.action)
    ):
        lines += ["", *_describe_findings(list(alike), events)]
    if wide and inspection.events:
        lines += ["", *align([_EVENT_TITLES, *(_event_row(event) for event in inspection.events)])]
    if inspection.unjudged:
        lines += ["", "Not judged, this capture does not hold what they need:"]
        lines += align(
            [[one.rule, printable(one.reason)] for one in inspection.unjudged], indent="  "
        )
    return lines


_EVENT_TITLES = ["FIRST", "LAST", "CODE", "TIMES", "PCI", "TEXT"]


def _describe_findings(
    findings: list[Finding], events: dict[tuple[str, int], XidEvent]
) -> list[str]:
    """Findings of one rule with one action: each message, then what is the same for all."""
    finding = findings[0]
    lines = [f"{one.severity:8} {printable(f'{one.rule}: {one.message}')}" for one in findings]
    event = events.get(("sxid" if finding.rule.startswith("sxid") else "xid", finding.xid or -1))
    if event is not None:
        entry = find_entry(
            event.xid, kind=event.kind, text=event.text, recovery=event.recovery_action
        )
        lines += [f"         {entry.explanation}", f"         Look at: {entry.look_at}"]
    if not finding.changes_health:
        lines.append("         It says nothing about the GPU's health.")
    lines.append(f"         Do: {printable(finding.action)}")
    return lines


def _event_row(event: XidEvent) -> list[str]:
    return [
        _word_time(event.at),
        _word_time(event.last_at),
        f"{'SXid' if event.kind == 'sxid' else 'XID'} {event.xid}",
        str(event.count),
        event.pci_bus_id or "-",
        printable(event.text)[:80],
    ]


def _word_time(at: datetime) -> str:
    if at.year == BOOT.year:
        return f"boot + {(at - BOOT).total_seconds():.1f} s"
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
