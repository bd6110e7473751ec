"""A site's thresholds in the agent's process, and faults of links by real ctypes calls."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Node


def test_a_sites_threshold_decides_what_the_agent_reports(node: Node) -> None:
    rules = node.directory / "rules.toml"
    rules.write_text(
        "[rules.temperature-margin-low]\nmargin_celsius = 60\nhold_seconds = 0\n"
        "[rules.persistence-off]\nenabled = false\n"
    )
    node.driver.set_gpu(0, persistence_off=1)
    node.start(PITWALL_RULES=rules)
    report = node.ingest.wait(lambda report: bool(report.findings))
    assert {finding.rule for finding in report.findings} == {"temperature-margin-low"}
    assert len(report.findings) == 8
    assert "52 C below" in report.findings[0].message


def test_a_file_of_rules_that_cannot_be_used_is_refused_at_the_start(node: Node) -> None:
    rules = node.directory / "rules.toml"
    rules.write_text("[rules.pcie-replay]\nreplays_per_minute = 'many'\n")
    answer = subprocess.run(
        [sys.executable, "-m", "app.cli", "agent"],
        env={
            **os.environ,
            "PITWALL_RULES": str(rules),
            "PITWALL_SPOOL_DIR": str(node.spool),
            "PITWALL_METRICS_PORT": "0",
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert answer.returncode != 0
    (line,) = answer.stderr.splitlines()
    assert "[rules.pcie-replay] replays_per_minute must be a finite number" in line


def test_links_that_went_down_are_a_fault_once_they_stay_so(node: Node) -> None:
    rules = node.directory / "rules.toml"
    rules.write_text("[rules.nvlink-down]\nhold_seconds = 0.5\n")
    node.driver.set_gpu(4, links_down=2)
    node.start(PITWALL_RULES=rules)
    report = node.ingest.wait(lambda report: bool(report.findings))
    (finding,) = report.findings
    assert (finding.rule, finding.gpu_uuid) == ("nvlink-down", node.driver.uuid(4))
    assert "has 16 active NVLinks" in finding.message
    node.driver.set_gpu(4, links_down=0)
    node.ingest.wait(lambda later: later.sequence > report.sequence and not later.findings)


def test_a_driver_that_asks_for_a_reset_without_an_xid_is_a_finding(node: Node) -> None:
    rules = node.directory / "rules.toml"
    rules.write_text("[rules.recovery-reset]\nhold_seconds = 0\n")
    node.driver.set_gpu(1, recovery_action=1)
    node.start(PITWALL_RULES=rules)
    report = node.ingest.wait(lambda report: bool(report.findings))
    assert [finding.rule for finding in report.findings] == ["recovery-reset"]
    node.write_kernel("NVRM: Xid (PCI:0000:21:00): 119, pid=1, Timeout after 6s of waiting for RPC")
    later = node.ingest.wait(
        lambda later: "xid-119" in {finding.rule for finding in later.findings}
    )
    assert [finding.rule for finding in later.findings] == ["xid-119"], "it carries the action"
