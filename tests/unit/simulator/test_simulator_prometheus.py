"""The Prometheus face answers as Prometheus does, for what it reads."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from app.simulator.api.request import Request
from app.simulator.prometheus import PrometheusFace, parameters_of
from app.simulator.promql import QueryInvalid, parse_selector

NODE = "h100-b01-r1-n1"


@pytest.fixture
def ask(cluster) -> Callable[..., tuple[int, Any]]:
    face = PrometheusFace(cluster.simulation)

    def call(path: str, **parameters: Any) -> tuple[int, Any]:
        answer = face.answer(Request("GET", path), {"match[]": [], **parameters})
        return answer.status, msgspec.json.decode(answer.body)

    return call


def query(ask, text: str) -> list[dict]:
    status, answer = ask("/api/v1/query", query=text)
    assert status == 200, answer
    return answer["data"]["result"]


def test_a_metric_is_there_for_each_gpu_with_its_labels(ask) -> None:
    found = query(ask, f'DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}}')
    assert [one["metric"]["gpu"] for one in found] == list("01234567")
    assert found[0]["metric"]["UUID"].startswith("GPU-")
    assert 25 <= float(found[0]["value"][1]) <= 90


def test_a_running_pod_shows_in_labels_and_load(cluster, ask) -> None:
    cluster.create_job("train", parallelism=1, completions=1)
    cluster.advance(5)
    pod = cluster.pods_of("train")[0]
    name = pod["metadata"]["name"]
    found = query(ask, f'DCGM_FI_PROF_GR_ENGINE_ACTIVE{{exported_pod="{name}"}}')
    assert len(found) == 8
    assert all(float(one["value"][1]) > 0.8 for one in found)
    power = query(ask, f'DCGM_FI_DEV_POWER_USAGE{{exported_pod="{name}"}}')
    assert all(400 < float(one["value"][1]) <= 700 for one in power)


def test_an_xid_stays_as_the_last_value_and_a_lost_gpu_has_no_sensors(cluster, ask) -> None:
    cluster.simulation.faults.inject(NODE, "xid-79", 5)
    xids = query(ask, f'DCGM_FI_DEV_XID_ERRORS{{Hostname="{NODE}"}}')
    assert [one["value"][1] for one in xids] == ["0", "0", "0", "0", "0", "79", "0", "0"]
    temperatures = query(ask, f'DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}}')
    assert [one["metric"]["gpu"] for one in temperatures] == list("0123467")


def test_a_dead_nodes_exporter_is_down(cluster, ask) -> None:
    cluster.simulation.faults.inject(NODE, "node-dead")
    up = {one["metric"]["instance"]: one["value"][1] for one in query(ask, "up")}
    assert up[f"{NODE}:9400"] == "0"
    assert sorted(up.values()) == ["0"] + ["1"] * 7
    assert query(ask, f'DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}}') == []


def test_the_greatest_by_labels_and_the_time_of_a_sample_are_answered(ask) -> None:
    found = query(ask, f'max by (Hostname, absent) (DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}})')
    each = query(ask, f'DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}}')
    assert [one["metric"] for one in found] == [{"Hostname": NODE}]
    assert float(found[0]["value"][1]) == max(float(one["value"][1]) for one in each)
    times = query(ask, f'max by (gpu) (timestamp(DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}"}}))')
    assert [one["metric"]["gpu"] for one in times] == list("01234567")
    assert {float(one["value"][1]) for one in times} == {float(one["value"][0]) for one in times}


def test_a_number_is_a_scalar(ask) -> None:
    _, answer = ask("/api/v1/query", query="1", time="5")
    assert answer["data"] == {"resultType": "scalar", "result": [5.0, "1"]}


def test_a_range_has_a_value_at_each_step(ask) -> None:
    text = f'DCGM_FI_DEV_GPU_TEMP{{Hostname="{NODE}",gpu="0"}}'
    _, answer = ask("/api/v1/query_range", query=text, start="1000", end="1060", step="15s")
    assert answer["data"]["resultType"] == "matrix"
    times = [value[0] for value in answer["data"]["result"][0]["values"]]
    assert times == [1000.0, 1015.0, 1030.0, 1045.0, 1060.0]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("/api/v1/query", {"query": "sum(rate(x[5m]))"}),
        ("/api/v1/query", {"query": "{}"}),
        ("/api/v1/query", {"query": 'x{a=~"("}'}),
        ("/api/v1/query", {"query": "x{a=1}"}),
        ("/api/v1/query", {}),
        ("/api/v1/query", {"query": "up", "time": "noon"}),
        ("/api/v1/query_range", {"query": "up", "start": "0", "end": "1", "step": "0"}),
        ("/api/v1/query_range", {"query": "up", "start": "2", "end": "1", "step": "1"}),
        ("/api/v1/query_range", {"query": "up", "start": "0", "end": "1e9", "step": "1"}),
        ("/api/v1/series", {}),
    ],
)
def test_what_cannot_be_read_is_bad_data(ask, path: str, parameters: dict) -> None:
    status, answer = ask(path, **parameters)
    assert (status, answer["status"], answer["errorType"]) == (400, "error", "bad_data")


def test_series_and_labels_are_listed(ask) -> None:
    _, series = ask("/api/v1/series", **{"match[]": [f'up{{instance="{NODE}:9400"}}']})
    assert series["data"] == [
        {"__name__": "up", "job": "dcgm-exporter", "instance": f"{NODE}:9400"}
    ]
    _, names = ask("/api/v1/label/__name__/values")
    assert "DCGM_FI_DEV_XID_ERRORS" in names["data"]
    _, labels = ask("/api/v1/labels")
    assert {"UUID", "Hostname", "gpu"} <= set(labels["data"])


def test_parameters_come_from_query_and_form() -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    request = Request("POST", "/api/v1/series", headers=headers, body=b"match[]=b&time=1")
    assert parameters_of(request, "match[]=a") == {"match[]": ["a", "b"], "time": "1"}


def test_selectors_match_by_every_operator() -> None:
    labels = {"__name__": "x", "a": "one", "b": 'q"t'}
    assert parse_selector(r'x{a!="two",a=~"o.*",c!~".+",b="q\"t",}').holds(labels)
    assert parse_selector("{__name__='x'}").name() == "x"
    assert not parse_selector('x{a=~"on"}').holds(labels)
    with pytest.raises(QueryInvalid):
        parse_selector('{a!="b"}')
