"""From a process to the pod it runs in, by its cgroup. Needs the host's process ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import msgspec

from collectors.readings import GpuReading

_POD = re.compile(rb"pod([a-f0-9][a-f0-9_-]{7,})")

MAX_CGROUP_BYTES = 64 * 1024


class PodFinder(Protocol):
    """Finds the UID of the pod that a process belongs to, None outside any pod."""

    def __call__(self, pid: int, /) -> str | None: ...


def read_pod_uid(cgroup: bytes) -> str | None:
    """Return the pod's UID in the text of /proc/PID/cgroup; systemd writes `_` for `-`."""
    match = _POD.search(cgroup)
    return match[1].decode().replace("_", "-") if match else None


class CgroupPodFinder:
    """Reads /proc/PID/cgroup once for each process and forgets processes that are gone."""

    def __init__(self, proc_root: Path) -> None:
        self._proc_root = proc_root
        self._known: dict[int, str | None] = {}

    def __call__(self, pid: int) -> str | None:
        if pid in self._known:
            return self._known[pid]
        try:
            with (self._proc_root / str(pid) / "cgroup").open("rb") as file:
                pod = read_pod_uid(file.read(MAX_CGROUP_BYTES))
        except OSError:
            return None  # gone, or not ours to read: asked again at the next poll
        self._known[pid] = pod
        return pod

    def keep(self, pids: Iterable[int]) -> None:
        """Forget every process that is not among `pids`, so that a number can be used anew."""
        alive = set(pids)
        self._known = {pid: pod for pid, pod in self._known.items() if pid in alive}


def assign_pods(reading: GpuReading, find: PodFinder) -> GpuReading:
    """Return the reading with each process's pod and the GPU's pods, sorted, each once."""
    if not reading.processes:
        return reading
    processes = tuple(
        msgspec.structs.replace(process, pod_uid=find(process.pid)) for process in reading.processes
    )
    pods = sorted({process.pod_uid for process in processes if process.pod_uid})
    return msgspec.structs.replace(reading, processes=processes, pod_uids=tuple(pods))
