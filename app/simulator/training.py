"""What runs inside a gang's pods: ranks that train together, checkpoint, hang and crash together.

Progress counts in seconds of training. It grows while every rank is up and none is held by a
fault; when a rank is lost it falls back to the last checkpoint, and the ranks that were in the
same communicator crash soon after, as NCCL's do when a peer's connection breaks.
"""

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from app.simulator.clock import Schedule, WorkQueue, parse_rfc3339
from app.simulator.controllers.conditions import find_condition
from app.simulator.controllers.job_pods import index_of, is_indexed
from app.simulator.controllers.jobs import POD_BATCH_SECONDS, is_finished
from app.simulator.controllers.kubelet import Kubelets
from app.simulator.controllers.pods import annotation_of, is_ready, is_terminal, is_terminating
from app.simulator.hosts import Host, Hosts
from app.simulator.registry import Registry, controller_of, key_of
from app.simulator.store import Event, Object

CHECKPOINT_INTERVAL = "pitwall.dev/checkpoint-interval-seconds"
# A Job's whole training in seconds; without it it never ends by itself.
TRAINING_SECONDS = "simulator.pitwall.dev/training-seconds"
DEFAULT_CHECKPOINT_SECONDS = 1800.0
# From a rank's end to its peers' crash on their broken connections.
PEER_CRASH_SECONDS = 5.0
NCCL_EXIT_CODE = 1
CRASH_EXIT_CODE = 1
SECONDS_PER_STEP = 8.0
# What a kernel that waits for a peer draws of its work's power: about 220 of 700 W.
SPINNING_POWER_RATIO = 0.28


@dataclass
class Run:
    """One gang's training."""

    uid: str
    namespace: str
    name: str
    interval_seconds: float
    state: str = "waiting"  # waiting, training, hung, ended
    since: datetime | None = None
    trained_seconds: float = 0.0
    pace: float = 1.0  # seconds of training a second: that of its slowest GPU
    lost_seconds_total: float = 0.0
    interruptions: int = 0
    members: set[str] = field(default_factory=set)

    def trained_at(self, now: datetime) -> float:
        if self.state == "training" and self.since is not None:
            return self.trained_seconds + self.pace * max(0.0, (now - self.since).total_seconds())
        return self.trained_seconds

    def checkpoint_at(self, now: datetime) -> float:
        """Seconds of training that the last checkpoint holds."""
        return self.trained_at(now) // self.interval_seconds * self.interval_seconds


class Training:
    """All runs, and how busy the GPUs of every pod are."""

    def __init__(
        self, registry: Registry, schedule: Schedule, *, hosts: Hosts, kubelets: Kubelets
    ) -> None:
        self._registry = registry
        self._schedule = schedule
        self._hosts = hosts
        self._kubelets = kubelets
        self.runs: dict[str, Run] = {}
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("pods").listeners.append(self._on_pod)
        registry.collection("jobs").listeners.append(self._on_job)
        kubelets.on_started.append(self._on_started)

    def _on_pod(self, event: Event) -> None:
        owner = controller_of(event.record.object)
        if owner is not None and owner["kind"] == "Job":
            # A gang's pods change together; looking once is enough.
            where = f"{event.record.key[0]}/{owner['name']}"
            self._queue.add(where, delay_seconds=POD_BATCH_SECONDS)

    def _on_job(self, event: Event) -> None:
        if event.type == "DELETED":
            self.runs.pop(event.record.object["metadata"]["uid"], None)
        else:
            self._queue.add("/".join(event.record.key))

    def _on_started(self, pod: Object) -> None:
        """A pod that is no rank of a gang is busy on its own."""
        owner = controller_of(pod)
        job = self._job_of(pod["metadata"]["namespace"], owner["name"]) if owner else None
        if job is None or not is_gang(job):
            self._set_activity(pod, self._usual_activity(pod))

    def on_fault(self, host: Host) -> None:
        """Look at every run that has a rank on this machine."""
        for pod in self._registry.pods_on(host.name):
            owner = controller_of(pod)
            if owner is not None and owner["kind"] == "Job":
                self._queue.add(f"{pod['metadata']['namespace']}/{owner['name']}")
            held = host.gpus_of(pod["metadata"]["uid"])
            if held:
                busiest = max(held, key=lambda gpu: gpu.activity_ratio)
                activity = 0.0 if host.dead else busiest.activity_ratio
                self._set_activity(pod, activity, power_ratio=busiest.power_ratio)

    def crash_rank(self, host: Host) -> None:
        """The first pod with GPUs of this machine ends by a fault of its own."""
        for gpu in host.gpus:
            if gpu.pod is not None:
                key = (gpu.pod.namespace, gpu.pod.name)
                self._kubelets.end_pod(key, gpu.pod.uid, exit_code=CRASH_EXIT_CODE)
                return

    def _job_of(self, namespace: str, name: str) -> Object | None:
        record = self._registry.get("jobs", (namespace, name))
        return record.object if record else None

    def _usual_activity(self, pod: Object) -> float:
        uid = pod["metadata"]["uid"]
        return round(0.86 + 0.12 * self._registry.identity.fraction("activity", uid), 3)

    def _set_activity(self, pod: Object, ratio: float, *, power_ratio: float | None = None) -> None:
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        if host is not None:
            uid = pod["metadata"]["uid"]
            self._hosts.set_activity(host, uid, ratio, power_ratio=power_ratio)

    def _look_at(self, text: str) -> None:
        namespace, _, name = text.partition("/")
        job = self._job_of(namespace, name)
        if job is None or not is_gang(job):
            return
        uid = job["metadata"]["uid"]
        run = self.runs.get(uid)
        if run is None:
            interval = annotation_of(job, CHECKPOINT_INTERVAL)
            seconds = float(interval) if interval else DEFAULT_CHECKPOINT_SECONDS
            run = self.runs[uid] = Run(uid, namespace, name, seconds)
        now = self._registry.clock.now()
        pods = [pod for pod in self._registry.owned("pods", uid) if not is_terminal(pod)]
        up = {
            pod["metadata"]["uid"]: pod
            for pod in pods
            if (is_ready(pod) and not is_terminating(pod)) or not self._is_managed(pod)
        }
        if is_finished(job):
            self._pause(run, now)
            run.state = "ended"
            return
        if run.members and not run.members <= up.keys():
            self._break(run, up, now)
        held = [pod for pod in up.values() if self._is_held(pod)]
        if not run.members and len(up) >= job["spec"]["parallelism"] and not held:
            run.members = set(up)
            begun = max(_ready_since(pod, now) for pod in up.values())
            run.since = begun if run.interruptions == 0 and not run.trained_seconds else now
            run.state = "training"
        if run.members and held and run.state == "training":
            self._pause(run, now)
            run.state = "hung"
        elif run.members and not held and run.state == "hung":
            run.state, run.since = "training", now
        self._set_pace(run, up, now)
        self._show_activity(run, up)
        self._await_end(run, job, up, now)

    def _is_managed(self, pod: Object) -> bool:
        """Whether what the pod's object says is so: without a kubelet nobody writes it."""
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        return host is None or host.is_managed

    def _is_held(self, pod: Object) -> bool:
        """Whether a rank makes no progress. One on a dead machine breaks no connection: it hangs."""
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        if host is None:
            return False
        return host.dead or any(gpu.stalled for gpu in host.gpus_of(pod["metadata"]["uid"]))

    def _set_pace(self, run: Run, up: dict[str, Object], now: datetime) -> None:
        """All ranks wait for the slowest at each step."""
        pace = min((self._pace_of(pod) for pod in up.values()), default=1.0)
        if pace != run.pace:
            run.trained_seconds = run.trained_at(now)
            run.pace = pace
            run.since = now if run.since is not None else None

    def _pace_of(self, pod: Object) -> float:
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        held = host.gpus_of(pod["metadata"]["uid"]) if host is not None else []
        return min((gpu.ailments.get("clock_ratio", 1.0) for gpu in held), default=1.0)

    def _pause(self, run: Run, now: datetime) -> None:
        run.trained_seconds = run.trained_at(now)
        run.since = None

    def _break(self, run: Run, up: dict[str, Object], now: datetime) -> None:
        """A rank is gone: back to the checkpoint, and what is left of the communicator crashes."""
        self._pause(run, now)
        run.state = "waiting"
        kept = run.checkpoint_at(now)
        run.lost_seconds_total += run.trained_seconds - kept
        run.trained_seconds = kept
        run.interruptions += 1
        peers = sorted(run.members & up.keys())
        run.members = set()
        for uid in peers:
            self._schedule.call_after(
                PEER_CRASH_SECONDS, partial(self._crash, key_of(up[uid]), uid)
            )

    def _crash(self, key: tuple[str, str], uid: str) -> None:
        self._kubelets.end_pod(key, uid, exit_code=NCCL_EXIT_CODE)

    def _show_activity(self, run: Run, up: dict[str, Object]) -> None:
        for pod in up.values():
            power_ratio = None
            match run.state:
                case "training":
                    ratio = self._usual_activity(pod)
                case "hung":
                    # A collective that waits for a peer spins: busy, with little power.
                    ratio, power_ratio = 1.0, SPINNING_POWER_RATIO
                case _:
                    ratio = 0.0
            self._set_activity(pod, ratio, power_ratio=power_ratio)

    def _await_end(self, run: Run, job: Object, up: dict[str, Object], now: datetime) -> None:
        total = annotation_of(job, TRAINING_SECONDS)
        if total is None or run.state != "training":
            return
        left = (float(total) - run.trained_at(now)) / run.pace
        if left > 0:
            self._queue.add(f"{run.namespace}/{run.name}", delay_seconds=left)
            return
        run.members = set()
        run.state = "ended"
        for uid, pod in sorted(up.items()):
            self._kubelets.end_pod(key_of(pod), uid, exit_code=0)

    def summary(self) -> list[dict[str, Any]]:
        """Each run as the control API shows it."""
        now = self._registry.clock.now()
        return [
            {
                "namespace": run.namespace,
                "name": run.name,
                "uid": run.uid,
                "state": run.state,
                "step": int(run.trained_at(now) / SECONDS_PER_STEP),
                "trained_seconds": round(run.trained_at(now), 1),
                "checkpoint_seconds": run.checkpoint_at(now),
                "lost_seconds_total": round(run.lost_seconds_total, 1),
                "interruptions": run.interruptions,
            }
            for run in sorted(self.runs.values(), key=lambda one: (one.namespace, one.name))
        ]

    def log_of(self, pod: Object) -> str:
        """What a pod's container has printed, as far as the simulator tells."""
        owner = controller_of(pod)
        run = self.runs.get(owner["uid"]) if owner else None
        if run is None:
            return f"{pod['metadata']['name']} started\n"
        now = self._registry.clock.now()
        step = int(run.trained_at(now) / SECONDS_PER_STEP)
        saved = int(run.checkpoint_at(now) / SECONDS_PER_STEP)
        lines = [f"rank {index_of(pod)} of {run.name}: resumed from checkpoint at step {saved}"]
        lines += [f"step {one} done" for one in range(max(saved, step - 9), step + 1)]
        if run.state == "hung":
            lines.append("waiting in all_reduce for a peer")
        return "\n".join(lines) + "\n"


def is_gang(job: Object) -> bool:
    """Whether a Job's pods train together, by the contract's rule."""
    label = (job["metadata"].get("labels") or {}).get("pitwall.dev/gang")
    if label is not None:
        return bool(label == "true")
    spec = job["spec"]
    parallelism = spec.get("parallelism") or 0
    return is_indexed(job) and parallelism > 1 and spec.get("completions") in (None, parallelism)


def _ready_since(pod: Object, now: datetime) -> datetime:
    ready = find_condition(pod["status"], "Ready")
    return parse_rfc3339(ready["lastTransitionTime"]) if ready else now
