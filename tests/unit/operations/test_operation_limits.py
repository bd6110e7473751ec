"""Stock and rate: what may be out of service at once, and within an hour."""

import re
from datetime import timedelta

import msgspec
import pytest
from cluster_builders import NOW, node, stamp, view

from app.limits import LimitSettings, judge_limits
from app.operations.service import Holding, Seen, next_service
from app.settings import Settings
from k8s.objects import Condition


def fleet(size, *, cordoned=0, dead=0):
    nodes = [
        node(f"n{i}", cordoned=i < cordoned, ready=not cordoned <= i < cordoned + dead)
        for i in range(size)
    ]
    return view(*nodes)


def judge(seen, *nodes, held=(), taken=0, typed=(), warn_only=False, **settings):
    return judge_limits(
        set(nodes),
        view=seen,
        held=set(held),
        taken_in_window=taken,
        settings=LimitSettings(
            **{"max_drains_per_hour_ratio": 1.0, "max_drains_per_hour": 100, **settings}
        ),
        now=NOW,
        typed=set(typed),
        warn_only=warn_only,
    )


@pytest.mark.parametrize(
    ("size", "cordoned", "dead", "wanted", "verdict"),
    [
        (4, 0, 0, ("n3",), "warned"),  # one of four, though 10 % is no whole node
        (4, 0, 0, ("n2", "n3"), "refused"),
        (4, 1, 0, ("n3",), "refused"),  # somebody else's cordon counts
        (4, 0, 1, ("n3",), "refused"),  # so does a dead node
        (4, 1, 0, ("n0",), "warned"),  # which is out already: nothing gets worse
        (4, 3, 0, ("n0", "n1"), "warned"),
        (40, 0, 0, ("n1", "n2", "n3"), "ok"),
        (40, 0, 0, ("n1", "n2", "n3", "n4"), "warned"),
        (40, 0, 0, ("n1", "n2", "n3", "n4", "n5"), "refused"),
        (30, 0, 0, ("n1", "n2", "n3"), "warned"),  # 10 % of 30 is 3 in spite of binary fractions
    ],
)
def test_the_stock_limit_counts_what_the_cluster_says(size, cordoned, dead, wanted, verdict):
    limits = judge(fleet(size, cordoned=cordoned, dead=dead), *wanted)
    assert limits.verdict == verdict
    assert bool(limits.refusal) == (verdict == "refused")


def test_nodes_of_accepted_operations_count_before_they_are_cordoned():
    assert judge(fleet(20), "n1", held=("n5",)).verdict == "warned"
    assert judge(fleet(20), "n1", held=("n5", "n6")).verdict == "refused"


@pytest.mark.parametrize(
    ("size", "taken", "verdict"),
    [
        (64, 0, "ok"),
        (64, 1, "warned"),
        (64, 2, "refused"),
        (2000, 9, "warned"),
        (2000, 10, "refused"),
        (8, 0, "warned"),
        (8, 1, "refused"),
    ],
)
def test_the_rate_limit_is_the_lower_of_share_and_number(size, taken, verdict):
    limits = judge(
        fleet(size),
        "n1",
        taken=taken,
        max_drains_per_hour=10,
        max_drains_per_hour_ratio=0.02,
        max_unavailable_nodes_ratio=0.5,
    )
    assert limits.verdict == verdict


def test_a_refusal_names_the_settings_as_they_are_set():
    said = judge(fleet(4, cordoned=1), "n3", max_drains_per_hour=0).refusal
    named = re.findall(r"[A-Z_]{8,}", said)
    prefix = Settings.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in Settings.model_fields}
    assert len(set(named)) == 4
    assert set(named) <= known


@pytest.mark.parametrize(
    ("size", "cordoned", "wanted", "over"),
    [
        (100, 48, 1, set()),
        (100, 49, 1, {"floor"}),  # 51 of 100 stay usable, and not one fewer
        (100, 60, 0, set()),  # out already: nothing gets worse
        (4, 0, 1, set()),
        (2, 0, 1, set()),  # one may always be taken
        (2, 1, 1, {"floor"}),
    ],
)
def test_the_floor_keeps_51_of_100_nodes_usable(size, cordoned, wanted, over):
    nodes = [f"n{size - 1 - number}" for number in range(wanted)] or ["n0"]
    limits = judge(fleet(size, cordoned=cordoned), *nodes, max_unavailable_nodes_ratio=1)
    assert {line.name for line in limits.lines if line.is_over} == over


def test_who_types_a_limits_name_goes_past_that_one_and_never_past_the_floor():
    nodes = [f"n{number}" for number in range(5)]
    assert judge(fleet(40), *nodes).verdict == "refused"
    passed = judge(fleet(40), *nodes, typed={"stock"})
    assert (passed.verdict, passed.refusal) == ("warned", "")
    assert [line.passed for line in passed.lines if line.name == "stock"] == [True]
    assert judge(fleet(40), *nodes, typed={"rate"}).verdict == "refused"
    most = [f"n{number}" for number in range(30)]
    held = judge(fleet(40), *most, typed={"stock", "floor", "rate"})
    assert [line.name for line in held.lines if line.is_over and not line.passed] == ["floor"]
    assert "PITWALL_MIN_USABLE_NODES_RATIO" in held.refusal


def test_a_block_loses_a_quarter_of_its_nodes_at_most():
    label = "network.topology.nvidia.com/spine"
    seen = view(
        *[node(f"a{i}", labels={label: "a"}, cordoned=i == 7) for i in range(8)],
        *[node(f"b{i}", labels={label: "b"}) for i in range(40)],
    )
    near = judge(seen, "a0", max_unavailable_nodes_ratio=1, block_label=label)
    assert [(line.now, line.after, line.limit) for line in near.lines if line.name == "block"] == [
        (1, 2, 2)
    ]
    over = judge(seen, "a0", "a1", "b0", max_unavailable_nodes_ratio=1, block_label=label)
    assert over.verdict == "refused"
    assert "block a" in over.refusal
    assert sum(line.name == "block" for line in over.lines) == 2
    assert judge(seen, "a0", "a1", max_unavailable_nodes_ratio=1).verdict == "ok"


def test_a_persons_cordon_that_evicts_nothing_is_told_of_limits_and_refused_by_none():
    most = [f"n{number}" for number in range(30)]
    told = judge(fleet(40), *most, warn_only=True, max_drains_per_hour=5)
    assert told.verdict == "warned"
    assert {line.name for line in told.lines if line.passed} == {"stock", "floor", "rate"}


def joining(name, *, age_seconds=300, status="False", reason="KubeletNotReady", changed_after=0):
    made_at = NOW - timedelta(seconds=age_seconds)
    made = node(name, made_at=made_at)
    said = {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "lastTransitionTime": stamp(made_at + timedelta(seconds=changed_after)),
    }
    conditions = (msgspec.convert(said, Condition),)
    status_now = msgspec.structs.replace(made.status, conditions=conditions)
    return msgspec.structs.replace(made, status=status_now)


@pytest.mark.parametrize(
    ("how", "joins"),
    [
        ({}, True),
        ({"status": "Unknown", "reason": "NodeStatusNeverUpdated"}, True),
        ({"age_seconds": 601}, False),  # it should have come by now
        ({"changed_after": 120}, False),  # it was Ready, and failed
        (
            {"status": "Unknown", "reason": "NodeStatusUnknown"},
            False,
        ),  # it was heard, and fell silent
    ],
)
def test_nodes_that_join_do_not_trip_limits(how, joins):
    old = [node(f"n{number}") for number in range(20)]
    new = [joining(f"new{number}", **how) for number in range(20)]
    limits = judge(view(*old, *new), "n1")
    stock = next(line for line in limits.lines if line.name == "stock")
    assert (stock.now, stock.limit) == ((0, 2) if joins else (20, 4))
    assert limits.verdict == ("ok" if joins else "refused")


def test_a_new_node_that_somebody_cordoned_is_out_of_service():
    made_at = NOW - timedelta(seconds=5)
    seen = view(*[node(f"n{i}", cordoned=i < 2, made_at=made_at) for i in range(20)])
    assert judge(seen, "n9").verdict == "refused"


def test_a_joining_node_that_is_drained_counts_as_any_other():
    seen = view(*[node(f"n{number}") for number in range(20)], joining("new"))
    assert [line.after for line in judge(seen, "new").lines if line.name == "stock"] == [1]


def test_each_limit_says_what_remains_of_it():
    limits = judge(fleet(40, cordoned=1), "n9", taken=2, max_drains_per_hour=7)
    remaining = {line.name: line.remaining for line in limits.lines}
    assert (remaining["stock"], remaining["rate"]) == (3, 5)


def test_a_limit_of_zero_allows_nothing():
    assert judge(fleet(8), "n1", max_unavailable_nodes_ratio=0).verdict == "refused"
    assert judge(fleet(8), "n1", max_drains_per_hour=0).verdict == "refused"


HOLD = '{"operation": "op1", "was_unschedulable": false}'


@pytest.mark.parametrize(
    ("seen", "open_state", "ended_state", "service"),
    [
        (node("a"), None, None, "In service"),
        (node("a", cordoned=True), None, None, "Cordoned"),
        (node("a"), "Cordoning", None, "Draining"),
        (node("a", cordoned=True, hold=HOLD), "Draining", None, "Draining"),
        (node("a", cordoned=True, hold=HOLD), "Drained", None, "Drained"),
        (node("a", cordoned=True, hold=HOLD), None, "Drained", "Drained"),
        (node("a", cordoned=True, hold=HOLD), None, "Draining", "Cordoned"),
        (node("a", hold=HOLD), None, "Drained", "In service"),
    ],
)
def test_a_nodes_service_follows_its_operation_and_its_cordon(
    seen, open_state, ended_state, service
):
    holding = Holding("op1", "drain", open_state, True) if open_state else None
    ended = Holding("op1", "drain", ended_state, False) if ended_state else None
    found = next_service(None, Seen(seen, holding, ended), now=NOW, probation_seconds=3600)
    assert found.state == service
