from __future__ import annotations

from datetime import UTC, datetime

from collectors.kubernetes import (
    Holder,
    PlacementKey,
    TopologyLabels,
    apply_changes,
    job_facts,
    node_facts,
    placement_changes,
    placements,
    pod_facts,
)
from k8s.nodes import OPERATION_ANNOTATION, NodeHold, write_hold
from k8s.view import ClusterView, view_of
from tests.cluster_objects import LEAF, SPINE, make_job, make_node, make_pod

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def facts_of(view: ClusterView):
    labels = TopologyLabels(block=SPINE, rack=LEAF, leaf=LEAF, power="site.example/pdu")
    return {fact.name: fact for fact in node_facts(view, labels)}


def test_a_node_is_told_with_its_place_its_gpus_and_who_holds_it():
    hold = write_hold(NodeHold("op-1", was_unschedulable=False))
    node = make_node(
        "n",
        gpus=7,
        unschedulable=True,
        labels={SPINE: "s1", LEAF: "l1", "site.example/pdu": "pdu-4"},
        annotations={OPERATION_ANNOTATION: hold},
    )
    pods = [
        make_pod("a", node="n", gpus=4),
        make_pod("ended", node="n", gpus=2, phase="Failed"),
        make_pod("ending", node="n", gpus=1, deletion="2026-03-01T00:00:00Z"),
    ]
    fact = facts_of(view_of(nodes=[node], pods=pods))["n"]
    assert (fact.block, fact.rack, fact.leaf, fact.power_domain) == ("s1", "l1", "l1", "pdu-4")
    assert (fact.gpu_count_expected, fact.gpu_allocatable, fact.gpu_requested) == (8, 7, 5)
    assert (fact.ready, fact.unschedulable, fact.operation_id) == (True, True, "op-1")


def test_a_node_without_a_label_for_its_power_domain_has_none():
    (fact,) = node_facts(
        view_of(nodes=[make_node("n", labels={"": "odd"})]), TopologyLabels(block=SPINE, rack=LEAF)
    )
    assert (fact.leaf, fact.power_domain) == (None, None)


def test_a_node_that_is_not_ready_says_why():
    fact = facts_of(view_of(nodes=[make_node("n", ready="Unknown")]))["n"]
    assert not fact.ready
    assert fact.ready_reason.startswith("KubeletReady")


def test_a_gpu_node_that_lost_all_its_gpus_is_still_one_and_a_cpu_node_is_not():
    cpu = make_node("cpu", gpus=0)
    cpu.metadata.labels.clear()
    assert set(facts_of(view_of(nodes=[make_node("dead", gpus=0), cpu]))) == {"dead"}


def test_pods_with_gpus_are_told_with_rank_and_job():
    view = view_of(
        jobs=[make_job()], pods=[make_pod("a", node="n", rank=2), make_pod("web", gpus=0)]
    )
    (fact,) = pod_facts(view)
    assert (fact.name, fact.rank, fact.job_uid, fact.owner) == ("a", 2, "uid-job", "Job/job")
    assert (fact.gpus, fact.node, fact.phase, fact.ready) == (8, "n", "Running", True)


def jobs_of(view: ClusterView):
    return {fact.name: fact for fact in job_facts(view, pod_facts(view))}


def test_a_whole_gang_is_running_and_a_broken_one_is_not():
    job = make_job(parallelism=2, completions=2)
    ranks = [make_pod(f"p{i}", node=f"n{i}", rank=i) for i in range(2)]
    whole = jobs_of(view_of(jobs=[job], pods=ranks))["job"]
    assert (whole.state, whole.running_pods, whole.wanted_pods, whole.gpus) == ("Running", 2, 2, 16)
    broken = jobs_of(view_of(jobs=[job], pods=ranks[:1]))["job"]
    assert (broken.state, broken.reason) == ("Pending", "1 of 2 pods run")
    assert broken.gpus == 16


def test_independent_pods_run_when_any_does():
    job = make_job(parallelism=2, completions=2, mode="NonIndexed")
    fact = jobs_of(view_of(jobs=[job], pods=[make_pod("p", node="n")]))["job"]
    assert (fact.state, fact.reason) == ("Running", "1 of 2 pods run")


def test_a_suspended_job_keeps_its_gpus_in_mind():
    fact = jobs_of(view_of(jobs=[make_job(suspend=True)]))["job"]
    assert (fact.state, fact.reason, fact.gpus) == ("Suspended", "suspended", 32)


def test_an_owner_that_is_not_watched_is_told_by_its_pods():
    pods = [
        make_pod(f"w-{i}", node="n", owner=("apps/v1", "StatefulSet", "uid-w")) for i in range(2)
    ]
    fact = jobs_of(view_of(pods=pods))["w"]
    assert (fact.kind, fact.state, fact.running_pods, fact.gpus) == (
        "StatefulSet",
        "Running",
        2,
        16,
    )


def test_a_job_below_a_jobset_is_told_as_the_jobset():
    job = make_job(owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-set"))
    assert set(jobs_of(view_of(jobs=[job], pods=[make_pod("p", node="n")]))) == {"set"}


def test_a_job_without_gpus_is_no_training_job():
    assert jobs_of(view_of(jobs=[make_job(gpus=0)])) == {}


# --- placements -----------------------------------------------------------------------------


def held(*pods, gpus=None):
    return placements(view_of(jobs=[make_job()], pods=list(pods)), gpus or {})


def test_a_placement_is_rank_pod_node_and_gpu():
    found = held(make_pod("a", node="n", rank=1), gpus={"uid-a": ("GPU-1", "GPU-2")})
    assert found == {
        PlacementKey("uid-a", "n", "GPU-1"): Holder("uid-job", 1),
        PlacementKey("uid-a", "n", "GPU-2"): Holder("uid-job", 1),
    }


def test_pods_that_hold_nothing_are_no_placement():
    assert held(make_pod("a"), make_pod("b", node="n", phase="Failed")) == {}
    assert held(make_pod("c", node="n", gpus=0)) == {}


def test_a_terminating_pod_still_holds_its_gpus():
    assert len(held(make_pod("a", node="n", deletion="2026-03-01T00:00:00Z"))) == 1


def kinds(changes):
    return [(change.kind, change.pod_uid, change.gpu_uuid) for change in changes]


def test_a_pod_opens_its_interval_and_closes_it():
    after = held(make_pod("a", node="n", rank=1))
    (opened,) = placement_changes({}, after, now=NOW)
    assert (opened.kind, opened.node, opened.rank, opened.job_uid) == ("opened", "n", 1, "uid-job")
    assert opened.at == NOW
    (closed,) = placement_changes(after, {}, now=NOW)
    assert closed.kind == "closed"
    assert placement_changes(after, after, now=NOW) == []


def test_naming_the_gpu_closes_the_unnamed_interval():
    pod = make_pod("a", node="n")
    changes = placement_changes(held(pod), held(pod, gpus={"uid-a": ["GPU-1"]}), now=NOW)
    assert kinds(changes) == [("closed", "uid-a", ""), ("opened", "uid-a", "GPU-1")]


def test_an_agent_that_falls_silent_moves_nothing():
    pod = make_pod("a", node="n")
    named = held(pod, gpus={"uid-a": ["GPU-1"]})
    changes = placement_changes(named, held(pod), now=NOW)
    assert changes == []
    again = apply_changes(named, changes)
    assert kinds(placement_changes(again, {}, now=NOW)) == [("closed", "uid-a", "GPU-1")]


def test_a_rank_that_comes_back_elsewhere_is_another_interval():
    before = held(make_pod("a", node="n1", rank=0))
    after = held(make_pod("b", node="n2", rank=0))
    changes = placement_changes(before, after, now=NOW)
    assert kinds(changes) == [("closed", "uid-a", ""), ("opened", "uid-b", "")]
    assert apply_changes(before, changes) == after


def test_a_failed_job_says_why_in_its_controllers_words():
    ended = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded",
             "message": "Job has reached the specified backoff limit"}  # fmt: skip
    view = view_of(jobs=[make_job("lost", status={"conditions": [ended]})], observed_at=NOW)
    (fact,) = job_facts(view, pod_facts(view))
    assert fact.state == "Failed"
    assert fact.reason == "BackoffLimitExceeded: Job has reached the specified backoff limit"
