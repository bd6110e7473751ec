"""Faults by name: what breaks in the machine, what the kernel logs, what it does to the work on it.

A fault that holds a rank leaves its pod Running without progress, as XID 79 does on a real node,
so that it takes an operator to bring the job back. XIDs of the application's class and others that
need nothing of the hardware are logged and hold nobody.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.simulator.ailments import GPU_AILMENTS, JOB_AILMENTS, NODE_AILMENTS
from app.simulator.clock import Clock
from app.simulator.errors import FaultRefused
from app.simulator.hosts import Gpu, Host, Hosts
from app.simulator.node_ailments import NODE_OBJECT_AILMENTS

KUBELET_DEAD, RANK_CRASH = "kubelet-dead", "rank-crash"
COLLECTIVE_HANG = "collective-hang"
NODE_KINDS = (
    *("nvml-hang", "node-dead", KUBELET_DEAD, RANK_CRASH),
    *NODE_AILMENTS,
    *NODE_OBJECT_AILMENTS,
)
KINDS = (
    *("xid-N", "sxid-N", "gpu-lost", "ecc-uncorrectable", COLLECTIVE_HANG),
    *GPU_AILMENTS,
    *JOB_AILMENTS,
    *NODE_KINDS,
)
# NVML field 230, the recovery action that a GPU asks for: none, reset, reboot, ...
RESET, REBOOT = 1, 2
XIDS_KEPT = 10_000
SWITCH_PCI = "0000:05:00.0"


@dataclass(frozen=True)
class XidEvent:
    """One line of a kernel log that names an XID."""

    sequence: int
    at: datetime
    node: str
    gpu_uuid: str | None
    pci_bus_id: str
    xid: int
    text: str


def _lose(gpu: Gpu) -> None:
    gpu.lost = gpu.stalled = True
    gpu.recovery_action = REBOOT


def _hold(gpu: Gpu) -> None:
    gpu.stalled = True
    gpu.recovery_action = max(gpu.recovery_action, RESET)


def _hold_process(gpu: Gpu) -> None:
    """Hold the process that runs now; the next one works."""
    if not gpu.stalled:
        gpu.stalled = gpu.stall_ends_with_pod = True


def _count_uncorrectable(gpu: Gpu) -> None:
    gpu.ecc_uncorrectable_total += 1
    gpu.remap_pending = True


def _contain(gpu: Gpu) -> None:
    _count_uncorrectable(gpu)
    _hold_process(gpu)


def _leak(gpu: Gpu) -> None:
    _count_uncorrectable(gpu)
    _hold(gpu)


def _stick(host: Host, gpu: Gpu) -> None:
    """The process on it waits for ever, though nothing is wrong with the GPU."""
    if gpu.pod is None:
        raise FaultRefused(f"No process is on GPU {gpu.index} of {host.name} that could hang.")
    _hold_process(gpu)


def _sicken(gpu: Gpu, kind: str) -> None:
    """An ailment changes what the GPU says of itself; what has a field of its own is that."""
    for name, value in (GPU_AILMENTS.get(kind) or JOB_AILMENTS[kind]).items():
        if name == "recovery_action":
            gpu.recovery_action = int(value)
        elif name in ("remap_pending", "remap_failure"):
            setattr(gpu, name, True)
        else:
            gpu.ailments[name] = value


def _want_remap(gpu: Gpu) -> None:
    gpu.remap_pending = True


def _fail_remap(gpu: Gpu) -> None:
    gpu.remap_failure = True


def _want_reset(gpu: Gpu) -> None:
    gpu.recovery_action = RESET


def _break_node(host: Host, kind: str) -> None:
    if not host.is_managed and (kind == RANK_CRASH or kind in NODE_OBJECT_AILMENTS):
        raise FaultRefused(f"{host.name} has no kubelet to tell of {kind}; repair it first.")
    if kind == RANK_CRASH and all(gpu.pod is None for gpu in host.gpus):
        raise FaultRefused(f"No pod with GPUs runs on {host.name}.")
    if kind == "nvml-hang":
        host.nvml_hang = True
    elif kind == "node-dead":
        host.dead = True
    elif kind == KUBELET_DEAD:
        host.kubelet_dead = True
    elif kind in NODE_AILMENTS:
        host.ailments.update(NODE_AILMENTS[kind])


@dataclass(frozen=True)
class Xid:
    """What the log says of an XID after its number, and what it does to the GPU."""

    text: str
    effect: Callable[[Gpu], None] | None = None


# Texts in the manner of the driver's; effects after facts/gpu-health.md.
XIDS: Mapping[int, Xid] = {
    13: Xid("Graphics SM Warp Exception on (GPC 0, TPC 1, SM 0): Out Of Range Address"),
    31: Xid("MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ 0x7f2a_c0000000"),
    43: Xid("Ch 00000008"),
    45: Xid("Ch 00000008"),
    46: Xid("GPU stopped processing", _hold),
    48: Xid("An uncorrectable double bit error (DBE) has been detected on GPU", _leak),
    62: Xid("3b52(2cd8) 00000000 00000000", _hold),
    63: Xid("Row Remapper: New row marked for remapping, reset gpu to activate.", _want_remap),
    64: Xid("Row Remapper: failed to write row remapping", _fail_remap),
    74: Xid("NVLink: fatal error detected on link 7(0x10000, 0x0, 0x0, 0x0, 0x0, 0x0, 0x0)", _hold),
    79: Xid("GPU has fallen off the bus.", _lose),
    92: Xid("High single-bit ECC error rate"),
    94: Xid("Contained: SM (0x1). RST: No, D-RST: No", _contain),
    95: Xid("Uncontained: LTC TAG (0x2,0x0). RST: Yes, D-RST: No", _leak),
    109: Xid("Ch 00000008, errorString CTX SWITCH TIMEOUT, Info 0x2c014", _hold),
    110: Xid("Security fault detected", _hold),
    119: Xid("Timeout after 6s of waiting for RPC response from GPU0 GSP!", _hold),
    120: Xid("GSP task panic: unexpected trap", _hold),
    136: Xid("NVLink: link training failed for link 7", _hold),
    140: Xid("Unrecovered ECC error detected", _leak),
    143: Xid("GPU Initialization Failed", _hold),
    154: Xid(
        "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)", _want_reset
    ),
}


class Faults:
    """Breaks machines and mends them. The callbacks let their surroundings see it."""

    def __init__(self, hosts: Hosts, clock: Clock) -> None:
        self._hosts = hosts
        self._clock = clock
        self.xids: deque[XidEvent] = deque(maxlen=XIDS_KEPT)
        self.last_sequence = 0
        self.on_fault: list[Callable[[Host], None]] = []
        self.on_repair: list[Callable[[Host], None]] = []
        self.on_xid: list[Callable[[], None]] = []

    def inject(self, node: str, kind: str, gpu: int | None = None) -> dict[str, Any]:
        """Break something now; returns the fault. Raises FaultRefused with one sentence."""
        host = self._host(node)
        if host.dead:
            raise FaultRefused(f"{node} is dead already; repair it first.")
        match = re.fullmatch(r"xid-([0-9]{1,3})", kind)
        switch = re.fullmatch(r"sxid-([0-9]{5})", kind)
        if match is None and switch is None and kind not in KINDS[2:]:
            raise FaultRefused(f"{kind!r} is no fault; there are {', '.join(KINDS)}.")
        index = None
        if switch is not None or kind in NODE_KINDS:
            if gpu is not None:
                raise FaultRefused(f"{kind} concerns the whole node and takes no GPU.")
            if switch is not None:
                self._raise_sxid(host, int(switch[1]))
            else:
                _break_node(host, kind)
        else:
            index = 0 if gpu is None else gpu
            device = self._gpu(host, index)
            if match is not None:
                self._raise_xid(host, device, int(match[1]))
            elif kind == "gpu-lost":
                _lose(device)
            elif kind == COLLECTIVE_HANG:
                _stick(host, device)
            elif kind in GPU_AILMENTS or kind in JOB_AILMENTS:
                _sicken(device, kind)
                device.ailing_since = self._clock.now().timestamp()
            else:
                _contain(device)
        fault: dict[str, Any] = {"node": node, "kind": kind, "gpu": index}
        fault["at"] = self._clock.now().isoformat()
        host.faults.append(fault)
        self._hosts.touch(node)
        for listener in self.on_fault:
            listener(host)
        return fault

    def _host(self, node: str) -> Host:
        host = self._hosts.get(node)
        if host is None:
            raise FaultRefused(f"There is no node {node!r} in this simulated cluster.")
        return host

    def _gpu(self, host: Host, index: int) -> Gpu:
        if not 0 <= index < len(host.gpus):
            raise FaultRefused(
                f"{host.name} has no GPU {index}; its GPUs are 0 to {len(host.gpus) - 1}."
            )
        return host.gpus[index]

    def _raise_xid(self, host: Host, gpu: Gpu, code: int) -> None:
        known = XIDS.get(code, Xid("unknown error"))
        place = gpu.pci_bus_id.lower().removeprefix("0000").rsplit(".", 1)[0]
        process = f"pid={gpu.pid}, name=python3" if gpu.pid else "pid='<unknown>', name=<unknown>"
        gpu.last_xid = code
        if known.effect is not None:
            known.effect(gpu)
        self._log(
            host,
            code,
            f"NVRM: Xid (PCI:{place}): {code}, {process}, {known.text}",
            gpu_uuid=gpu.uuid,
            pci_bus_id=gpu.pci_bus_id,
        )

    def _raise_sxid(self, host: Host, code: int) -> None:
        self._log(
            host,
            code,
            f"nvidia-nvswitch0: SXid (PCI:{SWITCH_PCI}): {code}, Link 7 event",
            gpu_uuid=None,
            pci_bus_id=SWITCH_PCI,
        )

    def _log(
        self, host: Host, code: int, text: str, *, gpu_uuid: str | None, pci_bus_id: str
    ) -> None:
        self.last_sequence += 1
        self.xids.append(
            XidEvent(
                sequence=self.last_sequence,
                at=self._clock.now(),
                node=host.name,
                gpu_uuid=gpu_uuid,
                pci_bus_id=pci_bus_id,
                xid=code,
                text=text,
            )
        )
        for listener in tuple(self.on_xid):
            listener()

    def repair(self, node: str) -> None:
        """Make a node whole; it boots anew. Raises FaultRefused where nothing is broken."""
        host = self._host(node)
        if not host.faults:
            raise FaultRefused(f"{node} has no fault to repair.")
        self._hosts.reboot(host)
        for listener in self.on_repair:
            listener(host)

    def active(self) -> list[dict[str, Any]]:
        """All faults, oldest first on each node."""
        return [dict(fault) for host in self._hosts.by_name.values() for fault in host.faults]
