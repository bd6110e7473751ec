"""One node: what is wrong and since when, its 8 GPUs, whom it carries, what happened, and what to do."""

import streamlit as st

from app.store.records import FindingRecord, GpuRecord, NodeRecord, PodRecord
from app.ui import context, live, travel, words
from app.ui.components import incident as told
from app.ui.components import kit, parts
from app.ui.components.findings import findings_sheet
from app.ui.components.readings import readings_of
from app.ui.guard import guarded
from app.ui.views import asking, node_history

INCIDENTS_SHOWN = 3
SEVERITIES = ("fatal", "critical", "warning", "advice", "info")


def show(name: str) -> None:
    picture = live.node(name)
    if picture is None:
        parts.headline(
            "node-head",
            title=name,
            mono=True,
            trail=[{"text": "Nodes", "open": travel.to("nodes")}],
            cause={"text": "No node of this name is known.", "tone": "quiet"},
            action="It may have been removed from the cluster, or the address is mistyped.",
        )
        return
    head, buttons = st.columns([5, 2], vertical_alignment="top")
    with head:
        _head(name, _buttons_state(picture.node))
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        _buttons(picture)
    _live(name)
    node_history.show(name, picture.gpus)
    asking.show()


def _buttons_state(node: NodeRecord) -> tuple[object, ...]:
    return (node.service, node.operation_id, node.unschedulable)


def _buttons(picture: live.NodePicture) -> None:
    node = picture.node
    held = node.operation_id is not None
    mending = node.service in {"Under repair", "Probation"}
    away = node.service not in {"In service", "Probation"} or bool(node.unschedulable)
    if (
        node.unschedulable
        and not held
        and not mending
        and st.button("Send to repair…", key="repair", help="Keeps it out, with a note on why.")
    ):
        asking.open_question(asking.Question("repair", nodes=(node.name,)))
    if mending and not held:
        back = "Uncordons it; it is on probation then."
        if node.service == "Probation":
            back = "Ends its probation: it is in full service again."
        if st.button("Give back…", key="return", help=back):
            asking.open_question(asking.Question("return", nodes=(node.name,)))
    if (
        away
        and node.service != "Under repair"
        and st.button(
            "Uncordon…",
            key="uncordon",
            disabled=held,
            help="An operation holds this node: cancel it first."
            if held
            else "Lets Kubernetes place pods here again.",
        )
    ):
        asking.open_question(asking.Question("uncordon", nodes=(node.name,)))
    out = node.service in words.OUT_OF_SERVICE
    if st.button(
        "Drain…",
        key="drain",
        type="secondary" if out else "primary",
        disabled=held or out,
        help="An operation holds this node."
        if held
        else "It is out of service already."
        if out
        else "Shows what would happen first; nothing is done yet.",
    ):
        asking.open_question(asking.Question("drain", nodes=(node.name,), reason=_reason(picture)))


def _reason(picture: live.NodePicture) -> str:
    """What the person would type: the gravest open finding."""
    return picture.node.health_reason if picture.node.health != "Healthy" else ""


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _head(name: str, drawn: tuple[object, ...]) -> None:
    picture = live.node(name)
    if picture is None or (_buttons_state(picture.node) != drawn and not asking.is_open()):
        st.rerun()
    node = picture.node
    worst = min(picture.findings, key=_gravity, default=None)
    tone = words.node_tone(node.health, node.service)
    health = {
        "word": node.health,
        "tone": words.health_tone(node.health, node.service),
        "at": words.milliseconds(node.health_since),
    }
    service_tone = (
        "busy"
        if node.service == "Draining"
        else "calm"
        if node.service == "In service"
        else "quiet"
    )
    parts.headline(
        "node-head",
        title=node.name,
        mono=True,
        trail=[
            {"text": "Nodes", "open": travel.to("nodes")},
            {"text": node.block or "no block", "open": travel.to("nodes", search=node.block or "")},
            {"text": node.rack or "no rack", "open": travel.to("nodes", search=node.rack or "")},
        ],
        states=[
            health,
            {
                "word": node.service,
                "tone": service_tone,
                "at": words.milliseconds(node.service_since)
                if node.service != "In service"
                else None,
            },
        ],
        cause={
            "text": node.health_reason or "Nothing is wrong with it.",
            "tone": tone if node.health != "Healthy" else "calm",
        },
        action=f"What to do: {worst.action}" if worst and worst.action else None,
        facts=facts_of(picture),
    )


def _gravity(finding: FindingRecord) -> int:
    known = finding.severity in SEVERITIES
    return SEVERITIES.index(finding.severity) if known else len(SEVERITIES)


def notes_of(picture: live.NodePicture) -> list[dict[str, object]]:
    """What else is known of it: its incidents, why it is away, and what is planned."""
    node = picture.node
    notes = [
        parts.note(
            f"Incident: {one.title}",
            # A node's own is in red above already.
            "quiet" if one.scope == "node" else told.tone_of(one),
            open=travel.incident(one.id),
            link="Open it",
        )
        for one in picture.incidents[:INCIDENTS_SHOWN]
    ]
    left = len(picture.incidents) - len(notes)
    if left > 0:
        notes.append(parts.note(f"and {words.count(left, 'incident')} more."))
    if node.planned and node.service != "Under repair":
        notes.append(
            parts.note(f"Planned: {node.planned}. If it falls silent meanwhile, that is no fault.")
        )
    if node.service in {"Under repair", "Probation"} and node.service_reason:
        notes.append(parts.note(f"{node.service}: {node.service_reason}"))
    return notes


def _has_reading(gpu: GpuRecord) -> bool:
    values = (gpu.temperature_celsius, gpu.power_watts, gpu.memory_used_bytes)
    return any(value is not None for value in values)


def facts_of(picture: live.NodePicture) -> list[dict[str, object]]:
    node = picture.node
    ready = {True: "Ready", False: "Not Ready", None: "not heard"}[node.kubernetes_ready]
    placing = {True: ", unschedulable", False: ", schedulable", None: ""}[node.unschedulable]
    expected = node.gpu_count_expected or node.gpu_count or 0
    # NVML counts a GPU that it has lost; what answers is what it gave any reading of.
    answering = min(node.gpu_count or 0, sum(1 for gpu in picture.gpus if _has_reading(gpu)))
    used = (
        "not known"
        if node.gpu_requested is None
        else f"{node.gpu_requested} of {node.gpu_allocatable if node.gpu_allocatable is not None else '?'}"
    )
    odd = node.kubernetes_ready is not True
    return [
        parts.fact(
            "GPUs answering",
            "not known" if node.gpu_count is None else f"{answering} of {expected}",
            **(
                {"tone": words.health_tone(node.health, node.service)}
                if node.gpu_count is not None and answering < expected
                else {}
            ),
        ),
        parts.fact("GPUs in use", used),
        parts.fact(
            "Kubernetes says",
            ready + placing,
            **({"tone": "blank" if node.kubernetes_ready is None else "watch"} if odd else {}),
        ),
        parts.fact("Kubernetes heard", None, at=words.milliseconds(node.kubernetes_observed_at)),
        parts.fact(
            "Exporter heard" if node.reported_by == "dcgm" else "Agent heard",
            None if node.observed_at else "never",
            at=words.milliseconds(node.observed_at),
            **({"tone": "blank"} if node.health == "Unknown" else {}),
        ),
        *([parts.fact("Reported by", "dcgm-exporter")] if node.reported_by == "dcgm" else []),
        *([parts.fact("Leaf switch", node.leaf)] if node.leaf else []),
        *([parts.fact("Power domain", node.power_domain)] if node.power_domain else []),
        parts.fact("Driver", node.driver_version or "not known"),
        parts.fact("Model", node.kind or "not known"),
    ]


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _live(name: str) -> None:
    picture = live.node(name)
    if picture is None:
        return
    parts.notes("node-notes", notes_of(picture))
    if picture.operation is not None:
        operation = picture.operation
        parts.notes(
            "node-operation",
            [
                parts.note(
                    f"{operation.kind.capitalize()} by {operation.author}, {operation.state}: {operation.message}",
                    words.operation_tone(operation.state),
                    open=travel.operation(operation.id),
                    link="Watch it",
                )
            ],
        )
    pods = {pod.uid: pod for pod in picture.pods}
    opened = kit.mount(
        "gpus",
        {
            "now": words.milliseconds(context.now()),
            "gpus": [card(gpu, pods, service=picture.node.service) for gpu in picture.gpus],
            "empty": "No GPU has been reported for this node yet: is `pitwall agent` running on it?",
        },
        key="node-gpus",
    )
    travel.follow(opened)
    left, right = st.columns(2, gap="small")
    with left:
        pods_sheet(picture.pods)
        findings_sheet(
            "node-findings",
            sorted(picture.findings, key=_gravity),
            gpu_index={gpu.uuid: gpu.index for gpu in picture.gpus},
            handled=words.health_tone("Failing", picture.node.service) == "quiet",
            with_node=False,
            empty="No finding is open.",
        )
    with right:
        events_sheet(picture)


def card(gpu: GpuRecord, pods: dict[str, PodRecord], *, service: str) -> dict[str, object]:
    pod = pods.get(gpu.pod_uid or "")
    return {
        "uuid": gpu.uuid,
        "index": "?" if gpu.index is None else gpu.index,
        "health": gpu.health,
        "tone": words.health_tone(gpu.health, service),
        "reason": gpu.health_reason if gpu.health != "Healthy" else "",
        "since": words.milliseconds(gpu.health_since),
        "pci": gpu.pci_bus_id or "not known",
        "serial": gpu.serial or "not known",
        "pod": _pod_of(gpu, pod),
        "readings": readings_of(gpu),
    }


def _pod_of(gpu: GpuRecord, pod: PodRecord | None) -> dict[str, object] | None:
    if pod is not None:
        return _pod_link(pod)
    if gpu.pod_uid is None:
        return None
    # The agent says so each 15 s, Kubernetes at once: a pod may be gone from one and not yet from the other.
    return {"text": "held by a pod that is gone", "help": f"The agent last saw pod {gpu.pod_uid}"}


def _pod_link(pod: PodRecord) -> dict[str, object]:
    job = pod.owner.partition("/")[2] or pod.name
    text = f"{job}, rank {pod.rank}" if pod.rank is not None else pod.name
    return {
        "text": text,
        "open": travel.job(pod.job_uid) if pod.job_uid else travel.node(pod.node or ""),
    }


def pods_sheet(pods: tuple[PodRecord, ...]) -> None:
    ordered = sorted(pods, key=lambda pod: (-pod.gpus, pod.namespace, pod.name))
    rows = [
        parts.row(
            pod.uid,
            {
                "pod": {
                    "text": pod.name,
                    "second": f"{pod.namespace} · {pod.owner or 'no owner'}",
                    **({"open": travel.job(pod.job_uid)} if pod.job_uid else {}),
                },
                "rank": "–" if pod.rank is None else str(pod.rank),
                "gpus": pod.gpus,
                "state": pod_state(pod),
                "age": words.milliseconds(pod.deleted_at or pod.started_at),
            },
        )
        for pod in ordered
    ]
    parts.sheet(
        "node-pods",
        label="Pods on this node",
        title="Pods",
        count=str(len(pods)) if pods else "",
        rows=rows,
        dense=True,
        columns=[
            parts.column("pod", "Pod", "two"),
            parts.column("rank", "Rank", right=True),
            parts.column("gpus", "GPUs", "number"),
            parts.column("state", "State", "state"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="No pod is on this node.",
    )


def pod_state(pod: PodRecord) -> dict[str, str]:
    if pod.deleted_at is not None:
        return parts.state("Terminating", "busy")
    if pod.phase == "Running":
        return (
            parts.state("Running", "calm")
            if pod.ready
            else parts.state("Running, not ready", "watch")
        )
    return parts.state(
        pod.phase,
        {"Succeeded": "quiet", "Failed": "watch", "Pending": "watch"}.get(pod.phase, "blank"),
    )


_EVENT_WORDS = {
    "xid": "XID",
    "finding_opened": "Opened",
    "finding_closed": "Closed",
    "node_health": "Health",
}


def events_sheet(picture: live.NodePicture) -> None:
    rows = [
        parts.row(
            f"{event.at.timestamp()}-{event.kind}-{event.code}-{event.gpu_uuid}-{at}",
            {
                "age": words.milliseconds(event.at),
                "kind": _EVENT_WORDS.get(event.kind, event.kind),
                "message": f"{event.message}{f' ({event.count} times)' if event.count > 1 else ''}"
                or event.code,
            },
        )
        for at, event in enumerate(picture.events)
    ]
    parts.sheet(
        "node-events",
        label="Events",
        title="Events",
        rows=rows,
        dense=True,
        height="420px",
        columns=[
            parts.column("age", "Ago", "age", width="72px"),
            parts.column("kind", "What", "soft", width="72px"),
            parts.column("message", "Message", wrap=True),
        ],
        empty="Nothing has happened here since Pitwall watches.",
    )
