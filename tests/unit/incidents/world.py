"""Small worlds of faults, nodes, pods and jobs for the tests of incidents."""

from typing import Any

from app.incidents import (
    Fault,
    JobFact,
    NodeFact,
    PodFact,
    Standing,
    Trouble,
    World,
    group_troubles,
    places_to_count,
)
from tests.reports import NOW, at


def fault(node: str = "n1", episode: str = "", **fields: Any) -> Fault:
    """A critical fault of GPU 0."""
    values: dict[str, Any] = {
        "rule": "gpu-lost",
        "severity": "critical",
        "node": node,
        "message": "GPU 0 fell off the bus",
        "action": "restart the node",
        "opened_at": NOW,
        "gpu_uuid": f"GPU-{node}-0",
    }
    values |= fields
    name = episode or f"{values['rule']}-{node}-{values['gpu_uuid']}-{values['opened_at']:%H%M%S}"
    return Fault(episode=name, **values)


def silent(node: str, seconds: float) -> Fault:
    """A node that was last heard so many seconds after NOW."""
    return fault(
        node,
        f"silent/{node}/{seconds}",
        rule="silent",
        message=f"{node} is silent: no report since {at(seconds):%H:%M:%S} UTC",
        opened_at=at(seconds),
        gpu_uuid=None,
    )


def not_ready(node: str, seconds: float) -> Fault:
    return fault(
        node,
        rule="node-not-ready",
        message=f"{node} is NotReady",
        opened_at=at(seconds),
        gpu_uuid=None,
        source="kubernetes",
    )


def application(node: str = "n1", code: int = 13, pod: str | None = "p0", **fields: Any) -> Fault:
    values: dict[str, Any] = {
        "rule": f"xid-{code}",
        "severity": "info" if code == 43 else "warning",
        "message": f"XID {code} on GPU 0",
        "xid": code,
        "changes_health": False,
        "pod_uids": (pod,) if pod else (),
    }
    return fault(node, **(values | fields))


def hang(job: str = "j1", node: str = "", seconds: float = 0, **fields: Any) -> Fault:
    values: dict[str, Any] = {
        "rule": "collective-hang",
        "message": "all ranks wait for rank 3",
        "action": "restart the job without that node",
        "opened_at": at(seconds),
        "job_uid": job,
        "changes_health": False,
        "source": "training",
        "gpu_uuid": None,
    }
    return fault(node, f"hang-{job}-{seconds}", **(values | fields))


def crash(job: str = "j1", node: str = "n1", seconds: float = 0, **fields: Any) -> Fault:
    values: dict[str, Any] = {
        "rule": "job-interrupted",
        "severity": "warning",
        "message": "ml/train: 1 of 2 ranks ended, rank 0 first with exit code 1",
        "action": "see the rank's log",
        "opened_at": at(seconds),
        "job_uid": job,
        "rank": 0,
        "changes_health": False,
        "source": "kubernetes",
        "gpu_uuid": None,
    }
    return fault(node, f"crash-{job}-{seconds}", **(values | fields))


def job(uid: str = "j1", **fields: Any) -> JobFact:
    values: dict[str, Any] = {
        "namespace": "ml",
        "name": "train",
        "gang": True,
        "gpus": 16,
        "wanted_pods": 2,
        "running_pods": 2,
    }
    return JobFact(uid, **(values | fields))


def pod(uid: str = "p0", node: str = "n1", rank: int = 0, **fields: Any) -> PodFact:
    values: dict[str, Any] = {"job_uid": "j1", "gpus": 8, "since": at(-3600)}
    return PodFact(uid, f"train-{rank}", node, rank=rank, **(values | fields))


def fleet(
    racks: int = 10, size: int = 12, *, same_leaf: bool = False, **fields: Any
) -> dict[str, NodeFact]:
    """Nodes r0-n0 and so on: a rack each `size`, two racks a leaf unless the leaf is the rack's own."""
    return {
        f"r{rack}-n{number}": NodeFact(
            f"r{rack}-n{number}",
            places={
                "rack": f"r{rack}",
                "leaf": f"l{rack if same_leaf else rack // 2}",
                "power": f"p{rack // 5}",
                "block": "b0",
            },
            boot_id="boot-1",
            kubernetes_ready=True,
            **fields,
        )
        for rack in range(racks)
        for number in range(size)
    }


def world(*faults: Fault, nodes: dict[str, NodeFact] | None = None, **fields: Any) -> World:
    """A world in which the sizes of domains are counted over `nodes`, as the store does."""
    names = {one.node for one in faults if one.node}
    known = (
        nodes
        if nodes is not None
        else {name: NodeFact(name, boot_id="boot-1", kubernetes_ready=True) for name in names}
    )
    standing: tuple[Standing, ...] = tuple(fields.pop("standing", ()))
    wanted = places_to_count(faults, known, [one.key for one in standing])
    sizes: dict[tuple[str, str], int] = {}
    for fact in known.values():
        for place in fact.places.items():
            if place in wanted:
                sizes[place] = sizes.get(place, 0) + 1
    values: dict[str, Any] = {
        "faults": list(faults),
        "nodes": known,
        "jobs": {"j1": job()},
        "pods": [pod(), pod("p1", "n2", 1)],
        "standing": standing,
        "sizes": sizes,
        "nodes_known": max(len(known), 100),
        "nodes_heard": max(len(known), 100),
    }
    return World(**(values | fields))


def group(*faults: Fault, now: float = 600, **fields: Any) -> list[Trouble]:
    return group_troubles(world(*faults, **fields), at(now))


def keys(troubles: list[Trouble]) -> list[tuple[str, str]]:
    return [one.key for one in troubles]


def stands(trouble: Trouble, **fields: Any) -> Standing:
    """The incident that was opened for it."""
    values: dict[str, Any] = {
        "id": "i1",
        "scope": trouble.scope,
        "subject": trouble.subject,
        "cause": trouble.cause,
        "opened_at": trouble.opened_at,
        "findings": trouble.episodes,
        "nodes": frozenset(trouble.nodes),
        "jobs": trouble.jobs,
    }
    return Standing(**(values | fields))
