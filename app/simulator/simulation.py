"""The simulated cluster put together: store, controllers, machines; free of sockets and threads."""

from dataclasses import dataclass

from app.simulator.api.handlers import Api
from app.simulator.clock import Clock, Schedule, SystemClock
from app.simulator.controllers.accounts import AccountController
from app.simulator.controllers.disruption import DisruptionController
from app.simulator.controllers.events import EventRecorder
from app.simulator.controllers.garbage import GarbageCollector
from app.simulator.controllers.heartbeats import Heartbeats
from app.simulator.controllers.jobs import JobController
from app.simulator.controllers.kubelet import Kubelets
from app.simulator.controllers.nodes import NodeController
from app.simulator.controllers.replicas import ReplicaControllers
from app.simulator.controllers.scheduler import Scheduler
from app.simulator.faults import RANK_CRASH, Faults
from app.simulator.hosts import Host, Hosts
from app.simulator.identity import Identity
from app.simulator.registry import Registry
from app.simulator.store import HISTORY_LENGTH, Object, Store
from app.simulator.training import Training
from app.simulator.world import build_nodes, start_daemons, start_workload

NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "pitwall")
SERVICE_ACCOUNTS = ("pitwall-agent", "pitwall-ingest", "pitwall-worker")


@dataclass(frozen=True)
class Options:
    """What a simulated cluster is made of. `kubelets` False: whoever asks plays the kubelet."""

    nodes: int = 64
    seed: int = 1
    with_jobs: bool = True
    kubelets: bool = True
    history_length: int = HISTORY_LENGTH


class Simulation:
    """Everything that the faces show, driven by `schedule`."""

    def __init__(self, options: Options, *, clock: Clock | None = None) -> None:
        self.options = options
        self.clock: Clock = clock or SystemClock()
        self.schedule = Schedule(self.clock)
        self.identity = Identity(options.seed)
        self.store = Store(self.clock, history_length=options.history_length)
        self.registry = Registry(self.store, self.identity)
        self.api = Api(self.registry, logs_of=self._log_of)
        self.hosts = Hosts(self.identity)
        self.faults = Faults(self.hosts, self.clock)
        self.recorder = EventRecorder(self.registry)
        self.heartbeats = Heartbeats(self.registry, self.schedule, self.hosts)
        self.kubelets: Kubelets | None = None
        self.training: Training | None = None
        self._start_controllers()
        self._populate()

    def _start_controllers(self) -> None:
        registry, schedule = self.registry, self.schedule
        self.scheduler = Scheduler(registry, schedule, self.recorder)
        self.jobs = JobController(registry, schedule, self.recorder)
        self.disruption = DisruptionController(registry, schedule)
        self.accounts = AccountController(registry, schedule)
        self.garbage = GarbageCollector(registry, schedule)
        self.replicas = ReplicaControllers(registry, schedule)
        self.nodes = NodeController(registry, schedule, self.recorder)
        self.nodes.start()
        if self.options.kubelets:
            self.kubelets = Kubelets(registry, schedule, hosts=self.hosts, recorder=self.recorder)
            self.training = Training(registry, schedule, hosts=self.hosts, kubelets=self.kubelets)
            self.heartbeats.start()
            self.faults.on_fault.append(self._after_fault)
            self.faults.on_repair.append(self._after_repair)

    def _populate(self) -> None:
        now = self.clock.now()
        for name in NAMESPACES:
            self.registry.create("namespaces", {"metadata": {"name": name}})
        for name in SERVICE_ACCOUNTS:
            account = {"metadata": {"name": name, "namespace": "pitwall"}}
            self.registry.create("serviceaccounts", account)
        build_nodes(self.hosts, self.heartbeats, count=self.options.nodes, now=now)
        if self.options.nodes and self.options.kubelets:
            start_daemons(self.registry, self.hosts, now=now)
        if self.options.nodes and self.options.with_jobs:
            start_workload(self.registry, self.hosts, now=now)

    def _after_fault(self, host: Host) -> None:
        assert self.training is not None
        self.training.on_fault(host)
        if host.faults and host.faults[-1]["kind"] == RANK_CRASH:
            self.training.crash_rank(host)
        if host.is_managed:
            self.heartbeats.report_status(host)  # the device plugin gives a lost GPU no more

    def _after_repair(self, host: Host) -> None:
        assert self.kubelets is not None
        self.kubelets.after_reboot(host)
        self.heartbeats.renew_lease(host)
        self.heartbeats.report_status(host)

    def _log_of(self, pod: Object) -> str:
        return self.training.log_of(pod) if self.training else ""
