"""What was found of what was injected: each incident matched to a fault, or it accuses somebody who is well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine, text

from app.store.engine import read
from tests.replay.ground import Fault, Noise, over
from tests.replay.mix import KINDS
from tests.replay.site import CLUSTER, IncidentSeen, _time

APPLICATION = tuple(f"xid-{code}" for code in (8, 11, 13, 31, 32, 43, 45, 68, 69))


@dataclass
class Tally:
    """One row of the table."""

    injected: int = 0
    detectable: int = 0
    found: int = 0
    as_finding: int = 0
    missed: int = 0
    doubled: int = 0
    seconds: list[float] = field(default_factory=list)
    beyond: list[float] = field(default_factory=list)


@dataclass
class Verdict:
    """The outcome of a replay."""

    rows: dict[str, Tally]
    missed: list[Fault] = field(default_factory=list)
    doubled: list[tuple[Fault, list[IncidentSeen]]] = field(default_factory=list)
    accused: list[tuple[str, IncidentSeen]] = field(default_factory=list)
    unaccounted: list[Fault] = field(default_factory=list)
    of_applications: int = 0
    of_pipeline: int = 0
    taken_back: int = 0
    left_open: list[tuple[Fault, IncidentSeen]] = field(default_factory=list)
    noise: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> list[float]:
        """From fault to incident, of all that were found so."""
        return sorted(one for row in self.rows.values() for one in row.seconds)

    @property
    def precision(self) -> float:
        found = sum(row.found for row in self.rows.values())
        wrong = len(self.accused) + sum(len(extra) - 1 for _, extra in self.doubled)
        return found / (found + wrong) if found + wrong else 1.0

    @property
    def recall(self) -> float:
        asked = sum(row.detectable for row in self.rows.values())
        had = sum(row.found + row.as_finding for row in self.rows.values())
        return had / asked if asked else 1.0


def judge(
    incidents: Sequence[IncidentSeen],
    faults: Sequence[Fault],
    noises: Sequence[Noise],
    *,
    engine: Engine,
    end: datetime,
) -> Verdict:
    """Match incidents and faults; see the module."""
    verdict = Verdict({kind.name: Tally() for kind in KINDS})
    verdict.noise.update(noise.kind for noise in noises)
    by_id = {one.id: one for one in incidents}
    of_fault: dict[int, list[IncidentSeen]] = {}
    for incident in incidents:
        fault = _fault_of(incident, faults, end)
        if fault is not None:
            target = by_id.get(incident.merged_into or "")
            if target is not None and _fault_of(target, faults, end) is fault:
                continue  # it turned out to be a consequence, and says so
            of_fault.setdefault(fault.number, []).append(incident)
            continue
        noise = _noise_of(incident, noises, end)
        if incident.scope == "pipeline" and noise is not None and noise.kind == "ingest away":
            verdict.of_pipeline += 1
        elif incident.first_cause in APPLICATION and incident.severity in ("warning", "info"):
            # Also one that a fault of the same job's hardware has taken in since.
            verdict.of_applications += 1
        elif (target := by_id.get(incident.merged_into or "")) and target.scope == "pipeline":
            verdict.taken_back += 1
        else:
            verdict.accused.append((noise.kind if noise else "nothing", incident))
    findings = _findings(engine)
    for fault in faults:
        _count(verdict, fault, of_fault.get(fault.number, []), findings, end)
    return verdict


def _count(
    verdict: Verdict,
    fault: Fault,
    found: list[IncidentSeen],
    findings: Sequence[tuple[str, str, datetime]],
    end: datetime,
) -> None:
    row = verdict.rows[fault.kind]
    row.injected += 1
    level = fault.variant.level
    if level == "none":
        verdict.unaccounted.append(fault)
        return
    row.detectable += 1
    if len(found) > 1:
        row.doubled += 1
        verdict.doubled.append((fault, found))
    if found:
        row.found += 1
        seconds = (found[0].seen_at - fault.at).total_seconds()
        row.seconds.append(seconds)
        row.beyond.append(seconds - fault.variant.needs_seconds)
        open_after = fault.over_at is not None and fault.over_at < end - timedelta(minutes=15)
        if open_after and found[0].resolved_at is None:
            verdict.left_open.append((fault, found[0]))
        return
    last = over(fault, end)
    names = set(fault.nodes)
    if level == "finding" and any(
        node in names and fault.at - timedelta(seconds=30) <= at <= last and rule != "silent"
        for node, rule, at in findings
    ):
        row.as_finding += 1
        return
    row.missed += 1
    verdict.missed.append(fault)


def _fault_of(incident: IncidentSeen, faults: Iterable[Fault], end: datetime) -> Fault | None:
    """The fault that an incident tells of; of several the one that is named, else the latest."""
    best: tuple[int, datetime, Fault] | None = None
    for fault in faults:
        if fault.variant.level == "none":
            continue
        if not fault.at <= incident.seen_at <= over(fault, end):
            continue
        if incident.scope == "node":
            hit = incident.subject in fault.nodes and fault.scope != "job"
            named = incident.subject == fault.subject
        elif incident.scope == "job":
            own = incident.subject == fault.job_uid
            hit = own or (fault.scope != "job" and incident.subject in fault.hurt_jobs)
            named = own
        elif incident.scope == "pipeline":
            continue
        else:
            hit = bool(set(incident.nodes) & set(fault.nodes)) or incident.subject == fault.subject
            named = (incident.scope, incident.subject) == (fault.scope, fault.subject)
        if hit and (best is None or (named, fault.at) > best[:2]):
            best = (named, fault.at, fault)
    return best[2] if best else None


def _noise_of(incident: IncidentSeen, noises: Iterable[Noise], end: datetime) -> Noise | None:
    names = {incident.subject, *incident.nodes}
    best: Noise | None = None
    for noise in noises:
        until = noise.until or end
        if noise.at <= incident.seen_at <= until and (
            names & set(noise.nodes) or names & set(noise.jobs) or incident.scope == "pipeline"
        ):
            if incident.scope == "pipeline" and not noise.kind.startswith("ingest"):
                continue
            if best is None or len(noise.nodes) <= len(best.nodes):
                best = noise
    return best


def _findings(engine: Engine) -> list[tuple[str, str, datetime]]:
    with read(engine) as connection:
        rows = connection.execute(
            text("SELECT node, rule, opened_at FROM finding WHERE cluster = :cluster"),
            {"cluster": CLUSTER},
        ).all()
    return [(node, rule, _time(at)) for node, rule, at in rows]


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, by the nearest rank; nan without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def tell(verdict: Verdict) -> str:
    """The table, as it is printed."""
    head = (
        f"{'kind':<24}{'injected':>9}{'detectable':>11}{'found':>7}{'finding':>9}"
        f"{'missed':>8}{'doubled':>9}{'P50 s':>8}{'P99 s':>8}"
    )
    lines = [head, "-" * len(head)]
    for name, row in verdict.rows.items():
        if not row.injected:
            continue
        p50, p99 = percentile(row.seconds, 0.5), percentile(row.seconds, 0.99)
        times = f"{p50:>8.1f}{p99:>8.1f}" if row.seconds else f"{'-':>8}{'-':>8}"
        lines.append(
            f"{name:<24}{row.injected:>9}{row.detectable:>11}{row.found:>7}{row.as_finding:>9}"
            f"{row.missed:>8}{row.doubled:>9}{times}"
        )
    beyond = [one for row in verdict.rows.values() for one in row.beyond]
    undetectable = Counter(fault.kind for fault in verdict.unaccounted)
    accused = Counter(kind for kind, _ in verdict.accused)
    lines += [
        f"precision {verdict.precision:.3f}, recall {verdict.recall:.3f}; "
        "'finding': a warning degrades the node and by design makes no incident alone",
        f"from fault to incident: P50 {percentile(verdict.seconds, 0.5):.1f} s, "
        f"P99 {percentile(verdict.seconds, 0.99):.1f} s; beyond what each rule's own hold needs: "
        f"P50 {percentile(beyond, 0.5):.1f} s, P99 {percentile(beyond, 0.99):.1f} s",
        "undetectable by kind: "
        + (", ".join(f"{kind} {count}" for kind, count in undetectable.items()) or "none"),
        "noise: " + ", ".join(f"{kind} {count}" for kind, count in sorted(verdict.noise.items())),
        "false accusations by noise: "
        + (", ".join(f"{kind} {count}" for kind, count in accused.items()) or "none"),
        f"besides: {verdict.of_applications} incidents of applications, "
        f"{verdict.of_pipeline} of the pipeline; {verdict.taken_back} of a node's silence were taken "
        "into the pipeline's within seconds",
    ]
    lines += [f"missed: {fault.label}" for fault in verdict.missed]
    for fault, found in verdict.doubled:
        lines.append(f"doubled: {fault.label}")
        lines += [_said(one) for one in found]
    for kind, incident in verdict.accused:
        lines.append(f"accused, during {kind}:")
        lines.append(_said(incident))
    for fault, incident in verdict.left_open:
        lines.append(f"still open after it was over: {fault.label}")
        lines.append(_said(incident))
    return "\n".join(lines)


def _said(one: IncidentSeen) -> str:
    return (
        f"    {one.seen_at:%a %H:%M:%S} {one.scope} {one.subject} {one.severity} {one.cause}: "
        f"{one.title}" + (f" (merged into {one.merged_into})" if one.merged_into else "")
    )
