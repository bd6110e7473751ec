"""Rows 4, 7, 8, 9 and 10: which pods a drain takes, judged on pods as the cluster keeps them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from draining import bare, running, seen
from kubelet import Grounds

from k8s.drain import DrainOptions, PodVerdict, judge_pod
from k8s.objects import Pod
from k8s.resources import DAEMONSETS, PODS
from tests.integration.operations.operation_world import World

pytestmark = pytest.mark.contract
ON_DISK = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
IN_MEMORY = {"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]}
MIRROR = "kubernetes.io/config.mirror"


@pytest.fixture
def field(grounds: Grounds) -> Grounds:
    """Grounds with one node."""
    grounds.add_nodes(1)
    return grounds


def judge(world: World, pod: Pod, **options: bool) -> PodVerdict:
    """The verdict on the pod as the worker's eyes have it now."""
    seen(world, pod)
    view = world.view()
    return judge_pod(
        view.pods[pod.metadata.uid],
        view=view,
        options=DrainOptions(**options),
        now=datetime.now(UTC),
    )


def daemon_pod(field: Grounds, name: str = "exporter") -> Pod:
    """The pod of a DaemonSet for the first node, running."""
    labels = {"app": name}
    spec = {
        "nodeSelector": {"pool": field.namespace},
        "containers": [{"name": "train", "image": "registry.example/train:1"}],
        "automountServiceAccountToken": False,
    }
    field.cluster.post(
        DAEMONSETS.path(namespace=field.namespace),
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
    )

    def made() -> Pod | None:
        pods = field.cluster.pods(field.namespace, labelSelector=f"app={name}")
        return pods[0] if pods and pods[0].spec.node_name else None

    pod: Pod = field.cluster.until(made, f"DaemonSet {name} has a pod")
    return running(field, pod.metadata.name)


def owned(field: Grounds, pod: str, **owner: Any) -> Pod:
    """A pod that names an owner which is not there."""
    reference = {"uid": "00000000-0000-4000-8000-000000000000", "controller": True, **owner}
    field.cluster.post(
        PODS.path(namespace=field.namespace),
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "ownerReferences": [reference]},
            "spec": {
                "nodeName": field.nodes[0],
                "containers": [{"name": "train", "image": "registry.example/train:1"}],
                "automountServiceAccountToken": False,
            },
        },
    )
    return field.cluster.pod(field.namespace, pod)


def test_drain_row_04_every_reason_and_every_warning_is_kept(field, world):
    tolerant = {"tolerations": [{"operator": "Exists"}]}
    pod = bare(field, "a", grace_seconds=600, **ON_DISK, **tolerant)
    verdict = judge(world, pod)
    assert verdict.action == "block"
    assert [reason.split(" (")[0].split(":")[0] for reason in verdict.reasons] == [
        "keeps data on the node's disk",
        "has no controller",
    ]
    assert len(verdict.warnings) == 2
    assert "tolerates a cordon" in verdict.warnings[0]
    assert "600 s to end" in verdict.warnings[1]
    allowed = judge(world, pod, force=True, delete_emptydir_data=True)
    assert allowed.action == "evict"
    assert len(allowed.warnings) == 4


def test_drain_row_07_a_daemonsets_pod_stays_by_default_and_blocks_otherwise(scheduled, world):
    scheduled.add_nodes(1)
    pod = daemon_pod(scheduled)
    world.wait(lambda view: pod.metadata.owner_references[0].uid in view.metas)
    kept = judge(world, pod, force=True)
    assert kept.action == "skip"
    assert "DaemonSet exporter" in kept.warnings[0]
    fatal = judge(world, pod, ignore_daemonsets=False, force=True)
    assert fatal.action == "block"
    assert "make it again at once" in fatal.reasons[0]


def test_drain_row_07_a_daemonsets_pod_that_has_ended_goes(field, world):
    with field.cluster.holding_controllers():  # else it is replaced at once
        pod = owned(field, "left", apiVersion="apps/v1", kind="DaemonSet", name="exporter")
        pod = running(field, "left")
        field.kubelets.finish(pod, "Failed", exit_code=1)
        ended = field.cluster.pod(field.namespace, "left")
        assert judge(world, ended, ignore_daemonsets=False).action == "evict"


def test_drain_row_07_a_pod_whose_daemonset_is_gone_goes_by_force_only(field, world):
    with field.cluster.holding_controllers():  # else the collector takes it
        owned(field, "left", apiVersion="apps/v1", kind="DaemonSet", name="exporter")
        pod = running(field, "left")
        refused = judge(world, pod)
        assert refused.action == "block"
        assert "DaemonSet exporter, which exists no more" in refused.reasons[0]
        assert judge(world, pod, force=True).action == "evict"


def test_drain_row_08_a_mirror_pod_is_skipped_without_a_word(field, world):
    field.cluster.post(
        PODS.path(namespace=field.namespace),
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "static", "annotations": {MIRROR: "x"}},
            "spec": {
                "nodeName": field.nodes[0],
                "containers": [{"name": "train", "image": "registry.example/train:1"}],
                "automountServiceAccountToken": False,
            },
        },
    )
    verdict = judge(world, running(field, "static"))
    assert (verdict.action, verdict.warnings, verdict.reasons) == ("skip", (), ())


def test_drain_row_09_data_on_the_nodes_disk_blocks_unless_it_may_be_lost(field, world):
    pod = bare(field, "a", **ON_DISK)
    refused = judge(world, pod, force=True)
    assert refused.action == "block"
    assert "emptyDir scratch" in refused.reasons[0]
    allowed = judge(world, pod, force=True, delete_emptydir_data=True)
    assert allowed.action == "evict"
    assert "loses its emptyDir scratch" in allowed.warnings


def test_drain_row_09_memory_is_no_data_and_only_warned_of(field, world):
    verdict = judge(world, bare(field, "a", **IN_MEMORY), force=True)
    assert verdict.action == "evict"
    assert "loses its emptyDir shm" in verdict.warnings


def test_drain_row_09_a_finished_pod_has_nothing_to_lose(field, world):
    pod = bare(field, "a", restartPolicy="Never", **ON_DISK)
    field.kubelets.finish(pod, "Succeeded", exit_code=0)
    ended = field.cluster.pod(field.namespace, "a")
    assert judge(world, ended).action == "evict"


def test_drain_row_10_a_pod_without_a_controller_goes_by_force_only(field, world):
    pod = bare(field, "a")
    refused = judge(world, pod)
    assert refused.action == "block"
    assert "nothing makes it again" in refused.reasons[0]
    assert judge(world, pod, force=True).action == "evict"


def test_drain_row_10_an_owner_must_exist_to_make_it_again(scheduled, world):
    scheduled.add_nodes(1)
    (rank,) = scheduled.job(parallelism=1)
    world.wait(lambda view: rank.metadata.owner_references[0].uid in view.workloads)
    assert judge(world, rank).action == "evict"
    with scheduled.cluster.holding_controllers():
        owned(scheduled, "left", apiVersion="batch/v1", kind="Job", name="gone")
        pod = running(scheduled, "left")
        refused = judge(world, pod)
        assert refused.action == "block"
        assert "Job gone, which exists no more" in refused.reasons[0]
        assert judge(world, pod, force=True).action == "evict"


def test_drain_row_10_an_owner_of_a_kind_that_is_not_watched_is_taken_at_its_word(field, world):
    with field.cluster.holding_controllers():
        owned(field, "a", apiVersion="example.com/v1", kind="Thing", name="thing")
        assert judge(world, running(field, "a")).action == "evict"
