"""From a fault to a job brought back, by the command line, before a whole demo."""

import json
import shutil
import subprocess
from typing import Any

import httpx
import pytest

from k8s.client import connect
from tests.integration.demo.conftest import Demo

FAILING_SECONDS = 5.0  # issue 2: from XID 79 to Failing on the page


def test_everything_answers_where_the_demo_says(demo: Demo) -> None:
    assert httpx.get(demo.address("Page")).status_code == 200
    assert httpx.get(demo.address("API")).status_code == 200
    assert httpx.get(demo.address("Prometheus") + "/-/ready").status_code == 200


def test_kubectl_works_against_it(demo: Demo) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    kubectl = ["kubectl", "--kubeconfig", demo.address("Kubeconfig")]
    done = subprocess.run([*kubectl, "get", "nodes"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" Ready ") == 16
    done = subprocess.run(
        [*kubectl, "get", "nodes,pods", "-A", "-o", "wide"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_the_status_counts_what_was_asked_for_and_every_source_is_heard(demo: Demo) -> None:
    def status() -> dict[str, Any] | None:
        found: dict[str, Any] = demo.read("status")
        return found if all(one["state"] == "ok" for one in found["sources"]) else None

    found = demo.wait_for("every source", status, seconds=60)
    assert found["counts"]["nodes"] == 16
    assert found["counts"]["gpus"] == 128
    assert found["counts"]["nodes_by_health"].get("Healthy") == 16
    assert found["counts"]["jobs_running"] > 0
    assert {"agents", "kubernetes", "prometheus", "worker"} <= {
        one["source"] for one in found["sources"]
    }


def _node(demo: Demo, name: str) -> dict[str, Any]:
    return next(node for node in demo.read("nodes", "--search", name) if node["name"] == name)


def _plan(demo: Demo, node: str) -> dict[str, Any]:
    done = demo.run("drain", node, "--reason", "looking", "--dry-run", "-o", "json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _movable(demo: Demo) -> tuple[str, dict[str, Any]]:
    """A node and the gang on it that fits elsewhere."""
    for node in demo.read("nodes"):
        if not node["gpu_requested"]:
            continue
        plan = _plan(demo, node["name"])
        jobs = plan["jobs"]
        if (
            len(jobs) == 1
            and jobs[0]["gang"]
            and jobs[0]["fit"]["verdict"] == "fits"
            and not plan["blockers"]
        ):
            return node["name"], jobs[0]
    pytest.fail(f"no node has a gang that fits elsewhere{demo.logs()}")


def test_xid_79_on_a_running_job_and_the_job_is_back_elsewhere(demo: Demo) -> None:
    node, job = _movable(demo)
    done = demo.run("simulate", "fault", node, "xid-79", "--gpu", "3")
    assert done.returncode == 0, done.stderr
    failing = demo.wait_for(
        f"{node} Failing",
        lambda: (found := _node(demo, node))["health"] == "Failing" and found,
        seconds=FAILING_SECONDS,
    )
    # The kernel's word or NVML's own error 15, whichever the agent heard first.
    assert "XID 79" in failing["health_reason"] or "is lost" in failing["health_reason"]
    incidents = demo.wait_for("an incident", lambda: demo.read("incidents"), seconds=10)
    assert [one["subject"] for one in incidents] == [node]
    assert job["uid"] in {one["uid"] for one in incidents[0]["jobs"]}

    done = demo.run("drain", node, "--reason", "XID 79 on GPU 3", "--yes", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr + demo.logs()
    assert f"{job['namespace']}/{job['name']}" in done.stdout

    assert _node(demo, node)["service"] == "Drained"
    (back,) = [one for one in demo.read("jobs") if one["uid"] == job["uid"]]
    assert back["state"] == "Running"
    assert back["running_pods"] == back["wanted_pods"] == job["wanted_pods"]
    connection = connect(demo.directory / "kubeconfig")
    left = json.loads(connection.get("/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"}))
    owners = [pod["metadata"].get("ownerReferences", []) for pod in left["items"]]
    assert job["uid"] not in {owner["uid"] for one in owners for owner in one}

    (operation,) = demo.read("operations", "--all")
    assert operation["state"] == "Succeeded"
    assert operation["reason"] == "XID 79 on GPU 3"
    assert operation["author"]
    assert operation["nodes_state"] == {node: "Drained"}
    steps = demo.read("operations", operation["id"])["steps"]
    assert steps[0]["name"] == "cordon"
    assert demo.run("operations", operation["id"]).returncode == 0


def test_a_drain_that_the_limits_refuse_ends_with_3(demo: Demo) -> None:
    names = [node["name"] for node in demo.read("nodes")]
    done = demo.run("drain", *names, "--reason", "all of them", "--yes")
    assert done.returncode == 3, done.stdout + done.stderr
    assert demo.read("operations") == []


def test_a_node_that_is_not_there_ends_with_1_and_a_fault_that_is_not_known_too(
    demo: Demo,
) -> None:
    done = demo.run("drain", "no-such-node", "--reason", "x", "--yes")
    assert done.returncode == 1, done.stderr
    assert "no-such-node" in done.stderr
    node = demo.read("nodes", "--limit", "1")[0]["name"]
    done = demo.run("simulate", "fault", node, "gremlins")
    assert done.returncode == 1
    assert "gremlins" in done.stderr


def test_a_repaired_node_is_healthy_and_uncordoned_it_is_on_probation(demo: Demo) -> None:
    (node,) = [one["name"] for one in demo.read("nodes") if one["health"] == "Failing"]
    assert demo.run("simulate", "repair", node).returncode == 0
    demo.wait_for("health", lambda: _node(demo, node)["health"] == "Healthy", seconds=60)
    done = demo.run("uncordon", node, "--reason", "repaired", "--wait")
    assert done.returncode == 0, done.stderr
    demo.wait_for("service", lambda: _node(demo, node)["service"] == "Probation", seconds=10)
