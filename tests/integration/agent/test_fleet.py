"""The fleet's process: from a change of the world to a pushed report, by the agent's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from collectors.health import node_health

if TYPE_CHECKING:
    from collectors.report import Report

    from .conftest import Ingest


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a fleet that ends hangs up
            super().handle_error(request, client_address)


class World:
    """The control API's two feeds and the API server's TokenRequest, over real HTTP."""

    def __init__(self, nodes: int) -> None:
        self.changed = threading.Condition()
        self.version = 1
        self.nodes: dict[str, dict[str, Any]] = {}
        self.changed_at: dict[str, int] = {}
        self.events: list[dict[str, Any]] = []
        self.tokens: dict[str, dict[str, Any]] = {}
        for number in range(nodes):
            self.nodes[f"node-{number}"] = {
                "boot_id": f"boot-{number}",
                "dead": False,
                "nvml_hang": False,
                "gpus": [self.make_gpu(number, index) for index in range(8)],
            }
            self.changed_at[f"node-{number}"] = 1
        world = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                after = int(query.partition("after=")[2] or 0)
                if path == "/simulator/gpus":
                    self.answer(world.wait_nodes(after))
                elif path == "/simulator/xids":
                    self.answer(world.wait_xids(after))
                else:
                    self.answer({"metadata": {"uid": f"uid-{path.rpartition('/')[2]}"}})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                token = f"token-{body['spec']['boundObjectRef']['name']}"
                world.tokens[token] = {"path": self.path, **body["spec"]}
                ends_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
                self.answer({"status": {"token": token, "expirationTimestamp": ends_at}}, 201)

            def answer(self, document: object, status: int = 200) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @staticmethod
    def make_gpu(number: int, index: int) -> dict[str, Any]:
        busy = number % 2 == 0
        return {
            "index": index,
            "uuid": f"GPU-{number}-{index}",
            "serial": f"1653{number:04d}{index}",
            "pci_bus_id": f"0000:{0x10 + 0x11 * index:02x}:00.0",
            "pod_uid": f"pod-{number}" if busy else None,
            "pod_namespace": "training" if busy else None,
            "pod_name": f"rank-{number}" if busy else None,
            "pid": 1000 + index if busy else None,
            "activity_ratio": 0.97 if busy else 0.0,
            "lost": False,
            "ecc_uncorrectable_total": 0,
            "remap_pending": False,
        }

    def wait_nodes(self, after: int) -> dict[str, Any]:
        with self.changed:
            self.changed.wait_for(lambda: self.version > after, 1.0)
            names = [name for name, at in self.changed_at.items() if at > after]
            return {"version": self.version, "nodes": {name: self.nodes[name] for name in names}}

    def wait_xids(self, after: int) -> dict[str, Any]:
        with self.changed:
            self.changed.wait_for(lambda: len(self.events) > after, 1.0)
            return {"last": len(self.events), "events": self.events[after:]}

    def change(self, name: str, *, gpu: int | None = None, **values: object) -> None:
        with self.changed:
            target = self.nodes[name] if gpu is None else self.nodes[name]["gpus"][gpu]
            target.update(values)
            self.version += 1
            self.changed_at[name] = self.version
            self.changed.notify_all()

    def raise_xid(self, name: str, gpu: int, xid: int, text: str) -> None:
        with self.changed:
            of = self.nodes[name]["gpus"][gpu]
            self.events.append(
                {
                    "sequence": len(self.events) + 1,
                    "at": datetime.now(UTC).isoformat(),
                    "node": name,
                    "gpu_uuid": of["uuid"],
                    "pci_bus_id": of["pci_bus_id"],
                    "xid": xid,
                    "text": text,
                }
            )
            self.changed.notify_all()


class FleetProcess:
    """`pitwall simulate-agents` as a process."""

    def __init__(self, directory: Path, world: World, ingest_url: str) -> None:
        self.directory = directory
        self.ingest_url = ingest_url
        (directory / "simulator.json").write_text(
            json.dumps(
                {
                    "kubernetes_url": world.url,
                    "prometheus_url": world.url,
                    "control_url": world.url,
                }
            )
        )
        (directory / "kubeconfig").write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": world.url}}],
                    "users": [{"name": "u", "user": {"token": "admin"}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "c",
                }
            )
        )
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys; from pathlib import Path; from app.simulator.fleet import run; "
                "run(Path(sys.argv[1]), sys.argv[2])",
                str(self.directory),
                self.ingest_url,
            ],
            env={**os.environ, "PITWALL_CLUSTER": "test"},
            stdout=subprocess.DEVNULL,
        )

    def stop(self, *, kill: bool = False) -> None:
        (self.process.kill if kill else self.process.terminate)()
        self.process.wait(10)


@pytest.fixture
def world() -> Iterator[World]:
    made = World(nodes=4)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def fleet(tmp_path: Path, world: World, ingest: Ingest) -> Iterator[FleetProcess]:
    made = FleetProcess(tmp_path, world, ingest.url)
    yield made
    if made.process.poll() is None:
        made.stop()


def of(name: str) -> Any:
    return lambda report: report.node == name


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_every_node_reports_plausible_readings_under_its_own_token(
    fleet: FleetProcess, world: World, ingest: Ingest
) -> None:
    for number in range(4):
        ingest.wait(of(f"node-{number}"), timeout=20)
    busy = next(report for report in ingest.reports if report.node == "node-0")
    idle = next(report for report in ingest.reports if report.node == "node-1")
    for gpu in busy.gpus:
        assert 500 <= (gpu.power_watts or 0) <= 700
        assert 55 <= (gpu.temperature_celsius or 0) <= 78
        assert (gpu.memory_temperature_celsius or 0) >= (gpu.temperature_celsius or 0)
        assert gpu.pod_uids == ("pod-0",)
        assert [(pod.namespace, pod.name) for pod in gpu.allocated_to] == [("training", "rank-0")]
    for gpu in idle.gpus:
        assert 60 <= (gpu.power_watts or 0) <= 80
        assert gpu.clocks_event_reasons == 1
        assert gpu.pod_uids == ()
    assert set(busy.gpus[0].missing.values()) <= {"needs a second sample"}
    later = ingest.wait(
        lambda report: report.node == "node-0" and not report.gpus[0].missing, timeout=20
    )
    assert later.gpus[0].sm_activity_ratio == pytest.approx(0.97)
    assert (later.gpus[0].nvlink_receive_bytes_per_second or 0) > 1e11
    assert (busy.cluster, busy.boot_id, len(busy.gpus)) == ("test", "boot-0", 8)
    assert node_health(busy.findings, busy.nvml)[0] == "Healthy"
    assert f"Bearer token-{busy.node}" in ingest.tokens
    bound = world.tokens["token-node-0"]
    assert bound["path"].startswith(
        "/api/v1/namespaces/pitwall/serviceaccounts/pitwall-agent/token"
    )
    assert bound["audiences"] == ["pitwall"]
    assert bound["boundObjectRef"]["uid"] == "uid-node-0"


def test_a_fault_is_in_a_pushed_report_within_a_second_and_a_half(
    fleet: FleetProcess, world: World, ingest: Ingest
) -> None:
    for number in range(4):
        ingest.wait(of(f"node-{number}"), timeout=20)
    posted_at = time.monotonic()
    world.change("node-2", gpu=3, lost=True)
    world.raise_xid("node-2", 3, 79, "NVRM: Xid (PCI:0000:43:00): 79, GPU has fallen off the bus.")
    report = ingest.wait(
        lambda report: report.node == "node-2" and rules(report) == {"gpu-lost", "xid-79"},
        timeout=5,
    )
    assert time.monotonic() - posted_at < 1.5
    assert {finding.gpu_uuid for finding in report.findings} == {"GPU-2-3"}
    assert node_health(report.findings, report.nvml)[0] == "Failing"
    # Repaired: the node boots anew, and with the new boot the finding of the old one ends.
    world.change("node-2", gpu=3, lost=False)
    world.change("node-2", boot_id="boot-2-again")
    later = ingest.wait(
        lambda later: later.node == "node-2" and later.boot_id == "boot-2-again", timeout=10
    )
    assert later.findings == []


def test_a_node_whose_nvml_hangs_holds_up_no_other(
    fleet: FleetProcess, world: World, ingest: Ingest
) -> None:
    for number in range(4):
        ingest.wait(of(f"node-{number}"), timeout=20)
    world.change("node-1", nvml_hang=True)
    time.sleep(0.5)
    world.change("node-3", gpu=0, ecc_uncorrectable_total=2)
    ingest.wait(
        lambda report: report.node == "node-3" and rules(report) == {"ecc-uncorrected"}, timeout=2
    )
    silent = ingest.wait(
        lambda report: report.node == "node-1" and not report.nvml.answering, timeout=25
    )
    assert node_health(silent.findings, silent.nvml) == (
        "Unknown",
        silent.nvml.message,
    )
    assert silent.nvml.message in ("NVML does not answer for 15 s", "NVML does not answer for 16 s")
    world.change("node-1", nvml_hang=False)
    ingest.wait(
        lambda report: (
            report.node == "node-1" and report.sequence > silent.sequence and report.nvml.answering
        ),
        timeout=15,
    )


def test_a_dead_node_falls_silent(fleet: FleetProcess, world: World, ingest: Ingest) -> None:
    for number in range(4):
        ingest.wait(of(f"node-{number}"), timeout=20)
    world.change("node-0", dead=True)
    world.change("node-1", gpu=0, remap_pending=True)
    ingest.wait(lambda report: report.node == "node-1" and bool(report.findings), timeout=5)
    world.raise_xid("node-0", 0, 48, "")
    world.change("node-2", gpu=0, remap_pending=True)
    ingest.wait(lambda report: report.node == "node-2" and bool(report.findings), timeout=5)
    assert not any(report.xids for report in ingest.reports if report.node == "node-0")


def test_a_restart_opens_nothing_twice_and_repeats_no_sequence(
    fleet: FleetProcess, world: World, ingest: Ingest
) -> None:
    world.change("node-0", gpu=1, remap_failure=True)
    first = ingest.wait(
        lambda report: report.node == "node-0" and bool(report.findings), timeout=20
    )
    fleet.stop(kill=True)
    fleet.start()
    later = ingest.wait(
        lambda report: (
            report.node == "node-0" and report.sequence > first.sequence and bool(report.findings)
        ),
        timeout=25,
    )
    assert later.findings[0].episode == first.findings[0].episode
    assert later.spool_id == first.spool_id


def test_the_simulators_own_faults_reach_ingest_in_time(tmp_path: Path, ingest: Ingest) -> None:
    command = [sys.executable, "-m", "app.cli"]
    where = ["--directory", str(tmp_path)]
    simulator = subprocess.Popen(
        [*command, "simulate", "--nodes", "4", *where], stdout=subprocess.DEVNULL
    )
    agents = subprocess.Popen(
        [*command, "simulate-agents", *where],
        env={**os.environ, "PITWALL_INGEST_URL": ingest.url, "PITWALL_CLUSTER": "test"},
        stdout=subprocess.DEVNULL,
    )
    try:
        first = ingest.wait(lambda report: len(report.gpus) == 8, timeout=60)
        name = first.node
        addresses = json.loads((tmp_path / "simulator.json").read_text())
        fault = json.dumps({"node": name, "kind": "xid-79", "gpu": 5}).encode()
        request = urllib.request.Request(
            addresses["control_url"] + "/simulator/faults",
            data=fault,
            headers={"Content-Type": "application/json"},
        )
        posted_at = time.monotonic()
        urllib.request.urlopen(request, timeout=5).close()
        report = ingest.wait(
            lambda report: report.node == name and "xid-79" in rules(report), timeout=5
        )
        assert time.monotonic() - posted_at < 1.5
        assert report.xids[0].gpu_uuid == first.gpus[5].uuid
    finally:
        for process in (agents, simulator):
            process.terminate()
            process.wait(15)
