"""The simulated cluster put together: store, controllers, nodes; free of sockets and threads."""

from dataclasses import dataclass

from app.simulator.api.handlers import Api
from app.simulator.clock import Clock, Schedule, SystemClock
from app.simulator.identity import Identity
from app.simulator.registry import Registry
from app.simulator.store import HISTORY_LENGTH, Store

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
        self.api = Api(self.registry)
        self._create_namespaces()

    def _create_namespaces(self) -> None:
        for name in NAMESPACES:
            self.registry.create("namespaces", {"metadata": {"name": name}})
            self._create_account(name, "default")
        for name in SERVICE_ACCOUNTS:
            self._create_account("pitwall", name)

    def _create_account(self, namespace: str, name: str) -> None:
        self.registry.create(
            "serviceaccounts", {"metadata": {"name": name, "namespace": namespace}}
        )
