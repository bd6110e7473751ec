"""What goes to the browser for the map, and what of the browser's word is believed."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import streamlit as st

from app.settings import Settings
from app.store.engine import open_store
from app.store.reads import map as map_reads
from app.store.vectors import ABSENT, node_values
from app.ui import context, live, live_map
from app.ui.components import fleet_map
from tests.browser.map_frames import another_topology, colour
from tests.browser.seed import CLUSTER, seed


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[live.Fleet]:
    url = f"sqlite:///{tmp_path}/store.db"
    seed(url, 64)
    colour(url)
    context.use(Settings(store_url=url))
    st.cache_resource.clear()
    found = live.fleet_frames()
    assert found is not None
    yield found
    st.cache_resource.clear()
    context.use(Settings())


def opened(message: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    (length,) = struct.unpack_from("<I", message)
    header, at, parts = json.loads(message[4 : 4 + length]), 4 + length, {}
    for name, size in header["parts"]:
        parts[name] = zlib.decompress(message[at : at + size])
        at += size
    return header, parts


@pytest.mark.parametrize("by", live_map.COLOUR_BY)
def test_each_colour_sends_a_byte_a_node_and_a_gpu(fleet: live.Fleet, by: str) -> None:
    header, parts = opened(fleet_map.map_message(fleet, {"by": by}, height=600))
    assert header["by"] == by
    assert header["by_gpu"]
    assert len(parts["node_state"]) == 64
    assert len(parts["gpu_state"]) == 64 * 8
    if by in {*live_map.METRICS, "xid"}:
        assert len(parts["node"]) == 64
        assert len(parts["gpu"]) == 64 * 8
    if by in {"job", "team"}:
        assert len(parts["job"]) == 64


def test_an_unknown_colour_is_health(fleet: live.Fleet) -> None:
    for by in ("<script>", 7, None, ["job"]):
        header, _ = opened(fleet_map.map_message(fleet, {"by": by}, height=600))
        assert header["by"] == "health"


def test_a_nodes_byte_is_its_hottest_gpu_and_unknown_stays_unknown(fleet: live.Fleet) -> None:
    header, parts = opened(fleet_map.map_message(fleet, {"by": "temperature"}, height=600))
    nodes = numpy.frombuffer(parts["node"], numpy.uint8)
    gpus = numpy.frombuffer(parts["gpu"], numpy.uint8).reshape(64, 8)
    states = numpy.frombuffer(parts["node_state"], numpy.uint8)
    assert (nodes[states & 3 == 3] == ABSENT).all()
    well = numpy.flatnonzero((gpus != ABSENT).all(axis=1))
    hottest = gpus[well].max(axis=1) * header["gpu_step"]
    assert numpy.abs(nodes[well] * header["step"] - hottest).max() <= header["step"] / 2


def test_a_mean_leaves_out_what_is_not_known() -> None:
    codes = numpy.array([10, 20, ABSENT, ABSENT, ABSENT, ABSENT], dtype=numpy.uint8)
    found = node_values(codes, slots=2, scale=2.0, highest=False)
    assert found[0] == 30
    assert numpy.isnan(found[1:]).all()


def test_a_large_fleet_is_sent_the_gpus_it_looks_at_alone(
    fleet: live.Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "GPU_CELLS_UP_TO_NODES", 40)
    asked = {"by": "power", "version": fleet.version, "spans": [[3, 2], [10, 1]]}
    header, parts = opened(fleet_map.map_message(fleet, asked, height=600))
    assert not header["by_gpu"]
    assert header["spans"] == [[3, 2], [10, 1]]
    assert len(parts["gpu_state"]) == len(parts["gpu"]) == 3 * 8
    header, parts = opened(fleet_map.map_message(fleet, {"by": "power"}, height=600))
    assert header["spans"] == []
    assert "gpu_state" not in parts


@pytest.mark.parametrize(
    "told",
    [
        None,
        "spans",
        {"version": "other", "spans": [[0, 1]]},
        {"version": "seed-64", "spans": [[0, 65]]},
        {"version": "seed-64", "spans": [[63, 2]]},
        {"version": "seed-64", "spans": [[-1, 2]]},
        {"version": "seed-64", "spans": [[0, 0]]},
        {"version": "seed-64", "spans": [[0, True]]},
        {"version": "seed-64", "spans": [["0", 1]]},
        {"version": "seed-64", "spans": [[0, 1, 2]]},
        {"version": "seed-64", "spans": [[0, 6], [0, 6]]},
        {"version": "seed-64", "spans": "ab"},
    ],
)
def test_spans_that_are_none_of_this_fleet_are_not_believed(fleet: live.Fleet, told: Any) -> None:
    assert live_map.spans_of(told, fleet, most=10) == ()


def test_a_selection_is_taken_by_name_and_a_stale_one_refused(fleet: live.Fleet) -> None:
    names = live.topology(fleet.version).nodes()
    asked = {"ask": "drain", "version": fleet.version, "spans": [[7, 2], [20, 1]]}
    assert fleet_map.picked_of(asked, fleet) == fleet_map.Picked(
        "drain", (names[7], names[8], names[20])
    )
    another_topology(context.settings().store_url)
    st.cache_resource.clear()
    now = live.fleet_frames()
    assert now is not None
    refused = fleet_map.picked_of(asked, now)
    assert isinstance(refused, fleet_map.Refused)
    assert "came or went" in refused.word


def test_more_than_can_be_drained_at_once_is_refused(fleet: live.Fleet) -> None:
    asked = {"ask": "drain", "version": fleet.version, "spans": [[0, 64]] * 5}
    assert isinstance(fleet_map.picked_of(asked, fleet), fleet_map.Refused)


def test_the_largest_pod_says_whose_a_node_is() -> None:
    order = {name: at for at, name in enumerate("abcd")}
    known = {"x": ("x", "ns", "big", "red"), "y": ("y", "ns", "small", None)}
    placed = map_reads.place([("y", 1, ["a", "c", "gone"]), ("x", 8, ["a", "b"])], known, order)
    labels = [job.label for job in placed.jobs]
    assert labels == ["ns/big", "ns/small"]
    assert placed.nodes.tolist() == [0, 0, 1, ABSENT]
    assert set(placed.teams) == {"red"}


def test_past_the_named_jobs_a_node_has_another_job() -> None:
    order = {f"n{at}": at for at in range(300)}
    held = [(f"job-{at}", 8, [f"n{at}"]) for at in range(300)]
    placed = map_reads.place(held, {}, order)
    assert len(placed.jobs) == map_reads.MOST_KINDS
    assert (placed.nodes == map_reads.OTHER).sum() == 300 - map_reads.MOST_KINDS
    assert sum(job.colour is not None for job in placed.jobs) == map_reads.COLOURS


def test_a_kind_keeps_its_colour_when_another_grows_past_it() -> None:
    before = map_reads.colours_of(["a", "b", "c"])
    after = map_reads.colours_of(["b", "a", "c"])
    assert sorted(before.values()) == sorted(after.values())
    assert len(set(before.values())) == 3
    alone = {kind: map_reads.colours_of([kind])[kind] for kind in "abc"}
    for kind, colour_of in alone.items():
        if list(alone.values()).count(colour_of) == 1:
            assert before[kind] == after[kind]


def test_the_newest_xid_of_a_node_is_its_own() -> None:
    rows = [("a", 0, 13), ("a", 3, 79), ("b", 1, 48), ("gone", 0, 79), ("b", 9, 31)]
    found = map_reads.spread_xids(rows, {"a": 0, "b": 1, "c": 2}, 8)
    told = [None if code == ABSENT else found.codes[code] for code in found.nodes]
    assert told == [79, 48, None]
    assert found.codes[found.gpus[0]] == 13
    assert found.codes[found.gpus[3]] == 79
    assert (found.gpus != ABSENT).sum() == 3


def test_the_jobs_of_the_store_are_placed(fleet: live.Fleet) -> None:
    engine = open_store(context.settings().store_url)
    placed = map_reads.placed_jobs(engine, CLUSTER, live.order(fleet.version))
    assert placed.jobs[0].label == "research/train-00"
    assert (placed.nodes == 0).sum() == 64 * 280 // 1000
    engine.dispose()
