"""750 nodes of pods that end at once are drained in under two minutes."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fleet_processes import CLUSTER, Fleet, fleet_of

from app.operations.wishes import MAX_NODES
from app.store.reads.operations import operations
from app.store.requests import request, submit


def _add_pod(fleet: Fleet, node: str) -> None:
    fleet.connection.request(
        "POST",
        "/api/v1/namespaces/default/pods",
        body={
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"short-{node}"},
            "spec": {
                "nodeName": node,
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "short", "image": "short"}],
            },
        },
    )


@pytest.mark.parametrize(
    ("nodes", "most_seconds"),
    [(60, 30), pytest.param(750, 120, marks=pytest.mark.acceptance)],
)
def test_nodes_of_pods_that_end_at_once_are_drained_in_minutes(
    nodes: int, most_seconds: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fleet_of(tmp_path, nodes, with_jobs=False) as fleet:
        names = fleet.node_names()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda node: _add_pod(fleet, node), names))
        fleet.start_worker()
        begun = time.monotonic()
        asked = [
            submit(
                fleet.engine,
                CLUSTER,
                kind="drain",
                parameters={"nodes": names[first : first + MAX_NODES], "force": True},
                author="pitwall:demo",
                reason="maintenance",
                idempotency_key=f"from-{first}",
                now=datetime.now(UTC),
            ).id
            for first in range(0, nodes, MAX_NODES)
        ]
        drained: set[str] = set()
        while len(drained) < nodes:
            took = time.monotonic() - begun
            said = [request(fleet.engine, CLUSTER, each) for each in asked]
            assert all(each.state != "refused" for each in said), said
            assert took < 2 * most_seconds, f"{len(drained)} of {nodes} drained: {said}"
            time.sleep(0.2)
            for record in operations(fleet.engine, CLUSTER):
                drained |= {
                    name for name, state in record.nodes_state.items() if state == "Drained"
                }
        took = time.monotonic() - begun
    with capsys.disabled():
        print(
            f"\n{nodes} nodes with pods that end at once: all Drained {took:.1f} s after the word (the "
            "worker's start included)"
        )
    assert took < most_seconds
