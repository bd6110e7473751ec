"""Reports become state once, in the order they were observed in, and episodes never reopen."""

import itertools
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from app.store.engine import read, write
from app.store.reads import fleet
from app.store.writes.reports import Stored, store_reports
from collectors.report import NvmlState, Report
from tests.reports import NOW, at, finding, gpu, report, xid


def store(engine: Engine, *reports: Report, now: float = 10) -> Stored:
    with write(engine) as connection:
        return store_reports(connection, "c", list(reports), at(now))


def rows(engine: Engine, statement: str) -> list[tuple]:
    with read(engine) as connection:
        return [tuple(row) for row in connection.execute(text(statement))]


def kinds(engine: Engine) -> list[tuple]:
    return rows(
        engine, "SELECT kind, code FROM health_event WHERE kind <> 'node_health' ORDER BY id"
    )


def test_report_makes_node_and_gpus_known(engine: Engine) -> None:
    stored = store(engine, report())
    assert stored.outcomes == ["stored"]
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert (node.health, node.gpu_count, node.driver_version) == ("Healthy", 2, "570.86")
    assert (node.service, node.observed_at, node.score) == ("In service", at(1), 0)
    first, second = fleet.gpus(engine, "c", node="n1")
    assert (first.uuid, first.health, first.temperature_celsius) == ("GPU-n1-0", "Healthy", 40.0)
    assert (second.index, second.power_watts, second.ecc_uncorrected_total) == (1, 300.0, None)


def test_missing_values_keep_their_reasons(engine: Engine) -> None:
    lost = gpu(index=0, power_watts=None, missing={"power_watts": "not supported"})
    store(engine, report(gpus=[lost]))
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert (record.power_watts, record.missing) == (None, {"power_watts": "not supported"})


def test_same_report_twice_is_stored_once(engine: Engine) -> None:
    first = report(xids=[xid()], findings=[finding()])
    assert store(engine, first).outcomes == ["stored"]
    assert store(engine, first, now=20).outcomes == ["duplicate"]
    assert kinds(engine) == [("finding_opened", "gpu-lost"), ("xid", "xid-79")]
    assert rows(engine, "SELECT code, count FROM event_day ORDER BY code") == [
        ("gpu-lost", 1),
        ("xid-79", 1),
    ]


def test_duplicates_inside_one_batch_are_stored_once(engine: Engine) -> None:
    first = report(xids=[xid()])
    assert store(engine, first, first, first).outcomes.count("stored") == 1
    assert kinds(engine) == [("xid", "xid-79")]


def test_older_observation_of_a_new_spool_does_not_overwrite(engine: Engine) -> None:
    store(engine, report(sequence=5, gpus=[gpu(temperature_celsius=70.0)]))
    older = report(
        sequence=1, spool_id="another", observed_at=at(2), gpus=[gpu(temperature_celsius=20.0)]
    )
    assert store(engine, older).outcomes == ["older"]
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert (record.temperature_celsius, record.observed_at) == (70.0, at(5))


def test_older_observation_of_the_same_spool_does_not_overwrite(engine: Engine) -> None:
    store(engine, report(sequence=5, observed_at=at(50)), now=60)
    stepped_back = report(sequence=6, observed_at=at(40), gpus=[gpu(temperature_celsius=20.0)])
    assert store(engine, stepped_back, now=60).outcomes == ["older"]
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert record.temperature_celsius == 40.0


def test_batch_in_any_order_ends_at_the_newest(engine: Engine) -> None:
    late, early = report(sequence=3, gpus=[gpu(power_watts=3.0)]), report(sequence=2)
    assert store(engine, late, early).outcomes == ["stored", "stored"]
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert record.power_watts == 3.0


def test_finding_fails_its_gpu_and_node(engine: Engine) -> None:
    store(engine, report(findings=[finding(gpu_uuid="GPU-n1-0", severity="fatal", xid=79)]))
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert (node.health, node.health_reason) == ("Failing", "GPU 0 fell off the bus")
    assert node.score > 400
    healths = {record.uuid: record.health for record in fleet.gpus(engine, "c")}
    assert healths == {"GPU-n1-0": "Failing", "GPU-n1-1": "Healthy"}
    assert [record.name for record in fleet.worst_nodes(engine, "c")] == ["n1"]


def test_finding_that_changes_no_health_leaves_it(engine: Engine) -> None:
    store(engine, report(findings=[finding(gpu_uuid="GPU-n1-0", changes_health=False)]))
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert node.health == "Healthy"
    assert [record.health for record in fleet.gpus(engine, "c")] == ["Healthy", "Healthy"]


def test_finding_that_a_newer_report_lacks_is_closed(engine: Engine) -> None:
    store(engine, report(findings=[finding()]))
    assert len(fleet.findings_of_node(engine, "c", "n1")) == 1
    store(engine, report(sequence=2))
    assert fleet.findings_of_node(engine, "c", "n1") == []
    (closed,) = fleet.findings_of_node(engine, "c", "n1", open_only=False)
    assert closed.closed_at == at(2)
    assert kinds(engine) == [("finding_opened", "gpu-lost"), ("finding_closed", "gpu-lost")]


def test_closed_episode_does_not_reopen_by_a_late_report(engine: Engine) -> None:
    store(engine, report(sequence=2, findings=[finding()]))
    store(engine, report(sequence=4))
    late = report(sequence=1, spool_id="another", observed_at=at(3), findings=[finding()])
    assert store(engine, late).outcomes == ["older"]
    assert fleet.findings_of_node(engine, "c", "n1") == []
    assert kinds(engine) == [("finding_opened", "gpu-lost"), ("finding_closed", "gpu-lost")]


def test_closed_episode_does_not_reopen_by_a_newer_report_and_the_agent_is_told(
    engine: Engine,
) -> None:
    store(engine, report(sequence=1, findings=[finding()]))
    store(engine, report(sequence=2))
    stored = store(engine, report(sequence=3, findings=[finding()]))
    assert stored.closed_episodes == {"n1": ["e1"]}
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert node.health == "Healthy"
    assert fleet.findings_of_node(engine, "c", "n1") == []


def test_new_fault_after_recovery_is_a_new_episode(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding("e1")]))
    store(engine, report(sequence=2))
    store(engine, report(sequence=3, findings=[finding("e2")]))
    assert [record.episode for record in fleet.findings_of_node(engine, "c", "n1")] == ["e2"]


def test_episode_known_only_from_a_late_report_is_history(engine: Engine) -> None:
    store(engine, report(sequence=5))
    late = report(sequence=1, spool_id="another", observed_at=at(2), findings=[finding("old")])
    store(engine, late)
    (record,) = fleet.findings_of_node(engine, "c", "n1", open_only=False)
    assert (record.episode, record.closed_at) == ("old", at(5))
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert node.health == "Healthy"


def test_episode_of_another_node_is_not_taken(engine: Engine) -> None:
    store(engine, report(findings=[finding("e1")]))
    store(engine, report("n2", findings=[finding("e1", message="mine now")]))
    assert [record.message for record in fleet.findings_of_node(engine, "c", "n1")] == [
        "GPU 0 fell off the bus"
    ]
    store(engine, report("n2", sequence=2))
    assert len(fleet.findings_of_node(engine, "c", "n1")) == 1


def test_xid_becomes_event_day_count_and_last_xid(engine: Engine) -> None:
    store(engine, report(xids=[xid(count=3)]))
    (event,) = [event for event in fleet.events_of_node(engine, "c", "n1") if event.kind == "xid"]
    assert (event.code, event.severity, event.count, event.at) == ("xid-79", "fatal", 3, NOW)
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert (record.last_xid, record.last_xid_at) == (79, NOW)
    assert rows(engine, "SELECT day, node, code, count FROM event_day") == [
        ("2026-11-24", "n1", "xid-79", 3)
    ]


def test_xid_that_folded_in_more_repeats_counts_only_what_came_since(engine: Engine) -> None:
    store(engine, report(xids=[xid(count=3)]))
    store(engine, report(sequence=2, xids=[xid(count=5, last_at=at(2))]))
    store(engine, report(sequence=3, xids=[xid(count=5, last_at=at(2))]))
    assert rows(engine, "SELECT count FROM health_event WHERE kind = 'xid' ORDER BY id") == [
        (3,),
        (2,),
    ]
    assert rows(engine, "SELECT count FROM event_day") == [(5,)]


def test_older_xid_does_not_become_the_last_one(engine: Engine) -> None:
    store(engine, report(sequence=5, xids=[xid("x2", 48, at=at(4), last_at=at(4))]))
    late = report(sequence=1, spool_id="b", observed_at=at(2), xids=[xid("x1", 79)])
    store(engine, late)
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert record.last_xid == 48
    assert sorted(kinds(engine)) == [("xid", "xid-48"), ("xid", "xid-79")]


def test_xid_of_a_clock_not_set_yet_is_dated_by_its_report(engine: Engine) -> None:
    long_ago = NOW - timedelta(days=20_000)
    store(engine, report(xids=[xid(at=long_ago, last_at=long_ago)]))
    assert rows(engine, "SELECT day FROM event_day") == [("2026-11-24",)]


def test_silent_nvml_makes_node_and_gpus_unknown(engine: Engine) -> None:
    store(engine, report())
    silent = NvmlState(answering=False, message="NVML does not answer for 30 s")
    store(engine, report(sequence=2, nvml=silent, gpus=[]))
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert (node.health, node.health_reason) == ("Unknown", "NVML does not answer for 30 s")
    assert node.gpu_count == 2
    for record in fleet.gpus(engine, "c"):
        assert (record.health, record.health_reason) == ("Unknown", "NVML does not answer for 30 s")


def test_gpu_that_is_not_listed_any_more_is_unknown(engine: Engine) -> None:
    store(engine, report())
    store(engine, report(sequence=2, gpus=[gpu(index=1)]))
    healths = {record.uuid: record.health for record in fleet.gpus(engine, "c")}
    assert healths == {"GPU-n1-0": "Unknown", "GPU-n1-1": "Healthy"}
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert (node.gpu_count, node.gpu_count_expected) == (1, 2)


def test_report_from_before_the_silence_limit_never_says_healthy(engine: Engine) -> None:
    store(engine, report(), now=600)
    node = fleet.node(engine, "c", "n1")
    assert node is not None
    assert node.health == "Unknown"
    assert node.health_reason.startswith("no report since 2026-11-24 12:00:01")
    assert {record.health for record in fleet.gpus(engine, "c")} == {"Unknown"}


def test_gpu_claimed_by_another_node_stays_with_the_one_that_reports_it(engine: Engine) -> None:
    store(engine, report())
    store(engine, report("n2", sequence=2, gpus=[gpu("n1", 0, power_watts=1.0)]))
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert (record.node, record.power_watts) == ("n1", 300.0)


def test_gpu_moved_into_another_node_follows(engine: Engine) -> None:
    store(engine, report())
    moved = report("n2", sequence=900, gpus=[gpu("n1", 0, power_watts=1.0)])
    store(engine, moved, now=901)
    record = fleet.gpu(engine, "c", "GPU-n1-0")
    assert record is not None
    assert (record.node, record.power_watts) == ("n2", 1.0)


def test_health_since_stays_while_health_does(engine: Engine) -> None:
    store(engine, report(sequence=1, findings=[finding(gpu_uuid="GPU-n1-0")]))
    store(engine, report(sequence=9, findings=[finding(gpu_uuid="GPU-n1-0")]))
    node, record = fleet.node(engine, "c", "n1"), fleet.gpu(engine, "c", "GPU-n1-0")
    assert node is not None
    assert record is not None
    assert (node.health_since, record.health_since) == (at(1), at(1))
    assert (node.observed_at, record.observed_at) == (at(9), at(9))


def test_change_of_health_is_an_event_and_no_change_is_none(engine: Engine) -> None:
    for sequence, findings in enumerate([[], [], [finding()], [finding()], []], start=1):
        store(engine, report(sequence=sequence, findings=findings))
    assert rows(engine, "SELECT code FROM health_event WHERE kind = 'node_health' ORDER BY id") == [
        ("Healthy",),
        ("Failing",),
        ("Healthy",),
    ]


def test_pod_of_an_idle_gpu_is_found_by_its_name(engine: Engine) -> None:
    from collectors.readings import PodReference

    with write(engine) as connection:
        connection.execute(
            text(
                "INSERT INTO pod (cluster, uid, namespace, name, node, phase, ready, gpus, owner, observed_at) "
                "VALUES ('c', 'u1', 'ml', 'train-0', 'n1', 'Running', true, 8, '', '2026-11-24 12:00:00.000000')"
            )
        )
    given_to = gpu(allocated_to=(PodReference(namespace="ml", name="train-0"),))
    store(engine, report(gpus=[given_to, gpu(index=1)]))
    assert [record.pod_uid for record in fleet.gpus(engine, "c")] == ["u1", None]


def test_many_nodes_are_stored_as_few_are(engine: Engine) -> None:
    fleet_of = [report(f"n{number}", findings=[finding(f"e{number}")] if number % 3 == 0 else [])
                for number in range(2100)]  # fmt: skip
    assert set(store(engine, *fleet_of).outcomes) == {"stored"}
    again = [report(f"n{number}", sequence=2) for number in range(2100)]
    assert set(store(engine, *again).outcomes) == {"stored"}
    assert rows(engine, "SELECT COUNT(*) FROM gpu") == [(4200,)]
    assert rows(engine, "SELECT COUNT(*) FROM finding WHERE closed_at IS NULL") == [(0,)]
    assert rows(engine, "SELECT COUNT(*) FROM finding") == [(700,)]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    order=st.permutations(range(8)),
    cuts=st.lists(st.integers(1, 7), max_size=4),
    repeats=st.lists(st.integers(0, 7), max_size=4),
)
def test_order_batches_and_repeats_never_change_the_end_state(
    sqlite_engine: Engine, order: list[int], cuts: list[int], repeats: list[int]
) -> None:
    """Eight reports of two spools, however they arrive: the newest observation is what is known."""
    with write(sqlite_engine) as connection:
        for table in ("report_stream", "node", "gpu", "finding"):
            connection.execute(text(f"DELETE FROM {table}"))
    # Within a spool the agent pushes in order, so each spool's own order is kept.
    spools = {name: iter([number for number in range(8) if number % 2 == name]) for name in (0, 1)}
    arrived = [next(spools[number % 2]) for number in order]
    sent = [
        report(
            sequence=number // 2 + 1,
            spool_id=f"s{number % 2}",
            observed_at=at(number),
            gpus=[gpu(power_watts=float(number))],
            findings=[finding(f"e{number // 3}", since=at(number // 3 * 3))],
        )
        for number in [*arrived, *repeats]
    ]
    edges = sorted({0, len(sent), *cuts})
    for start, end in itertools.pairwise(edges):
        store(sqlite_engine, *sent[start:end])
    record = fleet.gpu(sqlite_engine, "c", "GPU-n1-0")
    assert record is not None
    assert record.power_watts == 7.0
    assert [found.episode for found in fleet.findings_of_node(sqlite_engine, "c", "n1")] == ["e2"]


def test_failure_in_the_middle_stores_nothing(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError):
        _store_then_fail(engine)
    assert rows(engine, "SELECT COUNT(*) FROM report_stream") == [(0,)]
    assert rows(engine, "SELECT COUNT(*) FROM gpu") == [(0,)]
    assert store(engine, report()).outcomes == ["stored"]


def _store_then_fail(engine: Engine) -> None:
    with write(engine) as connection:
        store_reports(connection, "c", [report(findings=[finding()])], at(10))
        raise ZeroDivisionError


def test_a_gpu_that_another_one_stands_in_for_is_unknown(engine: Engine) -> None:
    store(engine, report(sequence=1, gpus=[gpu("n1", 0), gpu("n1", 1)]))
    store(engine, report(sequence=2, gpus=[gpu("n1", 0), gpu("n1", 2)]))
    states = {one.uuid: one.health for one in fleet.gpus(engine, "c", node="n1")}
    assert states == {"GPU-n1-0": "Healthy", "GPU-n1-1": "Unknown", "GPU-n1-2": "Healthy"}
