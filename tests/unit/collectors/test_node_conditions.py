"""What a node's conditions and taints mean, and which of them make a row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from collectors.node_conditions import (
    FIELD_OF_TYPE,
    StoreWord,
    condition_rows,
    disagreement_facts,
    says_unhealthy,
)
from collectors.rules_kubernetes import CONDITION_RULES
from k8s.objects import Condition, Node, Taint
from tests.cluster_objects import make_node

SINCE = datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)


def node_with(*conditions: Condition, taints: tuple[Taint, ...] = (), ready: bool = True) -> Node:
    made = make_node("n")
    kept = made.status.conditions if ready else ()
    return msgspec.structs.replace(
        made,
        status=msgspec.structs.replace(made.status, conditions=(*kept, *conditions)),
        spec=msgspec.structs.replace(made.spec, taints=taints),
    )


def told(node: Node, **options: Any) -> dict[str, tuple[str, bool | None]]:
    """Field and value of each row, by subject."""
    return {row.subject: next(iter(row.values.items())) for row in condition_rows(node, **options)}


def test_a_node_that_is_well_makes_no_row() -> None:
    fine = [Condition(kind, "False") for kind in FIELD_OF_TYPE if not kind.endswith("Ready")]
    assert told(node_with(*fine, Condition("AcceleratedHardwareReady", "True"))) == {}


@pytest.mark.parametrize("kind", sorted(set(FIELD_OF_TYPE) - {"Ready"}))
def test_a_known_condition_that_is_bad_is_its_rules_row(kind: str) -> None:
    bad = "False" if kind.endswith("Ready") else "True"
    assert told(node_with(Condition(kind, bad))) == {kind: (FIELD_OF_TYPE[kind], True)}
    assert told(node_with(Condition(kind, "Unknown"))) == {kind: (FIELD_OF_TYPE[kind], None)}


def test_every_field_has_a_rule_and_every_rule_a_field() -> None:
    fields = {rule.conditions[0].field for rule in CONDITION_RULES}
    assert fields == {*FIELD_OF_TYPE.values(), "other_problem", "tainted_unhealthy"}


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_a_node_is_not_ready_whether_its_kubelet_says_so_or_is_silent(status: str) -> None:
    silent = node_with(Condition("Ready", status, "Why", "words", SINCE), ready=False)
    (row,) = condition_rows(silent)
    assert (row.since, row.values["why"]) == (SINCE, "Why: words")
    assert row.values["since"] == "2026-03-01 12:00:03 UTC"
    assert told(silent) == {"Ready": ("not_ready", True)}
    assert told(silent, planned="driver upgrade: x") == {"Ready": ("not_ready", None)}


def test_a_node_without_a_status_is_not_ready() -> None:
    assert told(node_with(ready=False)) == {"Ready": ("not_ready", True)}


@pytest.mark.parametrize(
    ("kind", "status", "bad"),
    [
        ("NTPProblem", "True", True),
        ("SomethingHealthy", "False", True),
        ("SomethingHealthy", "True", False),
        ("EtcdIsVoter", "True", False),
        ("KernelReady", "False", True),
        ("NTPProblem", "False", False),
    ],
)
def test_a_condition_nobody_knows_is_kept_by_what_its_name_says(
    kind: str, status: str, bad: bool
) -> None:
    expected = {kind: ("other_problem", True)} if bad else {}
    assert told(node_with(Condition(kind, status))) == expected


def test_a_whole_log_in_a_message_is_cut() -> None:
    (row,) = condition_rows(node_with(Condition("KernelDeadlock", "True", "X", "y" * 10_000)))
    assert len(row.values["why"]) == 300


@pytest.mark.parametrize(
    ("key", "effect", "unhealthy"),
    [
        ("node.kubernetes.io/out-of-service", "NoExecute", True),
        ("node.cloudprovider.kubernetes.io/shutdown", "NoSchedule", True),
        ("nvidia.com/gpu-nvlink-error", "NoSchedule", True),
        ("health.example.com/unhealthy", "PreferNoSchedule", False),
        ("node.kubernetes.io/unreachable", "NoExecute", False),
        ("node.kubernetes.io/not-ready", "NoExecute", False),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", False),
        ("nvidia.com/gpu", "NoSchedule", False),
        ("example.com/terror-team", "NoSchedule", False),
    ],
)
def test_a_taint_counts_when_its_name_says_a_fault_that_no_condition_says(
    key: str, effect: str, unhealthy: bool
) -> None:
    assert says_unhealthy(Taint(key, "", effect)) is unhealthy


def test_a_taint_is_a_row_of_its_own() -> None:
    taint = Taint("example.com/unhealthy", "xid-79", "NoExecute", SINCE)
    (row,) = condition_rows(node_with(taints=(taint,)))
    assert (row.subject, row.since) == ("example.com/unhealthy", SINCE)
    assert row.values["why"] == "xid-79, NoExecute"
    assert told(node_with(taints=(taint,)), planned="being removed: x") == {
        "example.com/unhealthy": ("tainted_unhealthy", None)
    }


def test_facts_set_kubernetes_s_word_beside_the_stores() -> None:
    made = make_node("n", gpus=7, unschedulable=True)
    capacity: dict[str, str | int] = {"nvidia.com/gpu": "8"}
    made = msgspec.structs.replace(
        made, status=msgspec.structs.replace(made.status, capacity=capacity)
    )
    facts = disagreement_facts(made, StoreWord(gpu_count=8, fatal_gpus=1))
    assert (facts.allocatable_gpus, facts.capacity_gpus, facts.gpu_count) == (7, 8, 8)
    assert (facts.is_ready, facts.is_schedulable, facts.fatal_gpus) == (True, False, 1)
