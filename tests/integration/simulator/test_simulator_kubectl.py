"""What a person types at a cluster works at the simulator."""

import json
import os
import pty
import subprocess
import time

import pytest

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "typed", "namespace": "default"},
    "spec": {
        "completionMode": "Indexed",
        "parallelism": 1,
        "completions": 1,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "c", "image": "busybox:1"}],
            }
        },
    },
}


def busy_node(kubectl) -> str:
    pods = json.loads(kubectl("get", "pods", "-n", "pretraining", "-o", "json"))
    return next(
        one["spec"]["nodeName"] for one in pods["items"] if one["status"]["phase"] == "Running"
    )


def test_get_lists_nodes_and_pods_wide(kubectl) -> None:
    said = kubectl("get", "nodes,pods", "-A", "-o", "wide")
    assert "node/h100-b01-r1-n1" in said
    assert "Ubuntu 24.04.3 LTS" in said
    assert "pod/dcgm-exporter-" in said
    assert "NOMINATED NODE" in said


@pytest.mark.parametrize("kind", ["jobs", "pdb", "ds", "deploy", "sa", "leases", "ns"])
def test_get_lists_the_other_kinds(kubectl, kind: str) -> None:
    assert len(kubectl("get", kind, "-A").splitlines()) >= 2


def test_describe_shows_a_node_with_its_pods_and_its_lease(kubectl) -> None:
    said = kubectl("describe", "node", "h100-b01-r1-n1")
    assert "RenewTime:" in said
    assert "KubeletReady" in said
    assert "nvidia-device-plugin-" in said
    assert "nvidia.com/gpu:     8" in said


def test_describe_shows_a_pod_and_a_job(kubectl) -> None:
    assert "Events:" in kubectl("describe", "pod", "-n", "pretraining")
    said = kubectl("describe", "job", "-n", "pretraining")
    assert ["Completion", "Mode:", "Indexed"] in [line.split() for line in said.splitlines()]


def test_cordon_and_uncordon(kubectl) -> None:
    name = "h100-b01-r2-n4"
    assert "cordoned" in kubectl("cordon", name)
    assert "SchedulingDisabled" in kubectl("get", "node", name)
    assert "node.kubernetes.io/unschedulable:NoSchedule" in kubectl("describe", "node", name)
    assert "uncordoned" in kubectl("uncordon", name)
    assert "SchedulingDisabled" not in kubectl("get", "node", name)


def test_drain_evicts_what_it_may_and_names_what_is_in_the_way(kubectl) -> None:
    name = busy_node(kubectl)
    refused = kubectl("drain", name, fails=True)
    assert "DaemonSet-managed Pods" in refused
    assert "local storage" in refused
    said = kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s")
    assert "drained" in said
    left = json.loads(
        kubectl("get", "pods", "-A", "--field-selector", f"spec.nodeName={name}", "-o", "json")
    )
    owners = {one["metadata"]["ownerReferences"][0]["kind"] for one in left["items"]}
    assert owners == {"DaemonSet"}
    assert "Killing" in kubectl("get", "events", "-n", "pretraining")
    kubectl("uncordon", name)


def test_apply_patch_wait_and_delete_a_job(kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", stdin=JOB)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=JOB)
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/typed", "--timeout=20s")
    changed = {**JOB, "spec": {**JOB["spec"], "suspend": True}}
    assert "configured" in kubectl("apply", "-f", "-", stdin=changed)
    kubectl("wait", "--for=condition=Suspended", "job/typed", "--timeout=20s")
    assert "labeled" in kubectl("label", "job", "typed", "x=1")
    kubectl("patch", "job", "typed", "-p", '{"spec":{"suspend":false}}')
    kubectl("wait", "--for=jsonpath={.status.ready}=1", "job/typed", "--timeout=20s")
    assert "deleted" in kubectl("delete", "job", "typed", "--timeout=20s")
    assert "NotFound" in kubectl("get", "job", "typed", fails=True)


def test_server_side_dry_run_changes_nothing(kubectl) -> None:
    assert "created (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=JOB)
    assert "NotFound" in kubectl("get", "job", "typed", fails=True)


def test_create_token_auth_and_api_resources(kubectl) -> None:
    token = kubectl(
        "create",
        "token",
        "-n",
        "pitwall",
        "pitwall-agent",
        "--audience=pitwall",
        "--bound-object-kind=Node",
        "--bound-object-name=h100-b01-r1-n1",
    )
    assert token.count(".") == 2
    assert "system:masters" in kubectl("auth", "whoami")
    worker = "system:serviceaccount:pitwall:pitwall-worker"
    assert kubectl("auth", "can-i", "patch", "nodes", "--as", worker).startswith("yes")
    assert "no" in kubectl("auth", "can-i", "delete", "nodes", "--as", worker, fails=True)
    assert "poddisruptionbudgets" in kubectl("api-resources")


def test_scale_and_logs(kubectl) -> None:
    kubectl("scale", "deployment", "-n", "serving", "model-gateway", "--replicas=0")
    kubectl(
        "wait", "--for=delete", "pod", "-n", "serving", "-l", "app=model-gateway", "--timeout=30s"
    )
    kubectl("scale", "deployment", "-n", "serving", "model-gateway", "--replicas=1")
    pod = kubectl("get", "pods", "-n", "pretraining", "-o", "name").splitlines()[0]
    assert "step" in kubectl("logs", "-n", "pretraining", pod)


def test_get_watches(kubectl, server) -> None:
    near, far = pty.openpty()
    command = ["kubectl", "--kubeconfig", str(server.kubeconfig), "get", "nodes", "-w"]
    watching = subprocess.Popen(command, stdout=far, stderr=far)
    os.close(far)
    seen = b""
    try:
        deadline = time.monotonic() + 20
        while b"h100-b01-r2-n4" not in seen and time.monotonic() < deadline:
            seen += os.read(near, 65536)
        kubectl("cordon", "h100-b01-r1-n3")
        while b"SchedulingDisabled" not in seen and time.monotonic() < deadline:
            seen += os.read(near, 65536)
    finally:
        watching.kill()
        watching.wait()
        os.close(near)
        kubectl("uncordon", "h100-b01-r1-n3")
    assert b"h100-b01-r1-n3   Ready,SchedulingDisabled" in seen
