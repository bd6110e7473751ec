"""dcgm-exporter's series into columns and readings: what is not there is unknown."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from collectors.dcgm_columns import DcgmTable, read_table
from collectors.dcgm_labels import find_driver, find_owner
from collectors.dcgm_readings import make_readings
from collectors.errors import SourceError
from collectors.prometheus import DcgmSource
from collectors.readings import GpuReading, PodReference
from tests.captures import RECORDED
from tests.prometheus_servers import answer_query

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
                    "data": {"resultType": "vector", "result": answer_query(VECTORS, name)},
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


def readings_of(table: DcgmTable) -> dict[str, list[GpuReading]]:
    """The readings of each host in the order of their indices."""
    return {
        host: sorted(make_readings(table, places), key=lambda gpu: gpu.index or 0)
        for host, places in table.places.items()
    }


def comparable(table: DcgmTable) -> tuple[object, ...]:
    """A table without what depends on the order of its metrics or the moment of the question."""
    columns = {name: column.tolist() for name, column in table.columns.items()}
    return (
        readings_of(table),
        table.is_there.tolist(),
        np.nan_to_num(table.xids, nan=-1).tolist(),
        sorted(columns),
    )


@pytest.fixture
def nodes() -> dict[str, list[GpuReading]]:
    return readings_of(read_table(VECTORS))


def test_units_are_converted_and_the_two_spellings_of_the_host_are_one(
    nodes: dict[str, list[GpuReading]],
) -> None:
    assert sorted(nodes) == ["node-1", "node-2"]
    table = read_table(VECTORS)
    assert {find_driver(labels) for labels in table.labels} == {"580.105.08"}
    assert len(nodes["node-2"]) == 2
    gpu = nodes["node-2"][0]
    assert (gpu.uuid, gpu.index, gpu.pci_bus_id) == ("GPU-node-2-0", 0, "0000:53:00.0")
    assert (gpu.temperature_celsius, gpu.power_watts) == (30.0, 113.611)
    assert (gpu.gpu_utilization_ratio, gpu.sm_clock_hertz) == (0.87, 1_980_000_000)
    assert gpu.memory_used_bytes == 74166 << 20
    assert gpu.memory_total_bytes == 81559 << 20
    assert gpu.energy_joules_total == pytest.approx(8123456789.012)
    assert gpu.remap_failure is False


def test_what_is_missing_says_why_and_is_never_zero(nodes: dict[str, list[GpuReading]]) -> None:
    first, second = nodes["node-1"]
    assert second.memory_utilization_ratio is None
    assert second.missing["memory_utilization_ratio"] == "no series for this GPU"
    assert second.memory_temperature_celsius is None
    assert second.missing["memory_temperature_celsius"] == "DCGM has no value"
    assert second.missing["energy_joules_total"] == "DCGM has no value"
    assert first.missing["pcie_replay_total"] == "DCGM has no value"
    assert second.pcie_replay_total == 106
    assert first.missing["ecc_uncorrected_total"] == "not scraped"
    assert first.missing["nvlink_active_links"] == "not scraped"


def test_the_exporters_own_pod_owns_no_gpu(nodes: dict[str, list[GpuReading]]) -> None:
    owners = {gpu.uuid: gpu.allocated_to for gpus in nodes.values() for gpu in gpus}
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


@pytest.mark.parametrize(
    "sample",
    [
        {},
        {"metric": None, "value": [1, "2"]},
        {"metric": {"Hostname": "n"}, "value": [1, "2"]},
        {"metric": {"UUID": "GPU-1"}, "value": [1, "2"]},
    ],
)
def test_series_of_no_whole_gpu_are_passed_over(sample: dict[str, Any]) -> None:
    assert read_table({"DCGM_FI_DEV_GPU_TEMP": [sample]}).keys == ()


@pytest.mark.parametrize("value", [None, [], [1], [1, "x"], [1, None], "text"])
def test_a_value_that_is_no_number_is_unknown(value: object) -> None:
    sample = {"metric": {"Hostname": "n", "UUID": "GPU-1"}, "value": value}
    gpu = readings_of(read_table({"DCGM_FI_DEV_GPU_TEMP": [sample]}))["n"][0]
    assert gpu.temperature_celsius is None
    assert gpu.missing["temperature_celsius"] == "not a number"


@pytest.mark.parametrize("value", ["-5", "250"])
def test_an_implausible_value_is_dropped_with_its_reason(value: str) -> None:
    sample = {"metric": {"Hostname": "n", "UUID": "GPU-1"}, "value": [1, value]}
    gpu = readings_of(read_table({"DCGM_FI_DEV_GPU_UTIL": [sample]}))["n"][0]
    assert gpu.gpu_utilization_ratio is None
    assert gpu.missing["gpu_utilization_ratio"].startswith("implausible")


def test_a_gpu_cut_by_mig_is_there_and_its_instances_values_are_not_its_own() -> None:
    instances: list[dict[str, Any]] = [
        {"metric": {"Hostname": "n", "UUID": "GPU-1", "GPU_I_ID": number}, "value": [1, "30"]}
        for number in ("3", "4")
    ]
    table = read_table({"DCGM_FI_DEV_GPU_TEMP": instances})
    (gpu,) = readings_of(table)["n"]
    assert table.is_there.tolist() == [True]
    assert (gpu.mig_mode, gpu.temperature_celsius) == (True, None)
    assert gpu.missing["temperature_celsius"].startswith("cut by MIG")


def test_a_gpu_that_pods_share_has_all_of_them_as_owners() -> None:
    series: list[dict[str, Any]] = [
        {
            "metric": {"Hostname": "n", "UUID": "GPU-1", "pod": name, "namespace": "a"},
            "value": [1, "30"],
        }
        for name in ("b", "a")
    ]
    (gpu,) = readings_of(read_table({"DCGM_FI_DEV_GPU_TEMP": series}))["n"]
    assert gpu.allocated_to == (PodReference("a", "a"), PodReference("a", "b"))


def test_a_gpu_that_two_hosts_claim_stands_on_both() -> None:
    series: list[dict[str, Any]] = [
        {"metric": {"Hostname": host, "UUID": "GPU-1"}, "value": [1, text]}
        for host, text in (("n", "30"), ("m", "40"))
    ]
    table = read_table({"DCGM_FI_DEV_GPU_TEMP": series, "DCGM_FI_DEV_MEMORY_TEMP": series})
    assert {host: gpus[0].temperature_celsius for host, gpus in readings_of(table).items()} == {
        "n": 30.0,
        "m": 40.0,
    }
    assert [gpu.uuid for gpus in readings_of(table).values() for gpu in gpus] == ["GPU-1"] * 2


def test_a_gpu_with_nothing_but_its_last_xid_is_not_there() -> None:
    def sample(uuid: str, text: str) -> dict[str, Any]:
        return {"metric": {"Hostname": "n", "UUID": uuid}, "value": [1, text]}

    table = read_table(
        {
            "DCGM_FI_DEV_GPU_TEMP": [sample("GPU-1", "30")],
            "DCGM_FI_DEV_XID_ERRORS": [sample("GPU-1", "0"), sample("GPU-2", "79")],
        }
    )
    assert table.is_there.tolist() == [True, False]
    assert table.xids.tolist() == [0.0, 79.0]


def test_two_metrics_of_one_field_fill_each_others_gaps() -> None:
    def sample(uuid: str, text: str) -> dict[str, Any]:
        return {"metric": {"Hostname": "n", "UUID": uuid}, "value": [1, text]}

    table = read_table(
        {
            "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": [sample("GPU-1", "4")],
            "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": [sample("GPU-1", "1"), sample("GPU-2", "8")],
        }
    )
    assert table.columns["clocks_event_reasons"].tolist() == [4.0, 8.0]


def test_the_source_reads_over_http(prometheus: Prometheus) -> None:
    source = DcgmSource(prometheus.url)
    source.check()
    assert comparable(source.read()) == comparable(read_table(VECTORS))
    source.close()


def test_the_age_of_a_sample_is_asked_of_a_metric_that_is_on_the_host(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_at = 1000.0

    def vector(*hosts: str, text: str) -> list[dict[str, Any]]:
        return [
            {"metric": {"Hostname": host, "UUID": f"GPU-{host}"}, "value": [asked_at, text]}
            for host in hosts
        ]

    for name in list(VECTORS):
        monkeypatch.delitem(VECTORS, name)
    for name, answer in {
        "DCGM_FI_DEV_GPU_TEMP": vector("a", "b", text="30"),
        "timestamp(DCGM_FI_DEV_GPU_TEMP)": vector("a", "b", text="985.5"),
        "DCGM_FI_DEV_POWER_USAGE": vector("c", text="300"),
        "timestamp(DCGM_FI_DEV_POWER_USAGE)": vector("c", text="700"),
        "DCGM_FI_DEV_XID_ERRORS": vector("a", "d", text="0"),
        "timestamp(DCGM_FI_DEV_XID_ERRORS)": [],
    }.items():
        monkeypatch.setitem(VECTORS, name, answer)
    source = DcgmSource(prometheus.url)
    table = source.read()
    source.close()
    assert {host: table.age_of(host) for host in table.places} == {
        "a": 14.5,
        "b": 14.5,
        "c": 300.0,
        "d": None,
    }


def test_a_gpu_that_the_first_metric_lacks_is_named_by_another(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(index: int, text: str) -> dict[str, Any]:
        labels = {"Hostname": "n", "UUID": f"GPU-{index}", "gpu": str(index)}
        return {"metric": {**labels, "exported_pod": f"rank-{index}"}, "value": [1000.0, text]}

    for name in list(VECTORS):
        monkeypatch.delitem(VECTORS, name)
    monkeypatch.setitem(VECTORS, "DCGM_FI_DEV_GPU_TEMP", [sample(0, "30")])
    monkeypatch.setitem(VECTORS, "DCGM_FI_DEV_POWER_USAGE", [sample(0, "300"), sample(1, "400")])
    source = DcgmSource(prometheus.url)
    gpus = readings_of(source.read())["n"]
    source.close()
    told = [(gpu.index, gpu.power_watts, gpu.allocated_to[0].name) for gpu in gpus]
    assert told == [(0, 300.0, "rank-0"), (1, 400.0, "rank-1")]


@pytest.mark.parametrize("failure", ["hangs", "503", "html", "scalar"])
def test_a_prometheus_that_fails_is_named_within_the_time_out(
    prometheus: Prometheus, failure: str
) -> None:
    prometheus.failure = failure
    source = DcgmSource(prometheus.url, timeout_seconds=1)
    with pytest.raises(SourceError, match=re.escape(prometheus.url)):
        source.read()
    with pytest.raises(SourceError, match=re.escape(prometheus.url)):
        source.check()
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
    nodes = readings_of(read_table(vectors))
    gpus = [(name, gpu) for name, found in nodes.items() for gpu in found]
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
    gpus = readings_of(read_table(vectors))["gpu-node-1"]
    assert len(gpus) == 8
    unknown = [gpu.index for gpu in gpus if gpu.memory_utilization_ratio is None]
    assert unknown == [6, 7]
    for index in (6, 7):
        assert gpus[index].missing["memory_utilization_ratio"] == "no series for this GPU"
