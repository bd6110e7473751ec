"""A simulated cluster without agents, its Prometheus over HTTP on a clock that tests move, and a store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Engine

from app.settings import Settings
from app.simulator.clock import ManualClock
from app.simulator.prometheus import PrometheusFace
from app.simulator.simulation import Options, Simulation
from app.store.engine import write
from app.store.reads.fleet import findings_of_node, node
from app.store.records import FindingRecord, NodeRecord
from app.store.tables import Node
from app.worker_dcgm import DcgmWatch
from app.worker_sources import SourceBoard
from k8s.objects import Pod
from k8s.view import ClusterView
from tests.cluster_objects import make_node
from tests.prometheus_servers import Answer, answer_of_face, serving

CLUSTER = "c"
START = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Site:
    """Two nodes of 8 GPUs in a store, a Prometheus, and a watch that the test drives."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.simulation = Simulation(Options(nodes=2, with_jobs=False), clock=ManualClock(START))
        self.advance(0)
        self.names = sorted(self.simulation.hosts.by_name)
        self.url = ""
        self.pods: dict[str, Pod] = {}
        self.answer: Callable[[str], Answer] = answer_of_face(PrometheusFace(self.simulation))
        for name in self.names:
            self.add_node(name)

    def add_node(self, name: str) -> None:
        """Let Kubernetes have said that the node is there."""
        with write(self.engine) as connection:
            connection.execute(
                Node.__table__.insert().values(  # type: ignore[attr-defined]
                    cluster=CLUSTER, name=name, uid=f"uid-{name}", service="In service"
                )
            )

    def now(self) -> datetime:
        return self.simulation.clock.now()

    def advance(self, seconds: float) -> None:
        self.simulation.schedule.advance(seconds)

    def view(self) -> ClusterView:
        """The nodes as Kubernetes knows them, with their boots."""
        nodes = {}
        for name, host in self.simulation.hosts.by_name.items():
            made = make_node(name)
            info = msgspec.structs.replace(made.status.node_info, boot_id=host.boot_id)
            status = msgspec.structs.replace(made.status, node_info=info)
            nodes[name] = msgspec.structs.replace(made, status=status)
        return ClusterView(nodes=nodes, pods=self.pods, synced=True)

    def watch(self, **settings: object) -> DcgmWatch:
        """A watch as a worker that starts makes it."""
        values = {"cluster": CLUSTER, "prometheus_url": self.url, **settings}
        made = Settings(_env_file=None, **values)  # type: ignore[arg-type,call-arg]
        board = SourceBoard(self.engine, CLUSTER, clock=self.now)
        return DcgmWatch(self.engine, settings=made, view=self.view, board=board, clock=self.now)

    def polls(self, watch: DcgmWatch, times: int = 1) -> None:
        """So many polls, 15 s apart."""
        for _ in range(times):
            self.advance(15)
            watch.tick()

    def break_gpu(self, kind: str, index: int = 0, place: int = 0) -> None:
        self.simulation.faults.inject(self.names[place], kind, index)

    def node(self, place: int = 0) -> NodeRecord:
        found = node(self.engine, CLUSTER, self.names[place])
        assert found is not None
        return found

    def open(self, place: int = 0) -> list[FindingRecord]:
        """The open findings of a node."""
        told = findings_of_node(self.engine, CLUSTER, self.names[place])
        return [one for one in told if one.closed_at is None]


@contextmanager
def site_of(engine: Engine) -> Iterator[Site]:
    """A site whose Prometheus is served for as long as the block lasts."""
    site = Site(engine)
    with serving(lambda path: site.answer(path)) as url:
        site.url = url
        yield site
