"""A capture judged offline by the agent's own rules: kernel logs, nvidia-smi's XML, InfiniBand.

A capture is one moment (or a past), so hold times are left out and nothing ends: what held when
it was taken is a finding. Rules that need a second reading cannot be judged, and are named.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from collectors.errors import CaptureError
from collectors.folding import Folding, Occurrence, fold
from collectors.health import (
    BUILT_IN,
    Health,
    NodeFacts,
    RuleSet,
    explain_unjudged,
    node_health,
    read_gpu,
)
from collectors.infiniband import read_ports
from collectors.judgement import judge
from collectors.ledger import Ledger, Moment
from collectors.log_capture import LogCapture, read_log
from collectors.ports import follow_ports
from collectors.readings import GpuReading, PortReading
from collectors.report import Finding, NvmlState, XidEvent
from collectors.rule import Rule
from collectors.smi_xml import SmiLog, read_smi_log
from collectors.trends import WHY_UNKNOWN

Kind = Literal["kernel log", "nvidia-smi", "InfiniBand"]

WINDOW_SECONDS = 5.0
"""The agent's own window: repeats of an XID within it of the one before are one event."""

HEAD_BYTES = 4096


class Unjudged(msgspec.Struct, frozen=True):
    """A rule for which a capture does not hold what it needs, and why."""

    rule: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """What one capture says."""

    path: Path
    kind: Kind
    summary: str
    health: Health
    reason: str
    findings: tuple[Finding, ...]
    events: tuple[XidEvent, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    gpus: tuple[GpuReading, ...] = ()
    ports: tuple[PortReading, ...] = ()


def inspect_all(
    paths: Iterable[Path],
    *,
    window_seconds: float = WINDOW_SECONDS,
    rules: RuleSet = BUILT_IN,
    now: datetime | None = None,
) -> list[Inspection]:
    """Return what each capture says, in the order given.

    GPUs that an nvidia-smi file names are known to the logs beside it. Raises CaptureError
    naming the file that cannot be inspected.
    """
    asked = [(path, find_kind(path)) for path in paths]
    at = now or datetime.now(UTC)
    at_once = _without_holds(rules)
    logs = {path: read_smi_log(path) for path, kind in asked if kind == "nvidia-smi"}
    known = {gpu.pci_bus_id: gpu for log in logs.values() for gpu in log.gpus if gpu.pci_bus_id}
    results = []
    for path, kind in asked:
        if kind == "nvidia-smi":
            results.append(_inspect_smi(path, logs[path], rules=at_once, now=at))
        elif kind == "InfiniBand":
            results.append(_inspect_ports(path, rules=at_once, now=at))
        else:
            results.append(
                _inspect_log(path, known, window_seconds=window_seconds, rules=at_once, now=at)
            )
    return results


def find_kind(path: Path) -> Kind:
    """Return what a path holds. Raises CaptureError when it is nothing that can be inspected."""
    if path.is_dir():
        if _find_tree(path) is None:
            raise CaptureError(
                f"{path} is a folder without InfiniBand devices: give a copy of "
                "/sys/class/infiniband, or files"
            )
        return "InfiniBand"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror or error}") from error
    return "nvidia-smi" if b"<nvidia_smi_log" in head else "kernel log"


def coalesce(occurrences: Iterable[Occurrence], *, window_seconds: float) -> list[XidEvent]:
    """Return the events that these occurrences make, repeats within the window folded in."""
    numbers = itertools.count(1)
    folding = Folding()
    for occurrence in occurrences:
        folding, _ = fold(
            folding,
            occurrence,
            window_seconds=window_seconds,
            new_id=lambda: f"event-{next(numbers)}",
        )
    return [known.event for known in folding.events]


def _inspect_smi(path: Path, log: SmiLog, *, rules: RuleSet, now: datetime) -> Inspection:
    facts = NodeFacts(gpu_count=len(log.gpus), expected_gpus=log.attached_gpus, silent_seconds=0.0)
    ledger = judge(Ledger(), moment=_moment(now), facts=facts, gpus=log.gpus, rules=rules)
    unjudged = []
    for rule in rules.gpu:
        reasons = [
            explain_unjudged(rule, read_gpu(gpu), {**WHY_UNKNOWN, **gpu.missing})
            for gpu in log.gpus
        ]
        if reasons and all(reason is not None for reason in reasons):
            unjudged.append(Unjudged(rule.name, str(reasons[0])))
    names = sorted({gpu.name for gpu in log.gpus if gpu.name})
    return _conclude(
        path,
        "nvidia-smi",
        f"{len(log.gpus)} GPUs ({', '.join(names) or 'unnamed'}), "
        f"driver {log.driver_version or 'unknown'}",
        ledger,
        unjudged=tuple(unjudged),
        gpus=log.gpus,
    )


def _inspect_ports(path: Path, *, rules: RuleSet, now: datetime) -> Inspection:
    tree = _find_tree(path)
    ports = read_ports(tree) if tree is not None else []
    _, rows = follow_ports({}, ports, now=now)
    ledger = judge(Ledger(), moment=_moment(now), facts=NodeFacts(), ports=rows, rules=rules)
    words = "; ".join(
        f"{len(list(group))} x {layer} {state} at {rate}"
        for (layer, state, rate), group in itertools.groupby(
            sorted((_words_of(port) for port in ports), reverse=True)
        )
    )
    # Whether a port was ever up, and how often it came back, only time can tell.
    unjudged = tuple(
        Unjudged(rule.name, "needs a second reading")
        for rule in rules.port
        if rule.fields & {"is_down", "returns"}
    )
    return _conclude(
        path, "InfiniBand", words or "no ports", ledger, ports=tuple(ports), unjudged=unjudged
    )


def _words_of(port: PortReading) -> tuple[str, str, str]:
    rate = port.rate_bits_per_second
    return (
        port.link_layer or "unknown link",
        port.state or "in an unknown state",
        "an unknown rate" if rate is None else f"{rate / 1e9:g} Gb/s",
    )


def _inspect_log(
    path: Path,
    known: Mapping[str, GpuReading],
    *,
    window_seconds: float,
    rules: RuleSet,
    now: datetime,
) -> Inspection:
    capture = read_log(path, year=now.year)
    readings = {**_named_in(capture), **known}
    events = coalesce(
        (
            replace(one, gpu_uuid=readings[one.pci_bus_id].uuid)
            if one.pci_bus_id in readings and one.kind == "xid"
            else one
            for one in capture.occurrences
        ),
        window_seconds=window_seconds,
    )
    ledger = Ledger()
    by_uuid = {gpu.uuid: gpu for gpu in readings.values()}
    numbers = itertools.count(1)
    for event in events:
        # Judged as of the first: a capture is the past, and what it tells does not end with time.
        ledger = judge(
            ledger,
            moment=Moment(events[0].at, "capture", lambda: f"finding-{next(numbers)}"),
            facts=NodeFacts(),
            xids=(event,),
            known=by_uuid,
            rules=rules,
        )
    words = (
        f"{capture.lines} lines, {len(capture.occurrences)} with an XID or SXid, "
        f"{len(events)} events in windows of {window_seconds:g} s"
    )
    if capture.unreadable:
        words += f"; {capture.unreadable} lines cannot be read"
    return _conclude(path, "kernel log", words, ledger, events=tuple(events))


def _named_in(capture: LogCapture) -> dict[str, GpuReading]:
    return {
        address: GpuReading(uuid=uuid, pci_bus_id=address)
        for address, uuid in capture.uuids.items()
    }


def _conclude(
    path: Path,
    kind: Kind,
    summary: str,
    ledger: Ledger,
    *,
    events: tuple[XidEvent, ...] = (),
    unjudged: tuple[Unjudged, ...] = (),
    gpus: tuple[GpuReading, ...] = (),
    ports: tuple[PortReading, ...] = (),
) -> Inspection:
    findings = tuple(ledger.findings)
    health, reason = node_health(findings, NvmlState(answering=True))
    return Inspection(
        path=path,
        kind=kind,
        summary=summary,
        health=health,
        reason=reason,
        findings=findings,
        events=events,
        unjudged=unjudged,
        gpus=gpus,
        ports=ports,
    )


def _moment(now: datetime) -> Moment:
    numbers = itertools.count(1)
    return Moment(now, "capture", lambda: f"finding-{next(numbers)}")


def _without_holds(rules: RuleSet) -> RuleSet:
    def at_once(entries: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(replace(rule, hold_seconds=0.0) for rule in entries)

    return RuleSet(gpu=at_once(rules.gpu), node=at_once(rules.node), port=at_once(rules.port))


def _find_tree(path: Path) -> Path | None:
    """The folder that holds the devices: the one given, or the first of its children."""
    for folder in (path, *sorted(child for child in path.iterdir() if child.is_dir())):
        if any((device / "ports").is_dir() for device in folder.iterdir() if device.is_dir()):
            return folder
    return None


class InspectionRecord(msgspec.Struct, frozen=True):
    """An inspection as `pitwall inspect -o json` writes it."""

    path: str
    kind: str
    summary: str
    health: str
    reason: str
    findings: tuple[Finding, ...]
    events: tuple[XidEvent, ...]
    unjudged: tuple[Unjudged, ...]


def record_of(inspection: Inspection) -> InspectionRecord:
    """Return the part of an inspection that programs read."""
    return InspectionRecord(
        path=str(inspection.path),
        kind=inspection.kind,
        summary=inspection.summary,
        health=inspection.health,
        reason=inspection.reason,
        findings=inspection.findings,
        events=inspection.events,
        unjudged=inspection.unjudged,
    )
