"""dcgm-exporter's series into partial readings: what is not there is unknown."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from collectors.errors import SourceError
from collectors.prometheus import DcgmNode, DcgmSource, find_new_xids, find_owner, read_nodes
from collectors.readings import PodReference
from tests.captures import RECORDED

EXCERPTS = Path(__file__).parents[2] / "data" / "dcgm-exporter" / "vectors.json"
CAPTURES = RECORDED / "aicr/extracted"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(EXCERPTS.read_text())


class Prometheus:
    """Answers /api/v1/query like Prometheus; `failure` makes it fail in one of its ways."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = parse_qs(urlsplit(self.path).query)["query"][0]
                if server.failure == "hangs":
                    server.release.wait(10)
                    return
                answer: dict[str, Any] = {
                    "status": "success",
                    "data": {"resultType": "vector", "result": VECTORS.get(name, [])},
                }
                if server.failure == "scalar":
                    answer["data"]["result"] = "1"
                body = b"<html>" if server.failure == "html" else json.dumps(answer).encode()
                self.send_response(503 if server.failure == "503" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    made = Prometheus()
    yield made
    made.release.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def nodes() -> dict[str, DcgmNode]:
    return read_nodes(VECTORS)


def test_units_are_converted_and_the_two_spellings_of_the_host_are_one(
    nodes: dict[str, DcgmNode],
) -> None:
    assert sorted(nodes) == ["node-1", "node-2"]
    node = nodes["node-2"]
    assert (node.driver_version, len(node.gpus)) == ("580.105.08", 2)
    gpu = node.gpus[0]
    assert (gpu.uuid, gpu.index, gpu.pci_bus_id) == ("GPU-node-2-0", 0, "0000:53:00.0")
    assert (gpu.temperature_celsius, gpu.power_watts) == (30.0, 113.611)
    assert (gpu.gpu_utilization_ratio, gpu.sm_clock_hertz) == (0.87, 1_980_000_000)
    assert gpu.memory_used_bytes == 74166 << 20
    assert gpu.memory_total_bytes == 81559 << 20
    assert gpu.energy_joules_total == pytest.approx(8123456789.012)
    assert gpu.remap_failure is False


def test_what_is_missing_says_why_and_is_never_zero(nodes: dict[str, DcgmNode]) -> None:
    first, second = nodes["node-1"].gpus
    assert second.memory_utilization_ratio is None
    assert second.missing["memory_utilization_ratio"] == "no series for this GPU"
    assert second.memory_temperature_celsius is None
    assert second.missing["memory_temperature_celsius"] == "DCGM has no value"
    assert second.missing["energy_joules_total"] == "DCGM has no value"
    assert first.missing["pcie_replay_total"] == "DCGM has no value"
    assert second.pcie_replay_total == 106
    assert first.missing["ecc_uncorrected_total"] == "not scraped"
    assert first.missing["nvlink_active_links"] == "not scraped"


def test_the_exporters_own_pod_owns_no_gpu(nodes: dict[str, DcgmNode]) -> None:
    owners = {gpu.uuid: gpu.allocated_to for node in nodes.values() for gpu in node.gpus}
    assert owners == {
        "GPU-node-1-0": (PodReference("training", "rank-0-abcde", "main"),),
        "GPU-node-1-1": (),
        "GPU-node-2-0": (),
        "GPU-node-2-1": (PodReference("training", "rank-1-fghij", "main"),),
    }


@pytest.mark.parametrize(
    ("labels", "owner"),
    [
        ({}, None),
        ({"pod": "nvidia-dcgm-exporter-x", "namespace": "gpu-operator"}, None),
        ({"pod": "exporter-x", "container": "gpus", "job": "gpus"}, None),
        ({"pod": "train-0", "namespace": "a", "container": "c"}, PodReference("a", "train-0", "c")),
        (
            {"pod": "dcgm-exporter-x", "exported_pod": "train-0", "exported_namespace": "a"},
            PodReference("a", "train-0"),
        ),
    ],
)
def test_the_owner_is_read_whether_labels_are_honoured_or_not(
    labels: dict[str, str], owner: PodReference | None
) -> None:
    assert find_owner(labels) == owner


def test_the_xid_gauge_tells_by_change_alone(nodes: dict[str, DcgmNode]) -> None:
    node = nodes["node-1"]
    assert node.last_xids == {"GPU-node-1-0": 0, "GPU-node-1-1": 13}

    def events(before: dict[str, int]) -> list[tuple[int, str | None]]:
        return [
            (event.xid, event.gpu_uuid)
            for event in find_new_xids(before, node, new_id=lambda: "id")
        ]

    assert events({}) == [], "a level that was there before us says nothing"
    assert events({"GPU-node-1-0": 0, "GPU-node-1-1": 13}) == []
    assert events({"GPU-node-1-0": 0, "GPU-node-1-1": 0}) == [(13, "GPU-node-1-1")]
    assert events({"GPU-node-1-0": 31, "GPU-node-1-1": 13}) == [], "a gauge that was reset"


@pytest.mark.parametrize(
    "sample",
    [
        {},
        {"metric": None, "value": [1, "2"]},
        {"metric": {"Hostname": "n"}, "value": [1, "2"]},
        {"metric": {"UUID": "GPU-1"}, "value": [1, "2"]},
        {"metric": {"Hostname": "n", "UUID": "GPU-1", "GPU_I_ID": "3"}, "value": [1, "2"]},
    ],
)
def test_series_of_no_whole_gpu_are_passed_over(sample: dict[str, Any]) -> None:
    assert read_nodes({"DCGM_FI_DEV_GPU_TEMP": [sample]}) == {}


@pytest.mark.parametrize("value", [None, [], [1], [1, "x"], [1, None], "text"])
def test_a_value_that_is_no_number_is_unknown(value: object) -> None:
    sample = {"metric": {"Hostname": "n", "UUID": "GPU-1"}, "value": value}
    gpu = read_nodes({"DCGM_FI_DEV_GPU_TEMP": [sample]})["n"].gpus[0]
    assert gpu.temperature_celsius is None
    assert gpu.missing["temperature_celsius"] == "not a number"


@pytest.mark.parametrize("value", ["-5", "250"])
def test_an_implausible_value_is_dropped_with_its_reason(value: str) -> None:
    sample = {"metric": {"Hostname": "n", "UUID": "GPU-1"}, "value": [1, value]}
    gpu = read_nodes({"DCGM_FI_DEV_GPU_UTIL": [sample]})["n"].gpus[0]
    assert gpu.gpu_utilization_ratio is None
    assert gpu.missing["gpu_utilization_ratio"].startswith("implausible")


def test_the_source_reads_over_http(prometheus: Prometheus, nodes: dict[str, DcgmNode]) -> None:
    source = DcgmSource(prometheus.url)
    assert source.is_answering()
    assert source.read() == nodes
    source.close()


@pytest.mark.parametrize("failure", ["hangs", "503", "html", "scalar"])
def test_a_prometheus_that_fails_is_named_within_the_time_out(
    prometheus: Prometheus, failure: str
) -> None:
    prometheus.failure = failure
    source = DcgmSource(prometheus.url, timeout_seconds=1)
    with pytest.raises(SourceError, match=re.escape(prometheus.url)):
        source.read()
    assert not source.is_answering()
    source.close()


def test_the_recorded_cluster_has_sixteen_gpus_and_one_owner() -> None:
    if not CAPTURES.exists():
        pytest.skip(f"{CAPTURES} is missing: the recorded cluster cannot be read")
    vectors = {
        re.findall(r"DCGM_\w+?(?=-2x8)", path.name)[0]: json.loads(path.read_text())["data"][
            "result"
        ]
        for path in CAPTURES.glob("prometheus-query-*.json")
    }
    nodes = read_nodes(vectors)
    gpus = [(name, gpu) for name, node in nodes.items() for gpu in node.gpus]
    assert (len(nodes), len(gpus)) == (2, 16)
    owned = [(name, gpu.index, gpu.allocated_to) for name, gpu in gpus if gpu.allocated_to]
    assert owned == [
        (
            "gpu-node-1",
            0,
            (PodReference("dynamo-workload", "vllm-agg-0-vllmdecodeworker-s65j5", "main"),),
        )
    ]
    assert {gpu.missing["memory_utilization_ratio"] for _, gpu in gpus} == {"not scraped"}


def test_the_recorded_scrape_lacks_two_rows_that_are_unknown() -> None:
    path = CAPTURES / "dcgm-exporter-scrape-gpu-node-1-8xH100.prom"
    if not path.exists():
        pytest.skip(f"{path} is missing: the recorded scrape cannot be read")
    vectors: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines():
        match = re.match(r"(\w+)\{(.*)\} (\S+)$", line)
        if match is not None:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            vectors.setdefault(match[1], []).append({"metric": labels, "value": [0, match[3]]})
    gpus = read_nodes(vectors)["gpu-node-1"].gpus
    assert len(gpus) == 8
    unknown = [gpu.index for gpu in gpus if gpu.memory_utilization_ratio is None]
    assert unknown == [6, 7]
    for index in unknown:
        assert gpus[index].missing["memory_utilization_ratio"] == "no series for this GPU"
