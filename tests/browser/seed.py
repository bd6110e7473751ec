"""A store as a running cluster leaves it, of any size: `python -m tests.browser.seed sqlite:///PATH NODES`.

Rows go in through the tables, not through the writers: a view is held to what the store may hold, whoever
wrote it. Times lie about `now`, so ages on the page are those of a live system.
"""

import sys
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy
from sqlalchemy import Connection, insert, select, update

from app.store.chunks import METRICS, Chunk, pack_chunk
from app.store.engine import migrate, open_store, write
from app.store.reads.rows import table_of
from app.store.records import Block, Rack, Topology
from app.store.tables import (
    Alert,
    AlertDelivery,
    AuditEntry,
    AutomaticAction,
    Finding,
    FleetFrame,
    Gpu,
    GpuMinute,
    HealthEvent,
    Incident,
    Job,
    Node,
    NodeRepair,
    Operation,
    OperationNode,
    OperationStep,
    Placement,
    Pod,
    Rank,
    Silence,
    SourceStatus,
    SummaryBlock,
)
from app.store.vectors import (
    HEALTH_CODES,
    SERVICE_CODES,
    STATE_ENCODING,
    TOPOLOGY_ENCODING,
    encode_topology,
    pack,
)

CLUSTER = "default"
SLOTS = 8
SHAPES = {
    64: (2, 4, 8),
    2000: (8, 16, 16),
    43750: (35, 40, 32),
}  # blocks, racks a block, nodes a rack
XID_79 = "XID 79: GPU has fallen off the bus (GPU 3)"


@dataclass(frozen=True)
class Story:
    """What happened to one node, `minutes` ago."""

    health: str
    reason: str
    minutes: float
    service: str = "In service"
    service_reason: str = ""
    gpu: int | None = None
    severity: str = "critical"
    rule: str = ""
    action: str = ""
    xid: int | None = None
    score: int = 0


STORIES = (
    Story("Failing", XID_79, 3, gpu=3, severity="fatal", rule="xid-79", xid=79, score=400,
          action="Drain the node and power-cycle it; open a case with the vendor if it comes back."),
    Story("Failing", "Uncorrectable ECC errors on GPU 6: 2 since the last report", 11, service="Draining",
          service_reason="drain by ana (page)", gpu=6, severity="critical", rule="ecc-uncorrected",
          action="Drain the node, then reset the GPU.", score=300),
    Story("Failing", "7 of 8 GPUs answer", 320, service="Drained", service_reason="drained by ana (page)", gpu=7,
          severity="fatal", rule="gpu-count", action="Send the node to repair.", score=120),
    Story("Unknown", "no report for 2 min: the agent or the node is silent", 2, severity="critical", rule="silent",
          action="Look at the node's console and the agent's pod.", score=250),
    Story("Degraded", "Row remap waits for a reset on GPU 1", 47, gpu=1, severity="warning", rule="remap-pending",
          action="Reset the GPU at the next free moment.", score=60),
    Story("Degraded", "PCIe link of GPU 0 runs at 8 of 16 lanes", 1600, gpu=0, severity="warning", rule="pcie-width",
          action="Reseat the riser at the next repair.", score=50),
    Story("Healthy", "", 900, service="Cordoned", service_reason="cordoned outside Pitwall", score=10),
    Story("Healthy", "", 75, service="Probation", service_reason="back from repair, 24 h without a finding", score=5),
)  # fmt: skip


@dataclass
class Seeded:
    """What was put where, for the tests to ask for."""

    names: list[str]
    failing: str
    draining: str
    drained: str
    unknown: str
    degraded: str
    job_uid: str = ""
    operations: dict[str, str] = field(default_factory=dict)


def seed(url: str, nodes: int, *, now: datetime | None = None, cluster: str = CLUSTER) -> Seeded:
    """Makes the store at `url` and fills it with a fleet of so many nodes."""
    now = now or datetime.now(UTC)
    migrate(url)
    engine = open_store(url)
    topology = build_topology(nodes)
    names = topology.nodes()
    stories = place_stories(names)
    places = {story: name for name, story in stories.items()}
    told = [places[story] for story in STORIES]
    seeded = Seeded(names, told[0], told[1], told[2], told[3], told[4])
    with write(engine) as connection:
        used = _jobs(connection, names, seeded=seeded, now=now, cluster=cluster)
        _nodes(connection, topology, stories=stories, used=used, now=now, cluster=cluster)
        _findings(connection, stories, now=now, cluster=cluster)
        _operations(connection, seeded, now=now, cluster=cluster)
        _sources(connection, now=now, cluster=cluster)
    engine.dispose()
    return seeded


def beat(url: str, *, cluster: str = CLUSTER) -> None:
    """The pipeline says again that it lives, as it does each second in a real system."""
    now = datetime.now(UTC)
    engine = open_store(url)
    with write(engine) as connection:
        source, frame = table_of(SourceStatus), table_of(FleetFrame)
        connection.execute(update(source).where(source.c.cluster == cluster).values(updated_at=now))
        connection.execute(
            update(source)
            .where(source.c.cluster == cluster, source.c.state == "ok")
            .values(last_ok_at=now)
        )
        node = table_of(Node)
        connection.execute(
            update(node)
            .where(node.c.cluster == cluster, node.c.health != "Unknown")
            .values(observed_at=now, kubernetes_observed_at=now)
        )
        connection.execute(update(frame).where(frame.c.cluster == cluster).values(updated_at=now))
    engine.dispose()


def build_topology(nodes: int) -> Topology:
    blocks, racks, size = SHAPES.get(nodes, (max(1, nodes // 64), 8, 8))
    left, built = nodes, []
    for block in range(blocks):
        name = f"h100-{chr(97 + block // 26) if blocks > 26 else ''}{chr(97 + block % 26)}"
        holds = []
        for rack in range(racks):
            count = min(size, left)
            if not count:
                break
            left -= count
            holds.append(
                Rack(
                    f"{name}-r{rack + 1:02d}",
                    tuple(f"{name}-r{rack + 1:02d}-{at + 1:02d}" for at in range(count)),
                )
            )
        built.append(Block(name, tuple(holds)))
    return Topology(f"seed-{nodes}", SLOTS, tuple(built))


def place_stories(names: list[str]) -> dict[str, Story]:
    """Which node has which story; larger fleets get further failing, degraded and drained nodes."""
    stride = len(names) // (len(STORIES) + 1)
    stories = {names[(at + 1) * stride - 3]: story for at, story in enumerate(STORIES)}
    random = numpy.random.default_rng(1)
    for extra in random.choice(len(names), size=len(names) // 250, replace=False):
        if names[extra] in stories:
            continue
        base = STORIES[int(random.integers(2, 6))]
        stories[names[extra]] = Story(
            base.health, base.reason, float(random.integers(5, 4000)), base.service, base.service_reason, base.gpu,
            base.severity, base.rule, base.action, base.xid, base.score - 1,
        )  # fmt: skip
    return stories


def gpu_uuid(node: str, index: int) -> str:
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{node}/{index}')}"


_JOBS = (
    ("pretrain", "llama-70b-pretrain", "foundation", 0.40, True, "Running", 19.5),
    ("pretrain", "moe-8x22b", "foundation", 0.24, True, "Running", 44.0),
    ("research", "vision-encoder", "multimodal", 0.11, True, "Running", 6.2),
    ("research", "rlhf-sweep-a", "alignment", 0.06, False, "Running", 2.1),
    ("research", "tokenizer-ablation", "alignment", 0.03, False, "Running", 0.4),
    ("eval", "nightly-eval", "evaluation", 0.02, False, "Pending", 0.1),
    ("research", "vision-encoder-v1", "multimodal", 0.05, True, "Complete", 80.0),
)


def _jobs(
    connection: Connection, names: list[str], *, seeded: Seeded, now: datetime, cluster: str
) -> dict[str, str]:
    """Jobs laid over the nodes in order, drained nodes left out; returns node -> pod uid."""
    away = {seeded.drained, seeded.draining, seeded.failing}
    free = [name for name in names if name not in away]
    free.insert(4, seeded.failing)  # rank 4 of the first job
    used: dict[str, str] = {}
    jobs, ranks, pods = [], [], []
    for namespace, name, team, share, gang, state, hours in _JOBS:
        uid = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{namespace}/{name}"))
        wanted = min(512, max(1, round(share * len(names))))
        placed = [free.pop(0) for _ in range(wanted)] if state == "Running" else []
        started = now - timedelta(hours=hours)
        jobs.append({
            "cluster": cluster, "uid": uid, "namespace": namespace, "name": name, "kind": "Job", "api_version": "batch/v1", "team": team,
            "queue": team, "state": state, "reason": "8 GPUs on one node are not free" if state == "Pending" else "", "gang": gang,
            "wanted_pods": wanted, "running_pods": len(placed), "gpus": wanted * SLOTS, "created_at": started,
            "started_at": started if placed else None, "finished_at": now - timedelta(hours=61) if state == "Complete" else None,
            "checkpoint_at": now - timedelta(minutes=38) if gang else None, "generation": 1, "observed_at": now,
        })  # fmt: skip
        for rank, node in enumerate(placed):
            pod_uid, pod_name = (
                str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{uid}/{rank}")),
                f"{name}-{rank}-x7k2p",
            )
            used[node] = pod_uid
            pods.append({
                "cluster": cluster, "uid": pod_uid, "namespace": namespace, "name": pod_name, "node": node, "phase": "Running", "ready": True,
                "gpus": SLOTS, "rank": rank, "job_uid": uid, "owner": f"Job/{name}", "created_at": started, "started_at": started,
                "deleted_at": None, "observed_at": now,
            })  # fmt: skip
            ranks.append({"cluster": cluster, "job_uid": uid, "rank": rank, "pod_uid": pod_uid, "pod_name": pod_name, "node": node,
                              "phase": "Running", "ready": True})  # fmt: skip
            if node == seeded.failing:
                seeded.job_uid = uid
    for node in (seeded.failing, seeded.degraded):
        pods.append({
            "cluster": cluster, "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"dcgm/{node}")), "namespace": "gpu-operator",
            "name": f"nvidia-dcgm-exporter-{node[-5:]}", "node": node, "phase": "Running", "ready": True, "gpus": 0, "rank": None,
            "job_uid": None, "owner": "DaemonSet/nvidia-dcgm-exporter", "created_at": now, "started_at": now - timedelta(days=12),
            "deleted_at": None, "observed_at": now,
        })  # fmt: skip
    for table, rows in ((Job, jobs), (Pod, pods), (Rank, ranks)):
        connection.execute(insert(table_of(table)), rows)
    return used


def _nodes(
    connection: Connection, topology: Topology, *, stories: dict[str, Story], used: dict[str, str],
    now: datetime, cluster: str,
) -> None:  # fmt: skip
    well = Story("Healthy", "", 4000)
    rows, gpus, node_state, gpu_state, summaries = [], [], [], [], []
    detailed = len(topology.nodes()) <= 2000
    for block in topology.blocks:
        tally: dict[str, Any] = {"health": {}, "service": {}, "gpus_by_health": {}, "gpus": 0, "gpus_requested": 0,
                                 "gpus_usable": 0, "gpus_usable_requested": 0}  # fmt: skip
        for rack in block.racks:
            for name in rack.nodes:
                story, busy = stories.get(name, well), name in used
                rows.append(
                    _node(
                        name,
                        story,
                        block=block.name,
                        rack=rack.name,
                        busy=busy,
                        now=now,
                        cluster=cluster,
                    )
                )
                node_state.append(HEALTH_CODES[story.health] | SERVICE_CODES[story.service] << 2)
                for index in range(SLOTS):
                    health = (
                        story.health
                        if story.health == "Unknown" or story.gpu == index
                        else "Healthy"
                    )
                    gpu_state.append(HEALTH_CODES[health] | (4 if busy else 0))
                    tally["gpus_by_health"][health] = tally["gpus_by_health"].get(health, 0) + 1
                    if detailed or name in stories:
                        gpus.append(
                            _gpu(
                                name,
                                index,
                                story=story,
                                health=health,
                                pod=used.get(name),
                                now=now,
                                cluster=cluster,
                            )
                        )
                for key, value in (("health", story.health), ("service", story.service)):
                    tally[key][value] = tally[key].get(value, 0) + 1
                tally["gpus"] += SLOTS
                tally["gpus_requested"] += SLOTS * busy
                if story.health in {"Healthy", "Degraded"} and story.service in {
                    "In service",
                    "Probation",
                }:
                    tally["gpus_usable"] += SLOTS
                    tally["gpus_usable_requested"] += SLOTS * busy
        summaries.append(
            {"cluster": cluster, "block": block.name, "counts": tally, "updated_at": now}
        )
    for table, values in ((Node, rows), (Gpu, gpus), (SummaryBlock, summaries)):
        connection.execute(insert(table_of(table)), values)
    frames = {
        "topology": (TOPOLOGY_ENCODING, encode_topology(topology)),
        "node_state": (STATE_ENCODING, pack(numpy.array(node_state, dtype=numpy.uint8))),
        "gpu_state": (STATE_ENCODING, pack(numpy.array(gpu_state, dtype=numpy.uint8))),
    }
    connection.execute(
        insert(table_of(FleetFrame)),
        [{"cluster": cluster, "metric": metric, "topology_version": topology.version, "encoding": encoding, "updated_at": now, "data": data}
         for metric, (encoding, data) in frames.items()],
    )  # fmt: skip


def _node(
    name: str, story: Story, *, block: str, rack: str, busy: bool, now: datetime, cluster: str
) -> dict[str, Any]:
    since = now - timedelta(minutes=story.minutes)
    silent = story.health == "Unknown"
    return {
        "cluster": cluster, "name": name, "uid": str(uuid.uuid5(uuid.NAMESPACE_DNS, name)), "block": block, "rack": rack,
        "kind": "NVIDIA-H100-80GB-HBM3", "driver_version": "570.86.15", "boot_id": "b1", "gpu_count": None if silent else 8 - (story.rule == "gpu-count"),
        "gpu_count_expected": 8, "gpu_allocatable": 8, "gpu_requested": SLOTS * busy, "health": story.health, "health_reason": story.reason,
        "health_since": since, "service": story.service, "service_reason": story.service_reason, "service_since": since,
        "kubernetes_ready": not silent, "unschedulable": story.service not in {"In service", "Probation"}, "operation_id": None,
        "score": story.score, "observed_at": now - timedelta(minutes=story.minutes if silent else 0.05), "received_at": now,
        "kubernetes_observed_at": now,
    }  # fmt: skip


def _gpu(
    name: str,
    index: int,
    *,
    story: Story,
    health: str,
    pod: str | None,
    now: datetime,
    cluster: str,
) -> dict[str, Any]:
    lost, silent = story.xid == 79 and story.gpu == index, story.health == "Unknown"
    blind = lost or silent
    wobble = (sum(map(ord, name)) * 7 + index * 13) % 9
    known = {} if blind else {
        "temperature_celsius": (62.0 if pod else 33.0) + wobble, "memory_temperature_celsius": (78.0 if pod else 40.0) + wobble,
        "power_watts": (612.0 if pod else 71.0) + 6 * wobble, "power_limit_watts": 700.0,
        "sm_clock_hertz": (1_755_000_000 if pod else 345_000_000), "gpu_utilization_ratio": 0.97 if pod else 0.0,
        "memory_used_bytes": (72_400_000_000 if pod else 500_000_000) + wobble * 10**8, "memory_total_bytes": 85_520_809_984,
        "ecc_uncorrected_total": 2 if story.rule == "ecc-uncorrected" and story.gpu == index else 0,
        "remap_pending": story.rule == "remap-pending" and story.gpu == index, "remap_failure": False, "nvlink_active_links": 18,
        "pcie_generation": 5, "pcie_width": 8 if story.rule == "pcie-width" and story.gpu == index else 16,
    }  # fmt: skip
    empty = dict.fromkeys((
        "temperature_celsius", "memory_temperature_celsius", "power_watts", "power_limit_watts", "sm_clock_hertz",
        "gpu_utilization_ratio", "memory_used_bytes", "memory_total_bytes", "ecc_uncorrected_total", "remap_pending",
        "remap_failure", "nvlink_active_links", "pcie_generation", "pcie_width"))  # fmt: skip
    why = "NVML answers: GPU is lost" if lost else "no report for 2 min"
    mine = story.gpu == index
    return {
        **empty, **known, "cluster": cluster, "uuid": gpu_uuid(name, index), "node": name, "index": index,
        "pci_bus_id": f"00000000:{0x19 + index * 0x11:02X}:00.0", "serial": f"16540230{sum(map(ord, name)) % 10000:04d}{index}",
        "name": "NVIDIA H100 80GB HBM3", "health": health,
        "health_reason": story.reason if mine or silent else "", "health_since": now - timedelta(minutes=story.minutes),
        "pod_uid": pod, "last_xid": story.xid if mine else None,
        "last_xid_at": now - timedelta(minutes=story.minutes) if mine and story.xid else None,
        "missing": f'{{"temperature_celsius": "{why}", "power_watts": "{why}"}}' if blind else None, "observed_at": now,
    }  # fmt: skip


def _findings(
    connection: Connection, stories: dict[str, Story], *, now: datetime, cluster: str
) -> None:
    findings, events, incidents = [], [], []
    for node, story in stories.items():
        if not story.rule:
            continue
        at = now - timedelta(minutes=story.minutes)
        episode = f"{node}/{story.rule}/1"
        uid = gpu_uuid(node, story.gpu) if story.gpu is not None else None
        findings.append({
            "cluster": cluster, "episode": episode, "node": node, "gpu_uuid": uid, "rule": story.rule, "severity": story.severity,
            "changes_health": True, "message": story.reason, "action": story.action, "xid": story.xid, "opened_at": at, "seen_at": now, "closed_at": None,
        })  # fmt: skip
        for kind, code, message in (
            ("xid", f"xid-{story.xid}", f"NVRM: Xid (PCI:0000:4c:00): {story.xid}, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."),
            ("finding_opened", story.rule, story.reason),
            ("node_health", story.health, f"Healthy to {story.health}: {story.reason}"),
        ):  # fmt: skip
            if kind != "xid" or story.xid:
                events.append({"cluster": cluster, "at": at, "node": node, "gpu_uuid": uid, "kind": kind, "code": code,
                                   "severity": story.severity, "episode": episode, "message": message, "count": 1})  # fmt: skip
        if story.severity in {"critical", "fatal"} and len(incidents) < 40:
            incidents.append({
                "cluster": cluster, "id": uuid.uuid5(uuid.NAMESPACE_DNS, node).hex, "episode": 1, "scope": "node", "subject": node,
                "severity": story.severity, "title": f"{node}: {story.reason}", "cause": story.rule, "action": story.action, "opened_at": at,
                "updated_at": now, "resolved_at": None, "acknowledged_at": None, "acknowledged_by": "ana (page)" if story.service != "In service" else None,
                "owner": "ana" if story.service != "In service" else None,
                "jobs": [{"uid": "x", "namespace": "pretrain", "name": "llama-70b-pretrain", "gpus": 8}] if story.xid else [],
                "gpus_hurt": 8 if story.xid else 0, "findings": [episode],
            })  # fmt: skip
    incidents.append({
        "cluster": cluster, "id": "resolved", "episode": 1, "scope": "node", "subject": next(iter(stories)), "severity": "critical",
        "title": "XID 48 on GPU 2: double-bit ECC error", "cause": "xid-48", "action": "", "opened_at": now - timedelta(days=3),
        "updated_at": now - timedelta(days=2), "resolved_at": now - timedelta(days=2), "acknowledged_at": None, "acknowledged_by": None,
        "owner": None, "jobs": [], "gpus_hurt": 8, "findings": [],
    })  # fmt: skip
    for table, rows in ((Finding, findings), (HealthEvent, events), (Incident, incidents)):
        connection.execute(insert(table_of(table)), rows)


def _operations(connection: Connection, seeded: Seeded, *, now: datetime, cluster: str) -> None:
    running, blocked, done, cancelled = "op7f3a21", "op5b9c04", "op12aa90", "op0de811"
    seeded.operations = {
        "running": running,
        "blocked": blocked,
        "done": done,
        "cancelled": cancelled,
    }

    def minutes(ago: float) -> datetime:
        return now - timedelta(minutes=ago)

    blank: dict[str, Any] = {"cluster": cluster, "options": {}, "request_id": None, "plan": {}, "plan_hash": "", "choices": [], "memory": {},
                 "cancel_requested_by": None, "deadline_at": None, "ended_at": None, "mode": "now", "workloads_state": {}}  # fmt: skip
    rows = [
        {**blank, "id": running, "kind": "drain", "subject": seeded.draining, "author": "ana (page)",
         "reason": "Uncorrectable ECC errors on GPU 6", "state": "Running", "message": "Waiting for rank 11 of pretrain/llama-70b-pretrain to stop",
         "nodes_state": {seeded.draining: "Draining"}, "pods_total": 4, "pods_done": 1, "created_at": minutes(2), "updated_at": now,
         "workloads_state": {"u1": {"name": "pretrain/llama-70b-pretrain", "verdict": "Restarting", "message": "suspended, 1 of 16 pods still terminating"}}},
        {**blank, "id": blocked, "kind": "drain", "subject": seeded.unknown, "author": "ben (cli)", "reason": "node is silent", "state": "Blocked",
         "message": f"{seeded.unknown} does not answer and holds rank 4 of pretrain/moe-8x22b; it can't be seen to have stopped.",
         "choices": [{"name": "confirm_power_off", "label": "The node is powered off", "subject": seeded.unknown, "confirmation": seeded.unknown,
                      "warning": "Two pods may write the same checkpoint if the node is in fact running."},
                     {"name": "resume", "label": "Resume the job without it", "warning": "The job starts again with the node's rank elsewhere."}],
         "nodes_state": {seeded.unknown: "Draining"}, "pods_total": 1, "pods_done": 0, "created_at": minutes(14), "updated_at": minutes(1),
         "workloads_state": {"u2": {"name": "pretrain/moe-8x22b", "verdict": "Waiting", "message": "rank 4 is on a node that does not answer"}}},
        {**blank, "id": done, "kind": "drain", "subject": seeded.drained, "author": "ana (page)", "reason": "7 of 8 GPUs answer", "state": "Succeeded",
         "message": "Drained; pretrain/moe-8x22b runs again on other nodes", "nodes_state": {seeded.drained: "Drained"}, "pods_total": 3, "pods_done": 3,
         "created_at": minutes(310), "updated_at": minutes(301), "ended_at": minutes(301)},
        {**blank, "id": cancelled, "kind": "reschedule", "subject": "research/rlhf-sweep-a", "author": "ben (cli)", "reason": "straggler", "state": "Cancelled",
         "message": "Cancelled by ben (cli) before anything was evicted", "nodes_state": {}, "pods_total": 2, "pods_done": 0,
         "created_at": minutes(1500), "updated_at": minutes(1498), "ended_at": minutes(1498), "cancel_requested_by": "ben (cli)"},
    ]  # fmt: skip
    connection.execute(insert(table_of(Operation)), rows)
    connection.execute(
        insert(table_of(OperationNode)),
        [{"operation_id": running, "cluster": cluster, "node": seeded.draining, "open": True},
         {"operation_id": blocked, "cluster": cluster, "node": seeded.unknown, "open": True},
         {"operation_id": done, "cluster": cluster, "node": seeded.drained, "open": False}],
    )  # fmt: skip
    node = table_of(Node)
    for operation, name in ((running, seeded.draining), (blocked, seeded.unknown)):
        connection.execute(update(node).where(node.c.name == name).values(operation_id=operation))
    steps = [
        (running, "cordon", f"Node/{seeded.draining}", "done", "cordoned", 2.0, 1.98),
        (running, "suspend", "Job/pretrain/llama-70b-pretrain", "done", "suspended; it was running with 16 of 16 pods", 1.9, 1.8),
        (running, "evict", "Pod/research/rlhf-sweep-a-2-x7k2p", "done", "evicted", 1.7, 1.2),
        (running, "evict", "Pod/research/tokenizer-ablation-0-q8z4c", "waiting", "budget research/tokenizer allows 0 disruptions; tried again in 5 s", 1.1, None),
        (running, "await_stopped", "Job/pretrain/llama-70b-pretrain", "claimed", "1 of 16 pods still terminating", 1.0, None),
        (blocked, "cordon", f"Node/{seeded.unknown}", "done", "cordoned", 14, 13.9),
        (blocked, "evict", "Pod/pretrain/moe-8x22b-4-x7k2p", "failed", "the node does not answer: the pod is marked for deletion but nothing confirms that it stopped", 13, 4),
    ]  # fmt: skip
    connection.execute(
        insert(table_of(OperationStep)),
        [{"operation_id": operation, "cluster": cluster, "name": name, "target": target, "target_uid": f"{at}", "state": state, "attempts": 1,
              "epoch": 1, "message": message, "started_at": minutes(began), "ended_at": None if ended is None else minutes(ended)}
         for at, (operation, name, target, state, message, began, ended) in enumerate(steps)],
    )  # fmt: skip


def _sources(connection: Connection, *, now: datetime, cluster: str) -> None:
    rows = [
        ("agents", "ok", "reports come in", 1), ("ingest", "ok", "", 1), ("kubernetes", "ok", "watching", 1),
        ("worker", "ok", "holds the lease", 0), ("prometheus", "late", "no answer from http://127.0.0.1:9090", 190),
    ]  # fmt: skip
    connection.execute(
        insert(table_of(SourceStatus)),
        [{"cluster": cluster, "source": source, "state": state, "message": message, "last_ok_at": now - timedelta(seconds=ago), "updated_at": now}
         for source, state, message, ago in rows],
    )  # fmt: skip


def seed_audit(
    url: str, author: str, *, cluster: str = CLUSTER, rows: int = 3, words: str = ""
) -> None:
    """Puts rows into the audit, as a drain leaves them. Audit rows are only ever added."""
    at = datetime.now(UTC)
    engine = open_store(url)
    written = (
        ("request", "page", "done", "drain of h100-a-r01-05", "XID 79"),
        ("cordon", "worker", "done", "Node/h100-a-r01-05", ""),
        ("evict", "worker", "done", "Pod/eval/nightly-eval-x7k2p", ""),
        ("drain", "worker", "refused", "h100-b-r01-01", "The limit stock: 7 of 64 nodes are out of service."),
        ("evict", "worker", "failed", "Pod/eval/nightly-eval-9d2kq", "500 from the API server, tried 3 times"),
    )  # fmt: skip
    with write(engine) as connection:
        for number in range(rows):
            action, actor, outcome, target, message = written[number % len(written)]
            connection.execute(
                insert(table_of(AuditEntry)).values(
                    cluster=cluster, at=at - timedelta(seconds=rows - number), author=author, actor=actor,
                    action=action, target=words or target, target_uid="", operation_id=None, dry_run=False,
                    outcome=outcome, message=words or message,
                )
            )  # fmt: skip
    engine.dispose()


def seed_automatic(url: str, node: str, *, cluster: str = CLUSTER, words: str = "") -> None:
    """What automatic mode did about six findings of a node, one in each state."""
    at = datetime.now(UTC)
    told = {
        "accepted": "", "asked": "", "ended": "The finding ended before anything was done.",
        "left": f"{node} is cordoned by somebody else.", "would_act": "1 nodes, 1 pods and 1 jobs would move.",
        "waiting": "llama-70b-pretrain needs 208 GPUs and 64 are free: it does not fit elsewhere.",
    }  # fmt: skip
    engine = open_store(url)
    with write(engine) as connection:
        for number, (state, reason) in enumerate(told.items()):
            connection.execute(
                insert(table_of(AutomaticAction)).values(
                    cluster=cluster, rule=words or "GPU off the bus", episode=f"e{number}", node=node,
                    finding=words or "xid-79", action="drain", acts="dry-run" if state == "would_act" else "act",
                    state=state, reason=words or reason, request_id=None, together=1, world="", decided_at=at,
                    operation_id="op-running" if state == "accepted" else None,
                    updated_at=at - timedelta(minutes=number),
                )
            )  # fmt: skip
    engine.dispose()


def seed_history(
    url: str, node: str, *, minutes: int = 90, cluster: str = CLUSTER, words: str = ""
) -> None:
    """Minutes of a node's readings until now, a job that came and one that went, and a repair of last month."""
    engine = open_store(url)
    now = datetime.now(UTC)
    last = int(now.timestamp() // 60)
    generator = numpy.random.default_rng(1)
    with write(engine) as connection:
        gpus = connection.execute(
            select(table_of(Gpu).c.uuid).where(table_of(Gpu).c.node == node).order_by(table_of(Gpu).c.index)
        ).scalars().all()  # fmt: skip
        base = numpy.array([62.0, 80.0, 640.0, 1.755e9, 0.97, 0.8, 73e9])
        for minute in range(last - minutes, last):
            values = base * generator.normal(1, 0.015, (1, len(gpus), len(base)))
            values[0, 3] *= numpy.linspace(1.0, 1.18, minutes)[minute - last + minutes]
            if minute > last - 4:
                values[0, 3] = numpy.nan  # it fell off the bus
            means = values.astype(numpy.float32)
            counts = numpy.full((1, len(gpus)), 12, numpy.uint16)
            chunk = Chunk((minute,), tuple(gpus), METRICS, counts, means, means, means)
            connection.execute(
                insert(table_of(GpuMinute)).values(
                    writer="w",
                    cluster=cluster,
                    node=node,
                    minute_at=datetime.fromtimestamp(minute * 60, UTC),
                    chunk=pack_chunk(chunk),
                )
            )
        jobs = connection.execute(select(table_of(Job).c.uid).limit(2)).scalars().all()
        for number, job in enumerate(jobs):
            end = None if number == 0 else now - timedelta(minutes=50)
            for uuid in gpus:
                connection.execute(
                    insert(table_of(Placement)).values(
                        cluster=cluster,
                        pod_uid=f"history-{number}",
                        gpu_uuid=uuid,
                        job_uid=job,
                        rank=0,
                        node=node,
                        from_at=now - timedelta(minutes=45 if number == 0 else 85),
                        to_at=end,
                    )
                )
        month = now - timedelta(days=31)
        connection.execute(
            insert(table_of(NodeRepair)).values(
                cluster=cluster,
                id="r1",
                node=node,
                opened_at=month,
                opened_by="ana",
                action="replace",
                gpus=[],
                notes=[
                    {
                        "at": month.isoformat(),
                        "by": "ana",
                        "text": words or "GPU 3 replaced, riser reseated",
                    }
                ],
                returned_at=month + timedelta(days=2),
                returned_by="ana",
                call="sent",
                call_attempts=1,
                call_error="",
            )
        )
    engine.dispose()


def seed_alerts(url: str, node: str, *, cluster: str = CLUSTER, words: str = "") -> None:
    """Alerts told, silenced and unknown; a silence; receivers of which one can't be reached."""
    now = datetime.now(UTC)
    engine = open_store(url)
    rows = (
        ("a1", "fatal", "firing", f"{node}: XID 79", "pretrain/llama-70b-pretrain (rank 4); 208 GPUs; team foundation", [], None),
        ("a2", "critical", "firing", "drain of h100-a-r02-04 is stuck", "", [], "ana"),
        ("a3", "warning", "firing", "source prometheus is blind", "what it tells is Unknown", ["s1"], None),
        ("a4", "critical", "unknown", "h100-a-r04-02: no report", "", [], None),
    )  # fmt: skip
    with write(engine) as connection:
        for name, severity, state, summary, hurts, silenced, taken in rows:
            connection.execute(
                insert(table_of(Alert)).values(
                    cluster=cluster,
                    id=name,
                    fingerprint=name,
                    labels={"alertname": "NodeIncident"},
                    severity=severity,
                    annotations={"summary": words or summary, "hurts": words or hurts},
                    state=state,
                    incident_id="i1" if name == "a1" else None,
                    started_at=now - timedelta(minutes=3),
                    updated_at=now,
                    silenced_by=silenced,
                    acknowledged_by=words or taken if taken else None,
                )
            )
        connection.execute(
            insert(table_of(Silence)).values(
                cluster=cluster,
                id="s1",
                kind="silence",
                matchers=[{"label": "source", "op": "=", "value": words or "prometheus"}],
                author=words or "ana",
                reason=words or "Prometheus is moved",
                created_at=now,
                starts_at=now,
                ends_at=now + timedelta(hours=2),
                origin="pitwall",
            )
        )
        for name, state, error in (("pager", "sent", ""), ("chat", "dead", "answered 404")):
            connection.execute(
                insert(table_of(AlertDelivery)).values(
                    cluster=cluster,
                    id=f"d-{name}",
                    number=1,
                    receiver=words or name,
                    group_key="k",
                    alert_ids=[],
                    event="trigger",
                    deduplication_key=name,
                    message={"title": words or f"[FATAL] {node}: XID 79", "body": ""},
                    state=state,
                    attempts=1,
                    created_at=now - timedelta(minutes=2),
                    next_attempt_at=now,
                    sent_at=now if state == "sent" else None,
                    last_error=words or error,
                )
            )
    engine.dispose()


if __name__ == "__main__":
    print(seed(sys.argv[1], int(sys.argv[2])).failing)
