"""GPU machines: what an agent finds on one, and the containers that run there."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from k8s.errors import KubernetesError
from k8s.objects import Pod
from tests.integration.agent.conftest import Driver

GPUS = 8
LOOK_SECONDS = 0.2


class Machine:
    """One host: the library in NVML's place, /proc, the kernel log, the agent's token and spool."""

    def __init__(self, folder: Path, name: str, library: Path, *, number: int) -> None:
        folder.mkdir()
        self.folder, self.name = folder, name
        self.driver = Driver(folder, library, number=number)
        self.kernel_log = folder / "kern.log"
        self.kernel_log.touch()
        self.proc = folder / "proc"
        self.token = folder / "token"
        self._pod: str | None = None
        self._last_pid = 4000
        (self.proc / "sys/kernel/random").mkdir(parents=True)
        self.boot()

    def boot(self) -> None:
        """A new start of the machine: another boot id, and every GPU is back."""
        (self.proc / "sys/kernel/random/boot_id").write_text(f"{uuid.uuid4()}\n")
        for index in range(GPUS):
            self.driver.set_gpu(index, error=0, open_error=0)

    def environment(self) -> dict[str, str]:
        """What differs on this machine from a container that has the host's paths."""
        return {
            **self.driver.environment,
            "PITWALL_TOKEN_FILE": str(self.token),
            "PITWALL_SPOOL_DIR": str(self.folder / "spool"),
            "PITWALL_KMSG_PATH": str(self.kernel_log),
            "PITWALL_PROC_ROOT": str(self.proc),
            "PITWALL_PODRESOURCES_SOCKET": str(self.folder / "no.sock"),
            "PITWALL_METRICS_HOST": "127.0.0.1",
            "PITWALL_METRICS_PORT": "0",
        }

    def lose_gpu(self, index: int) -> None:
        """XID 79 as NVML and the kernel tell it, and the GPU answers no more."""
        self.driver.raise_xid(index, 79)
        with self.kernel_log.open("a") as log:
            bus = 0x10 + 0x11 * index
            log.write(
                f"[ 100.0] NVRM: Xid (PCI:0000:{bus:02x}:00): 79, pid='<unknown>', "
                "GPU has fallen off the bus.\n"
            )
        self.driver.set_gpu(index, error=15, open_error=15)

    def run_pod(self, uid: str | None) -> None:
        """The pod whose processes hold all GPUs; None lets them go."""
        if uid == self._pod:
            return
        self._pod = uid
        for index in range(GPUS):
            pids: tuple[int, ...] = ()
            if uid is not None:
                self._last_pid += 1
                pids = (self._last_pid,)
                (self.proc / str(self._last_pid)).mkdir()
                slice_name = f"kubepods-pod{uid.replace('-', '_')}.slice"
                cgroup = f"0::/kubepods.slice/{slice_name}/cri-containerd-{index}.scope\n"
                (self.proc / str(self._last_pid) / "cgroup").write_text(cgroup)
            self.driver.set_gpu(index, pids=pids, utilization=97 if pids else 0)


class Runtime:
    """Runs the containers of pods that are Running: their processes hold their machine's GPUs."""

    def __init__(self, machines: dict[str, Machine], pods: Callable[[], list[Pod]]) -> None:
        self._machines, self._pods = machines, pods
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="containers", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(KubernetesError):  # looked at again in the next round
                self._look()
            self._stop.wait(LOOK_SECONDS)

    def _look(self) -> None:
        holders = {
            pod.spec.node_name: pod.metadata.uid
            for pod in self._pods()
            if pod.status.phase == "Running"
        }
        for name, machine in self._machines.items():
            machine.run_pod(holders.get(name))
