"""Findings as a sheet: what was found and what to do, and on asking why and where to look next."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.store.records import FindingRecord
from app.ui import travel, words
from app.ui.components import parts

SOURCES = {
    "dcgm": ("dcgm-exporter", "Found in dcgm-exporter's series, read through Prometheus."),
    "kubernetes": ("Kubernetes", "Found in what Kubernetes says of the node or the job."),
    "training": ("training", "Found by comparing the ranks of one job."),
}
"""Where a finding comes from, when it is not the node's own agent."""


def findings_sheet(
    key: str,
    findings: Sequence[FindingRecord],
    *,
    gpu_index: Mapping[str, int | None],
    handled: bool,
    with_node: bool,
    empty: str,
    count: str = "",
    more: str | None = None,
) -> None:
    """The findings in their order. handled: somebody or something takes care, so none needs to be red."""
    parts.sheet(
        key,
        label="Findings",
        title="Findings",
        count=count or (str(len(findings)) if findings else ""),
        rows=[
            row(finding, gpu_index=gpu_index, handled=handled, with_node=with_node)
            for finding in findings
        ],
        dense=True,
        columns=[
            parts.column("what", "Cause and what to do", "two", wrap=True),
            parts.column("on", "On", "two" if with_node else "text"),
            parts.column("severity", "Severity", "state"),
            parts.column("age", "For", "age", right=True),
        ],
        empty=empty,
        more=more,
    )


def row(
    finding: FindingRecord, *, gpu_index: Mapping[str, int | None], handled: bool, with_node: bool
) -> dict[str, Any]:
    """One finding; a closed one is quiet whatever its severity was."""
    closed = finding.closed_at is not None
    source = SOURCES.get(finding.source)
    place = place_of(finding, gpu_index)
    return parts.row(
        finding.episode,
        {
            "what": {
                "text": finding.message,
                "second": words.sentence(finding.action),
                "tags": [{"text": source[0], "help": source[1]}] if source else [],
                "more": reasons(finding),
            },
            "on": {
                "text": finding.node or "job",
                "second": place if finding.node or place != "node" else "",
                **({"open": travel.node(finding.node)} if finding.node else {}),
            }
            if with_node
            else place,
            "severity": parts.state("Closed", "quiet")
            if closed
            else parts.state(
                finding.severity.capitalize(),
                "quiet" if handled else words.severity_tone(finding.severity),
            ),
            "age": words.milliseconds(finding.opened_at),
        },
    )


def place_of(finding: FindingRecord, gpu_index: Mapping[str, int | None]) -> str:
    """Which part of a node or job it is on: "GPU 3", "rank 17", "node"."""
    if finding.gpu_uuid is not None:
        index = gpu_index.get(finding.gpu_uuid)
        return "a GPU" if index is None else f"GPU {index}"
    return f"rank {finding.rank}" if finding.rank is not None else "node"


def reasons(finding: FindingRecord) -> dict[str, Any] | None:
    """What it means and where to look next, for those who ask; None where neither is known."""
    said = (("", finding.explanation), ("Look next:", finding.look_next))
    lines = [{"label": label, "text": words.sentence(text)} for label, text in said if text]
    return {"label": "Why, and where to look next", "lines": lines} if lines else None
