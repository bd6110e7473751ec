"""An incident in parts: its row in a list, its state, whom it hurts, and what one must know first."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.store.records import IncidentRecord
from app.ui import travel, words
from app.ui.components import parts

DOMAINS = {"rack": "Rack", "leaf": "Leaf switch", "block": "Block", "power": "Power domain"}
_CERTAINTY_HELP = "How sure it is that they share this one cause"


def is_handled(incident: IncidentRecord) -> bool:
    """Whether somebody has seen or taken it."""
    return bool(incident.owner or incident.acknowledged_by)


def tone_of(incident: IncidentRecord) -> str:
    return words.incident_tone(
        incident.severity, handled=is_handled(incident), over=incident.resolved_at is not None
    )


def state_of(incident: IncidentRecord) -> dict[str, str]:
    """Its severity while it is open, else how it ended."""
    if incident.merged_into:
        return parts.state("Merged", "quiet")
    if incident.resolved_at is not None:
        return parts.state("Resolved", "quiet")
    return parts.state(incident.severity.capitalize(), tone_of(incident))


def with_whom(incident: IncidentRecord) -> str | None:
    if incident.owner:
        return incident.owner
    return f"seen by {incident.acknowledged_by}" if incident.acknowledged_by else None


def tags_of(incident: IncidentRecord) -> list[dict[str, str]]:
    """What is special about it, in one quiet word each."""
    tags = []
    if incident.certainty:
        ratio = "" if incident.certainty_ratio is None else f": {incident.certainty_ratio:.0%}"
        named = (
            _CERTAINTY_HELP
            if incident.scope in DOMAINS
            else "How sure it is that the suspect is the cause"
        )
        tags.append({"text": incident.certainty, "help": f"{named}{ratio}"})
    if incident.flapping:
        back = words.count(incident.flaps, "time")
        tags.append(
            {"text": "flapping", "help": f"It came back {back}; it closes once it has been quiet."}
        )
    if incident.held_open_by and incident.resolved_at is None:
        tags.append({"text": "reopened", "help": f"Reopened by {incident.held_open_by}"})
    return tags


def hurt_now(incident: IncidentRecord) -> list[dict[str, Any]]:
    return [job for job in incident.jobs if not job.get("until")]


def job_name(job: Mapping[str, Any]) -> str:
    return f"{job.get('namespace')}/{job.get('name') or job.get('uid')}"


def hurt_cell(incident: IncidentRecord) -> dict[str, str]:
    """ "2 jobs, 512 GPUs" over their names."""
    jobs = hurt_now(incident)
    if not jobs:
        return {"text": "no job", "second": "all well again" if incident.jobs else ""}
    counted = f"{words.count(len(jobs), 'job')}, {words.count(incident.gpus_hurt, 'GPU')}"
    return {"text": counted, "second": words.listed([job_name(job) for job in jobs], most=2)}


def list_row(incident: IncidentRecord) -> dict[str, Any]:
    target = travel.incident(incident.id)
    second = "Part of another incident." if incident.merged_into else incident.action
    return parts.row(
        incident.id,
        {
            "what": {
                "text": incident.title,
                "open": target,
                "second": words.sentence(second),
                "tags": tags_of(incident),
            },
            "severity": state_of(incident),
            "hurt": hurt_cell(incident),
            "lost": None
            if incident.gpu_hours_lost is None
            else words.hours(incident.gpu_hours_lost),
            "owner": with_whom(incident),
            "age": words.milliseconds(incident.opened_at),
        },
        open=target,
    )


def figures_of(incident: IncidentRecord, *, findings_open: int) -> list[dict[str, Any]]:
    """Whom it hurts, in numbers; red while nobody has it."""
    jobs, open_ = hurt_now(incident), incident.resolved_at is None
    tone = tone_of(incident) if jobs and open_ else "calm"
    lost = incident.gpu_hours_lost
    figures: list[dict[str, Any]] = [
        {
            "label": "Jobs hurt now",
            "value": f"{len(jobs):,}",
            "of": f"of {len(incident.jobs):,}" if len(incident.jobs) > len(jobs) else "",
            "tone": "act" if tone == "act" else "calm",
            "note": ""
            if jobs
            else "all well again"
            if incident.jobs
            else "it has hurt none so far",
        },
        {
            "label": "GPUs hurt now",
            "value": f"{incident.gpus_hurt if jobs else 0:,}",
            "tone": "calm",
        },
        {
            "label": "GPU-hours lost so far" if open_ else "GPU-hours lost",
            "value": "none" if not incident.jobs else "–" if lost is None else words.hours(lost),
            "tone": "calm",
            "note": "not known since when" if incident.jobs and lost is None else "",
            "help": "GPUs of the jobs hurt times how long they have been.",
        },
        {"label": "Nodes", "value": f"{len(incident.nodes):,}", "tone": "calm"},
        {
            "label": "Findings open",
            "value": f"{findings_open:,}",
            "of": f"of {len(incident.findings):,}"
            if len(incident.findings) > findings_open
            else "",
            "tone": "calm",
        },
    ]
    return figures


def facts_of(incident: IncidentRecord) -> list[dict[str, Any]]:
    over = incident.resolved_at is not None
    facts = []
    if over == bool(incident.owner):  # an open one's owner stands beside its title
        facts.append(parts.fact("With", incident.owner or "nobody yet"))
    if over:
        facts.append(parts.fact("Opened", None, at=words.milliseconds(incident.opened_at)))
    if incident.acknowledged_by:
        facts.append(
            parts.fact(
                "Seen by",
                incident.acknowledged_by,
                at=words.milliseconds(incident.acknowledged_at),
            )
        )
    if over:
        by = incident.resolved_by or "by itself"
        facts.append(parts.fact("Resolved", by, at=words.milliseconds(incident.resolved_at)))
    facts.append(parts.fact("Rule", incident.cause, mono=True))
    facts += where_facts(incident)
    if incident.episode > 1:
        facts.append(parts.fact("Episode", str(incident.episode), help="It has failed before."))
    return facts


def where_facts(incident: IncidentRecord) -> list[dict[str, Any]]:
    facts = []
    if incident.scope in DOMAINS:
        facts.append(parts.fact(DOMAINS[incident.scope], incident.subject))
    if incident.certainty:
        ratio = "" if incident.certainty_ratio is None else f" ({incident.certainty_ratio:.0%})"
        label = "Shared cause" if incident.scope in DOMAINS else "Suspect"
        facts.append(parts.fact(label, f"{incident.certainty}{ratio}"))
    if len(incident.nodes) == 1:
        name = incident.nodes[0]
        facts.append(parts.fact("Node", name, open=travel.node(name)))
    return facts


def notes_of(incident: IncidentRecord, part_of: IncidentRecord | None) -> list[dict[str, Any]]:
    """What one must know before one acts: that it is part of another, over, or only away for a while."""
    notes = []
    if incident.merged_into:
        title = part_of.title if part_of else incident.merged_into
        notes.append(
            parts.note(
                f"Part of another incident: {title}",
                open=travel.incident(incident.merged_into),
                link="Open that one",
            )
        )
    if incident.resolved_at is not None and incident.resolution:
        notes.append(
            parts.note(f"Resolved by {incident.resolved_by or 'itself'}: {incident.resolution}")
        )
    if incident.resolved_at is None:
        if incident.flapping:
            notes.append(
                parts.note(
                    f"Flapping: it came back {words.count(incident.flaps, 'time')}. "
                    "It stays open until it has been quiet for a while."
                )
            )
        elif incident.ended_at is not None:
            notes.append(parts.note("Its faults are gone; it is held open in case they come back."))
        if incident.held_open_by:
            notes.append(
                parts.note(f"Reopened by {incident.held_open_by}: only a person resolves it now.")
            )
    return notes


def job_rows(incident: IncidentRecord, now: datetime) -> list[dict[str, Any]]:
    """Those hurt now first, the largest first."""
    jobs = sorted(
        incident.jobs, key=lambda job: (bool(job.get("until")), -int(job.get("gpus") or 0))
    )
    rows = []
    for job in jobs:
        since, until = words.moment(job.get("since")), words.moment(job.get("until"))
        spent = None if since is None else ((until or now) - since).total_seconds()
        before = float(job.get("seconds_before") or 0.0)
        gpus = int(job.get("gpus") or 0)
        ranks = [int(rank) for rank in job.get("ranks") or ()]
        uid = str(job.get("uid"))
        rows.append(
            parts.row(
                uid,
                {
                    "job": {
                        "text": job_name(job),
                        "open": travel.job(uid),
                        "second": ", ".join(
                            part
                            for part in (_ranks(ranks), "well again" if until else "still hurt")
                            if part
                        ),
                    },
                    "gpus": gpus,
                    "since": words.milliseconds(since),
                    "until": words.milliseconds(until),
                    "hours": None if spent is None else words.hours(gpus * (spent + before) / 3600),
                },
                open=travel.job(uid),
            )
        )
    return rows


def _ranks(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    return f"{'rank' if len(numbers) == 1 else 'ranks'} {words.ranks(list(numbers))}"
