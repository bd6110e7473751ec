from __future__ import annotations

import pytest

from k8s.view import view_of
from k8s.workloads import KINDS, kind_of, owner_of, rank_of
from k8s.workloads.job import JobKind, ignores_disruption
from k8s.workloads.kind import (
    SUSPENDED_BY_ANNOTATION,
    Suspension,
    read_suspension,
    write_suspension,
)
from tests.cluster_objects import make_job, make_pod

read = JobKind().read
IGNORE = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}


@pytest.mark.parametrize(
    ("options", "gang"),
    [
        ({}, True),
        ({"completions": None}, True),
        ({"mode": "NonIndexed"}, False),
        ({"parallelism": 1, "completions": 1}, False),
        ({"parallelism": None, "completions": None}, False),
        ({"parallelism": 2, "completions": 10}, False),
        ({"mode": "NonIndexed", "labels": {"pitwall.dev/gang": "true"}}, True),
        ({"labels": {"pitwall.dev/gang": "false"}}, False),
    ],
)
def test_a_gang_is_indexed_with_all_indexes_at_once_unless_a_label_says_otherwise(options, gang):
    workload = read(make_job(**options))
    assert workload.gang is gang
    assert workload.restart_path == ("suspend_resume" if gang else "evict")


def test_a_job_is_read_with_what_it_wants_and_whose_it_is():
    workload = read(
        make_job(
            labels={"pitwall.dev/team": "vision", "kueue.x-k8s.io/queue-name": "q"},
            status={"active": 3, "ready": 2, "terminating": 1, "succeeded": 1},
            generation=7,
        )
    )
    assert (workload.active, workload.ready, workload.terminating) == (3, 2, 1)
    assert workload.wanted_pods == 3
    assert (workload.team, workload.queue, workload.generation) == ("vision", "q", 7)
    assert workload.said == "Job default/job"


@pytest.mark.parametrize("how", ["Complete", "Failed"])
def test_a_finished_job_has_nothing_to_restart(how):
    workload = read(make_job(status={"conditions": [{"type": how, "status": "True"}]}))
    assert (workload.finished, workload.restart_path, workload.wanted_pods) == (how, "none", 0)


def test_a_job_of_another_controller_is_refused():
    workload = read(make_job(managedBy="kueue.x-k8s.io/multikueue"))
    assert workload.restart_path == "none"
    assert "kueue.x-k8s.io/multikueue" in (workload.refusal or "")
    assert read(make_job(managedBy="kubernetes.io/job-controller")).refusal is None


def test_a_job_in_a_queue_is_refused_only_where_kueue_runs():
    job = make_job(labels={"kueue.x-k8s.io/queue-name": "q"})
    assert read(job).refusal is None
    assert "Kueue" in (read(job, api_groups={"kueue.x-k8s.io"}).refusal or "")


@pytest.mark.parametrize(
    ("rules", "answer"),
    [
        (None, False),
        ([IGNORE], True),
        ([{**IGNORE, "action": "FailJob"}], False),
        ([{**IGNORE, "action": "FailJob"}, IGNORE], False),
        ([{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}, IGNORE], True),
        (
            [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [137]}}, IGNORE],
            False,
        ),
        (
            [{"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [0]}}, IGNORE],
            False,
        ),
        ([{"action": "Ignore", "onPodConditions": [{"type": "Other"}]}], False),
    ],
)
def test_the_first_rule_that_matches_an_evicted_pod_decides_its_count(rules, answer):
    assert ignores_disruption({"rules": rules} if rules else None) is answer


def test_the_backoff_that_evictions_would_spend_is_told():
    independent = {"mode": "NonIndexed", "status": {"failed": 2}, "backoffLimit": 4}
    workload = read(make_job(**independent))
    assert workload.backoff_left == 2
    assert "2 of backoffLimit 4 left" in workload.warnings[0]
    spared = read(make_job(**independent, podFailurePolicy={"rules": [IGNORE]}))
    assert (spared.backoff_left, spared.warnings) == (None, ())
    assert read(make_job(mode="NonIndexed")).backoff_left == 6


def test_our_suspension_is_read_back_and_a_copied_one_is_nobodys():
    text = write_suspension(Suspension("op-1", False, "uid-job"))
    ours = make_job(suspend=True, annotations={SUSPENDED_BY_ANNOTATION: text})
    assert read(ours).suspended_by == "op-1"
    copied = make_job("copy", suspend=True, annotations={SUSPENDED_BY_ANNOTATION: text})
    assert read(copied).suspended_by is None
    broken = make_job(annotations={SUSPENDED_BY_ANNOTATION: "{"})
    assert read_suspension(broken.metadata) is None


def test_the_rank_is_the_outermost_index():
    assert rank_of(make_pod("a", rank=3)) == 3
    pod = make_pod("a", rank=3, labels={"jobset.sigs.k8s.io/job-global-index": "11"})
    assert rank_of(pod) == 11
    annotated = {"batch.kubernetes.io/job-completion-index": "5"}
    assert rank_of(make_pod("a", annotations=annotated)) == 5
    assert rank_of(make_pod("a")) is None
    assert rank_of(make_pod("a", labels={"volcano.sh/task-index": "-"})) is None


def test_the_owner_is_followed_by_group_and_uid():
    view = view_of(jobs=[make_job()])
    assert owner_of(make_pod("a"), view) == view.workloads["uid-job"]
    assert owner_of(make_pod("a", owner=None), view) is None
    volcano = owner_of(make_pod("a", owner=("batch.volcano.sh/v1alpha1", "Job", "uid-job")), view)
    assert volcano is not None
    assert volcano.restart_path == "none"
    assert "no kind that Pitwall restarts" in (volcano.refusal or "")


def test_an_owner_that_replaces_its_pods_is_left_to_do_so():
    owner = owner_of(make_pod("a", owner=("apps/v1", "StatefulSet", "uid-s")), view_of())
    assert owner is not None
    assert (owner.restart_path, owner.refusal) == ("evict", None)


def test_the_topmost_owner_is_the_one_to_act_on():
    owned = make_job(owner=("jobset.x-k8s.io/v1alpha2", "JobSet", "uid-set"))
    view = view_of(jobs=[owned])
    owner = owner_of(make_pod("a"), view)
    assert owner is not None
    assert (owner.kind, owner.uid) == ("JobSet", "uid-set")
    assert view.workloads["uid-job"].restart_path == "none"


def test_a_workload_finds_its_registered_kind():
    assert kind_of(read(make_job())) is KINDS[0]
    foreign = owner_of(make_pod("a", owner=("example.com/v1", "Thing", "u")), view_of())
    assert foreign is not None
    assert kind_of(foreign) is None


def test_every_kind_in_the_folder_is_registered():
    import importlib
    import pkgutil

    import k8s.workloads as package

    registered = {type(kind) for kind in KINDS}
    for module in pkgutil.iter_modules(package.__path__):
        found = importlib.import_module(f"k8s.workloads.{module.name}")
        for name, value in vars(found).items():
            if name.endswith("Kind") and isinstance(value, type) and name != "WorkloadKind":
                assert value in registered, f"{name} is not in KINDS"
