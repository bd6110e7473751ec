"""What the views read, shared by all viewers: one read of the store a second however many look.

An immutable snapshot goes through st.cache_resource; st.cache_data would unpickle it for each viewer.
"""

from datetime import datetime
from typing import NamedTuple

import msgspec
import streamlit as st

from app.store.page_records import CapacityRecord
from app.store.reads import capacity as capacity_reads
from app.store.reads import findings, fleet, incidents, jobs, operations
from app.store.reads import status as status_reads
from app.store.reads.incidents import TimelineRecord
from app.store.records import (
    EventRecord,
    FindingRecord,
    GpuRecord,
    IncidentRecord,
    JobRecord,
    NodeRecord,
    OperationRecord,
    PodRecord,
    RankRecord,
    StatusRecord,
    Topology,
)
from app.ui import context

FRESH_SECONDS = 1.0
"""A snapshot serves every viewer for so long; half of the interval at which a page asks."""

REFRESH_SECONDS = 2.0
"""How often a live part asks; a change is on the page within this and FRESH_SECONDS."""

GPU_CELLS_UP_TO_NODES = 1000
"""Up to here the map draws each GPU; beyond, a GPU's cell would be under two pixels."""

INCIDENTS_SHOWN = 200
FINDINGS_SHOWN = 200
TIMELINE_SHOWN = 1000
NODES_SHOWN = 100
"""Of one incident's page: more is no longer read by a person, and -o json has all."""


class Fleet(NamedTuple):
    """The nodes' states as they lie in the store: of one topology, packed already."""

    version: str
    nodes: int
    updated_at: datetime
    node_state: bytes


class NodePicture(msgspec.Struct, frozen=True):
    node: NodeRecord
    gpus: tuple[GpuRecord, ...]
    pods: tuple[PodRecord, ...]
    findings: tuple[FindingRecord, ...]
    events: tuple[EventRecord, ...]
    operation: OperationRecord | None
    incidents: tuple[IncidentRecord, ...] = ()


class IncidentPicture(msgspec.Struct, frozen=True):
    """gpu_index: by UUID, of the findings' and consequences' GPUs. merged_into: the incident it is part of."""

    incident: IncidentRecord
    timeline: tuple[TimelineRecord, ...]
    findings: tuple[FindingRecord, ...]
    nodes: tuple[NodeRecord, ...]
    gpu_index: dict[str, int]
    merged_into: IncidentRecord | None = None


def status() -> StatusRecord:
    return _status(context.settings().store_url, context.cluster())


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _status(store_url: str, cluster: str) -> StatusRecord:
    return status_reads.status(context.engine(), cluster, context.now())


def capacity() -> CapacityRecord:
    """Room, who holds it and who waits; five seconds old at most, for it looks at every pod."""
    return _capacity(context.settings().store_url, context.cluster())


@st.cache_resource(ttl=5.0, max_entries=4, show_spinner=False)
def _capacity(store_url: str, cluster: str) -> CapacityRecord:
    return capacity_reads.capacity(context.engine(), cluster)


def fleet_frames() -> Fleet | None:
    """The states of all nodes now; None while no node is known."""
    return _fleet(context.settings().store_url, context.cluster())


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _fleet(store_url: str, cluster: str) -> Fleet | None:
    states = fleet.frame(context.engine(), cluster, "node_state")
    if states is None:
        return None
    count = len(topology(states.topology_version).nodes())
    if not count:
        return None
    return Fleet(states.topology_version, count, states.updated_at, states.data)


def topology(version: str) -> Topology:
    """The topology of that version; it never changes, so it is decoded once."""
    return _topology(context.settings().store_url, context.cluster(), version)


@st.cache_resource(max_entries=4, show_spinner=False)
def _topology(store_url: str, cluster: str, version: str) -> Topology:
    return fleet.topology(context.engine(), cluster)


def order(version: str) -> dict[str, int]:
    """Each node's place in the frames of that topology."""
    return _order(context.settings().store_url, context.cluster(), version)


@st.cache_resource(max_entries=4, show_spinner=False)
def _order(store_url: str, cluster: str, version: str) -> dict[str, int]:
    return {name: index for index, name in enumerate(topology(version).nodes())}


def worst_nodes() -> tuple[NodeRecord, ...]:
    return _worst(context.settings().store_url, context.cluster())


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _worst(store_url: str, cluster: str) -> tuple[NodeRecord, ...]:
    return tuple(fleet.worst_nodes(context.engine(), cluster, limit=200))


def latest_events() -> tuple[EventRecord, ...]:
    return _events(context.settings().store_url, context.cluster())


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _events(store_url: str, cluster: str) -> tuple[EventRecord, ...]:
    return tuple(fleet.events(context.engine(), cluster, limit=60))


def nodes_page(
    *,
    health: str | None,
    service: str | None,
    search: str | None,
    order: str,
    after: str | None,
    limit: int,
) -> list[NodeRecord]:
    return fleet.nodes(
        context.engine(),
        context.cluster(),
        health=health,
        service=service,
        search=search,
        order=order,
        after=after,
        limit=limit,
    )


def node(name: str) -> NodePicture | None:
    """One node with all that its page shows, None when it is not known."""
    return _node(context.settings().store_url, context.cluster(), name)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=64, show_spinner=False)
def _node(store_url: str, cluster: str, name: str) -> NodePicture | None:
    engine = context.engine()
    found = fleet.node(engine, cluster, name)
    if found is None:
        return None
    operation = found.operation_id and operations.operation(engine, cluster, found.operation_id)
    return NodePicture(
        node=found,
        gpus=tuple(fleet.gpus(engine, cluster, node=name, limit=32)),
        pods=tuple(fleet.pods_of_node(engine, cluster, name)),
        findings=tuple(fleet.findings_of_node(engine, cluster, name)),
        events=tuple(fleet.events_of_node(engine, cluster, name, limit=60)),
        operation=operation or None,
        incidents=tuple(incidents.incidents_of_node(engine, cluster, name)),
    )


def jobs_page(*, which: str, after: str | None, limit: int) -> list[JobRecord]:
    """`which`: "open", "at risk" or "all"."""
    return _jobs(context.settings().store_url, context.cluster(), which, after, limit)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=32, show_spinner=False)
def _jobs(
    store_url: str, cluster: str, which: str, after: str | None, limit: int
) -> list[JobRecord]:
    return jobs.jobs(
        context.engine(),
        cluster,
        at_risk=which == "at risk",
        open_only=which == "open",
        after=after,
        limit=limit,
    )


def job(uid: str) -> tuple[JobRecord, tuple[RankRecord, ...]] | None:
    return _job(context.settings().store_url, context.cluster(), uid)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=32, show_spinner=False)
def _job(store_url: str, cluster: str, uid: str) -> tuple[JobRecord, tuple[RankRecord, ...]] | None:
    found = jobs.job(context.engine(), cluster, uid)
    return (
        None if found is None else (found, tuple(jobs.ranks(context.engine(), cluster, found.uid)))
    )


def open_incidents(*, resolved_too: bool = False) -> tuple[IncidentRecord, ...]:
    return _incidents(context.settings().store_url, context.cluster(), resolved_too)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _incidents(store_url: str, cluster: str, resolved_too: bool) -> tuple[IncidentRecord, ...]:
    return tuple(
        incidents.incidents(
            context.engine(), cluster, open_only=not resolved_too, limit=INCIDENTS_SHOWN
        )
    )


def incident(incident_id: str) -> IncidentPicture | None:
    """One incident with all that its page shows, None when it is not known."""
    return _incident(context.settings().store_url, context.cluster(), incident_id)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=64, show_spinner=False)
def _incident(store_url: str, cluster: str, incident_id: str) -> IncidentPicture | None:
    engine = context.engine()
    found = incidents.incident(engine, cluster, incident_id)
    if found is None:
        return None
    told = findings.findings_of_episodes(engine, cluster, found.findings, limit=FINDINGS_SHOWN)
    uuids = [finding.gpu_uuid for finding in told if finding.gpu_uuid]
    uuids += [str(one["gpu_uuid"]) for one in found.consequences if one.get("gpu_uuid")]
    part_of = found.merged_into and incidents.incident(engine, cluster, found.merged_into)
    return IncidentPicture(
        incident=found,
        timeline=tuple(incidents.timeline(engine, cluster, incident_id, limit=TIMELINE_SHOWN)),
        findings=tuple(told),
        nodes=tuple(fleet.nodes_named(engine, cluster, found.nodes[:NODES_SHOWN])),
        gpu_index=findings.gpu_indexes(engine, cluster, uuids),
        merged_into=part_of or None,
    )


def forget() -> None:
    """What a person's word has just changed is read anew, by everybody."""
    for snapshot in (_incident, _incidents, _node):
        snapshot.clear()


def operations_page(*, open_only: bool) -> tuple[OperationRecord, ...]:
    return _operations(context.settings().store_url, context.cluster(), open_only)


@st.cache_resource(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _operations(store_url: str, cluster: str, open_only: bool) -> tuple[OperationRecord, ...]:
    return tuple(operations.operations(context.engine(), cluster, open_only=open_only, limit=100))


def operation(operation_id: str) -> OperationRecord | None:
    """One operation with its steps; read anew each time, since a person watches it move."""
    return operations.operation(context.engine(), context.cluster(), operation_id)
