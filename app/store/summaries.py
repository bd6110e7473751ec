"""The counts of each block, kept beside the frames."""

from collections import Counter
from datetime import datetime
from typing import Any

import msgspec
import numpy
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from app.store.records import Topology
from app.store.vectors import ABSENT, HEALTHS
from app.store.writes.bulk import Upsert, clock, upsert

UNPLACED = "(no block)"
"""Name of the block, and of the rack, of nodes without a topology label."""

_SUMMARY = Upsert(
    table="summary_block",
    columns=("cluster", "block", "counts", "updated_at"),
    key=("cluster", "block"),
    updates={"counts": None, "updated_at": None},
)

# A node's GPUs: as many as were ever seen on it, else as Kubernetes says. Usable are those on nodes
# that are Ready, schedulable and neither Failing nor Unknown.
_NODES = """
SELECT COALESCE(block, :none) AS of_block, health, service, COUNT(*),
       SUM(known), SUM(requested),
       SUM(CASE WHEN usable = 1 THEN known ELSE 0 END), SUM(CASE WHEN usable = 1 THEN requested ELSE 0 END),
       SUM(CASE WHEN usable = 1 AND service = 'Probation' AND known > requested THEN known - requested ELSE 0 END)
FROM (
    SELECT block, health, service,
           COALESCE(gpu_count_expected, gpu_count, gpu_allocatable, 0) AS known,
           COALESCE(gpu_requested, 0) AS requested,
           CASE WHEN kubernetes_ready AND NOT unschedulable AND health IN ('Healthy', 'Degraded')
                THEN 1 ELSE 0 END AS usable
    FROM node WHERE cluster = :cluster
) AS counted
GROUP BY of_block, health, service
"""


def refresh_summaries(
    connection: Connection,
    cluster: str,
    now: datetime,
    *,
    topology: Topology,
    gpu_state: NDArray[numpy.uint8],
) -> None:
    """Count each block anew from its nodes' rows and the GPUs' frame."""
    counts: dict[str, dict[str, Any]] = {}
    rows = connection.execute(text(_NODES), {"cluster": cluster, "none": UNPLACED}).all()
    for row in rows:
        block, health, service, nodes, gpus, requested, usable, usable_requested, probation = row
        into = counts.setdefault(block, _empty())
        into["health"][health] += int(nodes)
        into["service"][service] += int(nodes)
        into["gpus"] += int(gpus)
        into["gpus_requested"] += int(requested)
        into["gpus_usable"] += int(usable)
        into["gpus_usable_requested"] += int(usable_requested)
        into["gpus_on_probation"] += int(probation)
    start = 0
    for shown in topology.blocks:
        size = sum(len(rack.nodes) for rack in shown.racks) * topology.slots
        codes = gpu_state[start : start + size]
        start += size
        if shown.name not in counts:
            continue
        codes = codes[codes != ABSENT]
        found = numpy.bincount(codes & 0b11, minlength=len(HEALTHS))
        into = counts[shown.name]
        into["gpus_by_health"].update(dict(zip(HEALTHS, map(int, found), strict=True)))
        into["gpus_allocated"] = int(numpy.count_nonzero(codes & 0b100))
        # GPUs that the node is known to have and that nobody has read are Unknown.
        into["gpus"] = max(into["gpus"], int(codes.size))
        into["gpus_by_health"]["Unknown"] += into["gpus"] - int(codes.size)
    at = clock(connection)(now)
    upsert(
        connection,
        _SUMMARY,
        [
            (cluster, block, msgspec.json.encode(found).decode(), at)
            for block, found in sorted(counts.items())
        ],
    )
    _drop_gone(connection, cluster, set(counts))


def _empty() -> dict[str, Any]:
    return {
        "health": Counter(),
        "service": Counter(),
        "gpus": 0,
        "gpus_requested": 0,
        "gpus_usable": 0,
        "gpus_usable_requested": 0,
        "gpus_on_probation": 0,
        "gpus_allocated": 0,
        "gpus_by_health": Counter(),
    }


def _drop_gone(connection: Connection, cluster: str, blocks: set[str]) -> None:
    known = connection.execute(
        text("SELECT block FROM summary_block WHERE cluster = :cluster"), {"cluster": cluster}
    ).scalars()
    for block in set(known) - blocks:
        connection.execute(
            text("DELETE FROM summary_block WHERE cluster = :cluster AND block = :block"),
            {"cluster": cluster, "block": block},
        )
