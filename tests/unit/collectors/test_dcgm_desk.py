"""What is concluded of nodes that only dcgm-exporter speaks of, from poll to poll."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collectors.dcgm_columns import DcgmTable, TableBuilder
from collectors.dcgm_desk import DcgmDesk
from collectors.dcgm_reports import compose_reports, word_unjudged
from collectors.dcgm_words import Adopted, HostVerdict, NodeWord
from collectors.health import GPU_RULES
from collectors.ledger import Past
from collectors.report import Finding, Report

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SILENCE_SECONDS = 45.0
HEALTHY = {
    "DCGM_FI_DEV_GPU_TEMP": 40,
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 100,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": 0,
    "DCGM_FI_DEV_ROW_REMAP_PENDING": 0,
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 5_000_000,
    "DCGM_FI_DEV_XID_ERRORS": 0,
}


class Cluster:
    """Exporters of hosts with two GPUs each, polled by a desk each 15 s."""

    def __init__(self, *hosts: str) -> None:
        numbers = itertools.count()
        self.new_id: Callable[[], str] = lambda: f"e{next(numbers)}"
        self.desk = DcgmDesk(new_id=self.new_id)
        self.gpus: dict[tuple[str, int], dict[str, float | None]] = {
            (host, index): dict(HEALTHY) for host in hosts for index in range(2)
        }
        self.words = {host: NodeWord(host, "boot-1") for host in hosts}
        self.ages = dict.fromkeys(hosts, 5.0)
        self.seconds = 0.0
        self.table: DcgmTable | None = None

    def set(self, host: str, index: int, **values: float | None) -> None:
        """Set metrics by what follows DCGM_FI_DEV_; None takes the series away."""
        for name, value in values.items():
            self.gpus[host, index][f"DCGM_FI_DEV_{name}"] = value

    def remove(self, host: str, index: int | None = None) -> None:
        """Let a GPU's series end, or all of a host's."""
        for key in list(self.gpus):
            if key[0] == host and index in (None, key[1]):
                del self.gpus[key]

    def read(self) -> DcgmTable:
        asked_at = self.seconds + 1_000_000
        builder = TableBuilder()
        for metric in HEALTHY:
            builder.add(
                metric,
                [
                    {"metric": labels(*key), "value": [asked_at, str(values[metric])]}
                    for key, values in self.gpus.items()
                    if values[metric] is not None
                ],
            )
        builder.add_times(
            [
                {"metric": labels(*key), "value": [asked_at, str(asked_at - self.ages[key[0]])]}
                for key in self.gpus
            ]
        )
        return builder.build()

    def poll(self, seconds: float = 15.0) -> dict[str, HostVerdict]:
        self.seconds += seconds
        self.table = self.read()
        return self.desk.take(
            self.table,
            words=self.words,
            now=START + timedelta(seconds=self.seconds),
            silence_seconds=SILENCE_SECONDS,
        )

    def rules(self, seconds: float = 15.0) -> dict[str, list[str]]:
        """The open rules by host after one more poll."""
        return {
            host: [finding.rule for finding in verdict.findings]
            for host, verdict in self.poll(seconds).items()
        }

    def reports(self, verdicts: Mapping[str, HostVerdict]) -> list[Report]:
        assert self.table is not None
        return compose_reports(
            self.table,
            verdicts.items(),
            cluster="c",
            spool_id="dcgm-1",
            sequence=1,
            now=START + timedelta(seconds=self.seconds),
        )


def labels(host: str, index: int) -> dict[str, str]:
    return {
        "Hostname": host,
        "UUID": f"GPU-{host}-{index}",
        "gpu": str(index),
        "pci_bus_id": f"00000000:{index + 1:02x}:00.0",
    }


def uuid(host: str, index: int) -> str:
    return labels(host, index)["UUID"]


def test_a_level_rule_opens_once_keeps_its_episode_and_closes() -> None:
    cluster = Cluster("a", "b")
    cluster.set("a", 1, ROW_REMAP_PENDING=1)
    (opened,) = cluster.poll()["a"].findings
    assert (opened.rule, opened.gpu_uuid, opened.severity) == (
        "remap-pending",
        uuid("a", 1),
        "warning",
    )
    assert "GPU 1" in opened.message
    verdicts = cluster.poll()
    assert [one.episode for one in verdicts["a"].findings] == [opened.episode]
    assert verdicts["b"].findings == ()
    cluster.set("a", 1, ROW_REMAP_PENDING=None)
    assert [one.episode for one in cluster.poll()["a"].findings] == [opened.episode], "unknown"
    cluster.set("a", 1, ROW_REMAP_PENDING=0)
    assert cluster.poll()["a"].findings == ()


def test_a_rising_replay_counter_is_judged_by_its_window() -> None:
    cluster = Cluster("a")
    assert cluster.rules() == {"a": []}
    cluster.set("a", 0, PCIE_REPLAY_COUNTER=140)
    verdict = cluster.poll()["a"]
    assert [one.rule for one in verdict.findings] == ["pcie-replay"]
    assert "replayed 40 times" in verdict.findings[0].message
    cluster.set("a", 0, PCIE_REPLAY_COUNTER=0)
    assert cluster.rules(61) == {"a": []}, "a reset is no rise"


def test_the_xid_gauge_tells_by_change_alone() -> None:
    cluster = Cluster("a")
    cluster.set("a", 0, XID_ERRORS=79)
    assert cluster.rules() == {"a": []}, "a level that was there before us says nothing"
    assert cluster.rules() == {"a": []}
    cluster.set("a", 1, XID_ERRORS=31)
    verdict = cluster.poll()["a"]
    assert [(one.rule, one.gpu_uuid) for one in verdict.findings] == [("xid-31", uuid("a", 1))]
    assert [(one.xid, one.source, one.pci_bus_id) for one in verdict.xids] == [
        (31, "dcgm", "0000:02:00.0")
    ]
    assert not verdict.findings[0].changes_health
    cluster.set("a", 0, XID_ERRORS=0)
    cluster.set("a", 1, XID_ERRORS=0)
    verdict = cluster.poll()["a"]
    assert verdict.xids == (), "an exporter that started anew"
    assert [one.rule for one in verdict.findings] == ["xid-31"]
    assert cluster.rules(601) == {"a": []}, "the application's class closes after ten minutes"


def test_a_gauge_that_is_gone_for_a_while_and_back_at_the_same_code_is_no_event() -> None:
    cluster = Cluster("a")
    cluster.set("a", 0, XID_ERRORS=79)
    cluster.poll()
    cluster.set("a", 0, XID_ERRORS=None)
    cluster.poll()
    cluster.set("a", 0, XID_ERRORS=79)
    assert cluster.poll()["a"].xids == ()


@pytest.mark.parametrize("sign", ["boot", "reset"])
def test_a_fatal_xid_stays_until_its_action_is_seen(sign: str) -> None:
    cluster = Cluster("a")
    cluster.poll()
    code = 79 if sign == "boot" else 119
    cluster.set("a", 0, XID_ERRORS=code)
    assert cluster.rules() == {"a": [f"xid-{code}"]}
    cluster.set("a", 0, XID_ERRORS=0)
    assert cluster.rules(3600) == {"a": [f"xid-{code}"]}
    if sign == "boot":
        cluster.words["a"] = NodeWord("a", "boot-2")
    else:
        cluster.set("a", 0, TOTAL_ENERGY_CONSUMPTION=0)
    assert cluster.rules() == {"a": []}


def test_a_boot_that_becomes_known_is_no_new_boot() -> None:
    cluster = Cluster("a")
    cluster.words["a"] = NodeWord("a", None)
    cluster.poll()
    cluster.set("a", 0, XID_ERRORS=79)
    assert cluster.rules() == {"a": ["xid-79"]}
    cluster.words["a"] = NodeWord("a", "boot-1")
    assert cluster.rules() == {"a": ["xid-79"]}
    cluster.words["a"] = NodeWord("a", None)
    assert cluster.rules() == {"a": ["xid-79"]}


def test_an_xid_that_came_back_after_two_restarts_wants_the_hardware_inspected() -> None:
    cluster = Cluster("a")
    key = f"xid-79/{uuid('a', 0)}"
    cluster.desk.adopt([], known={}, past={"a": {key: Past(ended=2, last_at=START)}})
    cluster.poll()
    cluster.set("a", 0, XID_ERRORS=79)
    (finding,) = cluster.poll()["a"].findings
    assert "came back after 2" in finding.message


def test_a_gpu_that_vanishes_while_its_exporter_answers_is_missed() -> None:
    cluster = Cluster("a")
    cluster.words["a"] = NodeWord("a", "boot-1", expected_gpus=2)
    cluster.set("a", 1, ROW_REMAP_PENDING=1)
    (pending,) = cluster.poll()["a"].findings
    cluster.remove("a", 1)
    assert cluster.rules() == {"a": ["remap-pending"]}, "one scrape without it says nothing yet"
    cluster.poll()
    verdict = cluster.poll()["a"]
    assert [one.rule for one in verdict.findings] == ["gpu-count", "remap-pending"]
    assert (verdict.gpu_count, verdict.expected_gpus) == (1, 2)
    assert verdict.findings[0].gpu_uuid == uuid("a", 1)
    assert verdict.findings[1].episode == pending.episode
    cluster.gpus["a", 1] = dict(HEALTHY)
    assert cluster.rules() == {"a": []}


def test_a_lost_gpu_with_nothing_but_its_xid_left_is_missed_too() -> None:
    cluster = Cluster("a")
    cluster.words["a"] = NodeWord("a", "boot-1", expected_gpus=2)
    cluster.poll()
    for metric in HEALTHY:
        cluster.gpus["a", 0][metric] = None
    cluster.set("a", 0, XID_ERRORS=79)
    assert cluster.rules() == {"a": ["xid-79"]}
    cluster.poll()
    assert sorted(cluster.rules()["a"]) == ["gpu-count", "xid-79"]


def test_a_board_that_was_changed_takes_its_findings_with_it() -> None:
    cluster = Cluster("a")
    cluster.words["a"] = NodeWord("a", "boot-1", expected_gpus=2)
    cluster.set("a", 1, ROW_REMAP_PENDING=1)
    cluster.poll()
    cluster.remove("a", 1)
    cluster.gpus["a", 7] = dict(HEALTHY)
    assert cluster.rules() == {"a": []}


@pytest.mark.parametrize("why", ["gone", "old"])
def test_a_host_whose_series_stop_has_no_verdict_and_keeps_what_is_open(why: str) -> None:
    cluster = Cluster("a", "b")
    cluster.set("a", 0, ROW_REMAP_PENDING=1)
    cluster.poll()
    cluster.set("a", 0, XID_ERRORS=79)
    before = {one.episode for one in cluster.poll()["a"].findings}
    assert len(before) == 2
    kept = {key: dict(values) for key, values in cluster.gpus.items()}
    if why == "gone":
        cluster.remove("a")
    else:
        cluster.ages["a"] = SILENCE_SECONDS + 1
    assert set(cluster.poll()) == {"b"}
    assert set(cluster.poll(3600)) == {"b"}
    cluster.gpus = kept
    cluster.ages["a"] = 5.0
    assert {one.episode for one in cluster.poll()["a"].findings} == before


def test_after_a_restart_what_is_open_goes_on() -> None:
    cluster = Cluster("a")
    cluster.words["a"] = NodeWord("a", "boot-1", expected_gpus=3)
    cluster.set("a", 0, ROW_REMAP_PENDING=1)
    cluster.poll()
    cluster.set("a", 1, XID_ERRORS=119)
    cluster.poll()
    cluster.poll()
    before = cluster.poll()["a"].findings
    assert sorted(one.rule for one in before) == ["gpu-count", "remap-pending", "xid-119"]
    cluster.desk = DcgmDesk(new_id=cluster.new_id)
    adopted = [Adopted("a", "boot-1", one) for one in before]
    cluster.desk.adopt(adopted, known={"a": [uuid("a", 0), uuid("a", 1)]})
    after = cluster.poll()["a"].findings
    assert {(one.rule, one.episode) for one in after} == {(one.rule, one.episode) for one in before}
    cluster.set("a", 0, ROW_REMAP_PENDING=0)
    cluster.words["a"] = NodeWord("a", "boot-2", expected_gpus=2)
    assert cluster.rules() == {"a": []}


def test_a_rule_that_is_judged_no_more_is_not_taken_up() -> None:
    cluster = Cluster("a")
    old = Finding(
        episode="old",
        rule="a-rule-of-before",
        severity="critical",
        message="m",
        action="a",
        since=START,
        gpu_uuid=uuid("a", 0),
    )
    cluster.desk.adopt([Adopted("a", "boot-1", old)], known={})
    assert cluster.rules() == {"a": []}


def test_a_host_that_its_agent_took_over_is_forgotten() -> None:
    cluster = Cluster("a", "b")
    cluster.set("a", 0, ROW_REMAP_PENDING=1)
    cluster.poll()
    word = cluster.words.pop("a")
    assert set(cluster.poll()) == {"b"}
    assert cluster.desk.open_count == 0
    cluster.words["a"] = word
    assert cluster.rules()["a"] == ["remap-pending"]


def test_what_a_person_closed_opens_anew_while_it_holds() -> None:
    cluster = Cluster("a")
    cluster.set("a", 0, ROW_REMAP_PENDING=1)
    cluster.poll()
    cluster.set("a", 1, XID_ERRORS=79)
    findings = cluster.poll()["a"].findings
    cluster.desk.close(one.episode for one in findings)
    (again,) = cluster.poll()["a"].findings
    assert again.rule == "remap-pending"
    assert again.episode not in {one.episode for one in findings}


def test_a_clock_that_is_put_back_holds_nothing_up() -> None:
    cluster = Cluster("a")
    cluster.poll()
    cluster.set("a", 0, PCIE_REPLAY_COUNTER=200)
    assert cluster.rules() == {"a": ["pcie-replay"]}
    cluster.seconds -= 3600
    cluster.poll()
    for _ in range(10):
        last = cluster.rules()
    assert last == {"a": []}


def test_a_healthy_node_says_how_many_rules_nobody_could_judge() -> None:
    cluster = Cluster("a")
    cluster.poll()
    verdict = cluster.poll()["a"]
    judged = {"remap-failure", "remap-pending", "pcie-replay"}
    assert verdict.unjudged_rules == len(GPU_RULES) - len(judged)
    (report,) = cluster.reports({"a": verdict})
    assert report.nvml.answering
    assert report.nvml.message == word_unjudged(verdict)
    assert f"{verdict.unjudged_rules} of {len(GPU_RULES)} GPU rules" in (report.nvml.message or "")


def test_a_report_is_of_the_moment_its_samples_were_scraped() -> None:
    cluster = Cluster("a")
    cluster.ages["a"] = 12.0
    verdicts = cluster.poll()
    (report,) = cluster.reports(verdicts)
    assert report.observed_at == START + timedelta(seconds=cluster.seconds - 12.0)
    assert (report.node, report.boot_id, report.expected_gpus) == ("a", "boot-1", 2)
    assert [gpu.index for gpu in report.gpus] == [0, 1]
    missing: Any = report.gpus[0].missing
    assert missing["nvlink_active_links"] == "not scraped"
    assert "temperature_celsius" not in missing
