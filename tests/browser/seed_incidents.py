"""Incidents of each state beside a seeded fleet: one that tells a whole story, a shared leaf, one that flaps, others.

Rows go in through the tables, as in tests.browser.seed.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from app.store.engine import open_store, write
from app.store.reads.rows import table_of
from app.store.tables import Finding, Incident, IncidentEvent, Job
from tests.browser.seed import CLUSTER, Seeded, gpu_uuid

LEAF = "leaf-h100-b-2"


@dataclass(frozen=True)
class Told:
    """The incidents' ids."""

    story: str
    leaf: str
    flapping: str
    owned: str
    merged: str
    resolved: str


def seed_incidents(url: str, seeded: Seeded, *, now: datetime | None = None) -> Told:
    """Puts incidents of every state in place of those that the fleet was seeded with."""
    now = now or datetime.now(UTC)
    told = Told(*(uuid.uuid5(uuid.NAMESPACE_DNS, name).hex for name in Told.__dataclass_fields__))
    engine = open_store(url)
    with write(engine) as connection:
        connection.execute(delete(table_of(Incident)))
        job = connection.execute(
            select(table_of(Job)).where(table_of(Job).c.uid == seeded.job_uid)
        ).one()
        hurt = {
            "uid": job.uid, "namespace": job.namespace, "name": job.name, "gpus": job.gpus, "ranks": [4],
            "since": _iso(now - timedelta(minutes=3)), "until": None,
        }  # fmt: skip
        _story(connection, told, seeded, hurt=hurt, now=now)
        _others(connection, told, seeded, hurt=hurt, now=now)
    engine.dispose()
    return told


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def incident_row(incident_id: str, now: datetime, **changes: Any) -> dict[str, Any]:
    """An incident's row, of a node that nobody has taken."""
    return {
        "cluster": CLUSTER, "id": incident_id, "episode": 1, "scope": "node", "subject": "n1", "severity": "critical", "title": "n1: broken",
        "cause": "xid-79", "action": "drain the node", "opened_at": now, "updated_at": now, "resolved_at": None, "acknowledged_at": None,
        "acknowledged_by": None, "owner": None, "jobs": [], "gpus_hurt": 0, "findings": [], "nodes": [], "first": {}, "consequences": [],
        "evidence": [], "certainty": None, "certainty_ratio": None, "flaps": 0, "flapping": False, "ended_at": None, "resolved_by": None,
        "resolution": None, "held_open_by": None, "merged_into": None, **changes,
    }  # fmt: skip


def _story(
    connection: Connection, told: Told, seeded: Seeded, *, hurt: dict[str, Any], now: datetime
) -> None:
    """A GPU that fell off the bus, its job's ranks that crashed after it, and what Kubernetes said of it."""
    began, node = now - timedelta(minutes=3), seeded.failing
    uuid_ = gpu_uuid(node, 3)
    episode = f"{node}/xid-79/1"
    connection.execute(
        update(table_of(Finding))
        .where(table_of(Finding).c.episode == episode)
        .values(
            explanation="the GPU no longer answers on the PCIe bus. The driver cannot reach it until the machine is power-cycled.",
            look_next="the PCIe switch and riser of slot 3, the power of the baseboard, and earlier AER lines in the kernel log.",
        )
    )
    crash = {
        "cluster": CLUSTER, "episode": f"{node}/job-interrupted/1", "node": node, "gpu_uuid": None, "rule": "job-interrupted",
        "severity": "warning", "changes_health": False, "source": "kubernetes", "job_uid": hurt["uid"], "rank": 17,
        "message": "3 of 26 ranks of pretrain/llama-70b-pretrain ended; the first was rank 17 with exit code 134",
        "action": "see the incident of the node whose GPU failed first", "xid": None, "opened_at": began + timedelta(seconds=9),
        "seen_at": now, "closed_at": None, "look_next": "the log of rank 17 for the collective that timed out",
    }  # fmt: skip
    connection.execute(insert(table_of(Finding)), [crash])
    followed = [
        (4, "application", node, "XID 45: channels of the lost GPU were torn down", 4),
        (9, "job", node, crash["message"], 17),
        *((9 + at, "job", seeded.names[at], f"NCCL WARN: rank {at} lost its peer, remote process exited", at) for at in range(1, 9)),
    ]  # fmt: skip
    connection.execute(
        insert(table_of(Incident)),
        [incident_row(
            told.story, now, subject=node, severity="fatal", title=f"{node}: GPU 3 has fallen off the bus (XID 79)", nodes=[node],
            action="drain the node and power-cycle it; open a case with the vendor if it comes back", opened_at=began,
            jobs=[hurt], gpus_hurt=hurt["gpus"], findings=[episode, crash["episode"]],
            first={"at": _iso(began), "node": node, "gpu_uuid": uuid_, "gpu_index": 3, "rule": "xid-79", "xid": 79,
                   "message": "GPU 3 has fallen off the bus", "job": "pretrain/llama-70b-pretrain", "rank": 4, "pod": "llama-70b-pretrain-4-x7k2p"},
            consequences=[{"at": _iso(began + timedelta(seconds=after)), "kind": kind, "node": where, "gpu_uuid": uuid_ if kind == "application" else None,
                           "job": "pretrain/llama-70b-pretrain", "rank": rank, "message": message, "key": f"c{at}"}
                          for at, (after, kind, where, message, rank) in enumerate(followed)],
            evidence=[{"at": _iso(began), "source": "agent", "text": "NVRM: Xid (PCI:0000:4c:00): 79, GPU has fallen off the bus."},
                      {"at": _iso(began + timedelta(seconds=9)), "source": "kubernetes", "text": crash["message"]}],
        )],
    )  # fmt: skip
    connection.execute(
        insert(table_of(IncidentEvent)),
        [{"cluster": CLUSTER, "incident_id": told.story, "at": began + timedelta(seconds=after), "kind": kind, "author": "", "message": message}
         for after, kind, message in (
             (0, "opened", "GPU 3 has fallen off the bus (XID 79)"), (1, "hurt", "pretrain/llama-70b-pretrain is hurt: 208 GPUs"),
             (9, "consequence", crash["message"]))],
    )  # fmt: skip


def _others(
    connection: Connection, told: Told, seeded: Seeded, *, hurt: dict[str, Any], now: datetime
) -> None:
    behind = [name for name in seeded.names if name.startswith("h100-b-r02")]
    small = {**hurt, "uid": "j-small", "namespace": "research", "name": "vision-encoder", "gpus": 56, "ranks": [1, 2, 3]}  # fmt: skip
    rows = [
        incident_row(
            told.leaf, now, scope="leaf", subject=LEAF, title=f"Leaf switch {LEAF}: InfiniBand links are troubled on {len(behind)} of its nodes since 02:51:07 UTC",
            cause="infiniband-port-down", action="look at the leaf switch, its power and its uplinks; draining the nodes mends nothing",
            opened_at=now - timedelta(minutes=11), nodes=behind, jobs=[small], gpus_hurt=56, certainty="likely", certainty_ratio=0.93,
            first={"at": _iso(now - timedelta(minutes=11)), "node": behind[0], "rule": "infiniband-port-down", "message": "port mlx5_3 is down"}),
        incident_row(
            told.flapping, now, subject=seeded.degraded, title=f"{seeded.degraded}: port mlx5_0 is down", cause="infiniband-port-down", nodes=[seeded.degraded],
            action="reseat the cable of mlx5_0", opened_at=now - timedelta(minutes=47), flaps=4, flapping=True, ended_at=now - timedelta(minutes=2)),
        incident_row(
            told.owned, now, subject=seeded.draining, title=f"{seeded.draining}: uncorrectable ECC errors on GPU 6", cause="ecc-uncorrected",
            action="drain the node, then reset the GPU", opened_at=now - timedelta(minutes=11), owner="ana", acknowledged_by="ana (page)",
            acknowledged_at=now - timedelta(minutes=10), nodes=[seeded.draining], jobs=[{**small, "until": _iso(now)}]),
        incident_row(
            told.merged, now, scope="job", subject=hurt["uid"], title="pretrain/llama-70b-pretrain: 3 of 26 ranks ended", cause="job-interrupted",
            action="", opened_at=now - timedelta(minutes=2), resolved_at=now - timedelta(minutes=1), merged_into=told.story),
        incident_row(
            told.resolved, now, subject=seeded.drained, title="XID 48 on GPU 2: double-bit ECC error", cause="xid-48", opened_at=now - timedelta(days=3),
            resolved_at=now - timedelta(days=2), resolved_by="ana (page)", resolution="the GPU was replaced", nodes=[seeded.drained],
            jobs=[{**small, "since": _iso(now - timedelta(days=3)), "until": _iso(now - timedelta(days=3) + timedelta(minutes=20))}]),
    ]  # fmt: skip
    connection.execute(insert(table_of(Incident)), rows)
