"""What a kubelet says of its node: the first registration, leases, the status each five minutes."""

from collections.abc import Collection
from datetime import datetime

from app.simulator.clock import Schedule, as_rfc3339, as_rfc3339_micro
from app.simulator.controllers.conditions import put_condition
from app.simulator.controllers.pods import GPU
from app.simulator.controllers.scheduler import BLOCK_LABEL, RACK_LABEL
from app.simulator.hosts import GPUS_PER_NODE, Host, Hosts
from app.simulator.node_ailments import bad_conditions, write_ailments
from app.simulator.registry import Registry
from app.simulator.store import Object

# A kubelet renews its lease each 10 s (a quarter of 40 s) and reports an unchanged status each 5 min.
LEASE_INTERVAL_SECONDS = 10
STATUS_INTERVAL_SECONDS = 300
LEASE_DURATION_SECONDS = 40
LEASES = "kube-node-lease"
_GOOD = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)  # fmt: skip


class Heartbeats:
    """Keeps the node objects of living machines fresh."""

    def __init__(self, registry: Registry, schedule: Schedule, hosts: Hosts) -> None:
        self._registry = registry
        self._schedule = schedule
        self._hosts = hosts
        self._tick = 0

    def start(self) -> None:
        self._schedule.call_after(1.0, self._turn)

    def _turn(self) -> None:
        """Each second the machines whose turn it is."""
        self._schedule.call_after(1.0, self._turn)
        self._tick += 1
        for number, host in enumerate(self._hosts.by_name.values()):
            if not host.is_managed:
                continue
            if (number + self._tick) % LEASE_INTERVAL_SECONDS == 0:
                self.renew_lease(host)
            if (number + self._tick) % STATUS_INTERVAL_SECONDS == 0:
                self.report_status(host)

    def register(self, host: Host, *, since: datetime) -> None:
        """Create the node object as its kubelet does when it first starts."""
        now = self._registry.clock.now()
        node = node_object(host, now=now)
        for condition in node["status"]["conditions"]:
            condition["lastTransitionTime"] = as_rfc3339(since)
        self._registry.create("nodes", node, created_at=since)
        self.renew_lease(host)

    def renew_lease(self, host: Host) -> None:
        renewed = as_rfc3339_micro(self._registry.clock.now())
        key = (LEASES, host.name)
        old = self._registry.get("leases", key)
        if old is not None:
            spec = {**old.object["spec"], "renewTime": renewed}
            self._registry.put("leases", old, {**old.object, "spec": spec})
            return
        node = self._registry.get("nodes", ("", host.name))
        if node is None:
            return
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": host.name,
            "uid": node.object["metadata"]["uid"],
        }
        self._registry.create(
            "leases",
            {
                "metadata": {"name": host.name, "namespace": LEASES, "ownerReferences": [owner]},
                "spec": {
                    "holderIdentity": host.name,
                    "leaseDurationSeconds": LEASE_DURATION_SECONDS,
                    "renewTime": renewed,
                },
            },
        )

    def report_status(self, host: Host) -> None:
        """Write the node's status: conditions, boot id, what a device plugin has to give.

        What other agents of the node write (node-problem-detector, a taint) goes along with it.
        """
        now = self._registry.clock.now()
        kinds = [str(fault["kind"]) for fault in host.faults]

        def write(node: Object) -> None:
            status = node["status"]
            write_ailments(node, kinds, gpus=len(host.gpus), usable=host.usable_gpus, now=now)
            _put_conditions(status, now, except_types=bad_conditions(kinds))
            status["nodeInfo"]["bootID"] = host.boot_id

        self._registry.modify("nodes", ("", host.name), write)


def _put_conditions(status: Object, now: datetime, *, except_types: Collection[str] = ()) -> None:
    for type_, value, reason, message in _GOOD:
        if type_ in except_types:
            continue
        put_condition(status, type_, value, now=now, reason=reason, message=message)
    for condition in status["conditions"]:
        condition["lastHeartbeatTime"] = as_rfc3339(now)


def node_object(host: Host, *, now: datetime) -> Object:
    """A DGX H100 as its kubelet and NVIDIA's feature discovery describe it."""
    capacity = {
        "cpu": "224",
        "memory": "2113462152Ki",
        "ephemeral-storage": "28122488Mi",
        "hugepages-2Mi": "0",
        "pods": "110",
        GPU: str(GPUS_PER_NODE),
    }
    allocatable = {**capacity, "cpu": "223", "memory": "2109267848Ki", GPU: str(host.usable_gpus)}
    status: Object = {
        "addresses": [
            {"type": "InternalIP", "address": host.address},
            {"type": "Hostname", "address": host.name},
        ],
        "capacity": capacity,
        "allocatable": allocatable,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": host.boot_id,
            "containerRuntimeVersion": "containerd://2.1.4",
            "kernelVersion": "6.8.0-79-generic",
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.36.0",
            "machineID": host.boot_id.replace("-", ""),
            "operatingSystem": "linux",
            "osImage": "Ubuntu 24.04.3 LTS",
            "systemUUID": host.gpus[0].uuid.removeprefix("GPU-") if host.gpus else "",
        },
    }
    _put_conditions(status, now)
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": host.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "dgx-h100",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.count": str(GPUS_PER_NODE),
        "nvidia.com/gpu.memory": "81559",
        "nvidia.com/gpu.family": "hopper",
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/mig.strategy": "none",
        BLOCK_LABEL: host.block,
        RACK_LABEL: host.rack,
    }
    return {
        "metadata": {
            "name": host.name,
            "labels": labels,
            "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        },
        "spec": {"providerID": f"simulator:///{host.rack}/{host.name}"},
        "status": status,
    }
