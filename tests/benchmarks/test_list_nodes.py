"""Listing 5,000 nodes: narrow and paged against the typed client, from the same server in the same run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kubernetes.client
import kubernetes.config
import pytest

from k8s.client import connect
from k8s.listing import PAGE_OBJECTS, list_objects
from k8s.resources import NODES
from tests.benchmarks.figures import Figures

NODE_COUNT = 5_000
ROUNDS = 3
FASTER_AT_LEAST = 10.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A kubeconfig of a server of node lists in a process of its own, and the bytes of a node."""
    script = Path(__file__).with_name("node_lists.py")
    words = [sys.executable, str(script), str(NODE_COUNT), str(PAGE_OBJECTS)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        path = tmp_path / "kubeconfig"
        cluster = {"server": f"http://127.0.0.1:{said['port']}"}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        path.write_text(json.dumps(document))
        yield path, said["bytes_a_node"]
    finally:
        process.terminate()
        process.wait(10)


def typed(kubeconfig: Path) -> int:
    api = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(kubeconfig)))
    count, token = 0, None
    while True:
        page = api.list_node(limit=PAGE_OBJECTS, **({"_continue": token} if token else {}))
        count += len(page.items)
        token = page.metadata._continue
        if not token:
            return count


def narrow(kubeconfig: Path) -> int:
    return len(list_objects(connect(kubeconfig), NODES).items)


def measure(act: Callable[[], int]) -> tuple[float, float]:
    """Seconds of wall and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert act() == NODE_COUNT
    return time.perf_counter() - wall, time.process_time() - cpu


def test_listing_5000_nodes_narrow_and_paged_is_ten_times_faster(served: tuple[Path, int]) -> None:
    kubeconfig, size = served
    narrow(kubeconfig)  # the first call loads modules and builds decoders
    quick = [measure(lambda: narrow(kubeconfig)) for _ in range(ROUNDS)]
    slow_wall, slow_cpu = measure(lambda: typed(kubeconfig))
    quick_wall, quick_cpu = (statistics.median(column) for column in zip(*quick, strict=True))
    figures = Figures("list_nodes")
    figures.add("bytes a node", size, "B")
    figures.add("typed client", slow_wall, "s")
    figures.add("narrow and paged", quick_wall, "s")
    figures.add("narrow and paged, a node", quick_wall / NODE_COUNT, "s")
    figures.add("times faster, CPU", slow_cpu / quick_cpu, "x")
    figures.add("times faster", slow_wall / quick_wall, "x", at_least=FASTER_AT_LEAST)
    figures.check()
