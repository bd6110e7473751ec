"""What a report says of its node: health, driver, counts, and how bad it is."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection

from app.store.writes.bulk import Upsert, clock, select_where_in, upsert
from app.store.writes.events import HEALTH_SEVERITY, Event
from app.store.writes.node_health import Beside, combine_health, score
from collectors.health import node_health
from collectors.report import Finding, Report

_NODE = Upsert(
    table="node",
    columns=(
        "cluster",
        "name",
        "driver_version",
        "boot_id",
        "gpu_count",
        "gpu_count_expected",
        "gpu_set",
        "health",
        "health_reason",
        "health_since",
        "reported_by",
        "reported_health",
        "reported_reason",
        "score",
        "observed_at",
        "received_at",
        "service",
        "service_reason",
    ),
    key=("cluster", "name"),
    updates={
        "driver_version": "COALESCE(new.driver_version, old.driver_version)",
        "boot_id": None,
        "gpu_count": None,
        "gpu_count_expected": None,
        "gpu_set": None,
        "health": None,
        "health_reason": None,
        "health_since": None,
        "reported_by": None,
        "reported_health": None,
        "reported_reason": None,
        "score": None,
        "observed_at": None,
        "received_at": None,
    },
)


class KnownNode(msgspec.Struct, frozen=True):
    """A node as the store has it."""

    health: str
    health_since: Any  # as the driver gives it
    boot_id: str | None
    gpu_count: int | None
    gpu_count_expected: int | None
    gpu_set: int | None


@dataclass
class JudgedNodes:
    """Nodes after their newest reports.

    `new`: nodes not known before. `unlike`: nodes whose GPUs may not be those had before (booted,
    others listed, or NVML silent), so that what is gone is looked for.
    """

    health: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unlike: list[str] = field(default_factory=list)


def silence_reason(observed_at: datetime) -> str:
    """Why a node that has not reported for long is Unknown."""
    return f"no report since {observed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def store_nodes(
    connection: Connection,
    cluster: str,
    newest: Mapping[str, Report],
    *,
    open_by_node: Mapping[str, Sequence[Finding]],
    beside: Mapping[str, Sequence[Beside]],
    stale: Mapping[str, str],
    now: datetime,
    source: str = "agent",
) -> JudgedNodes:
    """Judge each node by its newest report and by what is found beside it, and write it over what is known."""
    stored = clock(connection)
    received_at = stored(now)
    known = _known(connection, cluster, newest)
    judged = JudgedNodes()
    rows = []
    for name, report in newest.items():
        findings = open_by_node.get(name, ())
        if name in stale:
            health, reason = "Unknown", stale[name]
        elif not findings and report.nvml.answering:
            health, reason = "Healthy", report.nvml.message or "no open finding"
        else:
            health, reason = node_health(findings, report.nvml)
        reported = (source, health, reason)
        others = beside.get(name, ())
        if others:
            health, reason = combine_health(health, reason, others)
        old = known.get(name)
        since = old.health_since if old is not None and old.health == health else None
        at = stored(report.observed_at)
        if old is None or old.health != health:
            judged.events.append(health_event(name, health, reason, at=report.observed_at))
        count = len(report.gpus) if report.nvml.answering else (old.gpu_count if old else None)
        expected = max(
            report.expected_gpus or 0, count or 0, (old.gpu_count_expected if old else 0) or 0
        )
        listed = zlib.crc32(",".join([gpu.uuid for gpu in report.gpus]).encode())
        if old is None:
            judged.new.append(name)
        elif old.boot_id != report.boot_id or old.gpu_set != listed or not report.nvml.answering:
            judged.unlike.append(name)
        judged.health[name] = health
        rows.append(
            (
                cluster,
                name,
                report.driver_version,
                report.boot_id,
                count,
                expected or None,
                listed,
                health,
                reason,
                since or at,
                *reported,
                score(health, _severities(findings, others)) if health != "Healthy" else 0,
                at,
                received_at,
                "In service",
                "",
            )
        )
    upsert(connection, _NODE, rows)
    return judged


def health_event(node: str, health: str, reason: str, *, at: datetime) -> Event:
    """The event of a node's change of health."""
    return Event(
        at=at,
        node=node,
        kind="node_health",
        code=health,
        severity=HEALTH_SEVERITY[health],
        message=reason,
    )


def _severities(findings: Iterable[Finding], beside: Iterable[Beside]) -> list[str]:
    own = [finding.severity for finding in findings if finding.changes_health]
    return [*own, *(one.severity for one in beside)]


def _known(connection: Connection, cluster: str, names: Iterable[str]) -> dict[str, KnownNode]:
    return {
        name: KnownNode(health, since, boot_id, count, expected, listed)
        for name, health, since, boot_id, count, expected, listed in select_where_in(
            connection,
            "SELECT name, health, health_since, boot_id, gpu_count, gpu_count_expected, gpu_set "
            "FROM node WHERE cluster = :cluster AND {name IN (:names)}",
            sorted(names),
            cluster=cluster,
        )
    }
