"""Rules as entries, and the health that follows from findings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from collectors.health import RULES, Condition, Field, Rule, describe, node_health
from collectors.report import Finding, NvmlState

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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_rule_fires_on_its_example_and_stays_quiet_on_the_other(rule: Rule) -> None:
    assert rule.test(rule.fires.get) is True
    assert rule.test(rule.quiet.get) is False
    assert "{" not in describe(rule, rule.fires.get)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_on_columns_is_the_rule_on_rows(rule: Rule) -> None:
    rows = [rule.fires, rule.quiet, rule.fires]
    names = {condition.field for condition in rule.conditions} | {
        condition.limit.name for condition in rule.conditions if isinstance(condition.limit, Field)
    }
    stand_in = {c.field: c.absent for c in rule.conditions}
    columns = {
        name: np.array([stand_in.get(name) if row[name] is None else row[name] for row in rows])
        for name in names
    }
    assert rule.test(columns.__getitem__).tolist() == [True, False, True]


def test_rule_names_are_unique_and_each_says_where_its_threshold_is_from() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.source and rule.action for rule in RULES)


def test_what_is_not_known_is_not_judged() -> None:
    rule = next(rule for rule in RULES if rule.name == "ecc-uncorrected")
    assert rule.test({"ecc_uncorrected_total": None}.get) is None
    assert Condition("a", "<", Field("b")).test({"a": 1, "b": None}.get) is None


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
