"""What is so now, as facts: labels that say what and where, annotations that say how much and what to do. Pure.

Labels hold no values, times, attempts or counts: those change and would make another alert of one trouble.
A fact says that something ended only where that is known.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from app.alerts.model import WATCHDOG, AlertFact, State
from app.alerts.seen import IncidentSeen, OperationSeen, Seen, SourceSeen

EPOCH_WATCHDOG = "the pipeline of alerts works; this always fires"
CAPACITY_SECONDS = 900.0
"""A workload that waits so long for room is told, also where the drain has no deadline. Our judgement."""

FAILED_SECONDS = 86_400.0
"""What failed is told of again for a day. Our judgement."""

GRAVE_SOURCES = frozenset({"agents", "ingest", "kubernetes", "worker"})
SOURCE_OF = {
    "agent": "agents",
    "ingest": "agents",
    "kubernetes": "kubernetes",
    "dcgm": "prometheus",
    "training": "training",
}
"""By what wrote a finding or a sentence of evidence: the source it rests on."""

SCOPE_NAMES = {
    "node": "NodeIncident",
    "job": "JobIncident",
    "leaf": "LeafIncident",
    "rack": "RackIncident",
    "power": "PowerIncident",
    "block": "BlockIncident",
    "pipeline": "PipelineIncident",
}
JOBS_TOLD = 5


def facts_of(seen: Seen, *, page_url: str, now: datetime) -> list[AlertFact]:
    """Every fact of this moment, the ended ones too."""
    base = page_url.rstrip("/")
    sources = {one.name: one for one in seen.sources}
    found = [_watchdog(seen.cluster, base, now)]
    for incident in seen.incidents:
        found.append(_incident(seen.cluster, incident, sources, base))
    for operation in seen.operations:
        found.extend(_operation(seen.cluster, operation, sources, base, now))
    for source in seen.sources:
        found.append(_source(seen.cluster, source, base))
    for name, tripped_at, message in seen.limits:
        said = {
            "summary": f"limit {name} stopped automation",
            "description": message,
            "action": f"look at what is out of service, then reset the limit with a reason ({name})",
            "link": f"{base}/overview",
        }
        labels = _labels(seen.cluster, "LimitTripped", scope="limit", subject=name)
        found.append(_fact(labels, said, "critical", tripped_at or now, ended=tripped_at is None))
    for request_id, what, author, created_at, waits in seen.approvals:
        said = {
            "summary": f"{what} of {author} waits for a second person",
            "action": f"look at the plan, then pitwall approve {request_id}",
            "link": f"{base}/operations",
        }
        labels = _labels(seen.cluster, "ApprovalWaiting", scope="request", subject=request_id)
        found.append(_fact(labels, said, "warning", created_at, ended=not waits))
    found.extend(_dead(seen, base, now))
    if seen.away_since is not None:
        said = {
            "summary": "no worker was active",
            "description": f"from {_utc(seen.away_since)} to {_utc(now)}",
            "action": "see why the worker went and why no other took over",
            "link": f"{base}/sources",
        }
        labels = _labels(seen.cluster, "NoActiveWorker", scope="pipeline", subject="worker")
        found.append(_fact(labels, said, "critical", seen.away_since))
    return found


def episode_of(labels: Mapping[str, str]) -> tuple[str, str]:
    """What an open alert is found by, whatever team, rack or rule are now: its name, and of what it is."""
    of = labels.get("incident") or labels.get("operation") or labels.get("subject", "")
    return labels["alertname"], of


def _labels(cluster: str, name: str, **more: str | None) -> dict[str, str]:
    labels = {"alertname": name, "cluster": cluster}
    return labels | {key: value for key, value in more.items() if value}


def _fact(
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    severity: str,
    started_at: datetime,
    *,
    ended: bool = False,
) -> AlertFact:
    state: State = "resolved" if ended else "firing"
    return AlertFact(
        {**labels, "severity": severity}, annotations, severity, started_at, state=state
    )


def _watchdog(cluster: str, base: str, now: datetime) -> AlertFact:
    said = {"summary": EPOCH_WATCHDOG, "link": f"{base}/sources"}
    return _fact(_labels(cluster, WATCHDOG, scope="pipeline", subject="pitwall"), said, "info", now)


def _incident(
    cluster: str, one: IncidentSeen, sources: Mapping[str, SourceSeen], base: str
) -> AlertFact:
    first = one.first
    node = one.subject if one.scope == "node" else str(first.get("node") or "")
    job = one.subject if one.scope == "job" else ""
    names = sorted(f"{job['namespace']}/{job['name']}" for job in one.jobs)
    namespaces = sorted({str(job["namespace"]) for job in one.jobs})
    labels = _labels(
        cluster,
        SCOPE_NAMES.get(one.scope, "Incident"),
        scope=one.scope,
        subject=one.subject,
        rule=one.cause,
        incident=one.id,
        node=node if one.scope in ("node", "job") else None,
        gpu_uuid=str(first.get("gpu_uuid") or "") if one.scope in ("node", "job") else None,
        **({one.scope: one.subject} if one.scope in ("rack", "leaf", "power", "block") else {}),
        **{kind: place for kind, place in one.places.items() if kind != one.scope},
        team=one.team,
        namespace=namespaces[0] if len(namespaces) == 1 else None,
        job=job or (names[0] if len(names) == 1 else None),
    )
    said = {
        "summary": one.title,
        "description": str(first.get("message") or ""),
        "where": _where(one, node),
        "hurts": hurts_words(one),
        "action": one.action,
        "link": f"{base}/incidents?{urlencode({'id': one.id})}",
    }
    fact = replace(
        _fact(labels, said, _severity(one.severity), one.opened_at),
        incident_id=one.id,
        acknowledged_at=one.acknowledged_at,
        acknowledged_by=one.acknowledged_by,
        nodes=one.nodes,
    )
    rests_on = [] if one.scope == "pipeline" else [sources[s] for s in one.sources if s in sources]
    blind = [source for source in rests_on if source.is_blind]
    if one.resolved_at is not None:
        # An end that nobody saw is none: what it rests on was blind by then.
        unseen = any(
            source.last_ok_at is None or source.last_ok_at < one.resolved_at for source in blind
        )
        return replace(fact, state="unknown" if unseen and one.resolved_by is None else "resolved")
    if blind and len(blind) == len(rests_on):
        return replace(fact, state="unknown")
    return fact


def _operation(
    cluster: str,
    one: OperationSeen,
    sources: Mapping[str, SourceSeen],
    base: str,
    now: datetime,
) -> Iterable[AlertFact]:
    if one.kind not in ("drain", "reschedule"):
        return
    what = f"{one.kind} of {one.subject}"
    kubernetes = sources.get("kubernetes")
    blind = one.ended_at is None and kubernetes is not None and kubernetes.is_blind
    link = f"{base}/operations?{urlencode({'id': one.id})}"
    common = {"description": one.message, "where": ", ".join(one.nodes[:8]), "link": link}

    def fact(
        name: str, severity: str, since: datetime, summary: str, action: str, on: bool
    ) -> AlertFact:
        labels = _labels(
            cluster,
            name,
            scope="operation",
            subject=one.subject[:200],
            operation=one.id,
            node=one.nodes[0] if len(one.nodes) == 1 else None,
        )
        said = {**common, "summary": summary, "action": action}
        made = _fact(labels, said, severity, since, ended=not on)
        made = replace(made, operation_id=one.id, nodes=one.nodes)
        return (
            replace(made, state="unknown")
            if blind and not (on and name != "OperationStarted")
            else made
        )

    opened = one.ended_at is None
    yield fact(
        "OperationStarted",
        "info",
        one.created_at,
        f"{what} began, asked for by {one.author}",
        "",
        opened,
    )
    late = one.deadline_at is not None and now > one.deadline_at
    if one.state == "Blocked":
        since, action = one.updated_at, "choose how it goes on, on the operation's page"
    else:
        since, action = (
            one.deadline_at or one.updated_at,
            "its deadline is over: see what it waits for",
        )
    stuck = opened and (one.state == "Blocked" or late)
    yield fact("OperationStuck", "critical", since, f"{what} is stuck", action, stuck)
    long = now - one.created_at >= timedelta(seconds=CAPACITY_SECONDS)
    waits = opened and bool(one.waiting) and (late if one.deadline_at is not None else long)
    said = f"{', '.join(one.waiting[:JOBS_TOLD])} finds no room after {what}"
    yield fact(
        "OperationWaitsForCapacity",
        "warning",
        one.updated_at,
        said,
        "free nodes, or see which jobs may yield",
        waits,
    )
    if one.ended_at is None:
        return
    if one.state == "Failed":
        told = now - one.ended_at < timedelta(seconds=FAILED_SECONDS)
        yield fact(
            "OperationFailed",
            "critical",
            one.ended_at,
            f"{what} failed",
            "see its last step; the nodes stay as they are",
            told,
        )
    else:
        ending = "is done" if one.state == "Succeeded" else "was cancelled"
        yield fact("OperationDone", "info", one.ended_at, f"{what} {ending}", "", True)


def _source(cluster: str, one: SourceSeen, base: str) -> AlertFact:
    heard = "never" if one.last_ok_at is None else f"last at {_utc(one.last_ok_at)}"
    said = {
        "summary": f"source {one.name} is blind",
        "description": f"{one.message}; heard {heard}",
        "hurts": "what it tells is Unknown, and nothing is done by itself",
        "action": f"see whether {one.name} runs and is reached",
        "link": f"{base}/sources",
    }
    labels = _labels(cluster, "SourceBlind", scope="pipeline", subject=one.name)
    severity = "critical" if one.name in GRAVE_SOURCES else "warning"
    return _fact(
        labels,
        said,
        severity,
        one.last_ok_at or one.updated_at,
        ended=not one.is_blind or one.is_young,
    )


def _dead(seen: Seen, base: str, now: datetime) -> Iterable[AlertFact]:
    dead = {name: (count, since) for name, count, since in seen.dead}
    for name in sorted({*seen.receivers, *dead}):
        count, since = dead.get(name, (0, now))
        labels = _labels(
            seen.cluster, "DeliveriesDead", scope="pipeline", subject=name, receiver=name
        )
        said = {
            "summary": f"receiver {name} cannot be reached",
            "description": f"{count} messages were given up",
            "action": "mend the receiver, then send them again on the page",
            "link": f"{base}/sources",
        }
        yield _fact(labels, said, "critical", since, ended=count == 0)


def hurts_words(one: IncidentSeen) -> str:
    """The jobs with their ranks, the team and the GPUs that an incident hurts."""
    hurt = [job for job in one.jobs if job.get("until") is None]
    if not hurt:
        return "no job" if not one.gpus_hurt else f"{one.gpus_hurt} GPUs"
    said = [_job_words(job) for job in hurt[:JOBS_TOLD]]
    if len(hurt) > JOBS_TOLD:
        said.append(f"and {len(hurt) - JOBS_TOLD} more jobs")
    team = f"; team {one.team}" if one.team else ""
    return f"{', '.join(said)}; {one.gpus_hurt} GPUs{team}"


def _job_words(job: Mapping[str, Any]) -> str:
    ranks = [str(rank) for rank in job.get("ranks") or ()]
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    told = f" (rank {', '.join(ranks[:8])}{more})" if ranks else ""
    return f"{job['namespace']}/{job['name']}{told}"


def _where(one: IncidentSeen, node: str) -> str:
    first = one.first
    told = [f"node {node}"] if node else []
    if first.get("gpu_uuid"):
        index = first.get("gpu_index")
        told.append(f"GPU {index if index is not None else '?'} ({first['gpu_uuid']})")
    told.extend(f"{kind} {one.places[kind]}" for kind in ("rack", "block") if one.places.get(kind))
    if len(one.nodes) > 1:
        told.append(f"{len(one.nodes)} nodes: {', '.join(one.nodes[:8])}")
    return ", ".join(told) or one.subject


def _severity(found: str) -> str:
    return {"advice": "info"}.get(found, found)


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
