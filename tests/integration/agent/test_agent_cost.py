"""What the agent costs its node, at the intervals it has in a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Node

MEASURED_SECONDS = 15.5
"""Three polls and a push, whatever the phase."""


def processor_seconds(pid: int) -> float:
    """Time on a processor of all threads of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def test_eight_gpus_polled_each_five_seconds_cost_under_a_hundredth_of_a_core(node: Node) -> None:
    for index in range(8):
        node.driver.set_gpu(index, pids=(1,))
    node.start(
        PITWALL_POLL_INTERVAL_SECONDS=5,
        PITWALL_PUSH_INTERVAL_SECONDS=15,
        PITWALL_NVML_SLOW_INTERVAL_SECONDS=15,
    )
    node.ingest.wait(lambda report: report.nvml.answering)
    time.sleep(1)
    assert node.process is not None
    (child,) = (
        Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
    )
    pids = (node.process.pid, int(child))
    before = sum(processor_seconds(pid) for pid in pids)
    began, calls = time.monotonic(), node.driver.calls(0)
    time.sleep(MEASURED_SECONDS)
    spent = sum(processor_seconds(pid) for pid in pids) - before
    share = spent / (time.monotonic() - began)
    print(f"the agent and its child took {100 * share:.2f} % of a core")
    assert node.driver.calls(0) > calls + 40, "it did poll"
    assert share < 0.01
