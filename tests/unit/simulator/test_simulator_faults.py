"""Faults break what they name; gangs lose progress, hang and crash as gangs do."""

import pytest

from app.simulator.errors import FaultRefused
from collectors.xid import parse_kernel_line

MERGE = "application/merge-patch+json"


def run_of(cluster, name: str) -> dict:
    return next(one for one in cluster.simulation.training.summary() if one["name"] == name)


def gpus_of(cluster, pod: dict) -> list:
    host = cluster.simulation.hosts.get(pod["spec"]["nodeName"])
    return host.gpus_of(pod["metadata"]["uid"])


def start_gang(cluster, name: str = "train", size: int = 3, **spec) -> list[dict]:
    cluster.create_job(name, parallelism=size, completions=size, **spec)
    cluster.advance(5)
    return cluster.pods_of(name)


def suspend(cluster, name: str, value: bool) -> None:
    path = f"/apis/batch/v1/namespaces/default/jobs/{name}"
    assert cluster.call("PATCH", path, {"spec": {"suspend": value}}, content_type=MERGE)[0] == 200


def test_xid_79_hangs_a_gang_whose_pods_stay_running(cluster) -> None:
    pods = start_gang(cluster)
    cluster.advance(100)
    node = pods[0]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "xid-79", 3)
    cluster.advance(60)
    run = run_of(cluster, "train")
    assert run["state"] == "hung"
    trained = run["trained_seconds"]
    cluster.advance(600)
    assert run_of(cluster, "train")["trained_seconds"] == trained
    assert {pod["status"]["phase"] for pod in cluster.pods_of("train")} == {"Running"}
    activities = [[gpu.activity_ratio for gpu in gpus_of(cluster, pod)] for pod in pods]
    assert activities[0][3] == 0.0
    assert activities[1] == [1.0] * 8
    assert cluster.node(node)["status"]["allocatable"]["nvidia.com/gpu"] == "7"
    assert cluster.node(node)["status"]["capacity"]["nvidia.com/gpu"] == "8"


def test_a_drained_gang_goes_on_from_its_checkpoint_elsewhere(cluster) -> None:
    pods = start_gang(cluster)
    cluster.advance(2000)
    node = pods[0]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "xid-79", 0)
    cluster.advance(10)
    cluster.call(
        "PATCH", f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}}, content_type=MERGE
    )
    suspend(cluster, "train", True)
    cluster.advance(10)
    suspend(cluster, "train", False)
    cluster.advance(10)
    run = run_of(cluster, "train")
    assert run["state"] == "training"
    assert run["interruptions"] == 1
    assert 1800 <= run["trained_seconds"] < 1820
    assert 190 < run["lost_seconds_total"] < 220
    assert node not in {pod["spec"]["nodeName"] for pod in cluster.pods_of("train")}
    status = cluster.get("jobs", "train")["status"]
    assert "failed" not in status


def test_one_eviction_crashes_the_peers_and_burns_the_backoff(cluster) -> None:
    ignore = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    pods = start_gang(cluster, size=4, backoffLimit=2, podFailurePolicy=ignore)
    cluster.advance(60)
    cluster.evict(pods[0])
    cluster.advance(30)
    status = cluster.get("jobs", "train")["status"]
    # The three peers, and the evicted rank's replacement, which the Job's end takes along.
    assert status["failed"] == 4
    failed = next(one for one in status["conditions"] if one["type"] == "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"


def test_a_gang_with_a_rank_on_a_dead_node_hangs(cluster) -> None:
    pods = start_gang(cluster)
    cluster.simulation.faults.inject(pods[1]["spec"]["nodeName"], "node-dead")
    cluster.advance(600)
    assert run_of(cluster, "train")["state"] == "hung"
    assert all(gpu.activity_ratio == 0.0 for gpu in gpus_of(cluster, pods[1]))
    phases = {pod["status"]["phase"] for pod in cluster.pods_of("train")}
    assert phases == {"Running"}


def test_a_repair_of_a_hung_gpu_ends_the_rank_and_the_job_comes_back(cluster) -> None:
    pods = start_gang(cluster, size=2)
    node = pods[0]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "xid-119", 1)
    cluster.advance(10)
    cluster.simulation.faults.repair(node)
    cluster.advance(60)
    run = run_of(cluster, "train")
    assert (run["state"], run["interruptions"]) == ("training", 1)


def test_a_contained_error_ends_with_the_pod(cluster) -> None:
    pods = start_gang(cluster, size=1)
    host = cluster.simulation.hosts.get(pods[0]["spec"]["nodeName"])
    cluster.simulation.faults.inject(host.name, "ecc-uncorrectable", 2)
    assert host.gpus[2].stalled
    assert (host.gpus[2].ecc_uncorrectable_total, host.gpus[2].remap_pending) == (1, True)
    cluster.evict(pods[0])
    cluster.advance(5)
    assert not host.gpus[2].stalled
    assert host.gpus[2].remap_pending


@pytest.mark.parametrize("code", [13, 31, 43, 45, 63, 92])
def test_an_xid_that_needs_nothing_holds_nobody(cluster, code: int) -> None:
    pods = start_gang(cluster)
    cluster.simulation.faults.inject(pods[0]["spec"]["nodeName"], f"xid-{code}", 0)
    cluster.advance(10)
    assert run_of(cluster, "train")["state"] == "training"


@pytest.mark.parametrize("code", [13, 48, 63, 74, 79, 94, 119, 154, 999])
def test_a_kernel_line_is_read_by_the_agents_own_parser(cluster, code: int) -> None:
    faults = cluster.simulation.faults
    faults.inject("h100-b01-r1-n1", f"xid-{code}", 2)
    event = faults.xids[-1]
    parsed = parse_kernel_line(event.text)
    assert parsed is not None
    assert parsed.code == code
    assert parsed.pci_bus_id.upper().removesuffix(".0")[-7:] in event.pci_bus_id.upper()


@pytest.mark.parametrize(
    ("node", "kind", "gpu", "words"),
    [
        ("none", "xid-79", 0, "There is no node 'none'"),
        ("h100-b01-r1-n1", "xid-79", 8, "has no GPU 8"),
        ("h100-b01-r1-n1", "fire", None, "'fire' is no fault"),
        ("h100-b01-r1-n1", "xid-", None, "is no fault"),
        ("h100-b01-r1-n1", "node-dead", 1, "takes no GPU"),
    ],
)
def test_an_impossible_fault_is_refused_in_a_sentence(
    cluster, node: str, kind: str, gpu: int | None, words: str
) -> None:
    with pytest.raises(FaultRefused, match=words):
        cluster.simulation.faults.inject(node, kind, gpu)


def test_a_repair_needs_a_fault_and_ends_them_all(cluster) -> None:
    faults = cluster.simulation.faults
    name = "h100-b01-r1-n1"
    with pytest.raises(FaultRefused, match="no fault"):
        faults.repair(name)
    boot_id = cluster.simulation.hosts.get(name).boot_id
    faults.inject(name, "gpu-lost", 4)
    faults.inject(name, "nvml-hang")
    assert [one["kind"] for one in faults.active()] == ["gpu-lost", "nvml-hang"]
    faults.repair(name)
    host = cluster.simulation.hosts.get(name)
    assert (faults.active(), host.nvml_hang, host.gpus[4].lost) == ([], False, False)
    assert host.boot_id != boot_id


def test_a_training_that_reaches_its_end_completes_the_job(cluster) -> None:
    cluster.create_job("short", suspend=True)
    path = "/apis/batch/v1/namespaces/default/jobs/short"
    annotations = {"simulator.pitwall.dev/training-seconds": "100"}
    patch = {"metadata": {"annotations": annotations}, "spec": {"suspend": False}}
    assert cluster.call("PATCH", path, patch, content_type=MERGE)[0] == 200
    cluster.advance(50)
    assert run_of(cluster, "short")["state"] == "training"
    cluster.advance(60)
    status = cluster.get("jobs", "short")["status"]
    assert status["succeeded"] == 2


def test_peers_of_a_hung_rank_spin_with_little_power(cluster) -> None:
    pods = start_gang(cluster)
    cluster.advance(60)
    assert {gpu.power_ratio for pod in pods for gpu in gpus_of(cluster, pod)} == {None}
    cluster.simulation.faults.inject(pods[0]["spec"]["nodeName"], "xid-79", 3)
    cluster.advance(10)
    peers = gpus_of(cluster, pods[1])
    assert {(gpu.activity_ratio, gpu.power_ratio) for gpu in peers} == {(1.0, 0.28)}


def test_a_process_that_hangs_leaves_its_gpu_whole_and_ends_with_its_pod(cluster) -> None:
    pods = start_gang(cluster)
    cluster.advance(60)
    node = pods[1]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "collective-hang", 3)
    cluster.advance(60)
    assert run_of(cluster, "train")["state"] == "hung"
    gpu = cluster.simulation.hosts.get(node).gpus[3]
    assert (gpu.activity_ratio, gpu.power_ratio) == (0.0, None)
    assert (gpu.lost, gpu.last_xid, gpu.recovery_action, gpu.ailments) == (False, 0, 0, {})
    assert len(cluster.simulation.faults.xids) == 0
    assert {pod["status"]["phase"] for pod in cluster.pods_of("train")} == {"Running"}
    suspend(cluster, "train", True)
    cluster.advance(60)
    suspend(cluster, "train", False)
    cluster.advance(60)
    assert run_of(cluster, "train")["state"] == "training"
    working = [gpu for pod in cluster.pods_of("train") for gpu in gpus_of(cluster, pod)]
    assert all(gpu.activity_ratio > 0.8 and gpu.power_ratio is None for gpu in working)


def test_only_a_process_can_hang(cluster) -> None:
    with pytest.raises(FaultRefused, match="No process is on GPU 2"):
        cluster.simulation.faults.inject("h100-b01-r1-n1", "collective-hang", 2)
    assert cluster.simulation.faults.active() == []


def test_a_straggler_slows_its_job_until_it_is_repaired(cluster) -> None:
    pods = start_gang(cluster)
    cluster.advance(100)
    before = run_of(cluster, "train")["trained_seconds"]
    node = pods[0]["spec"]["nodeName"]
    cluster.simulation.faults.inject(node, "straggler", 5)
    cluster.advance(400)
    run = run_of(cluster, "train")
    assert run["state"] == "training"
    assert run["trained_seconds"] - before == pytest.approx(300, abs=1)
    sick = cluster.simulation.hosts.get(node).gpus[5]
    assert (sick.activity_ratio > 0.8, "reasons" in sick.ailments) == (True, False)
    cluster.simulation.faults.repair(node)
    cluster.advance(60)
    again = run_of(cluster, "train")["trained_seconds"]
    cluster.advance(100)
    assert run_of(cluster, "train")["trained_seconds"] - again == pytest.approx(100, abs=1)
