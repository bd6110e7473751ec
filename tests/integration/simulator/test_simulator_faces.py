"""The simulator's faces over real sockets: streaming, long polls, faults, files, an orderly end."""

import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import yaml

from app.simulator.errors import SimulatorError
from app.simulator.server import serve, serve_in_thread

NODE = "h100-b01-r1-n1"


def test_a_watch_streams_lines_as_things_happen(kubernetes: httpx.Client) -> None:
    version = kubernetes.get("/api/v1/namespaces").json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "20"}
    with kubernetes.stream("GET", "/api/v1/namespaces", params=query) as stream:
        assert stream.headers["content-type"] == "application/json"
        made = kubernetes.post("/api/v1/namespaces", json={"metadata": {"name": "streamed"}})
        assert made.status_code == 201
        event = json.loads(next(stream.iter_lines()))
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "streamed")


def test_a_watch_ends_in_its_time_with_a_bookmark(kubernetes: httpx.Client) -> None:
    query = {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "1",
        "resourceVersion": "1",
    }
    began = time.monotonic()
    query["fieldSelector"] = "metadata.name=none"
    with kubernetes.stream("GET", "/api/v1/namespaces", params=query) as stream:
        lines = [json.loads(line) for line in stream.iter_lines()]
    assert 0.8 < time.monotonic() - began < 5
    assert lines[-1]["type"] == "BOOKMARK"


def test_a_client_that_leaves_frees_its_watch(server, kubernetes: httpx.Client) -> None:
    version = kubernetes.get("/api/v1/pods").json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": version}
    with kubernetes.stream("GET", "/api/v1/pods", params=query):
        assert len(server.simulation.api.watches) == 1
    deadline = time.monotonic() + 10
    while server.simulation.api.watches and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not server.simulation.api.watches


def test_gpus_come_whole_first_and_then_by_change(control: httpx.Client) -> None:
    whole = control.get("/simulator/gpus").json()
    assert len(whole["nodes"]) == 8
    gpu = whole["nodes"][NODE]["gpus"][0]
    wanted = {"index", "uuid", "serial", "pci_bus_id", "pod_uid", "pid", "activity_ratio", "lost"}
    assert wanted <= gpu.keys()
    answers: list[dict] = []

    def wait() -> None:
        answers.append(control.get("/simulator/gpus", params={"after": whole["version"]}).json())

    waiting = threading.Thread(target=wait)
    waiting.start()
    fault = {"node": NODE, "kind": "nvml-hang"}
    assert control.post("/simulator/faults", json=fault).status_code == 201
    waiting.join(timeout=10)
    assert answers[0]["nodes"][NODE]["nvml_hang"]
    assert list(answers[0]["nodes"]) == [NODE]
    assert control.delete("/simulator/faults", params={"node": NODE}).status_code == 200


def test_a_long_poll_without_news_ends_within_about_a_second(control: httpx.Client) -> None:
    time.sleep(3)  # until the pods that the last test's repair restarted are up again
    version = control.get("/simulator/gpus").json()["version"]
    began = time.monotonic()
    answer = control.get("/simulator/gpus", params={"after": version}).json()
    assert time.monotonic() - began < 3
    assert answer == {"version": version, "nodes": {}}


def test_xids_are_numbered_and_told_once(control: httpx.Client) -> None:
    last = control.get("/simulator/xids").json()["last"]
    control.post("/simulator/faults", json={"node": NODE, "kind": "xid-63", "gpu": 2})
    told = control.get("/simulator/xids", params={"after": last}).json()
    (event,) = told["events"]
    assert (event["xid"], event["node"], event["sequence"]) == (63, NODE, last + 1)
    assert datetime.fromisoformat(event["at"]).tzinfo is not None
    again = control.get("/simulator/xids", params={"after": told["last"]}).json()
    assert again["events"] == []
    assert [one["kind"] for one in control.get("/simulator/faults").json()["faults"]] == ["xid-63"]
    control.delete("/simulator/faults", params={"node": NODE})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"node": "none", "kind": "xid-79"}, "There is no node"),
        ({"node": NODE, "kind": "fire"}, "is no fault"),
        ({"node": NODE, "kind": "xid-79", "gpu": "one"}, "is a number"),
        ({"kind": "xid-79"}, 'needs "node" and "kind"'),
        ([], "not a JSON object"),
    ],
)
def test_a_refused_fault_says_why(control: httpx.Client, body: object, words: str) -> None:
    answer = control.post("/simulator/faults", json=body)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_disturbances_come_and_go(kubernetes: httpx.Client, control: httpx.Client) -> None:
    disturbance = {"method": "GET", "path_prefix": "/api/v1/nodes", "status": 503, "count": 2}
    assert control.post("/simulator/kubernetes-faults", json=disturbance).status_code == 201
    seen = [kubernetes.get("/api/v1/nodes").status_code for _ in range(3)]
    assert seen == [503, 503, 200]
    throttle = {"path_prefix": "/api", "status": 429, "retry_after": 7, "count": 9}
    control.post("/simulator/kubernetes-faults", json=throttle)
    answer = kubernetes.get("/api/v1/nodes")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    control.delete("/simulator/kubernetes-faults")
    assert kubernetes.get("/api/v1/nodes").status_code == 200


def test_history_can_be_forgotten_and_watches_cut(
    kubernetes: httpx.Client, control: httpx.Client
) -> None:
    version = kubernetes.get("/api/v1/nodes").json()["metadata"]["resourceVersion"]
    made = kubernetes.post("/api/v1/namespaces", json={"metadata": {"name": "later"}})
    assert made.status_code == 201
    control.post("/simulator/compact")
    query = {"watch": "1", "resourceVersion": version}
    with kubernetes.stream("GET", "/api/v1/nodes", params=query) as stream:
        (line,) = [json.loads(line) for line in stream.iter_lines()]
    assert (line["type"], line["object"]["code"]) == ("ERROR", 410)
    fresh = kubernetes.get("/api/v1/nodes").json()["metadata"]["resourceVersion"]
    with kubernetes.stream(
        "GET", "/api/v1/nodes", params={"watch": "1", "resourceVersion": fresh}
    ) as stream:
        assert control.post("/simulator/close-watches").json()["closed"] >= 1
        stream.read()


def test_the_kubeconfig_is_its_owners_alone(server) -> None:
    mode = stat.S_IMODE(server.kubeconfig.stat().st_mode)
    assert mode == 0o600
    addresses = json.loads((server.directory / "simulator.json").read_text())
    assert addresses == {
        "kubernetes_url": server.kubernetes_url,
        "prometheus_url": server.prometheus_url,
        "control_url": server.control_url,
    }


def test_the_prometheus_face_answers(server) -> None:
    answer = httpx.get(f"{server.prometheus_url}/api/v1/query", params={"query": "up"})
    assert len(answer.json()["data"]["result"]) == 8
    assert httpx.get(f"{server.prometheus_url}/-/ready").status_code == 200


def test_an_empty_cluster_leaves_nodes_and_pods_to_the_caller() -> None:
    with serve_in_thread(nodes=0, kubelets=False) as running:
        assert running.simulation.registry.objects("nodes") == []
        assert running.simulation.kubelets is None


def test_a_port_in_use_is_named_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimulatorError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(nodes=1, seed=1, port=port, directory=tmp_path)


def test_a_directory_that_cannot_be_written_is_named_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SimulatorError, match="cannot write to"):
        serve(nodes=1, seed=1, port=0, directory=tmp_path / "file")


def test_the_process_ends_in_order_on_sigterm_with_a_watch_open(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from app.simulator.server import serve; "
        f"serve(nodes=4, seed=1, port=0, directory=Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        addresses = tmp_path / "simulator.json"
        while time.monotonic() < deadline:
            if addresses.exists():
                url = json.loads(addresses.read_text())["control_url"]
                try:
                    assert httpx.get(f"{url}/simulator/faults").status_code == 200
                    break
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        config = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        verify = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        url = config["clusters"][0]["cluster"]["server"] + "/api/v1/pods"
        with (
            httpx.Client(verify=verify, headers=headers) as client,
            client.stream("GET", url, params={"watch": "1"}) as stream,
        ):
            next(stream.iter_lines())
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(timeout=10) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_two_thousand_nodes_list_in_pages_quickly() -> None:
    with serve_in_thread(nodes=2000) as running:
        verify = ssl.create_default_context(cafile=str(running.certificate_authority))
        headers = {"Authorization": f"Bearer {running.admin_token}"}
        url = running.kubernetes_url
        with httpx.Client(base_url=url, verify=verify, headers=headers) as client:
            client.get("/api/v1/nodes")  # encodes each node once
            seconds, names, token = [], [], ""
            while True:
                began = time.perf_counter()
                raw = client.get(
                    "/api/v1/nodes", params={"limit": "500", "continue": token}
                ).content
                seconds.append(time.perf_counter() - began)
                page = json.loads(raw)
                names += [one["metadata"]["name"] for one in page["items"]]
                token = page["metadata"].get("continue", "")
                if not token:
                    break
    assert len(names) == len(set(names)) == 2000
    assert len(seconds) == 4
    assert sorted(seconds)[1] < 0.25
