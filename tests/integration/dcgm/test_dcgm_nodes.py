"""Nodes without an agent from Prometheus to the store, over restarts, silence and an agent that starts."""

import json
from datetime import timedelta

import pytest
from dcgm_site import CLUSTER, Site

from app.store.engine import read, write
from app.store.reads.fleet import gpus
from app.store.reads.status import status
from app.store.records import SourceRecord
from app.store.sources import note_agents
from app.store.tables import FleetFrame, GpuMinute, HealthEvent, Node
from app.store.writes.aging import age_nodes
from app.store.writes.reports import store_reports
from collectors.report import Finding, Report
from tests.captures import RECORDED
from tests.cluster_objects import make_pod
from tests.prometheus_servers import answer_of_scrape
from tests.reports import finding, report

CAPTURE = RECORDED / "aicr/extracted/dcgm-exporter-scrape-gpu-node-1-8xH100.prom"


def prometheus(site: Site) -> SourceRecord:
    told = status(site.engine, CLUSTER, site.now())
    return next(one for one in told.sources if one.source == "prometheus")


def agent_report(
    site: Site, place: int = 0, *, seconds: float = 0.0, findings: tuple[Finding, ...] = ()
) -> Report:
    return report(
        site.names[place],
        findings=list(findings),
        observed_at=site.now() + timedelta(seconds=seconds),
        boot_id=site.simulation.hosts.by_name[site.names[place]].boot_id,
        cluster=CLUSTER,
        gpus=[],
    )


def store_agent(site: Site, told: Report) -> None:
    with write(site.engine) as connection:
        store_reports(connection, CLUSTER, [told], site.now())


def test_nodes_without_an_agent_are_judged_and_say_what_nobody_judges(site: Site) -> None:
    watch = site.watch()
    site.polls(watch, 2)
    for place in (0, 1):
        node = site.node(place)
        assert (node.health, node.gpu_count) == ("Healthy", 8)
        assert "GPU rules cannot be judged from dcgm-exporter's series" in node.health_reason
    told = prometheus(site)
    assert (told.state, told.message) == (
        "ok",
        "16 GPUs of 2 nodes read; 2 nodes have no agent",
    )
    found = gpus(site.engine, CLUSTER, node=site.names[0])
    assert [gpu.index for gpu in found] == list(range(8))
    assert all(gpu.temperature_celsius is not None for gpu in found)
    with read(site.engine) as connection:
        frames = connection.execute(FleetFrame.__table__.select()).all()  # type: ignore[attr-defined]
        boot = connection.execute(Node.__table__.select()).first()  # type: ignore[attr-defined]
    assert {row.metric for row in frames} >= {"node_state", "gpu_state", "temperature_celsius"}
    assert boot is not None
    assert boot.reported_by == "dcgm"
    site.polls(watch, 6)
    watch.close()
    with read(site.engine) as connection:
        minutes = connection.execute(GpuMinute.__table__.select()).all()  # type: ignore[attr-defined]
    assert {row.node for row in minutes} == set(site.names)


@pytest.mark.parametrize(
    ("kind", "rule", "health"),
    [
        ("xid-79", "xid-79", "Failing"),
        ("xid-13", "xid-13", "Healthy"),
        ("gpu-lost", "gpu-count", "Failing"),
        ("gpu-count", "gpu-count", "Failing"),
        ("remap-failure", "remap-failure", "Failing"),
        ("remap-pending", "remap-pending", "Degraded"),
        ("remapped-rows", "remapped-rows", "Failing"),
        ("pcie-replay", "pcie-replay", "Degraded"),
        ("slowdown-software-thermal", "slowdown-software-thermal", "Degraded"),
        ("ecc-uncorrectable", "ecc-uncorrected", "Failing"),
    ],
)
def test_what_the_exporter_shows_of_a_fault_is_found_and_ends_with_its_repair(
    sqlite_site: Site, kind: str, rule: str, health: str
) -> None:
    site, watch = sqlite_site, sqlite_site.watch()
    site.polls(watch, 2)
    site.break_gpu(kind, 3)
    site.polls(watch, 6)
    assert rule in [one.rule for one in site.open()]
    assert {one.source for one in site.open()} == {"dcgm"}
    assert site.node().health == health
    assert site.node(1).health == "Healthy"
    site.simulation.faults.repair(site.names[0])
    # An application's XID ends after ten quiet minutes, others with the new boot.
    site.polls(watch, 45 if kind == "xid-13" else 12)
    assert site.open() == []
    assert site.node().health == "Healthy"


def test_a_worker_that_starts_goes_on_with_what_is_open(site: Site) -> None:
    watch = site.watch()
    site.polls(watch, 2)
    for kind, index in (("xid-119", 2), ("remap-pending", 4), ("gpu-count", 5)):
        site.break_gpu(kind, index)
    site.polls(watch, 4)
    before = {(one.rule, one.gpu_uuid, one.episode) for one in site.open()}
    assert sorted(rule for rule, *_ in before) == ["gpu-count", "remap-pending", "xid-119"]
    watch.close()
    second = site.watch()
    site.polls(second, 4)
    assert {(one.rule, one.gpu_uuid, one.episode) for one in site.open()} == before
    second.forget()
    site.polls(second, 2)
    assert {(one.rule, one.gpu_uuid, one.episode) for one in site.open()} == before
    with read(site.engine) as connection:
        events = connection.execute(HealthEvent.__table__.select()).all()  # type: ignore[attr-defined]
    assert sum(event.kind == "finding_opened" for event in events) == 3
    assert sum(event.kind == "xid" for event in events) == 1
    site.simulation.faults.repair(site.names[0])
    site.polls(second, 2)
    assert site.open() == []


def test_an_agent_that_starts_takes_its_node_over(site: Site) -> None:
    watch = site.watch()
    site.polls(watch, 2)
    site.break_gpu("remap-pending")
    site.break_gpu("remap-pending", place=1)
    site.polls(watch)
    assert [one.source for one in site.open()] == ["dcgm"]
    site.advance(1)
    store_agent(site, agent_report(site))
    assert site.open() == []
    assert site.node().health_reason == "no open finding"
    site.polls(watch, 2)
    assert site.open() == []
    assert [one.rule for one in site.open(1)] == ["remap-pending"]
    assert "1 nodes have no agent" in prometheus(site).message
    with write(site.engine) as connection:
        age_nodes(connection, CLUSTER, site.now() + timedelta(seconds=60))
    site.polls(watch, 2)
    assert site.node().health == "Unknown", "dcgm-exporter's word does not stand in for an agent's"


def test_an_agent_whose_clock_is_behind_takes_over_with_all_it_finds(sqlite_site: Site) -> None:
    site, watch = sqlite_site, sqlite_site.watch()
    site.polls(watch, 2)
    lost = finding("agents-own", severity="fatal", since=site.now())
    store_agent(site, agent_report(site, seconds=-30, findings=(lost,)))
    assert [(one.episode, one.source) for one in site.open()] == [("agents-own", "agent")]
    assert site.node().health == "Failing"


def test_what_dcgm_exporter_tells_is_no_agent_that_is_heard(sqlite_site: Site) -> None:
    site = sqlite_site
    site.polls(site.watch())
    with write(site.engine) as connection:
        note_agents(connection, CLUSTER, site.now())
    told = status(site.engine, CLUSTER, site.now())
    assert {one.source: one.state for one in told.sources} == {
        "prometheus": "ok",
        "agents": "blind",
    }


def test_a_node_that_an_agent_took_over_during_a_poll_is_left_to_it(sqlite_site: Site) -> None:
    site, watch = sqlite_site, sqlite_site.watch()
    site.polls(watch, 2)
    site.break_gpu("remap-pending")
    answer = site.answer

    def meanwhile(path: str) -> tuple[int, bytes]:
        if "timestamp" in path:
            store_agent(site, agent_report(site, seconds=1))
            site.answer = answer
        return answer(path)

    site.answer = meanwhile
    site.polls(watch)
    assert site.open() == []
    assert site.node().health_reason == "no open finding"


@pytest.mark.parametrize("failure", ["refuses", "answers nonsense", "fails half-way"])
def test_a_prometheus_that_is_blind_opens_and_closes_nothing(site: Site, failure: str) -> None:
    watch = site.watch()
    site.polls(watch, 2)
    site.break_gpu("remap-pending")
    site.polls(watch)
    before = [one.episode for one in site.open()]
    answer, asked = site.answer, iter(range(10_000))

    def fail(path: str) -> tuple[int, bytes]:
        if failure == "fails half-way" and next(asked) < 8:
            return answer(path)
        return (200, b"<html>") if failure == "answers nonsense" else (503, b"no")

    site.answer = fail
    site.break_gpu("xid-79", 1)
    site.simulation.faults.repair(site.names[0])
    site.polls(watch, 2)
    assert prometheus(site).state == "late"
    site.polls(watch, 3)
    assert prometheus(site).state == "blind"
    assert site.url in prometheus(site).message
    assert [one.episode for one in site.open()] == before
    with write(site.engine) as connection:
        assert set(age_nodes(connection, CLUSTER, site.now())) == set(site.names)
    assert site.node().health == "Unknown"
    site.answer = answer
    site.polls(watch)
    assert site.open() == []
    assert prometheus(site).state == "ok"


def test_a_node_whose_exporter_is_down_ages_into_unknown(sqlite_site: Site) -> None:
    site, watch = sqlite_site, sqlite_site.watch()
    site.polls(watch, 2)
    site.simulation.faults.inject(site.names[0], "node-dead")
    site.polls(watch, 4)
    with write(site.engine) as connection:
        assert age_nodes(connection, CLUSTER, site.now()) == [site.names[0]]
    assert site.open() == [], "silence is no missing GPU"
    assert "8 GPUs of 1 nodes read; 2 nodes have no agent" in prometheus(site).message


def test_an_exporter_that_is_down_for_a_while_leaves_what_is_open_as_it_is(
    sqlite_site: Site,
) -> None:
    site, watch = sqlite_site, sqlite_site.watch()
    site.polls(watch, 2)
    site.break_gpu("remap-pending", 1)
    site.break_gpu("xid-119", 2)
    site.polls(watch)
    before = {one.episode for one in site.open()}
    assert len(before) == 2
    answer = site.answer

    def without(path: str) -> tuple[int, bytes]:
        status, body = answer(path)
        document = json.loads(body)
        document["data"]["result"] = [
            one
            for one in document["data"]["result"]
            if one["metric"].get("Hostname") != site.names[0]
        ]
        return status, json.dumps(document).encode()

    site.answer = without
    site.polls(watch, 8)
    assert {one.episode for one in site.open()} == before
    site.answer = answer
    site.polls(watch, 2)
    assert {one.episode for one in site.open()} == before


def test_where_every_node_has_an_agent_prometheus_is_only_asked_whether_it_is_there(
    sqlite_site: Site,
) -> None:
    site, asked = sqlite_site, []
    for place in (0, 1):
        store_agent(site, agent_report(site, place))
    answer = site.answer

    def note(path: str) -> tuple[int, bytes]:
        asked.append(path)
        return answer(path)

    site.answer = note
    site.polls(site.watch())
    assert len(asked) == 1
    assert prometheus(site).message == "it answers; each of 2 nodes has an agent"


def test_hosts_that_are_no_node_are_left_out_and_names_match_in_lower_case(
    sqlite_site: Site,
) -> None:
    site = sqlite_site
    lines = [
        'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",Hostname="nvidia-dcgm-exporter-x2"} 30',
        f'DCGM_FI_DEV_GPU_TEMP{{gpu="0",UUID="GPU-2",hostname="{site.names[0].upper()}"}} 30',
    ]
    site.answer = answer_of_scrape("\n".join(lines), at=1000.0)
    site.polls(site.watch())
    assert site.node().health == "Healthy"
    assert "1 GPUs of 1 nodes read" in prometheus(site).message
    assert "1 hosts were left" in prometheus(site).message
    with read(site.engine) as connection:
        nodes = connection.execute(Node.__table__.select()).all()  # type: ignore[attr-defined]
    assert len(nodes) == 2


def test_the_recorded_exporter_goes_the_whole_way(sqlite_site: Site) -> None:
    if not CAPTURE.exists():
        pytest.skip(f"{CAPTURE} is missing: the recorded exporter cannot be read")
    site = sqlite_site
    site.add_node("gpu-node-1")
    site.names = ["gpu-node-1"]
    site.answer = answer_of_scrape(CAPTURE.read_text(), at=1_773_114_089.184)
    owner = "vllm-agg-0-vllmdecodeworker-s65j5"
    site.pods = {"uid-owner": make_pod(owner, namespace="dynamo-workload")}
    site.polls(site.watch(), 2)
    found = gpus(site.engine, CLUSTER, node="gpu-node-1")
    assert len(found) == 8
    assert site.node().health == "Healthy"
    assert [gpu.index for gpu in found if gpu.pod_uid == "uid-owner"] == [0]
    assert [gpu.index for gpu in found if gpu.pod_uid is None] == [1, 2, 3, 4, 5, 6, 7]
    unknown = {gpu.index: gpu.missing.get("memory_utilization_ratio") for gpu in found}
    reason = "no series for this GPU"
    assert [index for index, why in unknown.items() if why == reason] == [6, 7]
    assert {gpu.missing["nvlink_active_links"] for gpu in found} == {"not scraped"}
