"""Reports reach ingest in order, each once, over broken connections, refusals and kill -9."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Ingest, Node


def sequences(ingest: Ingest) -> list[int]:
    return [report.sequence for report in ingest.reports]


def test_errors_and_dropped_connections_lose_and_reorder_nothing(node: Node) -> None:
    node.ingest.plan = [500, "drop", 503, 429, "drop", 408]
    node.start()
    node.ingest.wait(lambda report: report.sequence >= 5, timeout=20)
    assert sequences(node.ingest)[:5] == [1, 2, 3, 4, 5]


def test_an_answer_that_is_lost_repeats_the_same_report(node: Node) -> None:
    node.ingest.plan = ["lose"]
    node.start()
    node.ingest.wait(lambda report: report.sequence >= 3)
    assert sequences(node.ingest)[:4] == [1, 1, 2, 3]
    first, again = node.ingest.reports[:2]
    assert first == again


def test_a_report_refused_for_good_does_not_hold_up_the_others(node: Node) -> None:
    node.ingest.plan = [400, 422]
    node.start()
    report = node.ingest.wait(lambda report: report.counters.reports_rejected_total == 2)
    assert sequences(node.ingest)[0] == 3
    assert report.counters.reports_dropped_total == 0
    kept = sorted(path.name for path in (node.spool / "rejected").iterdir())
    assert [int(name.split(".")[0]) for name in kept] == [1, 2]
    assert [line["status"] for line in node.log_lines() if "refused" in line["event"]] == [400, 422]


def test_a_denied_token_is_read_again(node: Node) -> None:
    token = node.directory / "token"
    token.write_text("old\n")
    node.ingest.always = 401
    node.start(PITWALL_TOKEN_FILE=token)
    node.ingest.wait_refused(2)
    token.write_text("new\n")
    node.ingest.always = None
    node.ingest.wait(lambda report: report.sequence >= 1)
    assert node.ingest.tokens[0] == "Bearer old"
    assert node.ingest.tokens[-1] == "Bearer new"
    assert sequences(node.ingest)[0] == 1
    trouble = [line for line in node.log_lines() if "cannot be delivered" in line["event"]]
    assert len(trouble) == 1, "once on failure, however often it is tried"


def test_kill_nine_in_the_middle_loses_and_doubles_nothing(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.driver.set_gpu(2, error=15)
    node.driver.raise_xid(2, 79)
    node.ingest.wait(lambda report: len(report.findings) == 2)
    node.ingest.always = 503
    node.ingest.wait_refused(2)
    node.driver.set_gpu(4, remap_failure=1)
    time.sleep(1.5)
    node.kill()
    spooled = max(sequences(node.ingest))
    node.ingest.always = None
    for _ in range(2):
        node.start()
        target = spooled + 3
        node.ingest.wait(lambda report, target=target: report.sequence >= target)
        node.kill()
        spooled = max(sequences(node.ingest))
    received = sequences(node.ingest)
    assert received == sorted(received)
    distinct = sorted(set(received))
    assert distinct == list(range(1, distinct[-1] + 1))
    assert len({report.spool_id for report in node.ingest.reports}) == 1
    # One episode a fault over both restarts, and one event.
    episodes = {
        (finding.rule, finding.episode)
        for report in node.ingest.reports
        for finding in report.findings
    }
    assert sorted(rule for rule, _ in episodes) == ["gpu-lost", "remap-failure", "xid-79"]
    assert len({event.event_id for report in node.ingest.reports for event in report.xids}) == 1


def test_a_kernel_line_written_while_the_agent_was_down_is_told_once(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.kill()
    node.write_kernel("NVRM: Xid (PCI:0000:21:00): 48, pid=1, name=python, DBE")
    node.start()
    node.ingest.wait(lambda report: any(event.xid == 48 for event in report.xids))
    node.kill()
    node.start()
    last = node.ingest.reports[-1].sequence
    node.ingest.wait(lambda report: report.sequence >= last + 3)
    assert len({event.event_id for report in node.ingest.reports for event in report.xids}) == 1


def test_a_finding_closed_by_a_person_is_closed(node: Node) -> None:
    node.start()
    node.ingest.wait(lambda report: report.nvml.answering)
    node.write_kernel("NVRM: Xid (PCI:0000:21:00): 62, pid=1, name=python, PMU halt")
    report = node.ingest.wait(lambda report: bool(report.findings))
    node.ingest.closed_episodes = (report.findings[0].episode,)
    node.ingest.wait(lambda later: later.sequence > report.sequence and not later.findings)
