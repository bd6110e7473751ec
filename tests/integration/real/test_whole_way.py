"""The whole way on a real control plane: a fault, a drain, the job running elsewhere, the node back in service.

The tests of this module are one story and run in their order.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import pytest

from collectors.report import SCHEMA_VERSION, NvmlState, Report, encode_report
from k8s.nodes import read_hold
from tests.integration.real.conftest import ARTIFACTS, GPU_NODES, GPUS, JOB, JOB_NAMESPACE, Site
from tests.integration.real.typed import (
    fill_in,
    lines_for_a_real_cluster,
    type_on_terminal,
)

pytestmark = [pytest.mark.contract, pytest.mark.timeout(600)]

FAILING_SECONDS = 5.0  # issue 2: from XID 79 to Failing
DRAIN_SECONDS = 120.0
LOST_GPU = 3
VIEWER = "onlooker"


@pytest.fixture(scope="module")
def hurt(site: Site) -> str:
    """The node of rank 0, whose GPU will fail."""
    return site.pods()[0].spec.node_name


@pytest.fixture(scope="module", autouse=True)
def figures(site: Site) -> Iterator[None]:
    """What was measured, for who reads the artifacts."""
    yield
    ARTIFACTS.mkdir(exist_ok=True)
    text = json.dumps({"store": site.store, **site.figures}, indent=1)
    (ARTIFACTS / "real-figures.json").write_text(text + "\n")
    print(text)


def test_every_node_is_healthy_and_every_source_is_heard(site: Site) -> None:
    def heard() -> bool:
        status = site.read("status")
        states = {one["source"]: one["state"] for one in status["sources"]}
        healthy = status["counts"]["nodes_by_health"].get("Healthy") == GPU_NODES
        return healthy and {states.get(one) for one in ("agents", "kubernetes", "worker")} == {"ok"}

    site.wait_for("every source", heard, seconds=60)
    counts = site.read("status")["counts"]
    assert (counts["nodes"], counts["gpus"]) == (GPU_NODES, GPU_NODES * GPUS)
    assert len({gpu["uuid"] for gpu in site.read("gpus")}) == GPU_NODES * GPUS
    (job,) = site.read("jobs")
    assert (job["namespace"], job["name"], job["state"]) == (JOB_NAMESPACE, JOB, "Running")
    assert (job["gang"], job["running_pods"], job["team"]) == (True, 2, "language")


def test_gpus_belong_to_the_pods_whose_processes_hold_them(site: Site) -> None:
    holders = {pod.spec.node_name: pod.metadata.uid for pod in site.pods()}
    wanted = {name: {holders.get(name)} for name in site.machines}

    def held() -> bool:
        found: dict[str, set[str | None]] = {}
        for gpu in site.read("gpus"):
            found.setdefault(gpu["node"], set()).add(gpu["pod_uid"])
        return found == wanted

    site.wait_for("the pods of the GPUs", held, seconds=30)


def test_an_agent_speaks_for_its_own_node_alone(site: Site) -> None:
    one, other = list(site.machines.values())[-2:]
    report = Report(
        schema_version=SCHEMA_VERSION,
        cluster="default",
        node=one.name,
        spool_id="foreign",
        sequence=1,
        observed_at=datetime.now(UTC),
        boot_id="b",
        agent_version="0",
        nvml=NvmlState(answering=True),
    )

    def send(token: str) -> tuple[int, str]:
        answer = httpx.post(
            f"{site.ingest_url}/agent/v1/reports",
            content=encode_report(report),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Encoding": "gzip",
                "Content-Type": "application/json",
            },
        )
        return answer.status_code, answer.text

    status, text = send(other.token.read_text())
    assert status == 403, text
    assert other.name in text
    # The API server's own audience, and an account that is no agent's.
    assert send(site.token("pitwall-agent"))[0] == 401
    assert send(site.token("pitwall-worker", "--audience", "pitwall"))[0] == 403
    assert send("nonsense")[0] == 401


def test_xid_79_makes_the_node_failing_within_five_seconds(site: Site, hurt: str) -> None:
    begun = time.monotonic()
    site.machines[hurt].lose_gpu(LOST_GPU)
    failing = site.wait_for(
        f"{hurt} Failing",
        lambda: (found := site.node(hurt))["health"] == "Failing" and found,
        seconds=FAILING_SECONDS,
    )
    site.figures["fault_to_failing_seconds"] = round(time.monotonic() - begun, 2)
    assert "79" in failing["health_reason"] or "lost" in failing["health_reason"]
    gpu = site.wait_for(
        "the XID on its GPU",
        lambda: next(
            (
                gpu
                for gpu in site.read("gpus", "--node", hurt)
                if gpu["index"] == LOST_GPU and gpu["last_xid"] == 79
            ),
            None,
        ),
        seconds=10,
    )
    assert (gpu["uuid"], gpu["health"]) == (site.machines[hurt].driver.uuid(LOST_GPU), "Failing")
    incidents = site.wait_for("an incident", lambda: site.read("incidents"), seconds=15)
    assert [one["subject"] for one in incidents] == [hurt]
    assert [one["name"] for one in incidents[0]["jobs"]] == [JOB]
    assert site.read("jobs")[0]["nodes_failing"] == 1


def test_the_page_shows_it(site: Site, hurt: str, chromium: str | None) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if chromium is None:
        pytest.skip("no chromium is installed")
    ARTIFACTS.mkdir(exist_ok=True)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        try:
            for view, address in (("overview", ""), ("node", f"nodes?name={hurt}")):
                page.goto(f"{site.web_url}/{address}")
                page.get_by_text(hurt).first.wait_for(timeout=30_000)
                page.get_by_text("Failing").first.wait_for(timeout=30_000)
                page.wait_for_timeout(1000)  # a map is painted after its words
                page.screenshot(path=ARTIFACTS / f"real-{view}.png")
        finally:
            browser.close()


def test_who_may_only_look_reads_and_drains_nothing(site: Site, hurt: str) -> None:
    site.kubectl("-n", "pitwall", "create", "serviceaccount", VIEWER)
    site.kubectl(
        "create",
        "clusterrolebinding",
        "onlooker-views",
        "--clusterrole=pitwall-viewer",
        f"--serviceaccount=pitwall:{VIEWER}",
    )
    assert hurt in site.pitwall("nodes", account=VIEWER).stdout
    words = ("drain", hurt, "--reason", "because I can", "--yes")
    done = site.pitwall(*words, account=VIEWER)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "403" in done.stderr
    assert "patch" in done.stderr
    # Nor may somebody without any role read, nor somebody without a token.
    assert site.pitwall("nodes", account="pitwall-web").returncode == 1
    nobody = site.processes.run("nodes", environment={"PITWALL_URL": site.ingest_url})
    assert nobody.returncode == 1
    assert site.read("operations", "--all") == []
    assert not site.cluster.node(hurt).spec.unschedulable


def test_the_drain_as_readme_types_it_brings_the_job_back_elsewhere(site: Site, hurt: str) -> None:
    before = {pod.metadata.uid: pod.spec.node_name for pod in site.pods()}
    _, _, forward, token, drain = lines_for_a_real_cluster()
    # No kubelet carries a port-forward here: what it would reach listens on other ports.
    assert re.findall(r"service/(\S+) (\d+)", forward) == [
        ("pitwall-ingest", "8470"),
        ("pitwall-web", "8501"),
    ]
    token = fill_in(token, {"8470": site.ingest_url.rsplit(":", 1)[1]})
    typed = f"{token}\n{fill_in(drain, {'NODE': hurt})}"
    begun = time.monotonic()
    status, shown = type_on_terminal(
        typed,
        question="Drain as planned? [y/N]",
        answer="y",
        environment=site.processes.environment(KUBECONFIG=site.kubeconfig),
        folder=site.processes.folder,
        seconds=DRAIN_SECONDS,
    )
    site.figures["typed_to_exit_seconds"] = round(time.monotonic() - begun, 2)
    ARTIFACTS.mkdir(exist_ok=True)
    (ARTIFACTS / "real-drain.txt").write_text(shown)
    assert status == 0, shown + site.processes.logs()
    assert f"{JOB_NAMESPACE}/{JOB}" in shown

    after = {pod.metadata.uid: pod.spec.node_name for pod in site.running() or ()}
    assert len(after) == 2
    assert not set(after) & set(before), "a pod was left as it was"
    assert hurt not in after.values()
    left = json.loads(
        site.kubectl("get", "pods", "-A", "-o", "json", "--field-selector", f"spec.nodeName={hurt}")
    )
    owners = {pod["metadata"]["ownerReferences"][0]["kind"] for pod in left["items"]}
    assert owners == {"DaemonSet"}, "only the agent's own pod stays"
    job = site.cluster.job(JOB_NAMESPACE, JOB)
    assert not job.spec.suspend
    assert (job.status.failed or 0) == 0, "a gang that is suspended spends no retries"


def test_the_node_is_drained_and_the_operation_says_who_asked_and_what_was_done(
    site: Site, hurt: str
) -> None:
    (operation,) = site.read("operations", "--all")
    assert operation["state"] == "Succeeded"
    assert operation["author"] == "system:serviceaccount:pitwall:pitwall-oncall"
    assert operation["reason"] == "XID 79"
    assert operation["nodes_state"] == {hurt: "Drained"}
    whole = site.read("operations", operation["id"])
    asked, ended = (datetime.fromisoformat(whole[at]) for at in ("created_at", "ended_at"))
    site.figures["drain_to_succeeded_seconds"] = round((ended - asked).total_seconds(), 2)
    assert whole["steps"][0]["name"] == "cordon"
    (verdict,) = whole["workloads_state"].values()
    assert verdict["verdict"] == "Returned"

    node = site.cluster.node(hurt)
    assert node.spec.unschedulable
    hold = read_hold(node.metadata)
    assert hold is not None
    assert (hold.operation, hold.was_unschedulable) == (operation["id"], False)
    line = site.kubectl("get", "node", hurt, "--no-headers")
    assert "Ready,SchedulingDisabled" in line

    site.wait_for("Drained", lambda: site.node(hurt)["service"] == "Drained", seconds=10)
    assert site.pitwall("operations", operation["id"], account=VIEWER).returncode == 0


def test_a_failing_node_is_not_put_in_service_and_a_repaired_one_is(site: Site, hurt: str) -> None:
    refused = site.pitwall("uncordon", hurt, "--wait", account="pitwall-oncall")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "Failing" in refused.stderr
    assert site.cluster.node(hurt).spec.unschedulable

    site.stop_agent(hurt)
    site.machines[hurt].boot()
    begun = time.monotonic()
    site.start_agent(hurt)
    site.wait_for(
        "health after the repair", lambda: site.node(hurt)["health"] == "Healthy", seconds=60
    )
    site.figures["repair_to_healthy_seconds"] = round(time.monotonic() - begun, 2)
    words = ("uncordon", hurt, "--reason", "repaired", "--wait")
    done = site.pitwall(*words, account="pitwall-oncall")
    assert done.returncode == 0, done.stdout + done.stderr + site.processes.logs()
    node = site.cluster.node(hurt)
    assert not node.spec.unschedulable
    assert read_hold(node.metadata) is None
    site.wait_for("Probation", lambda: site.node(hurt)["service"] == "Probation", seconds=10)
    site.wait_for("no open incident", lambda: not site.read("incidents"), seconds=30)
    assert len(site.running() or ()) == 2


def test_a_second_node_within_the_hour_is_refused_by_the_limit(site: Site, hurt: str) -> None:
    other = next(pod.spec.node_name for pod in site.pods() if pod.spec.node_name != hurt)
    words = ("drain", other, "--reason", "one more", "--yes", "--wait")
    done = site.pitwall(*words, account="pitwall-oncall")
    assert done.returncode == 3, done.stdout + done.stderr
    assert not site.cluster.node(other).spec.unschedulable


def test_a_job_is_restarted_when_asked_to(site: Site) -> None:
    before = {pod.metadata.uid for pod in site.pods()}
    words = ("reschedule", f"{JOB_NAMESPACE}/{JOB}", "--reason", "it hangs", "--yes", "--wait")
    done = site.pitwall(*words, account="pitwall-oncall")
    assert done.returncode == 0, done.stdout + done.stderr + site.processes.logs()
    after = {pod.metadata.uid for pod in site.running() or ()}
    assert len(after) == 2
    assert not after & before
    assert not any(site.cluster.node(name).spec.unschedulable for name in site.machines)


def test_no_process_was_refused_by_the_api_server_and_all_end_when_told(site: Site) -> None:
    assert site.processes.ended() == []
    for name in ("ingest", "worker", "web", *(f"agent-{node}" for node in site.machines)):
        said = site.processes.log(name).read_text()
        # The viewer's and the stranger's 403 are answers of ingest, and no line of its log.
        assert "forbidden" not in said.lower(), said
        assert "Traceback" not in said, said
    stopped = site.processes.stop_all()
    # uvicorn, once it has shut down in order, ends by the signal it was sent.
    assert stopped.pop("ingest") in (0, -signal.SIGTERM)
    assert set(stopped.values()) == {0}, stopped
