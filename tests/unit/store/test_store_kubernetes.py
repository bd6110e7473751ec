"""What Kubernetes says becomes nodes, pods, jobs, ranks and intervals, by difference and from the whole."""

from dataclasses import replace

from sqlalchemy import Engine, text

from app.store.engine import read, write
from app.store.reads import fleet, jobs, status
from app.store.writes.kubernetes import (
    gpus_of_pods,
    open_placements,
    store_kubernetes,
    touch_kubernetes,
)
from app.store.writes.picture import KubernetesChanges, Picture, changes_between, picture_of
from app.store.writes.reports import store_reports
from collectors.kubernetes import Holder, JobFact, NodeFact, PlacementChange, PlacementKey, PodFact
from tests.reports import at, finding, gpu, report


def node(name: str, **fields: object) -> NodeFact:
    fact = NodeFact(
        name=name,
        uid=f"uid-{name}",
        block="b1",
        rack="r1",
        kind="NVIDIA-H100-80GB-HBM3",
        ready=True,
        ready_reason="",
        unschedulable=False,
        gpu_count_expected=8,
        gpu_allocatable=8,
        gpu_requested=8,
        operation_id=None,
        boot_id="boot",
        leaf="l1",
        power_domain="pdu-1",
    )
    return replace(fact, **fields)  # type: ignore[arg-type]


def pod(uid: str, where: str | None, rank: int, **fields: object) -> PodFact:
    fact = PodFact(
        uid=uid,
        namespace="ml",
        name=f"train-{rank}",
        node=where,
        phase="Running",
        ready=True,
        gpus=8,
        rank=rank,
        job_uid="j1",
        owner="Job/train",
        created_at=at(0),
        started_at=at(1),
        deleted_at=None,
    )
    return replace(fact, **fields)  # type: ignore[arg-type]


def job(**fields: object) -> JobFact:
    fact = JobFact(
        uid="j1",
        namespace="ml",
        name="train",
        kind="Job",
        api_version="batch/v1",
        team="vision",
        queue=None,
        state="Running",
        reason="",
        gang=True,
        wanted_pods=2,
        running_pods=2,
        gpus=16,
        created_at=at(0),
        started_at=at(0),
        finished_at=None,
        generation=1,
    )
    return replace(fact, **fields)  # type: ignore[arg-type]


def picture() -> Picture:
    return picture_of(
        [node("n1"), node("n2", rack="r2")], [pod("p0", "n1", 0), pod("p1", "n2", 1)], [job()]
    )


def store(engine: Engine, changes: KubernetesChanges, now: float = 0) -> None:
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes, at(now))


def test_whole_picture_is_stored(engine: Engine) -> None:
    store(engine, changes_between(None, picture()))
    first, second = fleet.nodes(engine, "c")
    assert (first.name, first.block, first.rack, first.gpu_allocatable) == ("n1", "b1", "r1", 8)
    with read(engine) as connection:
        places = connection.execute(text("SELECT name, leaf, power_domain FROM node ORDER BY name"))
        assert [tuple(row) for row in places] == [("n1", "l1", "pdu-1"), ("n2", "l1", "pdu-1")]
    assert (first.health, first.health_reason, first.service) == (
        "Unknown",
        "no report yet",
        "In service",
    )
    assert second.rack == "r2"
    (record,) = jobs.jobs(engine, "c")
    assert (record.name, record.state, record.team, record.gang) == (
        "train",
        "Running",
        "vision",
        True,
    )
    assert [(rank.rank, rank.pod_uid, rank.node) for rank in jobs.ranks(engine, "c", "j1")] == [
        (0, "p0", "n1"),
        (1, "p1", "n2"),
    ]
    assert [found.uid for found in fleet.pods_of_node(engine, "c", "n2")] == ["p1"]
    assert [block.name for block in fleet.topology(engine, "c").blocks] == ["b1"]


def test_node_becomes_cordoned_and_a_report_does_not_touch_that(engine: Engine) -> None:
    first = picture()
    store(engine, changes_between(None, first))
    second = picture_of(
        [node("n1", unschedulable=True), node("n2", rack="r2")], first.pods.values(), [job()]
    )
    store(engine, changes_between(first, second), now=5)
    with write(engine) as connection:
        store_reports(connection, "c", [report(sequence=6)], at(7))
    record = fleet.node(engine, "c", "n1")
    assert record is not None
    assert (record.service, record.service_since, record.unschedulable) == ("Cordoned", at(5), True)
    assert (record.health, record.kubernetes_ready, record.block) == ("Healthy", True, "b1")
    counts = status.counts(engine, "c")
    assert counts.nodes_by_service["Cordoned"] == 1


def test_rank_follows_its_job_to_the_pod_that_replaces_it(engine: Engine) -> None:
    first = picture()
    store(engine, changes_between(None, first))
    leaving = pod("p1", "n2", 1, deleted_at=at(3))
    successor = pod("p9", None, 1, phase="Pending", ready=False, created_at=at(4), started_at=None)
    second = picture_of(
        [node("n1"), node("n2", rack="r2")], [pod("p0", "n1", 0), leaving, successor], [job()]
    )
    store(engine, changes_between(first, second))
    ranks = jobs.ranks(engine, "c", "j1")
    assert [(rank.pod_uid, rank.node, rank.phase) for rank in ranks] == [
        ("p0", "n1", "Running"),
        ("p9", None, "Pending"),
    ]


def test_what_is_gone_leaves_and_a_job_stays_as_removed(engine: Engine) -> None:
    first = picture()
    store(engine, changes_between(None, first))
    store(engine, changes_between(first, picture_of([node("n1")], [], [])), now=9)
    assert [record.name for record in fleet.nodes(engine, "c")] == ["n1"]
    assert fleet.pods_of_node(engine, "c", "n2") == []
    (record,) = jobs.jobs(engine, "c")
    assert (record.state, record.finished_at, record.running_pods) == ("Removed", at(9), 0)
    assert record.reason == "it was removed while it was Running"
    assert jobs.ranks(engine, "c", "j1") == []


def test_worker_that_starts_drops_what_went_while_none_watched(engine: Engine) -> None:
    store(engine, changes_between(None, picture()))
    store(engine, changes_between(None, picture_of([node("n2")], [pod("p1", "n2", 1)], [job()])))
    assert [record.name for record in fleet.nodes(engine, "c")] == ["n2"]
    assert [rank.rank for rank in jobs.ranks(engine, "c", "j1")] == [1]
    assert fleet.pods_of_node(engine, "c", "n1") == []


def test_findings_of_a_removed_node_end_with_it(engine: Engine) -> None:
    first = picture()
    store(engine, changes_between(None, first))
    with write(engine) as connection:
        store_reports(connection, "c", [report(findings=[finding()])], at(2))
    store(engine, changes_between(first, picture_of([node("n2", rack="r2")], [], [])), now=9)
    assert fleet.findings_of_node(engine, "c", "n1") == []
    assert fleet.gpus(engine, "c", node="n1") == []


def test_job_on_a_failing_node_is_at_risk(engine: Engine) -> None:
    store(engine, changes_between(None, picture()))
    with write(engine) as connection:
        healthy = report("n2", gpus=[gpu("n2")])
        store_reports(connection, "c", [report(findings=[finding()]), healthy], at(2))
    (record,) = jobs.jobs(engine, "c", at_risk=True)
    assert record.nodes_failing == 1
    assert jobs.jobs(engine, "c", node="n2") == [record]
    assert jobs.jobs(engine, "c", node="n3") == []
    assert status.counts(engine, "c").jobs_at_risk == 1
    assert jobs.job(engine, "c", "ml/train") == record


def test_placements_open_and_close(engine: Engine) -> None:
    opened = PlacementChange("opened", "p0", "n1", "GPU-1", "j1", 0, at(1))
    store(engine, KubernetesChanges(placements=[opened]))
    with read(engine) as connection:
        assert open_placements(connection, "c") == {
            PlacementKey("p0", "n1", "GPU-1"): Holder("j1", 0)
        }
    closed = PlacementChange("closed", "p0", "n1", "GPU-1", "j1", 0, at(8))
    store(engine, KubernetesChanges(placements=[closed]))
    with read(engine) as connection:
        assert open_placements(connection, "c") == {}
        rows = connection.execute(text("SELECT job_uid, rank, node FROM placement")).all()
    assert [tuple(row) for row in rows] == [("j1", 0, "n1")]


def test_placement_told_twice_is_one_interval(engine: Engine) -> None:
    opened = PlacementChange("opened", "p0", "n1", "GPU-1", "j1", 0, at(1))
    store(engine, KubernetesChanges(placements=[opened, opened]))
    store(engine, KubernetesChanges(placements=[opened]))
    with read(engine) as connection:
        assert connection.execute(text("SELECT COUNT(*) FROM placement")).scalar_one() == 1


def test_gpus_of_pods_are_those_agents_see_them_on(engine: Engine) -> None:
    held = [gpu("n1", 0, pod_uids=("p0",)), gpu("n1", 1, pod_uids=("p0",)), gpu("n1", 2)]
    with write(engine) as connection:
        store_reports(connection, "c", [report(gpus=held)], at(2))
        assert gpus_of_pods(connection, "c") == {"p0": ["GPU-n1-0", "GPU-n1-1"]}


def test_same_picture_changes_nothing() -> None:
    assert not changes_between(picture(), picture())
    assert changes_between(None, picture())


def test_touch_moves_only_what_is_old(engine: Engine) -> None:
    store(engine, changes_between(None, picture()))
    for seconds, seen in ((10, 0), (20, 20)):
        with write(engine) as connection:
            touch_kubernetes(connection, "c", at(seconds))
        record = fleet.node(engine, "c", "n1")
        assert record is not None
        assert record.kubernetes_observed_at == at(seen)
