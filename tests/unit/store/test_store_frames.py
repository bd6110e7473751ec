"""Frames kept step by step are the frames made anew from the rows, and in the topology's order."""

import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from app.store.engine import write
from app.store.frames import refresh_frames, update_frames
from app.store.reads import fleet, status
from app.store.vectors import SCALES, quantize, unpack, values_of
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from collectors.report import NvmlState, Report
from tests.reports import at, finding, gpu, report
from tests.unit.store.test_store_kubernetes import node

METRICS = ["topology", "node_state", "gpu_state", *SCALES]


def tick(engine: Engine, *reports: Report, now: float = 10) -> None:
    with write(engine) as connection:
        stored = store_reports(connection, "c", list(reports), at(now))
        update_frames(
            connection, "c", at(now), health=dict(stored.health), gpu_rows=[stored.gpu_rows]
        )


def contents(engine: Engine) -> dict[str, list[int]]:
    frames = fleet.frames(engine, "c", METRICS)
    return {
        metric: list(unpack(frame.data)) for metric, frame in frames.items() if metric != "topology"
    }


def test_frames_hold_states_and_values_in_slots(engine: Engine) -> None:
    sick = report("n1", findings=[finding(gpu_uuid="GPU-n1-1", severity="warning")],
                  gpus=[gpu("n1", 0, pod_uids=("p",)), gpu("n1", 1, power_watts=None)])  # fmt: skip
    tick(engine, sick, report("n2", gpus=[gpu("n2", 2)]))
    found = contents(engine)
    assert found["node_state"] == [1, 0]
    assert found["gpu_state"] == [4, 1, *[255] * 6, 255, 255, 0, *[255] * 5]
    assert found["power_watts"][:3] == [75, 255, 255]
    frame = fleet.frame(engine, "c", "temperature_celsius")
    assert frame is not None
    assert frame.encoding == "uint8+zlib;scale=0.5"
    values = values_of(frame.data, frame.encoding)
    assert (values[0], values[1], values[10]) == (40.0, 41.0, 42.0)
    assert math.isnan(values[2])


def test_topology_is_ordered_as_people_count(engine: Engine) -> None:
    placed = [("n10", "b2", "r1"), ("n9", "b2", "r1"), ("n1", "b10", "r1"), ("n2", "b2", "r0")]
    facts = [node(name, block=block, rack=rack) for name, block, rack in placed]
    facts.append(node("lone", block=None, rack=None))
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, picture_of(facts, [], [])), at(0))
    topology = fleet.topology(engine, "c")
    assert topology.nodes() == ["n2", "n9", "n10", "n1", "lone"]
    assert [block.name for block in topology.blocks] == ["b2", "b10", "(no block)"]


def test_service_stays_when_a_report_changes_the_health(engine: Engine) -> None:
    cordoned = picture_of([node("n1", unschedulable=True)], [], [])
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, cordoned), at(0))
    tick(engine, report(findings=[finding()]))
    assert contents(engine)["node_state"] == [2 | 1 << 2]


def test_new_node_and_more_slots_make_the_topology_anew(engine: Engine) -> None:
    tick(engine, report("n1"))
    before = fleet.topology(engine, "c")
    tick(engine, report("n2", gpus=[gpu("n2", 11)]))
    after = fleet.topology(engine, "c")
    assert (before.slots, after.slots, after.nodes()) == (8, 12, ["n1", "n2"])
    assert before.version != after.version
    assert contents(engine)["gpu_state"][12 + 11] == 0
    frames = fleet.frames(engine, "c", METRICS)
    assert {frame.topology_version for frame in frames.values()} == {after.version}


def test_gpu_index_out_of_all_bounds_breaks_nothing(engine: Engine) -> None:
    tick(engine, report("n1", gpus=[gpu("n1", 0), gpu("n1", 2**40)]))
    tick(engine, report("n1", sequence=2, gpus=[gpu("n1", 0), gpu("n1", 2**40)]))
    assert contents(engine)["gpu_state"] == [0, *[255] * 7]


def test_values_beyond_a_frames_scale_are_kept_at_its_end() -> None:
    import numpy

    codes = quantize(numpy.array([0.0, 1e9, -5.0, numpy.nan]), "power_watts")
    assert list(codes) == [0, 254, 0, 255]


def test_removed_node_leaves_the_frames_and_its_block_the_summary(engine: Engine) -> None:
    both = picture_of([node("n1"), node("n2", block="b2")], [], [])
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, both), at(0))
    left = picture_of([node("n1")], [], [])
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(both, left), at(1))
    assert fleet.topology(engine, "c").nodes() == ["n1"]
    assert list(status.blocks(engine, "c")) == ["b1"]


@st.composite
def polls(draw: st.DrawFn) -> list[Report]:
    """A few ticks of three nodes, well, sick, hung or with GPUs missing."""
    made = []
    for sequence in range(1, draw(st.integers(2, 6))):
        name = f"n{draw(st.integers(0, 2))}"
        indexes = draw(st.sets(st.integers(0, 3)))
        answering = draw(st.booleans())
        gpus = [
            gpu(
                name,
                index,
                power_watts=draw(st.none() | st.floats(0, 2000)),
                pod_uids=("p",) if draw(st.booleans()) else (),
            )
            for index in sorted(indexes)
        ]
        found = [finding(f"e{sequence}", gpu_uuid=f"GPU-{name}-0")] if draw(st.booleans()) else []
        made.append(
            report(
                name,
                sequence=sequence,
                nvml=NvmlState(answering=answering),
                gpus=gpus if answering else [],
                findings=found,
            )
        )
    return made


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(polls())
def test_frames_kept_step_by_step_are_those_made_anew(
    sqlite_engine: Engine, reports: list[Report]
) -> None:
    with write(sqlite_engine) as connection:
        for table in ("report_stream", "node", "gpu", "finding", "fleet_frame", "summary_block"):
            connection.execute(text(f"DELETE FROM {table}"))
    for one in reports:
        tick(sqlite_engine, one)
    kept, counted = contents(sqlite_engine), status.blocks(sqlite_engine, "c")
    with write(sqlite_engine) as connection:
        refresh_frames(connection, "c", at(20), whole=True)
    assert contents(sqlite_engine) == kept
    assert status.blocks(sqlite_engine, "c") == counted
