"""An NVML that hangs makes the node Unknown, and the agent lives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from collectors.health import node_health

if TYPE_CHECKING:
    from .conftest import Node


def test_a_hang_is_unknown_with_its_age_and_ends_when_nvml_answers(node: Node) -> None:
    node.start(PITWALL_NVML_TIMEOUT_SECONDS=1)
    before = node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.set(hang=1)
    silent = node.ingest.wait(lambda report: not report.nvml.answering)
    assert silent.trigger == "change"
    assert silent.gpus == []
    assert {finding.rule for finding in silent.findings} == {"nvml-silent"}
    verdict, reason = node_health(silent.findings, silent.nvml)
    assert verdict == "Unknown"
    assert re.fullmatch(r"NVML does not answer for \d+ s", reason)
    older = node.ingest.wait(lambda report: report.sequence >= silent.sequence + 4)
    age = lambda report: int(re.findall(r"\d+", report.nvml.message)[0])  # noqa: E731
    assert age(older) >= age(silent) + 1
    assert node.get("/healthz") == "ok\n", "the agent's own life is apart from NVML's"
    assert "pitwall_agent_nvml_answering 0.0" in node.get("/metrics")
    node.driver.set(hang=0)
    again = node.ingest.wait(
        lambda report: report.sequence > silent.sequence and report.nvml.answering, timeout=15
    )
    assert again.findings == []
    assert node_health(again.findings, again.nvml)[0] == "Healthy"
    assert {gpu.uuid for gpu in again.gpus} == {gpu.uuid for gpu in before.gpus}
    assert again.counters.nvml_children_replaced_total == 1


def test_a_hang_of_the_initialisation_is_told_as_well(node: Node) -> None:
    node.driver.set(hang=1)
    node.start(PITWALL_NVML_TIMEOUT_SECONDS=1)
    report = node.ingest.wait(lambda report: not report.nvml.answering)
    assert report.trigger == "start"
    assert report.nvml.message == "NVML does not answer for 1 s"


def test_what_was_open_stays_open_while_nvml_is_silent(node: Node) -> None:
    node.driver.set_gpu(3, remap_failure=1)
    node.start(PITWALL_NVML_TIMEOUT_SECONDS=1)
    first = node.ingest.wait(lambda report: bool(report.findings))
    node.driver.set(hang=1)
    silent = node.ingest.wait(lambda report: not report.nvml.answering)
    rules = {finding.rule: finding.episode for finding in silent.findings}
    assert rules["remap-failure"] == first.findings[0].episode
    assert node_health(silent.findings, silent.nvml)[0] == "Failing"


def test_an_nvml_that_cannot_be_used_is_unknown_with_its_own_reason(node: Node) -> None:
    node.driver.set(init_error=9)
    node.start()
    report = node.ingest.wait(lambda report: not report.nvml.answering)
    assert "Driver Not Loaded" in (report.nvml.message or "")
    node.driver.set(init_error=0)
    node.ingest.wait(lambda report: report.nvml.answering, timeout=15)
