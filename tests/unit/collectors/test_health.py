"""Rules as entries, and the health that follows from findings."""

from __future__ import annotations

import importlib
import math
import string
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collectors.health
from collectors.collective import HANG_FIELDS
from collectors.conditions import Condition, Field
from collectors.health import BUILT_IN, RULES, NodeFacts, node_health
from collectors.job_interruptions import JOB_FIELDS
from collectors.node_conditions import FIELD_OF_TYPE, OTHER, TAINTED
from collectors.ports import PORT_FIELDS
from collectors.readings import GpuReading, PortReading
from collectors.report import Finding, NvmlState
from collectors.rule import Rule, describe
from collectors.stragglers import STRAGGLER_FIELDS
from collectors.trends import ADDED_FIELDS

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ANSWERING = NvmlState(answering=True, since=NOW)
SILENT = NvmlState(answering=False, since=NOW, message="NVML does not answer for 20 s")


def finding(
    severity: Any, *, changes_health: bool = True, rule: str = "r", age: int = 0
) -> Finding:
    return Finding(
        episode=f"e{rule}{age}",
        rule=rule,
        severity=severity,
        message=f"{rule} is {severity}",
        action="do it",
        since=NOW - timedelta(seconds=age),
        changes_health=changes_health,
    )


# The rules that the domain's table asks for, with their severities.
SEVERITIES = {
    "advice": {"persistence-off", "infiniband-counter-full"},
    "warning": {
        *("recovery-software", "temperature-margin-low", "slowdown-software-thermal"),
        *("clock-locked-low", "remap-pending", "remap-bank-low", "remap-bank-empty"),
        *("nvlink-replay", "nvlink-recovery", "pcie-replay", "pcie-generation-low"),
        *("pcie-width-low", "gpu-held-idle", "gpu-process-stray", "nvml-silent"),
        *("allocatable-below-capacity", "capacity-below-nvml", "ready-with-fatal-gpu"),
        "infiniband-port-flaps",
        *("node-pressure", "node-problem-frequent-restarts", "node-problem-gpu-degraded"),
        *("node-problem-other", "node-tainted", "job-interrupted", "straggler"),
    },
    "critical": {
        *("gpu-unreadable", "recovery-reset", "temperature-margin-gone", "slowdown-hardware"),
        *("slowdown-thermal", "power-brake", "ecc-uncorrected", "ecc-off", "remapped-rows"),
        *("nvlink-down", "nvlink-crc", "fabric-incomplete", "fabric-failed"),
        "infiniband-port-down",
        *("node-not-ready", "node-network-unavailable", "node-problem-kernel-deadlock"),
        *("node-problem-readonly-filesystem", "node-problem-gpu", "collective-hang"),
    },
    "fatal": {"gpu-lost", "gpu-reset-required", "recovery-reboot", "remap-failure", "gpu-count"},
}

KNOWN_FIELDS = {
    "gpu": {*GpuReading.__struct_fields__, *ADDED_FIELDS},
    "node": set(NodeFacts.__struct_fields__),
    "port": {*PortReading.__struct_fields__, *PORT_FIELDS},
    "condition": {*FIELD_OF_TYPE.values(), OTHER, TAINTED, "type", "why", "since"},
    "job": {*JOB_FIELDS, *HANG_FIELDS, *STRAGGLER_FIELDS},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_fires_on_its_example_and_stays_quiet_on_the_other(rule: Rule) -> None:
    assert rule.test(rule.fires.get) is True
    assert rule.test(rule.quiet.get) is False
    assert "{" not in describe(rule, rule.fires.get)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_on_columns_is_the_rule_on_rows(rule: Rule) -> None:
    nothing: dict[str, Any] = {}
    rows = [rule.fires, rule.quiet, nothing, rule.fires]
    stand_in = {c.field: c.absent for c in rule.conditions if c.absent is not None}
    columns = {
        name: np.array(
            [
                float(stand_in.get(name, np.nan) if row.get(name) is None else row[name])
                for row in rows
            ]
        )
        for name in rule.fields
    }
    held, refuted = rule.judge(columns.__getitem__)
    assert held.tolist() == [rule.test(row.get) is True for row in rows]
    assert refuted.tolist() == [rule.test(row.get) is False for row in rows]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_reads_and_names_only_fields_that_there_are(rule: Rule) -> None:
    words = {name for _, name, _, _ in string.Formatter().parse(rule.message) if name}
    assert (rule.fields | words) <= KNOWN_FIELDS[rule.scope]


def test_the_table_of_rules_is_whole_and_graded_as_the_domain_grades_it() -> None:
    found: dict[str, set[str]] = {}
    for rule in RULES:
        found.setdefault(rule.severity, set()).add(rule.name)
    assert found == SEVERITIES
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.source and rule.action for rule in RULES)
    assert BUILT_IN.all == RULES


def test_every_table_of_rules_in_a_file_of_rules_is_registered() -> None:
    for path in Path(collectors.health.__file__).parent.glob("rules_*.py"):
        module = importlib.import_module(f"collectors.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, tuple) and value and isinstance(value[0], Rule):
                assert all(rule in RULES for rule in value), path.name


def test_what_is_not_known_is_not_judged_and_what_is_refuted_needs_no_more() -> None:
    rule = next(rule for rule in RULES if rule.name == "ecc-uncorrected")
    assert rule.test({"ecc_uncorrected_total": None}.get) is None
    assert rule.test({"ecc_uncorrected_total": math.nan}.get) is None
    assert Condition("a", "<", Field("b")).judge({"a": 1, "b": None}.get) == (False, False)
    slow = next(rule for rule in RULES if rule.name == "pcie-width-low")
    assert slow.test({"gpu_utilization_ratio": 0.0}.get) is False
    assert slow.test({"gpu_utilization_ratio": 0.9}.get) is None


def test_all_rules_judge_the_gpus_of_a_whole_cluster_within_a_second() -> None:
    random = np.random.default_rng(1)
    gpus = 350_000
    columns = {
        name: np.where(random.random(gpus) < 0.01, np.nan, random.random(gpus) * 20)
        for name in sorted(set().union(*(rule.fields for rule in BUILT_IN.gpu)))
    }
    began = time.process_time()
    counts = {rule.name: int(rule.judge(columns.get)[0].sum()) for rule in BUILT_IN.gpu}
    seconds = time.process_time() - began
    print(f"{len(counts)} rules on {gpus} GPUs took {seconds:.2f} s of a core")
    assert counts["nvlink-down"] > 0
    assert seconds < 1.0


@pytest.mark.parametrize(
    ("findings", "nvml", "health"),
    [
        ([], ANSWERING, "Healthy"),
        ([finding("info"), finding("advice")], ANSWERING, "Healthy"),
        ([finding("warning")], ANSWERING, "Degraded"),
        ([finding("warning"), finding("critical")], ANSWERING, "Failing"),
        ([finding("fatal")], ANSWERING, "Failing"),
        ([finding("fatal", changes_health=False)], ANSWERING, "Healthy"),
        ([], SILENT, "Unknown"),
        ([finding("warning")], SILENT, "Unknown"),
        ([finding("fatal")], SILENT, "Failing"),
    ],
)
def test_health_follows_from_the_worst_finding(
    findings: list[Finding], nvml: NvmlState, health: str
) -> None:
    assert node_health(findings, nvml)[0] == health


def test_the_reason_names_the_worst_and_oldest_and_counts_the_others() -> None:
    findings = [
        finding("critical", rule="young"),
        finding("critical", rule="old", age=60),
        finding("warning", rule="mild", age=90),
    ]
    assert node_health(findings, ANSWERING)[1] == "old is critical (and 2 more)"
    assert node_health([], SILENT)[1] == "NVML does not answer for 20 s"
