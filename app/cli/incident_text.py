"""One incident as text: whom it hurts, what failed first, what followed, why it is thought so, what was done."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.cli.durations import write_age, write_duration
from app.cli.tables import align, known, printable
from app.store.records import FindingRecord, IncidentRecord

MOST_LINES = 30
"""Of what followed, of evidence, of findings: a screen's worth; -o json writes all."""

_DOMAINS = ("rack", "leaf", "block", "power")


def write_hurt(incident: IncidentRecord) -> str:
    """Whom it hurts now: "2 jobs, 512 GPUs", or "no job"."""
    jobs = [job for job in incident.jobs if not job.get("until")]
    if not jobs:
        return "no job"
    return f"{_counted(len(jobs), 'job')}, {_counted(incident.gpus_hurt, 'GPU')}"


def write_lost(hours: float | None) -> str:
    """GPU-hours: "0.4", "131.7", "12,040"; "-" when nobody knows since when."""
    if hours is None:
        return "-"
    return f"{hours:,.1f}" if hours < 1000 else f"{hours:,.0f}"


def write_flags(incident: IncidentRecord) -> str:
    """What is special about it, "-" for nothing."""
    flags = {
        "resolved": incident.resolved_at is not None and incident.merged_into is None,
        "merged": incident.merged_into is not None,
        "flapping": incident.flapping,
        "reopened": incident.held_open_by is not None,
        str(incident.certainty): incident.certainty is not None,
    }
    return ",".join(flag for flag, holds in flags.items() if holds) or "-"


def write_with(incident: IncidentRecord) -> str:
    """Who works on it, else who has seen it, else "-"."""
    if incident.owner:
        return incident.owner
    return f"seen by {incident.acknowledged_by}" if incident.acknowledged_by else "-"


def incident_lines(
    incident: IncidentRecord,
    *,
    timeline: Sequence[Mapping[str, Any]],
    findings: Sequence[FindingRecord],
    now: datetime,
) -> list[str]:
    """All that is known of one incident."""
    lines = align(_head(incident, now))
    if incident.jobs:
        lines += ["", *align(_job_rows(incident.jobs, now))]
    if incident.first:
        lines += ["", "First failure:", *align(_first_rows(incident.first, now), indent="  ")]
    first_at = _time(incident.first.get("at"))
    lines += _section(
        "What followed it:",
        ["AFTER", "WHAT", "NODE", "JOB", "RANK", "MESSAGE"],
        [_consequence(one, first_at) for one in incident.consequences],
    )
    lines += _section(
        "Why it is thought so:",
        ["AGE", "SOURCE", "EVIDENCE"],
        [
            [_age(one.get("at"), now), _said(one.get("source")), _said(one.get("text"))]
            for one in incident.evidence
        ],
    )
    lines += _section(
        "Findings:",
        ["STATE", "AGE", "SEVERITY", "RULE", "NODE", "MESSAGE"],
        _findings(findings, now),
    )
    lines += _section(
        "Timeline:",
        ["AGE", "WHAT", "BY", "MESSAGE"],
        [
            [
                _age(one.get("at"), now),
                _said(one.get("kind")),
                _said(one.get("author")),
                _said(one.get("message")),
            ]
            for one in timeline
        ],
        most=None,
    )
    return lines


def _head(incident: IncidentRecord, now: datetime) -> list[list[str]]:
    rows = [
        ["Incident", incident.id],
        ["What", _said(incident.title)],
        ["State", _state(incident, now)],
        ["Do first", _said(incident.action)],
        ["Hurts now", write_hurt(incident)],
        ["Lost so far", _lost(incident.gpu_hours_lost)],
        ["With", _said(write_with(incident))],
    ]
    if incident.scope in _DOMAINS or incident.certainty:
        rows.append(["Shared" if incident.scope in _DOMAINS else "Suspect", _shared(incident)])
    if incident.nodes:
        more = len(incident.nodes) - 8
        names = ", ".join(incident.nodes[:8]) + (f" and {more} more" if more > 0 else "")
        rows.append(["Nodes", printable(names)])
    if incident.merged_into:
        rows.append(["Part of", f"incident {incident.merged_into}"])
    return rows


def _state(incident: IncidentRecord, now: datetime) -> str:
    age = write_age(incident.opened_at, now=now)
    if incident.resolved_at is not None:
        by = f" by {incident.resolved_by}" if incident.resolved_by else ""
        said = f": {printable(incident.resolution)}" if incident.resolution else ""
        return f"resolved {write_age(incident.resolved_at, now=now)} ago{by}{said}; {incident.severity}, opened {age} ago"
    state = f"{incident.severity}, open for {age}"
    if incident.flapping:
        state += f", flapping: it came back {_counted(incident.flaps, 'time')}"
    if incident.ended_at is not None:
        state += f", its faults are gone since {write_age(incident.ended_at, now=now)}"
    if incident.held_open_by:
        state += f", reopened by {incident.held_open_by}, so only a person resolves it"
    return state


def _shared(incident: IncidentRecord) -> str:
    named = f"{incident.scope} {printable(incident.subject)}" if incident.scope in _DOMAINS else ""
    ratio = "" if incident.certainty_ratio is None else f" ({incident.certainty_ratio:.0%})"
    return ", ".join(
        part for part in (named, f"{incident.certainty or 'not known'}{ratio}") if part
    )


def _lost(hours: float | None) -> str:
    return "not known" if hours is None else f"{write_lost(hours)} GPU-hours"


def _job_rows(jobs: Iterable[Mapping[str, Any]], now: datetime) -> list[list[str]]:
    rows = [["JOB", "GPUS", "RANKS", "HURT-FOR", "STILL"]]
    for job in jobs:
        since, until = _time(job.get("since")), _time(job.get("until"))
        spent = "-" if since is None else write_duration(((until or now) - since).total_seconds())
        ranks = ",".join(str(rank) for rank in list(job.get("ranks") or ())[:12])
        name = printable(f"{job.get('namespace', '')}/{job.get('name') or job.get('uid')}")
        rows.append([name, known(job.get("gpus")), ranks or "-", spent, "no" if until else "yes"])
    return rows


def _first_rows(first: Mapping[str, Any], now: datetime) -> list[list[str]]:
    """When, where and what: in the order in which one looks for it on the machine."""
    index, xid = first.get("gpu_index"), first.get("xid")
    rows = [
        ["When", _when(first.get("at"), now)],
        ["Node", _said(first.get("node"))],
        [
            "GPU",
            f"{known(index)}  {_said(first.get('gpu_uuid'))}" if first.get("gpu_uuid") else "-",
        ],
        ["Rule", _said(first.get("rule")) + (f" (XID {xid})" if xid is not None else "")],
        ["Job", _said(first.get("job"))],
        ["Rank", known(first.get("rank"))],
        ["Pod", _said(first.get("pod"))],
        ["Message", _said(first.get("message"))],
    ]
    return [row for row in rows if row[1] != "-"]


def _consequence(one: Mapping[str, Any], first_at: datetime | None) -> list[str]:
    at = _time(one.get("at"))
    after = "-" if at is None or first_at is None else _after((at - first_at).total_seconds())
    return [
        after,
        _said(one.get("kind")),
        _said(one.get("node")),
        _said(one.get("job")),
        known(one.get("rank")),
        _said(one.get("message")),
    ]


def _after(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'}{write_duration(abs(seconds))}"


def _findings(findings: Sequence[FindingRecord], now: datetime) -> list[list[str]]:
    return [
        [
            "open" if finding.closed_at is None else "closed",
            write_age(finding.opened_at, now=now),
            finding.severity,
            finding.rule,
            _said(finding.node),
            _said(finding.message),
        ]
        for finding in findings
    ]


def _section(
    title: str, heads: list[str], rows: list[list[str]], *, most: int | None = MOST_LINES
) -> list[str]:
    if not rows:
        return []
    shown = rows if most is None else rows[:most]
    lines = ["", title, *align([heads, *shown], indent="  ")]
    left = len(rows) - len(shown)
    return [*lines, f"  and {left} more: -o json writes all"] if left else lines


def _said(text: object) -> str:
    return printable(str(text)) if text not in (None, "") else "-"


def _time(written: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(written)) if written else None
    except ValueError:
        return None


def _when(written: object, now: datetime) -> str:
    at = _time(written)
    if at is None:
        return "-"
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({write_age(at, now=now)} ago)"


def _age(written: object, now: datetime) -> str:
    return write_age(_time(written), now=now)


def _counted(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"
