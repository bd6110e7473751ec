"""Overview: in five seconds, is all well, whom does it hurt, where, and what is being done."""

from collections.abc import Mapping, Sequence

import numpy
import streamlit as st

from app.store.records import EventRecord, IncidentRecord, NodeRecord, OperationRecord, StatusRecord
from app.store.vectors import HEALTH_CODES, SERVICE_CODES, unpack
from app.ui import live, travel, words
from app.ui.components import fleet_map, parts
from app.ui.components import incident as told
from app.ui.guard import guarded
from app.ui.views import asking

INCIDENTS_SHOWN = 4
WORST_SHOWN = 20
CHANGES_SHOWN = 6
MAP_HEIGHT_PIXELS = 600


@guarded
def show() -> None:
    fleet = live.fleet_frames()
    if fleet is not None:
        fleet_map.mount_names(fleet)
    _live(fleet.version if fleet else None)
    asking.show()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _live(version: str | None) -> None:
    fleet = live.fleet_frames()
    if (fleet.version if fleet else None) != version:
        st.rerun()  # other nodes: their names must come first
    head = st.container()
    if fleet is None:
        with head:
            _tell_empty()
        return
    left, right = st.columns([5, 3], gap="small")
    with left:  # first, so that it waits for none of the reads of the others
        picked = fleet_map.mount_map(fleet, height=MAP_HEIGHT_PIXELS)
    status, worst = live.status(), live.worst_nodes()
    with head:
        parts.notes("blind", blind_notes(status))
        parts.figures("figures", figures_of(status, in_service=failing_in_service(fleet)))
    with right:
        open_incidents = live.open_incidents()
        if open_incidents:
            incidents_sheet(open_incidents, total=status.counts.incidents_open)
        under_way = list(live.operations_page(open_only=True))
        if under_way:
            operations_sheet(under_way)
        worst_sheet(worst[:WORST_SHOWN], total=len(worst))
        changes_sheet(live.latest_events())
    if picked is not None and picked.action == "drain":
        names = words.listed(list(picked.nodes))
        asking.open_question(asking.Question("drain", nodes=picked.nodes, title=names))
        st.rerun()


def _tell_empty() -> None:
    parts.notes("blind", blind_notes(live.status()))
    parts.notes(
        "empty",
        [
            parts.note(
                "No node is known yet. Start `pitwall agent` on the nodes and `pitwall worker` beside this page; "
                "the map appears with the first report."
            )
        ],
    )


_BLINDNESS = {
    "agents": "The agents are not heard: health below is what they said last.",
    "kubernetes": "Kubernetes is not heard: pods, jobs and cordons below are what it said last, and nothing is done by itself.",
    "worker": "No worker is at work: nothing that is asked for will be done. Start `pitwall worker`.",
    "ingest": "Ingest is not heard: agents' reports are not taken in.",
}


def blind_notes(status: StatusRecord) -> list[dict[str, object]]:
    """What can't be believed now, in words: a blind source must not look like a calm fleet."""
    return [
        parts.note(
            _BLINDNESS[source.source],
            "watch" if source.state == "late" else "act",
            at=words.milliseconds(source.last_ok_at),
        )
        for source in status.sources
        if source.source in _BLINDNESS and source.state != "ok"
    ]


def failing_in_service(fleet: live.Fleet | None) -> int:
    """Failing nodes that are neither drained, being drained nor in repair: those that need a person."""
    if fleet is None:
        return 0
    codes = unpack(fleet.node_state)
    handled = [SERVICE_CODES[name] for name in ("Draining", "Drained", "Under repair")]
    return int(
        numpy.count_nonzero(
            (codes & 3 == HEALTH_CODES["Failing"]) & ~numpy.isin(codes >> 2, handled)
        )
    )


def figures_of(status: StatusRecord, *, in_service: int) -> list[dict[str, object]]:
    """The six numbers, in the order in which one asks them at night."""
    counts = status.counts
    failing, unknown = (
        counts.nodes_by_health.get("Failing", 0),
        counts.nodes_by_health.get("Unknown", 0),
    )
    away = words.total(counts.nodes_by_service, "Cordoned", "Draining", "Drained", "Under repair")
    return [
        _figure(
            "Jobs at risk",
            counts.jobs_at_risk,
            tone="act",
            of=f"of {counts.jobs_running:,} running",
            help="Jobs with a rank on a node that is Failing or Unknown.",
            open=travel.to("jobs", show="at risk"),
        ),
        _figure("Open incidents", counts.incidents_open, tone="watch", open=travel.to("incidents")),
        _figure(
            "Failing nodes",
            failing,
            tone="act" if in_service else "quiet",
            of=f"of {counts.nodes:,}",
            note=f"{in_service} still in service"
            if in_service
            else "all out of service or draining"
            if failing
            else "",
            help="Red while one of them is in service: jobs can still be placed on it.",
            open=travel.to("nodes", health="Failing"),
        ),
        _figure(
            "Unknown nodes",
            unknown,
            tone="blank",
            help="No recent report: neither healthy nor failing is known.",
            open=travel.to("nodes", health="Unknown"),
        ),
        _figure(
            "Out of service",
            away,
            tone="quiet",
            note=away_note(counts.nodes_by_service),
            open=travel.to("nodes", service="Drained"),
        ),
        {
            "label": "GPUs free",
            "value": f"{counts.gpus_free:,}",
            "of": f"of {counts.gpus_usable:,} usable",
            "note": f"{counts.gpus:,} in all",
            "tone": "calm",
            "help": "Usable: on nodes that are Ready, schedulable and neither Failing nor Unknown.",
        },
    ]


def away_note(by_service: Mapping[str, int]) -> str:
    return ", ".join(
        f"{by_service[name]:,} {name.lower()}"
        for name in ("Draining", "Drained", "Under repair", "Cordoned")
        if by_service.get(name)
    )


def _figure(label: str, value: int, *, tone: str, **more: object) -> dict[str, object]:
    return {"label": label, "value": f"{value:,}", "tone": tone if value else "calm", **more}


def incidents_sheet(found: Sequence[IncidentRecord], *, total: int) -> None:
    """Those that hurt most, each with whom."""
    rows = []
    for one in found[:INCIDENTS_SHOWN]:
        hurt, target = told.hurt_cell(one), travel.incident(one.id)
        whom = f"{hurt['text']}: {hurt['second']}" if told.hurt_now(one) else "No job is hurt now"
        rows.append(
            parts.row(
                one.id,
                {
                    "what": {
                        "text": one.title,
                        "open": target,
                        "second": f"{whom} · with {one.owner}" if one.owner else whom,
                        "tags": told.tags_of(one),
                    },
                    "state": told.state_of(one),
                    "age": words.milliseconds(one.opened_at),
                },
                open=target,
            )
        )
    parts.sheet(
        "open-incidents",
        label="Open incidents, those that hurt most first",
        title="Incidents",
        count=f"{len(rows)} of {total}" if total > len(rows) else "",
        rows=rows,
        dense=True,
        columns=[
            parts.column("what", "Incident, and who is hurt", "two", wrap=True),
            parts.column("state", "Severity", "state"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="",
    )


def worst_sheet(worst: tuple[NodeRecord, ...], *, total: int) -> None:
    rows = [
        parts.row(
            node.name,
            {
                "node": {
                    "text": node.name,
                    "open": travel.node(node.name),
                    "second": node.health_reason or node.service_reason or "no cause given",
                },
                "state": parts.state(*words.node_state(node.health, node.service)),
                "age": words.milliseconds(
                    node.health_since if node.health != "Healthy" else node.service_since
                ),
            },
            node=node.name,
            open=travel.node(node.name),
        )
        for node in worst
    ]
    parts.sheet(
        "worst",
        label="Worst nodes",
        title="Worst nodes",
        rows=rows,
        dense=True,
        height="max(460px, calc(100vh - 470px))",
        count=f"{len(rows)} of {total}" if total > len(rows) else "",
        columns=[
            parts.column("node", "Node and cause", "two"),
            parts.column("state", "State", "state"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="Every node is healthy and in service.",
    )


def changes_sheet(events: Sequence[EventRecord]) -> None:
    """What changed last: health that turned and XIDs; findings are told by the health that they turn."""
    told = [event for event in events if event.kind in {"node_health", "xid"}][:CHANGES_SHOWN]
    rows = [
        parts.row(
            f"{event.at.timestamp()}-{event.node}-{event.kind}-{event.code}-{at}",
            {
                "what": {
                    "text": event.node,
                    "open": travel.node(event.node),
                    "second": event.message or event.code,
                },
                "kind": f"XID {event.code.removeprefix('xid-')}"
                if event.kind == "xid"
                else event.code,
                "age": words.milliseconds(event.at),
            },
            node=event.node,
            open=travel.node(event.node),
        )
        for at, event in enumerate(told)
    ]
    parts.sheet(
        "changes",
        label="What changed",
        title="What changed",
        rows=rows,
        dense=True,
        columns=[
            parts.column("what", "Node", "two"),
            parts.column("kind", "To"),
            parts.column("age", "Ago", "age", right=True),
        ],
        empty="Nothing has changed since Pitwall watches.",
    )


def operations_sheet(under_way: list[OperationRecord]) -> None:
    rows = [
        parts.row(
            operation.id,
            {
                "what": {
                    "text": f"{operation.kind.capitalize()} {operation.subject}",
                    "open": travel.operation(operation.id),
                    "second": operation.message,
                },
                "state": parts.state(operation.state, words.operation_tone(operation.state)),
                "age": words.milliseconds(operation.created_at),
            },
            open=travel.operation(operation.id),
        )
        for operation in under_way[:5]
    ]
    parts.sheet(
        "under-way",
        label="Operations under way",
        title="Under way",
        rows=rows,
        dense=True,
        columns=[
            parts.column("what", "Operation", "two"),
            parts.column("state", "State", "state"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="",
        more=f"and {len(under_way) - 5} more" if len(under_way) > 5 else None,
    )
