"""One look at the incidents of a fleet, in SQLite: with nothing open, with 200 findings, and in a storm."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from app.store.engine import migrate, open_store, write
from app.store.writes.incidents import IncidentChanges, refresh_incidents
from app.store.writes.kubernetes import store_kubernetes
from app.store.writes.picture import changes_between, picture_of
from app.store.writes.reports import store_reports
from collectors.report import Finding
from tests.benchmarks.figures import Figures, medians, seconds_of
from tests.reports import at, finding, gpu, report
from tests.unit.store.test_store_kubernetes import job, node, pod

ROUNDS = 5
RACK = 16


class Fleet:
    """Nodes of eight GPUs in racks of 16, each with a pod of a job of 16 nodes."""

    def __init__(self, path: Path, nodes: int, *, jobs: bool) -> None:
        url = f"sqlite:///{path}"
        migrate(url)
        self.engine: Engine = open_store(url)
        self.names = [f"n{number:05}" for number in range(nodes)]
        racks = {name: number // RACK for number, name in enumerate(self.names)}
        facts = [
            node(name, rack=f"r{rack}", leaf=f"l{rack // 2}", power_domain=f"p{rack // 8}", block=f"b{rack // 32}")
            for name, rack in racks.items()
        ]  # fmt: skip
        pods = [
            pod(f"pod-{name}", name, number % RACK, job_uid=f"j{racks[name]}")
            for number, name in enumerate(self.names)
        ]
        work = [
            job(uid=f"j{rack}", name=f"train-{rack}", gpus=8 * RACK, wanted_pods=RACK, running_pods=RACK)
            for rack in sorted(set(racks.values()))
        ]  # fmt: skip
        picture = picture_of(facts, pods if jobs else [], work if jobs else [])
        with write(self.engine) as connection:
            store_kubernetes(connection, "c", changes_between(None, picture), at(0))
        self.report(1, {})

    def report(self, sequence: int, findings: dict[str, list[Finding]]) -> None:
        told = findings or {key: [] for key in self.names}
        reports = [
            report(
                name,
                sequence,
                observed_at=at(sequence),
                findings=found,
                gpus=[gpu(name, index) for index in range(8)],
            )
            for name, found in told.items()
        ]
        with write(self.engine) as connection:
            store_reports(connection, "c", reports, at(sequence))

    def look(self, now: float) -> IncidentChanges:
        with write(self.engine) as connection:
            return refresh_incidents(connection, "c", at(now))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    made: list[Fleet] = []

    def make(nodes: int, *, jobs: bool = True) -> Fleet:
        made.append(Fleet(tmp_path / f"{nodes}.db", nodes, jobs=jobs))
        return made[-1]

    yield make
    for one in made:
        one.engine.dispose()


def lost(name: str, episode: str, **fields: object) -> Finding:
    words = {"rule": "xid-79", "severity": "fatal", "xid": 79, "gpu_uuid": f"GPU-{name}-0"}
    return finding(episode, **(words | fields))


def test_look_at_2000_nodes_with_200_findings(fleet: Callable[..., Fleet]) -> None:
    figures = Figures("incidents, 2,000 nodes of 8 GPUs, SQLite")
    site = fleet(2000)
    (quiet,) = medians(ROUNDS, lambda: site.look(2))
    figures.add("nothing open", quiet, "s", at_most=0.010)
    hit = site.names[::10]
    site.report(3, {name: [lost(name, f"e-{name}", since=at(3))] for name in hit})
    figures.add("200 incidents opened", seconds_of(lambda: site.look(4)), "s")
    assert site.look(5) == IncidentChanges()
    (steady,) = medians(ROUNDS, lambda: site.look(6))
    figures.add("200 findings open, nothing new", steady, "s", at_most=0.100)
    storm = {
        name: [
            lost(name, f"e-{name}", since=at(3)),
            *[
                finding(f"s-{name}-{number}", rule=f"nvlink-{number}", since=at(7))
                for number in range(49)
            ],
        ]
        for name in hit
    }
    site.report(8, storm)
    figures.add("10,000 findings told", seconds_of(lambda: site.look(9)), "s")
    (steady,) = medians(ROUNDS, lambda: site.look(10))
    figures.add("10,000 findings open, nothing new", steady, "s")
    figures.check()


def test_look_at_43750_nodes_with_nothing_open(fleet: Callable[..., Fleet]) -> None:
    figures = Figures("incidents, 43,750 nodes, SQLite")
    site = fleet(43_750, jobs=False)
    (quiet,) = medians(ROUNDS, lambda: site.look(2))
    figures.add("nothing open", quiet, "s", at_most=0.050)
    figures.check()
