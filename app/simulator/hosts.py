"""The machines behind the nodes: GPUs, who runs on them, what is broken. The kubelet's other side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from app.simulator.ailments import Ailments
from app.simulator.identity import Identity

GPUS_PER_NODE = 8
# An NVIDIA SuperPOD of H100s: 4 nodes a rack, 32 nodes a scalable unit behind one spine group.
NODES_PER_RACK = 4
RACKS_PER_BLOCK = 8
# PCI addresses of the GPUs of a DGX H100.
PCI_BUSES = ("1B", "43", "52", "61", "9D", "C3", "D1", "DF")


@dataclass(frozen=True)
class PodReference:
    """The pod that holds a GPU."""

    uid: str
    namespace: str
    name: str


@dataclass
class Gpu:
    """One GPU.

    `power_ratio`: share of its work's power that it draws, where that does not follow from how busy
    it is: a kernel that waits for a peer keeps it busy and does nothing.
    `stalled`: a fault holds whatever process uses it, though the pod stays Running; with
    `stall_ends_with_pod` the next process finds it whole.
    """

    index: int
    uuid: str
    serial: str
    pci_bus_id: str
    pod: PodReference | None = None
    pid: int | None = None
    activity_ratio: float = 0.0
    power_ratio: float | None = None
    lost: bool = False
    stalled: bool = False
    stall_ends_with_pod: bool = False
    ecc_uncorrectable_total: int = 0
    remap_pending: bool = False
    remap_failure: bool = False
    recovery_action: int = 0
    last_xid: int = 0
    ailments: Ailments = field(default_factory=dict)
    ailing_since: float = 0.0  # seconds since the epoch


@dataclass
class Host:
    """One machine of 8 GPUs. `kubelet_dead`: it says nothing any more, but all else lives on."""

    name: str
    block: str
    rack: str
    address: str
    boot_id: str
    gpus: list[Gpu]
    boots: int = 0
    dead: bool = False
    kubelet_dead: bool = False
    nvml_hang: bool = False
    faults: list[dict[str, object]] = field(default_factory=list)
    ailments: Ailments = field(default_factory=dict)

    def gpus_of(self, pod_uid: str) -> list[Gpu]:
        return [gpu for gpu in self.gpus if gpu.pod is not None and gpu.pod.uid == pod_uid]

    @property
    def is_managed(self) -> bool:
        """Whether a kubelet is there to start and end pods and to say how the node is."""
        return not (self.dead or self.kubelet_dead)

    @property
    def usable_gpus(self) -> int:
        return sum(1 for gpu in self.gpus if not gpu.lost)


class Hosts:
    """All machines, with a version that rises at each change of one."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._hosts: dict[str, Host] = {}
        self._changed: dict[str, int] = {}
        self.version = 0
        self.on_change: list[Callable[[], None]] = []

    @property
    def by_name(self) -> Mapping[str, Host]:
        return self._hosts

    def get(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def add(self, number: int) -> Host:
        """Build the machine with this number, counted from 0 over the whole floor."""
        rack_number, place = divmod(number, NODES_PER_RACK)
        block_number, rack_in_block = divmod(rack_number, RACKS_PER_BLOCK)
        block = f"b{block_number + 1:02d}"
        rack = f"{block}-r{rack_in_block + 1}"
        name = f"h100-{rack}-n{place + 1}"
        host = Host(
            name=name,
            block=block,
            rack=rack,
            address=f"10.{64 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}",
            boot_id=self._boot_id(name, 0),
            gpus=[self._gpu(name, index) for index in range(GPUS_PER_NODE)],
        )
        self._hosts[name] = host
        self.touch(name)
        return host

    def _gpu(self, node: str, index: int) -> Gpu:
        serial = 1_650_000_000_000 + self._identity.number("serial", node, index) % 999_999_999
        return Gpu(
            index=index,
            uuid=f"GPU-{self._identity.uuid('gpu', node, index)}",
            serial=str(serial),
            pci_bus_id=f"00000000:{PCI_BUSES[index]}:00.0",
        )

    def _boot_id(self, name: str, boots: int) -> str:
        return self._identity.uuid("boot", name, boots)

    def reboot(self, host: Host) -> None:
        """A new boot: whatever was broken in it is whole again, and no process is left."""
        host.boots += 1
        host.boot_id = self._boot_id(host.name, host.boots)
        host.dead = host.kubelet_dead = host.nvml_hang = False
        host.faults.clear()
        host.ailments.clear()
        for gpu in host.gpus:
            gpu.lost = gpu.stalled = gpu.stall_ends_with_pod = False
            gpu.remap_pending = gpu.remap_failure = False
            gpu.ecc_uncorrectable_total = gpu.recovery_action = gpu.last_xid = 0
            gpu.activity_ratio, gpu.power_ratio = 0.0, None
            gpu.ailments.clear()
        self.touch(host.name)

    def touch(self, name: str) -> None:
        """Say that a machine has changed."""
        self.version += 1
        self._changed[name] = self.version
        for listener in tuple(self.on_change):
            listener()

    def changed_since(self, version: int) -> list[Host]:
        """Machines that changed after `version`; all of them for a version that is not ours."""
        if version > self.version:
            version = 0
        if version == self.version:
            return []
        return [self._hosts[name] for name, at in self._changed.items() if at > version]

    def allocate(self, host: Host, pod: PodReference, wanted: int, *, pid: int) -> bool:
        """Give `wanted` GPUs to a pod, as a device plugin does; False when there are too few."""
        free = [gpu for gpu in host.gpus if gpu.pod is None and not gpu.lost]
        if len(free) < wanted:
            return False
        for offset, gpu in enumerate(free[:wanted]):
            gpu.pod, gpu.pid = pod, pid + offset
            gpu.activity_ratio, gpu.power_ratio = 0.0, None
        if wanted:
            self.touch(host.name)
        return True

    def release(self, host: Host, pod_uid: str) -> None:
        """Take a pod's GPUs back."""
        held = host.gpus_of(pod_uid)
        for gpu in held:
            gpu.pod = gpu.pid = None
            gpu.activity_ratio, gpu.power_ratio = 0.0, None
            if gpu.stall_ends_with_pod:
                gpu.stalled = gpu.stall_ends_with_pod = False
        if held:
            self.touch(host.name)

    def set_activity(
        self, host: Host, pod_uid: str, ratio: float, *, power_ratio: float | None = None
    ) -> None:
        """How busy a pod keeps its GPUs, 0 to 1, and with what power where that is not as usual.

        A GPU that is stalled does nothing.
        """
        changed = False
        for gpu in host.gpus_of(pod_uid):
            is_off = gpu.lost or gpu.stalled or host.dead
            wanted = (0.0, None) if is_off else (ratio, power_ratio)
            changed = changed or (gpu.activity_ratio, gpu.power_ratio) != wanted
            gpu.activity_ratio, gpu.power_ratio = wanted
        if changed:
            self.touch(host.name)
