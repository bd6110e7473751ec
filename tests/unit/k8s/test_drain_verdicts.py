"""The filters of a drain, row by row."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from k8s.drain import DrainOptions, PodVerdict, evictable, judge_pods
from k8s.objects import Pod
from k8s.view import view_of
from tests.cluster_objects import make_job, make_pod

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAEMON = ("apps/v1", "DaemonSet", "uid-exporter")
SHARED_MEMORY = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
SCRATCH = [{"name": "scratch", "emptyDir": {}}]


def judge(pod: Pod, **options: bool) -> PodVerdict:
    view = view_of(jobs=[make_job()], pods=[pod], observed_at=NOW)
    return judge_pods([pod], view=view, options=DrainOptions(**options), now=NOW)[0]


def test_a_training_pod_goes():
    assert judge(make_pod("a")) == PodVerdict(make_pod("a"), "evict")


def test_a_terminating_pod_is_waited_for_and_says_when_it_is_late():
    verdict = judge(make_pod("a", deletion="2026-03-01T11:58:00Z"))
    assert verdict.action == "gone"
    assert verdict.warnings == ("is terminating already, 120 s past its grace",)


def test_a_daemonset_pod_stays_by_default():
    assert judge(make_pod("a", owner=DAEMON)).action == "skip"


def test_a_daemonset_pod_blocks_when_it_may_not_be_ignored():
    verdict = judge(make_pod("a", owner=DAEMON), ignore_daemonsets=False)
    assert verdict.action == "block"
    assert "DaemonSet exporter" in verdict.reasons[0]


def test_a_finished_daemonset_pod_goes():
    assert judge(make_pod("a", owner=DAEMON, phase="Succeeded")).action == "evict"


def test_a_kind_that_only_calls_itself_daemonset_is_none():
    assert judge(make_pod("a", owner=("example.com/v1", "DaemonSet", "uid-x"))).action == "evict"


def test_a_mirror_pod_is_skipped_silently():
    pod = make_pod("a", owner=None, annotations={"kubernetes.io/config.mirror": "x"})
    assert judge(pod) == PodVerdict(pod, "skip")


def test_an_emptydir_on_disk_blocks_until_its_loss_is_accepted():
    pod = make_pod("a", volumes=SCRATCH)
    verdict = judge(pod)
    assert verdict.action == "block"
    assert "--delete-emptydir-data" in verdict.reasons[0]
    accepted = judge(pod, delete_emptydir_data=True)
    assert accepted.action == "evict"
    assert accepted.warnings == ("loses its emptyDir scratch",)


def test_shared_memory_only_warns():
    verdict = judge(make_pod("a", volumes=SHARED_MEMORY))
    assert verdict.action == "evict"
    assert verdict.warnings == ("loses its emptyDir shm",)


def test_a_finished_pod_may_lose_its_emptydir():
    assert judge(make_pod("a", volumes=SCRATCH, phase="Failed")) == PodVerdict(
        make_pod("a", volumes=SCRATCH, phase="Failed"), "evict"
    )


def test_a_pod_without_controller_blocks_until_forced():
    pod = make_pod("a", owner=None)
    assert judge(pod).action == "block"
    forced = judge(pod, force=True)
    assert forced.action == "evict"
    assert "nothing makes it again" in forced.warnings[0]


def test_a_pod_whose_job_is_gone_blocks_until_forced():
    pod = make_pod("a", owner=("batch/v1", "Job", "uid-gone"))
    assert judge(pod).action == "block"
    assert "exists no more" in judge(pod).reasons[0]
    assert judge(pod, force=True).action == "evict"


def test_a_finished_pod_without_controller_goes():
    assert judge(make_pod("a", owner=None, phase="Succeeded")).action == "evict"


def test_every_reason_and_every_warning_is_kept():
    pod = make_pod(
        "a",
        owner=None,
        volumes=SCRATCH,
        tolerations=[{"operator": "Exists"}],
        terminationGracePeriodSeconds=3600,
    )
    verdict = judge(pod)
    assert len(verdict.reasons) == 2
    assert verdict.warnings == (
        "tolerates a cordon: its replacement may land on the same node",
        "has up to 3600 s to end",
    )


def test_the_order_of_the_pods_is_kept_and_only_evictions_are_listed():
    pods = [make_pod("a"), make_pod("b", owner=DAEMON), make_pod("c", owner=None), make_pod("d")]
    view = view_of(jobs=[make_job()], pods=pods)
    verdicts = judge_pods(pods, view=view, options=DrainOptions(), now=NOW)
    assert [verdict.action for verdict in verdicts] == ["evict", "skip", "block", "evict"]
    assert [pod.metadata.name for pod in evictable(verdicts)] == ["a", "d"]


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_a_pod_of_any_live_phase_goes(phase):
    assert judge(make_pod("a", phase=phase)).action == "evict"
