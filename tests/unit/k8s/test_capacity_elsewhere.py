from __future__ import annotations

import time

import pytest

from k8s.capacity import PodDemand, demand_of, fit, free_gpus
from k8s.objects import Toleration
from k8s.view import ClusterView, view_of
from tests.cluster_objects import LEAF, SPINE, make_node, make_pod

RANK = PodDemand(8)


def cluster(nodes: int, *, busy: int = 0, **options) -> ClusterView:
    made = [make_node(f"n{i}", **options) for i in range(nodes)]
    return view_of(nodes=made, pods=[make_pod(f"p{i}", node=f"n{i}") for i in range(busy)])


def test_free_gpus_are_allocatable_less_the_requests_of_live_pods():
    pods = [
        make_pod("live", node="n0", gpus=3),
        make_pod("ended", node="n0", gpus=2, phase="Succeeded"),
        make_pod("ending", node="n1", gpus=4, deletion="2026-03-01T00:00:00Z"),
    ]
    view = view_of(nodes=[make_node("n0"), make_node("n1"), make_node("cpu", gpus=0)], pods=pods)
    assert free_gpus(view) == {"n0": 5, "n1": 4}
    assert free_gpus(view, released={"uid-ending"}) == {"n0": 5, "n1": 8}


def test_fits_on_free_nodes_off_the_excluded_ones():
    found = fit([RANK, RANK], view=cluster(4, busy=1), excluded_nodes={"n3"})
    assert found.verdict == "fits"
    assert sorted(found.nodes) == ["n1", "n2"]


def test_does_not_fit_says_how_much_there_is():
    found = fit([RANK, RANK], view=cluster(2, busy=1))
    assert found.verdict == "does_not_fit"
    assert "needs 16 GPUs in 2 pods; 8 are free" in found.reason


def test_half_nodes_do_not_make_a_whole_one():
    view = view_of(
        nodes=[make_node("n0"), make_node("n1")],
        pods=[make_pod("a", node="n0", gpus=4), make_pod("b", node="n1", gpus=4)],
    )
    assert fit([RANK], view=view).verdict == "does_not_fit"
    assert fit([PodDemand(4), PodDemand(4)], view=view).verdict == "fits"


def test_what_a_gang_gives_up_itself_counts_as_free():
    view = cluster(2, busy=2)
    assert fit([RANK], view=view, excluded_nodes={"n0"}).verdict == "does_not_fit"
    assert fit([RANK], view=view, excluded_nodes={"n0"}, released={"uid-p1"}).verdict == "fits"


def test_reservations_of_other_operations_are_taken_off():
    assert fit([RANK], view=cluster(1), reserved={"n0": 8}).verdict == "does_not_fit"
    assert fit([PodDemand(4)], view=cluster(1), reserved={"n0": 4}).verdict == "fits"


@pytest.mark.parametrize(
    "options",
    [
        {"ready": "Unknown"},
        {"unschedulable": True},
        {"taints": [{"key": "sick", "effect": "NoSchedule"}]},
        {"gpus": 0},
    ],
)
def test_nodes_that_take_no_pods_do_not_count(options):
    assert fit([RANK], view=cluster(1, **options)).verdict == "does_not_fit"


def test_a_tolerated_taint_and_a_matching_selector_do_count():
    view = cluster(1, taints=[{"key": "gpu", "effect": "NoSchedule"}], labels={"pool": "a"})
    tolerant = PodDemand(
        8, node_selector={"pool": "a"}, tolerations=(Toleration(key="gpu", operator="Exists"),)
    )
    assert fit([tolerant], view=view).verdict == "fits"
    assert fit([PodDemand(8, node_selector={"pool": "b"})], view=view).verdict == "does_not_fit"


def two_racks(free_in_a: int, free_in_b: int) -> ClusterView:
    nodes = [make_node(f"a{i}", labels={LEAF: "a", SPINE: "s"}) for i in range(free_in_a)]
    nodes += [make_node(f"b{i}", labels={LEAF: "b", SPINE: "s"}) for i in range(free_in_b)]
    return view_of(nodes=nodes)


def test_a_required_domain_is_kept_and_the_smallest_that_does_is_taken():
    demand = [PodDemand(8, required_topology=LEAF)] * 2
    found = fit(demand, view=two_racks(4, 2))
    assert found.verdict == "fits"
    assert set(found.nodes) == {"b0", "b1"}


def test_room_only_across_domains_is_said():
    found = fit([RANK] * 3, view=two_racks(2, 2), topology_label=LEAF)
    assert found.verdict == "outside_domain"
    assert len(found.nodes) == 3
    assert fit([RANK] * 3, view=two_racks(2, 2), topology_label=SPINE).verdict == "fits"


def test_without_a_required_domain_any_nodes_do():
    assert fit([RANK] * 3, view=two_racks(2, 2)).verdict == "fits"


@pytest.mark.parametrize("priority", [0, 10])
def test_pending_pods_ahead_in_the_queue_are_placed_first(priority):
    waiting = make_pod("waiting", phase="Pending", priority=priority)
    view = view_of(nodes=[make_node("n0")], pods=[waiting])
    found = fit([RANK], view=view)
    assert found.verdict == "does_not_fit"
    assert "after 8 GPUs for pending pods ahead" in found.reason
    assert fit([PodDemand(8, priority=priority + 1)], view=view).verdict == "fits"
    assert fit([RANK], view=view, released={"uid-waiting"}).verdict == "fits"


def test_a_gated_pod_does_not_compete():
    gated = make_pod("gated", phase="Pending", schedulingGates=[{"name": "kueue"}])
    assert fit([RANK], view=view_of(nodes=[make_node("n0")], pods=[gated])).verdict == "fits"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"resourceClaims": [{"name": "gpu"}]}, "resource claims"),
        ({"schedulerName": "volcano"}, "another scheduler"),
        (
            {
                "affinity": {
                    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}
                }
            },
            "podAntiAffinity",
        ),
        (
            {"topologySpreadConstraints": [{"whenUnsatisfiable": "DoNotSchedule"}]},
            "spread constraint",
        ),
    ],
)
def test_what_else_decides_the_place_makes_it_unknown(spec, why):
    found = fit([demand_of(make_pod("a", **spec))], view=cluster(4))
    assert found.verdict == "unknown"
    assert why in found.reason


def test_soft_wishes_do_not():
    pod = make_pod(
        "a",
        affinity={"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{}]}},
        topologySpreadConstraints=[{"whenUnsatisfiable": "ScheduleAnyway"}],
    )
    assert fit([demand_of(pod)], view=cluster(1)).verdict == "fits"


def test_a_cluster_that_was_not_seen_whole_is_unknown():
    assert fit([RANK], view=ClusterView()).verdict == "unknown"


def test_a_gang_of_2048_ranks_on_2400_nodes_is_answered_quickly():
    view = cluster(2400, busy=300, labels={SPINE: "s"})
    began = time.perf_counter()
    found = fit([RANK] * 2048, view=view, topology_label=SPINE)
    assert found.verdict == "fits"
    assert len(set(found.nodes)) == 2048
    assert time.perf_counter() - began < 1
