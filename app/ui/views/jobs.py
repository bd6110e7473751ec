"""Jobs: who runs, who is at risk; a job's ranks and the way to bring it elsewhere under ?uid=."""

import numpy
import streamlit as st

from app.store.records import JobRecord, RankRecord
from app.store.vectors import unpack
from app.ui import live, travel, words
from app.ui.components import parts
from app.ui.guard import guarded
from app.ui.views import asking

PAGE_ROWS = 100
RANKS_SHOWN = 300
SHOWS = {"open": "Not ended", "at risk": "At risk", "all": "All"}
ENDED = frozenset({"Complete", "Failed", "Removed"})


@guarded
def show() -> None:
    uid = st.query_params.get("uid")
    if uid:
        _job(uid)
        return
    wanted = st.query_params.get("show", "open")
    parts.headline("jobs-head", title="Jobs")
    which = st.segmented_control(
        "Which jobs",
        list(SHOWS),
        format_func=SHOWS.__getitem__,
        default=wanted if wanted in SHOWS else "open",
        key="jobs-which",
        label_visibility="collapsed",
        required=True,
    )
    if which != st.query_params.get("show"):
        st.query_params["show"] = which
    _rows(which)


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _rows(which: str) -> None:
    after = st.query_params.get("after")
    found = live.jobs_page(which=which, after=after, limit=PAGE_ROWS + 1)
    rows = [
        parts.row(
            job.uid,
            {
                "job": {
                    "text": job.name,
                    "second": f"{job.namespace} · {job.kind}{' · gang' if job.gang else ''}",
                    "open": travel.job(job.uid),
                },
                "state": job_state(job),
                "pods": {
                    "done": job.running_pods,
                    "total": job.wanted_pods,
                    "tone": "calm" if job.running_pods >= job.wanted_pods else "watch",
                }
                if job.state not in ENDED
                else None,
                "gpus": job.gpus,
                "risk": parts.state(words.count(job.nodes_failing, "node") + " failing", "act")
                if job.nodes_failing
                else None,
                "team": job.team,
                "checkpoint": words.milliseconds(job.checkpoint_at),
                "age": words.milliseconds(job.finished_at or job.started_at or job.created_at),
            },
            open=travel.job(job.uid),
        )
        for job in sorted(
            found[:PAGE_ROWS],
            key=lambda job: (
                -job.nodes_failing,
                job.state in ENDED,
                -job.gpus,
                job.namespace,
                job.name,
            ),
        )
    ]
    parts.sheet(
        "jobs",
        label="Jobs",
        rows=rows,
        columns=[
            parts.column("job", "Job", "two"),
            parts.column("state", "State", "state"),
            parts.column("pods", "Pods running", "bar", missing="ended"),
            parts.column("gpus", "GPUs", "number"),
            parts.column("risk", "At risk", "state", missing="no rank is on a failing node"),
            parts.column("team", "Team", missing="no team label"),
            parts.column("checkpoint", "Checkpoint, ago", "age"),
            parts.column("age", "For", "age", right=True),
        ],
        empty="No job is at risk." if which == "at risk" else "No job is known.",
    )
    with st.container(horizontal=True, gap="small"):
        if after and st.button("First page", key="jobs-first"):
            st.query_params.pop("after", None)
            st.rerun(scope="fragment")
        if len(found) > PAGE_ROWS and st.button("Next page", key="jobs-next"):
            st.query_params["after"] = found[PAGE_ROWS - 1].uid
            st.rerun(scope="fragment")


def job_state(job: JobRecord) -> dict[str, str]:
    return parts.state(job.state, words.job_tone(job.state))


def _job(uid: str) -> None:
    found = live.job(uid)
    trail = [{"text": "Jobs", "open": travel.to("jobs")}]
    if found is None:
        parts.headline(
            "job-head",
            title="Job not known",
            trail=trail,
            cause={
                "text": "No job with this address is known; it may be long gone.",
                "tone": "quiet",
            },
        )
        return
    job, _ = found
    head, buttons = st.columns([5, 2], vertical_alignment="top")
    with head:
        _head(job.uid)
    with buttons, st.container(horizontal=True, horizontal_alignment="right"):
        ended = job.state in ENDED
        if st.button(
            "Reschedule…",
            key="reschedule",
            type="primary",
            disabled=ended,
            help="It has ended."
            if ended
            else "Shows what would happen first; nothing is done yet.",
        ):
            asking.open_question(
                asking.Question(
                    "reschedule",
                    job=job.uid,
                    title=f"{job.namespace}/{job.name}",
                    reason=f"{words.count(job.nodes_failing, 'node')} of it failing"
                    if job.nodes_failing
                    else "",
                )
            )
    _ranks(job.uid)
    asking.show()


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _head(uid: str) -> None:
    found = live.job(uid)
    if found is None:
        st.rerun()
    job, _ = found
    lost = (
        parts.fact("At risk", f"{words.count(job.nodes_failing, 'node')} failing", tone="act")
        if job.nodes_failing
        else parts.fact("At risk", "no")
    )
    parts.headline(
        "job-head",
        title=job.name,
        mono=True,
        trail=[{"text": "Jobs", "open": travel.to("jobs")}, {"text": job.namespace}],
        states=[
            {
                **job_state(job),
                "at": words.milliseconds(job.finished_at or job.started_at or job.created_at),
            }
        ],
        cause={"text": job.reason, "tone": "watch"} if job.reason else None,
        facts=[
            parts.fact("Pods running", f"{job.running_pods} of {job.wanted_pods}"),
            parts.fact("GPUs", f"{job.gpus:,}"),
            lost,
            parts.fact("Shape", "gang: all ranks or none" if job.gang else "independent pods"),
            parts.fact("Kind", job.kind),
            parts.fact("Team", job.team or "no label"),
            parts.fact("Queue", job.queue or "none"),
            parts.fact(
                "Last checkpoint",
                None if job.checkpoint_at else "not known",
                at=words.milliseconds(job.checkpoint_at),
            ),
        ],
        progress={
            "done": job.running_pods,
            "total": job.wanted_pods,
            "tone": "calm",
            "label": f"{job.running_pods} of {words.count(job.wanted_pods, 'pod')} running",
        }
        if job.state not in ENDED
        else None,
    )


@st.fragment(run_every=live.REFRESH_SECONDS)
@guarded
def _ranks(uid: str) -> None:
    found = live.job(uid)
    if found is None:
        return
    _, ranks = found
    states = node_states(ranks)
    ordered = sorted(
        ranks,
        key=lambda rank: (
            states.get(rank.node or "", ("Healthy",))[0] not in {"Failing", "Unknown"},
            rank.ready and rank.phase == "Running",
            rank.rank,
        ),
    )
    rows = [
        parts.row(
            str(rank.rank),
            {
                "rank": rank.rank,
                "pod": rank.pod_name,
                "state": rank_state(rank),
                "node": parts.link(rank.node, travel.node(rank.node)) if rank.node else None,
                "health": parts.state(*words.node_state(*states[rank.node]))
                if rank.node in states
                else None,
            },
            **({"open": travel.node(rank.node)} if rank.node else {}),
        )
        for rank in ordered[:RANKS_SHOWN]
    ]
    parts.sheet(
        "ranks",
        label="Ranks",
        title="Ranks",
        count=f"{len(ranks):,}" if ranks else "",
        rows=rows,
        dense=True,
        columns=[
            parts.column("rank", "Rank", width="64px"),
            parts.column("state", "Pod", "state"),
            parts.column("node", "Node", "link", missing="not placed yet"),
            parts.column("health", "Node's state", "state"),
            parts.column("pod", "Pod's name", "mono"),
        ],
        empty="No rank has a pod now.",
        more=f"The {RANKS_SHOWN} most troubled are shown." if len(ranks) > RANKS_SHOWN else None,
    )


def rank_state(rank: RankRecord) -> dict[str, str]:
    if rank.phase == "Running":
        return (
            parts.state("Running", "calm")
            if rank.ready
            else parts.state("Running, not ready", "watch")
        )
    return parts.state(rank.phase, "watch" if rank.phase in {"Pending", "Failed"} else "quiet")


def node_states(ranks: tuple[RankRecord, ...]) -> dict[str, tuple[str, str]]:
    """Health and service of the ranks' nodes, out of the map's frame: one read however many ranks."""
    fleet = live.fleet_frames()
    if fleet is None:
        return {}
    wanted = {rank.node for rank in ranks if rank.node}
    codes = unpack(fleet.node_state)
    found = {}
    for name in wanted:
        at = live.order(fleet.version).get(name)
        if at is not None and at < numpy.size(codes):
            found[name] = (words.HEALTH[codes[at] & 3], words.SERVICE[codes[at] >> 2])
    return found
