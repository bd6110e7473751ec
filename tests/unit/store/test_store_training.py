"""The worker's look at gangs: from the store's latest readings to findings, over restarts."""

from datetime import datetime

from sqlalchemy import Engine, event, text

from app.settings import Settings
from app.store.engine import read, write
from app.store.reads import incidents
from app.store.writes.central import OpenCentral, open_central
from app.store.writes.incidents import refresh_incidents
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from app.worker_training import TrainingWatch, read_jobs
from collectors.kubernetes import PodFact
from tests.reports import at, finding, gpu, report
from tests.unit.store.test_store_kubernetes import job, node, pod


class Site:
    """Two nodes of a gang of two ranks with two GPUs each, told every 15 s."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seconds = 0.0
        self.watch = self.start()
        picture = picture_of(
            [node("n1"), node("n2")],
            [pod("p0", "n1", 0, gpus=2), pod("p1", "n2", 1, gpus=2)],
            [job(gpus=4)],
        )
        with write(engine) as connection:
            store_kubernetes(connection, "c", changes_between(None, picture), at(0))

    def start(self) -> TrainingWatch:
        settings = Settings(cluster="c", store_url="sqlite://", _env_file=None)  # type: ignore[call-arg]
        return TrainingWatch(self.engine, settings=settings, clock=self.now)

    def now(self) -> datetime:
        return at(self.seconds)

    def pass_time(self, rounds: int, *, idle: bool = True, **fields: object) -> None:
        """Reports and a look each 15 s; GPU 1 of n2 does nothing while its peers spin."""
        for _ in range(rounds):
            self.seconds += 15
            for name, uid in (("n1", "p0"), ("n2", "p1")):
                gpus = []
                for index in range(2):
                    is_idle = idle and (name, index) == ("n2", 1)
                    gpus.append(
                        gpu(
                            name,
                            index,
                            pod_uids=(uid,),
                            gpu_utilization_ratio=0.0 if is_idle else 1.0,
                            power_watts=80.0 if is_idle else (210.0 if idle else 640.0),
                            power_limit_watts=700.0,
                        )
                    )
                told = report(
                    name, int(self.seconds), gpus=gpus, **(fields if name == "n2" else {})
                )
                with write(self.engine) as connection:
                    store_reports(connection, "c", [told], self.now())
            self.watch.tick()

    def open(self) -> list[OpenCentral]:
        with read(self.engine) as connection:
            return open_central(connection, "c", "training")


def test_hang_of_a_gang_is_an_incident_of_its_job_with_the_suspect(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(12)  # a job that has just begun is not judged
    assert site.open() == []
    site.pass_time(8)
    (found,) = site.open()
    assert found.key == ("collective-hang", "n2", "GPU-n2-1", "j1")
    with write(engine) as connection:
        refresh_incidents(connection, "c", site.now())
    (incident,) = incidents.incidents(engine, "c")
    assert (incident.scope, incident.subject, incident.cause) == ("job", "j1", "collective-hang")
    assert (incident.first["node"], incident.first["rank"], incident.gpus_hurt) == ("n2", 1, 4)


def test_hang_is_one_episode_over_a_restart_and_ends_with_it(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(20)
    (before,) = site.open()
    site.watch = site.start()
    site.pass_time(3)
    assert [one.episode for one in site.open()] == [before.episode]
    site.pass_time(5, idle=False)
    assert site.open() == []


def test_silent_gang_opens_and_closes_nothing(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(20)
    site.seconds += 300
    site.watch.tick()
    assert len(site.open()) == 1


def test_suspect_with_a_fault_of_its_own_makes_no_hang(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(24, findings=[finding("e9", gpu_uuid="GPU-n2-1", severity="fatal")])
    assert site.open() == []


def tell(engine: Engine, *, pods: list[PodFact], seconds: float, **fields: object) -> None:
    """What Kubernetes says from here on of the gang."""
    picture = picture_of([node("n1"), node("n2")], pods, [job(gpus=4, **fields)])
    with write(engine) as connection:
        store_kubernetes(connection, "c", changes_between(None, picture), at(seconds))


def test_gang_that_lost_a_pod_waits_likely_for_that_rank(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(16, idle=False)
    kept = [pod("p0", "n1", 0, gpus=2)]
    tell(engine, pods=kept, seconds=site.seconds, state="Pending", running_pods=1)
    site.pass_time(8)
    (found,) = site.open()
    assert found.key == ("collective-hang", "", "", "j1")
    assert "rank 1 has no pod" in found.message


def test_hang_ends_with_the_suspension_of_its_job(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(20)
    assert len(site.open()) == 1
    tell(engine, pods=[], seconds=site.seconds, state="Suspended", running_pods=0)
    site.watch.tick()
    assert site.open() == []


def test_power_limit_that_nobody_reads_is_that_of_the_board(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(1)
    with write(engine) as connection:
        connection.execute(
            text("UPDATE gpu SET power_limit_watts = NULL, name = 'NVIDIA H100 80GB HBM3'")
        )
        connection.execute(text("UPDATE gpu SET name = 'NVIDIA H100 PCIe' WHERE node = 'n2'"))
    with read(engine) as connection:
        (found,) = read_jobs(connection, "c", at(30))
    limits = dict(zip(found.node.tolist(), found.power_limit_watts.tolist(), strict=True))
    assert (limits["n1"], limits["n2"] != limits["n2"]) == (700.0, True)
    assert found.age_seconds.tolist() == [15.0] * 4


def test_gpus_that_a_pod_asks_for_and_nobody_reports_are_there_and_not_known(
    engine: Engine,
) -> None:
    site = Site(engine)
    site.pass_time(1)
    pods = [pod("p0", "n1", 0, gpus=2), pod("p1", "n2", None, gpus=3)]
    tell(engine, pods=pods, seconds=site.seconds)
    with read(engine) as connection:
        (found,) = read_jobs(connection, "c", at(15))
    assert sorted(found.rank.tolist()) == [-2, -2, -2, 0, 0]
    assert (int(found.fresh.sum()), found.gpu_uuid.tolist().count("")) == (4, 1)
    assert found.rank_count == 2


def test_look_at_the_gangs_writes_only_what_changed(engine: Engine) -> None:
    site = Site(engine)
    site.pass_time(14, idle=False)
    begun: list[str] = []
    event.listen(engine, "commit", lambda _: begun.append("commit"))
    site.watch.tick()
    assert begun == ["commit"], "a read, and nothing written"
    assert site.open() == []
