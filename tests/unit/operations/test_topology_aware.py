"""One node of a topology-aware Workload at a time."""

import pytest
from cluster_builders import job, node, pod, view

from app.operations.topology_aware import topology_lines, topology_workload

TOLD = {
    "kueue.x-k8s.io/workload": "wl-llm",
    "kueue.x-k8s.io/podset-required-topology": "network.topology.nvidia.com/leaf",
}


def placed(name, where, *, owner="llm", annotations=TOLD, **more):
    return pod(name, where, owner=owner, annotations=annotations, **more)


def fleet(*pods, gang=False, dead=()):
    nodes = [node(name, ready=name not in dead) for name in "abcd"]
    return view(*nodes, job(gang=gang, ranks=len(pods)), *pods)


def lines(seen, *nodes, held=(), out=(), **more):
    return topology_lines(set(nodes), view=seen, held=set(held), out=set(out), **more)


def test_only_pods_that_kueue_placed_by_topology_have_a_workload():
    assert topology_workload(placed("x", "a")) == ("team-a", "wl-llm")
    by_label = pod(
        "x",
        "a",
        labels={"kueue.x-k8s.io/tas": "true"},
        annotations={"kueue.x-k8s.io/workload": "wl-llm"},
    )
    assert topology_workload(by_label) == ("team-a", "wl-llm")
    assert topology_workload(pod("x", "a")) is None
    assert topology_workload(placed("x", "a", annotations={"kueue.x-k8s.io/workload": "w"})) is None


@pytest.mark.parametrize(
    ("nodes", "held", "dead", "over"),
    [
        (("a",), (), (), False),
        (("a", "b"), (), (), True),
        (("a",), ("b",), (), True),  # another drain is moving it off b
        (("a",), (), ("b",), True),  # b failed under it
        (("a",), ("d",), ("c",), False),  # nothing of it is there
        (("a",), ("a",), (), False),
    ],
)
def test_a_second_node_of_it_is_refused(nodes, held, dead, over):
    seen = fleet(placed("w-0", "a"), placed("w-1", "b"), dead=dead)
    found = lines(seen, *nodes, held=held, out=dead)
    assert [line.is_over for line in found] == [over]
    assert all("wl-llm" in line.message for line in found)


def test_a_workload_that_is_restarted_whole_may_lose_several_at_once():
    seen = fleet(placed("w-0", "a", rank=0), placed("w-1", "b", rank=1), gang=True)
    assert [line.is_over for line in lines(seen, "a", "b")] == [False]
    assert [line.is_over for line in lines(seen, "a", "b", restarts=False)] == [True]
    assert [line.is_over for line in lines(seen, "a", held=("b",))] == [True]


def test_nodes_without_such_pods_have_no_line():
    assert lines(fleet(pod("w-0", "a"), placed("w-1", "b", phase="Succeeded")), "a", "b") == []
