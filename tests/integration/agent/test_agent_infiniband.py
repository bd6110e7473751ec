"""A node's InfiniBand ports as an agent's process reports them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Node

EXCERPT = Path(__file__).parents[2] / "data/infiniband"


def test_ports_are_in_the_report_and_a_full_counter_is_advice(node: Node) -> None:
    root = node.directory / "infiniband"
    shutil.copytree(EXCERPT, root)
    node.start(PITWALL_INFINIBAND_ROOT=root, PITWALL_INFINIBAND_INTERVAL_SECONDS=0.1)
    report = node.ingest.wait(lambda report: bool(report.findings) and report.nvml.answering)
    assert [port.device for port in report.ports] == ["mlx5_0", "mlx5_1", "mlx5_bond_0"]
    assert [finding.rule for finding in report.findings] == ["infiniband-counter-full"]
    (root / "mlx5_0/ports/1/state").write_text("1: DOWN\n")
    later = node.ingest.wait(
        lambda later: bool(later.ports) and later.ports[0].state == "DOWN", timeout=5
    )
    assert len(later.findings) == 1, "four minutes have not passed"
