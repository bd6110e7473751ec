"""How an incident came to be, in parts: the first failure, what followed it, why it is thought so, what was done."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.store.reads.incidents import TimelineRecord
from app.store.records import IncidentRecord, NodeRecord
from app.ui import travel, words
from app.ui.components import parts
from app.ui.components.incident import job_name, tone_of

MOST_CONSEQUENCES = 60
MOST_EVIDENCE = 40
_EVENTS = {
    "opened": "Opened",
    "finding": "Found",
    "consequence": "Followed",
    "hurt": "Hurts",
    "recovered": "Well again",
    "acknowledged": "Seen",
    "owned": "Taken",
    "note": "Note",
    "flapping": "Flapping",
    "merged": "Merged",
    "reopened": "Reopened",
    "resolved": "Resolved",
}
_KINDS = {
    "hardware": "Hardware",
    "absence": "Not heard",
    "application": "Application",
    "job": "Job",
    "warning": "Warning",
}


def first_card(incident: IncidentRecord, gpu_index: Mapping[str, int]) -> dict[str, Any]:
    """The first failure: what failed, and where one finds it on the machine."""
    first = incident.first
    node, uuid = str(first.get("node") or ""), str(first.get("gpu_uuid") or "")
    index = first.get("gpu_index")
    index = gpu_index.get(uuid) if index is None else index
    xid = first.get("xid")
    uid = next((job.get("uid") for job in incident.jobs if job_name(job) == first.get("job")), None)
    candidates = [
        parts.fact("Node", node, **({"open": travel.node(node)} if node else {})),
        parts.fact("GPU", "" if index is None else str(index)),
        parts.fact("UUID", uuid, mono=True),
        parts.fact("XID", "" if xid is None else str(xid)),
        parts.fact("Rule", str(first.get("rule") or ""), mono=True),
        parts.fact(
            "Job", str(first.get("job") or ""), **({"open": travel.job(str(uid))} if uid else {})
        ),
        parts.fact("Rank", "" if first.get("rank") is None else str(first["rank"])),
        parts.fact("Pod", str(first.get("pod") or "")),
    ]
    return {
        "title": "First failure",
        "tone": tone_of(incident),
        "at": words.milliseconds(words.moment(first.get("at"))),
        "lead": words.sentence(str(first.get("message") or incident.title)),
        "facts": [fact for fact in candidates if fact["value"]],
    }


def consequence_rows(
    incident: IncidentRecord, gpu_index: Mapping[str, int]
) -> list[dict[str, Any]]:
    """What followed, in time order, the first MOST_CONSEQUENCES."""
    began = words.moment(incident.first.get("at"))
    rows = []
    told = [one for one in incident.consequences if one.get("kind") != "more"]
    for at, one in enumerate(told[:MOST_CONSEQUENCES]):
        node, uuid = str(one.get("node") or ""), one.get("gpu_uuid")
        index = gpu_index.get(str(uuid))
        where = [node] if node else []
        where += [f"GPU {index}"] if index is not None else []
        where += [str(one["job"])] if one.get("job") else []
        where += [f"rank {one['rank']}"] if one.get("rank") is not None else []
        kind = str(one.get("kind") or "")
        rows.append(
            parts.row(
                str(one.get("key") or at),
                {
                    "after": words.after(words.moment(one.get("at")), began),
                    "kind": _KINDS.get(kind, kind.replace("-", " ").capitalize()),
                    "what": {"text": str(one.get("message") or ""), "second": " · ".join(where)},
                },
                **({"open": travel.node(node), "node": node} if node else {}),
            )
        )
    return rows


def consequences_beyond(incident: IncidentRecord) -> int:
    """How many followed beyond those shown."""
    told = [one for one in incident.consequences if one.get("kind") != "more"]
    counted = sum(
        int(one.get("count") or 0) for one in incident.consequences if one.get("kind") == "more"
    )
    return max(0, len(told) - MOST_CONSEQUENCES) + counted


def evidence_rows(incident: IncidentRecord) -> list[dict[str, Any]]:
    return [
        parts.row(
            str(at),
            {
                "age": words.milliseconds(words.moment(one.get("at"))),
                "source": str(one.get("source") or ""),
                "text": str(one.get("text") or ""),
            },
        )
        for at, one in enumerate(incident.evidence[:MOST_EVIDENCE])
    ]


def timeline_rows(timeline: Sequence[TimelineRecord]) -> list[dict[str, Any]]:
    """Newest first: what was done last is what the next person asks."""
    return [
        parts.row(
            f"{len(timeline) - at}",
            {
                "age": words.milliseconds(event.at),
                "kind": _EVENTS.get(event.kind, event.kind.capitalize()),
                "what": {
                    "text": event.message or f"by {event.author or 'Pitwall'}",
                    "second": event.author if event.message else "",
                },
            },
        )
        for at, event in enumerate(reversed(timeline))
    ]


def node_rows(nodes: Sequence[NodeRecord]) -> list[dict[str, Any]]:
    return [
        parts.row(
            node.name,
            {
                "node": {
                    "text": node.name,
                    "open": travel.node(node.name),
                    "second": node.health_reason if node.health != "Healthy" else "",
                },
                "state": parts.state(*words.node_state(node.health, node.service)),
            },
            node=node.name,
            open=travel.node(node.name),
        )
        for node in nodes
    ]
