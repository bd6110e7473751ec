"""Capacity: what room there is and in what pieces, who holds it, and who waits for it and why."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.store.page_records import CapacityRecord, RoomRecord, ShareRecord, WaitingRecord
from app.store.records import CountsRecord
from app.ui import live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded


@guarded
def show() -> None:
    parts.headline("capacity-head", title="Capacity")
    _live()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _live() -> None:
    found, counts = live.capacity(), live.status().counts
    parts.figures("capacity-figures", figures_of(found, counts))
    left, right = st.columns([3, 2], gap="small")
    with left:
        _waiting(found.waiting)
        _rooms(found.rooms)
    with right:
        _pieces(found.nodes_by_free_gpus)
        _shares("capacity-teams", "Teams", found.teams)
        _shares("capacity-queues", "Queues", found.queues)


def figures_of(found: CapacityRecord, counts: CountsRecord) -> list[dict[str, Any]]:
    whole = sum(room.nodes_whole for room in found.rooms)
    probation = sum(room.nodes_whole_on_probation for room in found.rooms)
    pieces = sum(
        free * nodes for free, nodes in found.nodes_by_free_gpus.items() if 0 < free < _size(found)
    )
    pending = sum(share.gpus_pending for share in found.teams)
    return [
        {
            "label": "GPUs free",
            "value": f"{counts.gpus_free:,}",
            "of": f"of {counts.gpus_usable:,} usable",
            "note": f"{counts.gpus:,} in all",
            "tone": "calm",
            "help": "Usable: on nodes that are Ready, schedulable and not Failing or Unknown.",
        },
        {
            "label": "Whole nodes free",
            "value": f"{whole:,}",
            "note": f"{probation:,} on probation, no spares" if probation else "none on probation",
            "tone": "calm" if whole - probation else "watch",
            "help": "Usable nodes where no pod asks for a GPU: what a gang of 8-GPU ranks needs.",
        },
        {
            "label": "GPUs in pieces",
            "value": f"{pieces:,}",
            "note": "free on nodes that are partly used",
            "tone": "calm",
            "help": "Free GPUs that no rank of a whole node can take.",
        },
        {
            "label": "GPUs asked for, not placed",
            "value": f"{pending:,}",
            "note": words.count(len(found.waiting), "job waits", "jobs wait"),
            "tone": "watch" if pending else "calm",
            "help": "By pods that are on no node yet.",
        },
    ]


def _size(found: CapacityRecord) -> int:
    """GPUs of a whole node: 8, or the most that is free on one."""
    return max(8, max(found.nodes_by_free_gpus, default=0))


def _waiting(waiting: Sequence[WaitingRecord]) -> None:
    parts.sheet(
        "capacity-waiting",
        label="Jobs that wait",
        title="Waiting, and why",
        count=str(len(waiting)) if waiting else "",
        height="340px",
        empty="No job waits: all that was asked for runs.",
        rows=[
            parts.row(
                job.uid,
                {
                    "job": {
                        "text": f"{job.namespace}/{job.name}",
                        "open": travel.job(job.uid),
                        "second": job.reason or "Kubernetes gives no reason",
                    },
                    "state": parts.state(job.state, words.job_tone(job.state)),
                    "team": job.team,
                    "queue": job.queue,
                    "pods": f"{job.running_pods} of {job.wanted_pods}",
                    "gpus": job.gpus,
                    "for": words.milliseconds(job.created_at),
                },
                open=travel.job(job.uid),
            )
            for job in waiting
        ],
        columns=[
            parts.column("job", "Job and reason", "two"),
            parts.column("state", "State", "state"),
            parts.column("team", "Team", missing="no team named"),
            parts.column("queue", "Queue", missing="in no queue"),
            parts.column("pods", "Pods running", right=True),
            parts.column("gpus", "GPUs", "number"),
            parts.column("for", "Made, ago", "age", right=True),
        ],
    )


def _rooms(rooms: Sequence[RoomRecord]) -> None:
    parts.sheet(
        "capacity-rooms",
        label="Room by block",
        title="Blocks",
        count=str(len(rooms)) if rooms else "",
        empty="No node is known yet. Is `pitwall worker` running?",
        rows=[
            parts.row(
                room.block,
                {
                    "block": room.block,
                    "usable": f"{room.nodes_usable:,} of {room.nodes:,}",
                    "held": {
                        "done": max(0, room.gpus - room.gpus_free),
                        "total": room.gpus,
                        "tone": "calm",
                    },
                    "free": room.gpus_free,
                    "whole": room.nodes_whole,
                },
            )
            for room in rooms
        ],
        columns=[
            parts.column("block", "Block"),
            parts.column("usable", "Nodes usable", right=True),
            parts.column(
                "held",
                "GPUs not free",
                "bar",
                help="Held by a pod, or on a node that is not usable.",
            ),
            parts.column("free", "GPUs free", "number"),
            parts.column("whole", "Whole nodes free", "number"),
        ],
    )


def _pieces(nodes_by_free: dict[int, int]) -> None:
    total = sum(nodes_by_free.values())
    parts.sheet(
        "capacity-pieces",
        label="Usable nodes by their free GPUs",
        title="Free GPUs a node",
        dense=True,
        empty="No usable node is known.",
        rows=[
            parts.row(
                str(free),
                {
                    "free": _free_words(free),
                    "nodes": {"done": nodes_by_free[free], "total": total, "tone": "calm"},
                },
            )
            for free in sorted(nodes_by_free, reverse=True)
        ],
        columns=[
            parts.column("free", "Free on the node"),
            parts.column("nodes", "Usable nodes", "bar"),
        ],
    )


def _free_words(free: int) -> str:
    return "none" if not free else words.count(free, "GPU")


def _shares(key: str, title: str, shares: Sequence[ShareRecord]) -> None:
    held = sum(share.gpus_held for share in shares)
    parts.sheet(
        key,
        label=f"GPUs by {title.lower()}",
        title=title,
        dense=True,
        height="300px",
        empty="No pod asks for a GPU.",
        rows=[
            parts.row(
                share.name,
                {
                    "name": share.name,
                    "jobs": share.jobs,
                    "held": {"done": share.gpus_held, "total": held, "tone": "calm"},
                    "pending": share.gpus_pending or None,
                },
            )
            for share in shares
        ],
        columns=[
            parts.column("name", title.removesuffix("s")),
            parts.column("jobs", "Jobs", "number"),
            parts.column("held", "GPUs held", "bar"),
            parts.column("pending", "GPUs waited for", "number", missing="waits for none"),
        ],
    )
