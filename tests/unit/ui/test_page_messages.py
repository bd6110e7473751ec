"""What goes to the browser: the map's packed messages, and what is read out of a plan."""

import json
import struct
import zlib
from datetime import UTC, datetime

import pytest

from app.store.records import Block, GpuRecord, Rack, Topology
from app.ui.components import kit, plan
from app.ui.components.fleet_map import compact
from app.ui.components.readings import readings_of
from tests.browser.answering import drain_plan
from tests.browser.seed import build_topology

NOW = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)


def test_a_packed_message_holds_its_header_and_parts() -> None:
    message = kit.pack({"version": "7"}, {"a": b"123", "b": b""})
    (length,) = struct.unpack_from("<I", message)
    assert json.loads(message[4 : 4 + length]) == {"version": "7", "parts": [["a", 3], ["b", 0]]}
    assert message[4 + length :] == b"123"


@pytest.mark.parametrize(
    "names", [("n-1", "n-2", "n-10"), ("only",), ("a", "b"), ("x", "x-1"), ("ä-1", "ä-2")]
)
def test_the_compact_topology_gives_every_name_back(names: tuple[str, ...]) -> None:
    packed = compact(Topology("1", 8, (Block("b", (Rack("r", names),)),)))
    [[block, [[rack, prefix, ends]]]] = packed["blocks"]
    assert (block, rack, tuple(prefix + end for end in ends)) == ("b", "r", names)


def test_names_of_43_750_nodes_take_few_bytes() -> None:
    packed = zlib.compress(json.dumps(compact(build_topology(43_750))).encode(), 9)
    assert len(packed) < 30_000


def test_a_reading_that_is_not_known_is_never_a_number() -> None:
    gpu = GpuRecord(**{**dict.fromkeys(GpuRecord.__struct_fields__), "uuid": "GPU-1", "node": "n", "health": "Failing", "health_reason": "lost",
                       "missing": {"power_watts": "NVML answers: GPU is lost"}})  # fmt: skip
    readings = readings_of(gpu)
    assert {name for name, reading in readings.items() if reading["value"] is not None} == {"xid"}
    assert readings["power"]["help"] == "NVML answers: GPU is lost"
    assert "ratio" not in readings["power"]


def test_a_plan_that_fits_asks_for_no_typing() -> None:
    good = drain_plan("n")
    assert (plan.to_type(good), plan.hard_blockers(good), plan.is_refused(good)) == ([], [], False)


def test_a_job_without_room_must_be_typed_and_other_blockers_stand() -> None:
    job = {
        **drain_plan("n")["jobs"][0],
        "fit": {"verdict": "does_not_fit", "nodes": [], "reason": "no room"},
    }
    stops = "Job pretrain/llama-70b-pretrain does not fit elsewhere (no room): to stop it all the same, type its name, llama-70b-pretrain."
    other = "Pod a/b is not moved: it has emptyDir data."
    blocked = drain_plan("n", jobs=[job], blockers=[stops, other])
    assert plan.to_type(blocked) == ["llama-70b-pretrain"]
    assert plan.hard_blockers(blocked) == [other]


def test_a_limit_that_refuses_is_told_and_ends_it() -> None:
    refused = drain_plan(
        "n",
        limits={
            "verdict": "refused",
            "lines": [
                {
                    "name": "x",
                    "limit": 1,
                    "now": 1,
                    "after": 2,
                    "message": "2 nodes would be out; the limit is 1.",
                }
            ],
        },
    )
    assert plan.is_refused(refused)
    assert plan.notes_of(refused)[0] == {
        "text": "2 nodes would be out; the limit is 1.",
        "tone": "act",
    }
    assert {"label": "Limits", "value": "refused"}.items() <= plan.figures_of(refused)[-1].items()
