"""Nodes, kubelets and the scheduler: heartbeats, silence, taints, placement."""

from typing import Any

MERGE = "application/merge-patch+json"


def ready_of(cluster, name: str) -> str:
    conditions = cluster.node(name)["status"]["conditions"]
    return next(one["status"] for one in conditions if one["type"] == "Ready")


def taints_of(cluster, name: str) -> set[tuple[str, str]]:
    return {(one["key"], one["effect"]) for one in cluster.node(name)["spec"].get("taints") or ()}


def where(cluster, job: str) -> list[str]:
    return sorted(pod["spec"].get("nodeName", "") for pod in cluster.pods_of(job))


def cordon(cluster, name: str, value: bool = True) -> None:
    patch = {"spec": {"unschedulable": value}}
    assert cluster.call("PATCH", f"/api/v1/nodes/{name}", patch, content_type=MERGE)[0] == 200
    cluster.advance(0)


def break_node(cluster, name: str) -> None:
    cluster.simulation.faults.inject(name, "node-dead")
    cluster.advance(0)


def test_a_living_node_renews_its_lease_each_ten_seconds_and_its_status_each_five_minutes(
    cluster,
) -> None:
    name = "h100-b01-r1-n1"
    leases, statuses = [], []
    store = cluster.simulation.store
    store.collection("leases").listeners.append(
        lambda event: leases.append(event) if event.record.key[1] == name else None
    )
    store.collection("nodes").listeners.append(
        lambda event: statuses.append(event) if event.record.key[1] == name else None
    )
    cluster.advance(600)
    assert len(leases) == 60
    assert len(statuses) == 2
    assert ready_of(cluster, name) == "True"


def test_nodes_carry_topology_product_and_gpus(cluster) -> None:
    node = cluster.node("h100-b01-r2-n3")
    labels = node["metadata"]["labels"]
    assert labels["network.topology.nvidia.com/spine"] == "b01"
    assert labels["network.topology.nvidia.com/leaf"] == "b01-r2"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-H100-80GB-HBM3"
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


def test_a_cordon_becomes_a_taint_and_an_uncordon_takes_it_away(cluster) -> None:
    cordon(cluster, "h100-b01-r1-n1")
    assert taints_of(cluster, "h100-b01-r1-n1") == {
        ("node.kubernetes.io/unschedulable", "NoSchedule")
    }
    cordon(cluster, "h100-b01-r1-n1", False)
    assert taints_of(cluster, "h100-b01-r1-n1") == set()


def test_a_dead_node_becomes_unknown_after_forty_seconds_and_its_pods_stay_terminating(
    cluster,
) -> None:
    cluster.create_job("train")
    cluster.advance(5)
    name = where(cluster, "train")[0]
    break_node(cluster, name)
    cluster.advance(35)
    assert ready_of(cluster, name) == "True"
    cluster.advance(25)
    assert ready_of(cluster, name) == "Unknown"
    assert taints_of(cluster, name) == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    on_node = [pod for pod in cluster.pods_of("train") if pod["spec"]["nodeName"] == name]
    assert "deletionTimestamp" not in on_node[0]["metadata"]
    cluster.advance(301)
    pod = cluster.get("pods", on_node[0]["metadata"]["name"])
    assert pod["metadata"]["deletionTimestamp"]
    reasons = {one["type"]: one.get("reason") for one in pod["status"]["conditions"]}
    assert reasons["DisruptionTarget"] == "DeletionByTaintManager"
    cluster.advance(3600)
    pod = cluster.get("pods", on_node[0]["metadata"]["name"])
    assert pod["status"]["phase"] == "Running"


def test_daemon_pods_stay_on_a_dead_node(cluster) -> None:
    name = "h100-b01-r1-n1"
    break_node(cluster, name)
    cluster.advance(900)
    pods = cluster.simulation.registry.pods_on(name)
    assert len(pods) == 2
    assert not any(pod["metadata"].get("deletionTimestamp") for pod in pods)


def test_a_repaired_node_boots_anew_and_its_pods_end(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1, podReplacementPolicy="Failed")
    cluster.advance(5)
    pod = cluster.pods_of("train")[0]
    name = pod["spec"]["nodeName"]
    boot_id = cluster.node(name)["status"]["nodeInfo"]["bootID"]
    break_node(cluster, name)
    cluster.advance(400)
    assert len(cluster.pods_of("train")) == 1
    cluster.simulation.faults.repair(name)
    cluster.advance(1)
    assert ready_of(cluster, name) == "True"
    assert cluster.node(name)["status"]["nodeInfo"]["bootID"] != boot_id
    assert taints_of(cluster, name) == set()
    cluster.advance(20)
    uids = [one["metadata"]["uid"] for one in cluster.pods_of("train")]
    assert len(uids) == 1
    assert uids != [pod["metadata"]["uid"]]


def test_out_of_service_lets_the_pods_of_a_dead_node_go(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1, podReplacementPolicy="Failed")
    cluster.advance(5)
    pod = cluster.pods_of("train")[0]
    name = pod["spec"]["nodeName"]
    break_node(cluster, name)
    cluster.advance(60)
    taints = [
        *cluster.node(name)["spec"]["taints"],
        {
            "key": "node.kubernetes.io/out-of-service",
            "value": "nodeshutdown",
            "effect": "NoExecute",
        },
    ]
    patch = {"spec": {"taints": taints}}
    assert cluster.call("PATCH", f"/api/v1/nodes/{name}", patch, content_type=MERGE)[0] == 200
    cluster.advance(20)
    pods = cluster.pods_of("train")
    assert [one["metadata"]["uid"] == pod["metadata"]["uid"] for one in pods] == [False]
    assert pods[0]["spec"]["nodeName"] != name


def test_pods_avoid_cordoned_dead_and_full_nodes(cluster) -> None:
    cordon(cluster, "h100-b01-r1-n1")
    break_node(cluster, "h100-b01-r1-n2")
    cluster.advance(60)
    cluster.create_job("big", parallelism=6, completions=6)
    cluster.create_job("late", parallelism=1, completions=1)
    cluster.advance(5)
    placed = where(cluster, "big")
    assert len(set(placed)) == 6
    assert not {"h100-b01-r1-n1", "h100-b01-r1-n2"} & set(placed)
    late = cluster.pods_of("late")[0]
    assert "nodeName" not in late["spec"]
    condition = late["status"]["conditions"][0]
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    assert condition["message"].startswith("0/8 nodes are available: ")
    cordon(cluster, "h100-b01-r1-n1", False)
    cluster.advance(5)
    assert where(cluster, "late") == ["h100-b01-r1-n1"]


def test_ranks_of_a_job_are_kept_in_a_rack(cluster) -> None:
    cluster.create_job("train", parallelism=4, completions=4)
    cluster.advance(5)
    racks = {name.rsplit("-", 1)[0] for name in where(cluster, "train")}
    assert len(racks) == 1


def test_small_pods_share_a_node(cluster) -> None:
    cluster.create_job("small", gpus=2, parallelism=4, completions=4)
    cluster.advance(5)
    assert len(set(where(cluster, "small"))) == 1
    host = cluster.simulation.hosts.get(where(cluster, "small")[0])
    holders = [gpu.pod.uid for gpu in host.gpus]
    assert {uid: holders.count(uid) for uid in holders} == dict.fromkeys(holders, 2)


def test_a_selector_and_an_affinity_are_kept(cluster) -> None:
    wanted = "h100-b01-r2-n4"
    cluster.create_job(
        "chosen",
        parallelism=1,
        completions=1,
        pod={"nodeSelector": {"kubernetes.io/hostname": wanted}},
    )
    term = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [wanted]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    cluster.create_job("other", parallelism=1, completions=1, pod={"affinity": affinity})
    cluster.advance(5)
    assert where(cluster, "chosen") == [wanted]
    assert where(cluster, "other")[0] not in ("", wanted)


def test_a_pod_bound_where_no_gpu_is_free_fails_at_admission(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1)
    cluster.advance(5)
    node = where(cluster, "train")[0]
    resources = {"limits": {"nvidia.com/gpu": "1"}}
    container = {"name": "c", "image": "i", "resources": resources}
    body = {"metadata": {"name": "rude"}, "spec": {"nodeName": node, "containers": [container]}}
    cluster.call("POST", "/api/v1/namespaces/default/pods", body)
    cluster.advance(1)
    status = cluster.get("pods", "rude")["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "UnexpectedAdmissionError")


def test_a_graceful_end_writes_the_phase_before_the_pod_goes(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1)
    cluster.advance(5)
    seen: list[tuple[str, Any, bool]] = []
    cluster.simulation.store.collection("pods").listeners.append(
        lambda event: seen.append(
            (
                event.type,
                event.record.object["status"]["phase"],
                "deletionTimestamp" in event.record.object["metadata"],
            )
        )
    )
    pod = cluster.pods_of("train")[0]
    name = pod["metadata"]["name"]
    cluster.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
    cluster.advance(4)
    of_pod = [one[:2] for one in seen if one[2]]
    assert of_pod[0] == ("MODIFIED", "Running")
    assert ("MODIFIED", "Failed") in of_pod
    assert of_pod[-1] == ("DELETED", "Failed")


def test_a_daemon_pod_comes_back_on_its_node(cluster) -> None:
    name = "h100-b01-r1-n1"
    pod = cluster.simulation.registry.pods_on(name)[0]
    metadata = pod["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    assert cluster.call("DELETE", path)[0] == 200
    cluster.advance(10)
    pods = cluster.simulation.registry.pods_on(name)
    assert len(pods) == 2
    assert metadata["uid"] not in {one["metadata"]["uid"] for one in pods}
    assert all(one["status"]["phase"] == "Running" for one in pods)


def test_pods_of_a_deleted_node_are_collected(cluster) -> None:
    cluster.create_job("train", parallelism=1, completions=1)
    cluster.advance(5)
    pod = cluster.pods_of("train")[0]
    name = pod["spec"]["nodeName"]
    break_node(cluster, name)
    assert cluster.call("DELETE", f"/api/v1/nodes/{name}")[0] == 200
    cluster.advance(60)
    uids = [one["metadata"]["uid"] for one in cluster.pods_of("train")]
    assert pod["metadata"]["uid"] not in uids
    assert cluster.simulation.registry.pods_on(name) == []
