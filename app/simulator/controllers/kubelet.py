"""The kubelets: they start bound pods, end deleted ones with grace, and fall silent when dead.

A pod that ends gets its terminal phase before its object goes, as real kubelets write it: a Job's
controller counts on that order.
"""

from collections.abc import Callable
from datetime import datetime
from functools import partial

from app.simulator.api.failures import ApiFailure
from app.simulator.clock import Schedule, WorkQueue, as_rfc3339, parse_rfc3339
from app.simulator.controllers.conditions import put_condition
from app.simulator.controllers.events import EventRecorder
from app.simulator.controllers.pods import (
    GPU,
    annotation_of,
    is_terminal,
    is_terminating,
    phase_of,
    requests_of,
)
from app.simulator.hosts import Host, Hosts, PodReference
from app.simulator.registry import DeleteOptions, Registry, key_of
from app.simulator.store import Event, Key, Object

COMPONENT = "kubelet"
# Annotations by which a pod says how it behaves; all in seconds.
START_SECONDS = "simulator.pitwall.dev/start-seconds"
STOP_SECONDS = "simulator.pitwall.dev/stop-seconds"
DURATION_SECONDS = "simulator.pitwall.dev/duration-seconds"
# A container that ends by SIGTERM, by SIGKILL, or whose machine went away.
SIGTERM_CODE, SIGKILL_CODE, UNKNOWN_CODE = 143, 137, 137
# A container that is to be started again waits this long.
RESTART_SECONDS = 2.0


class Kubelets:
    """One actor for the kubelets of all machines."""

    def __init__(
        self,
        registry: Registry,
        schedule: Schedule,
        *,
        hosts: Hosts,
        recorder: EventRecorder,
    ) -> None:
        self._registry = registry
        self._schedule = schedule
        self._hosts = hosts
        self._recorder = recorder
        # What is under way for a pod's uid: "starting", "running" or "stopping".
        self._stage: dict[str, str] = {}
        self._queue = WorkQueue(schedule, self._look_at)
        self.on_started: list[Callable[[Object], None]] = []
        registry.collection("pods").listeners.append(self._on_pod)

    def _on_pod(self, event: Event) -> None:
        pod = event.record.object
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        if host is None:
            return
        if event.type == "DELETED":
            self._forget(host, pod["metadata"]["uid"])
        else:
            self._queue.add("/".join(event.record.key))

    def _forget(self, host: Host, uid: str) -> None:
        self._stage.pop(uid, None)
        self._hosts.release(host, uid)

    def look_at_all(self, host: Host) -> None:
        """Look at each pod of a machine, as a kubelet does when it starts."""
        for pod in self._registry.pods_on(host.name):
            self._queue.add("/".join(key_of(pod)))

    def _look_at(self, text: str) -> None:
        namespace, _, name = text.partition("/")
        record = self._registry.get("pods", (namespace, name))
        if record is None:
            return
        pod = record.object
        host = self._hosts.get(pod["spec"].get("nodeName") or "")
        if host is None or not host.is_managed:
            return
        uid = pod["metadata"]["uid"]
        stage = self._stage.get(uid)
        if is_terminal(pod):
            self._hosts.release(host, uid)
            self._stage[uid] = "ended"
            if is_terminating(pod):
                self._remove(record.key, uid)
        elif is_terminating(pod):
            if stage != "stopping":
                self._stage[uid] = "stopping"
                self._stop(record.key, pod)
        elif stage is None:
            if phase_of(pod) == "Running":
                self.adopt(pod, host)
            else:
                self._start(record.key, pod, host)

    def _start(self, key: Key, pod: Object, host: Host) -> None:
        uid = pod["metadata"]["uid"]
        if not self._allocate(pod, host):
            self._fail_admission(key, pod)
            return
        self._stage[uid] = "starting"
        asked = annotation_of(pod, START_SECONDS)
        identity = self._registry.identity
        delay = float(asked) if asked else 1.0 + 1.5 * identity.fraction("start", uid)
        self._schedule.call_after(delay, lambda: self._started(key, uid))

    def _allocate(self, pod: Object, host: Host) -> bool:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        wanted = int(requests_of(pod).get(GPU, 0))
        if host.gpus_of(uid) or not wanted:
            return True
        reference = PodReference(uid, metadata["namespace"], metadata["name"])
        pid = 10_000 + self._registry.identity.number("pid", uid) % 3_000_000
        return self._hosts.allocate(host, reference, wanted, pid=pid)

    def _fail_admission(self, key: Key, pod: Object) -> None:
        message = f"Allocate failed due to requested number of devices unavailable for {GPU}"
        now = self._registry.clock.now()

        def fail(obj: Object) -> None:
            obj["status"] |= {
                "phase": "Failed",
                "reason": "UnexpectedAdmissionError",
                "message": message,
                "startTime": as_rfc3339(now),
            }

        self._stage[pod["metadata"]["uid"]] = "ended"
        self._registry.modify("pods", key, fail)
        self._recorder.record(
            pod, "UnexpectedAdmissionError", message, component=COMPONENT, warning=True
        )

    def _current(self, key: Key, uid: str, stage: str) -> tuple[Object, Host] | None:
        """The pod and its living machine, if it is still that pod in that stage."""
        record = self._registry.get("pods", key)
        if record is None or record.object["metadata"]["uid"] != uid:
            return None
        host = self._hosts.get(record.object["spec"].get("nodeName") or "")
        if host is None or not host.is_managed or self._stage.get(uid) != stage:
            return None
        return record.object, host

    def _started(self, key: Key, uid: str) -> None:
        found = self._current(key, uid, "starting")
        if found is None:
            return
        pod, host = found
        now = self._registry.clock.now()
        self._stage[uid] = "running"
        self._registry.modify("pods", key, lambda obj: write_running(obj, host, now=now))
        container = pod["spec"]["containers"][0]["name"]
        message = f"Container started: {container}"
        self._recorder.record(pod, "Started", message, component=COMPONENT)
        self._await_end(key, pod, since=now)
        for listener in self.on_started:
            listener(pod)

    def adopt(self, pod: Object, host: Host) -> None:
        """Take over a pod that already runs, as after a kubelet's restart."""
        self._allocate(pod, host)
        self._stage[pod["metadata"]["uid"]] = "running"
        started = parse_rfc3339(pod["status"]["startTime"])
        self._await_end(key_of(pod), pod, since=started)
        for listener in self.on_started:
            listener(pod)

    def _await_end(self, key: Key, pod: Object, *, since: datetime) -> None:
        asked = annotation_of(pod, DURATION_SECONDS)
        if asked is None:
            return
        uid = pod["metadata"]["uid"]
        left = float(asked) - (self._registry.clock.now() - since).total_seconds()
        self._schedule.call_after(max(0.0, left), lambda: self.end_pod(key, uid, exit_code=0))

    def end_pod(self, key: Key, uid: str, *, exit_code: int) -> None:
        """A running pod's container ends by itself, with this exit code."""
        found = self._current(key, uid, "running")
        if found is None:
            return
        pod, _ = found
        policy = pod["spec"]["restartPolicy"]
        now = self._registry.clock.now()
        if policy == "Never" or (policy == "OnFailure" and exit_code == 0):
            self._stage[uid] = "ended"
            self._registry.modify("pods", key, lambda obj: write_ended(obj, exit_code, now=now))
            return
        self._stage[uid] = "starting"
        self._registry.modify("pods", key, lambda obj: write_restarting(obj, exit_code, now=now))
        self._schedule.call_after(RESTART_SECONDS, lambda: self._started(key, uid))

    def _stop(self, key: Key, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
        asked = annotation_of(pod, STOP_SECONDS)
        identity = self._registry.identity
        wanted = float(asked) if asked else 0.5 + 1.5 * identity.fraction("stop", uid)
        code = SIGTERM_CODE if wanted <= grace else SIGKILL_CODE
        message = f"Stopping container {pod['spec']['containers'][0]['name']}"
        self._recorder.record(pod, "Killing", message, component=COMPONENT)
        self._schedule.call_after(
            min(wanted, grace), lambda: self._stopped(key, uid, exit_code=code)
        )

    def _stopped(self, key: Key, uid: str, *, exit_code: int) -> None:
        found = self._current(key, uid, "stopping")
        if found is None:
            return
        _, host = found
        now = self._registry.clock.now()
        self._hosts.release(host, uid)
        # The terminal phase goes out first; looking at it then removes the object.
        self._registry.modify("pods", key, lambda obj: write_ended(obj, exit_code, now=now))

    def _remove(self, key: Key, uid: str) -> None:
        try:
            self._registry.delete("pods", key, DeleteOptions(grace_seconds=0, uid=uid))
        except ApiFailure as failure:
            if failure.code not in (404, 409):  # gone, or another pod by now: nothing to remove
                raise

    def after_reboot(self, host: Host) -> None:
        """What a kubelet finds after its machine has booted anew: no container is left."""
        now = self._registry.clock.now()
        for pod in self._registry.pods_on(host.name):
            uid, key = pod["metadata"]["uid"], key_of(pod)
            if is_terminal(pod):
                self._queue.add("/".join(key))
                continue
            self._hosts.release(host, uid)
            self._stage.pop(uid, None)
            if is_terminating(pod) or pod["spec"]["restartPolicy"] == "Never":
                self._stage[uid] = "ended"
                self._registry.modify(
                    "pods", key, lambda obj: write_ended(obj, UNKNOWN_CODE, now=now)
                )
            else:
                self._registry.modify(
                    "pods", key, lambda obj: write_restarting(obj, UNKNOWN_CODE, now=now)
                )
                self._allocate(pod, host)
                self._stage[uid] = "starting"
                self._schedule.call_after(RESTART_SECONDS, partial(self._started, key, uid))


def write_running(pod: Object, host: Host, *, now: datetime) -> None:
    """Write the status of a pod that runs and is ready, in place."""
    status = pod["status"]
    number = int(pod["metadata"]["uid"].replace("-", "")[:4], 16)
    status |= {
        "phase": "Running",
        "hostIP": host.address,
        "podIP": f"10.{128 + number % 64}.{number // 256}.{number % 250 + 1}",
    }
    status["podIPs"] = [{"ip": status["podIP"]}]
    status["hostIPs"] = [{"ip": host.address}]
    status.setdefault("startTime", as_rfc3339(now))
    for type_ in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"):
        put_condition(status, type_, "True", now=now)
    known = {one["name"]: one for one in status.get("containerStatuses") or ()}
    status["containerStatuses"] = [
        {
            "name": one["name"],
            "image": one["image"],
            "imageID": f"{one['image']}@sha256:{number:064x}",
            "containerID": f"containerd://{pod['metadata']['uid'].replace('-', '')}",
            "ready": True,
            "started": True,
            "restartCount": known.get(one["name"], {}).get("restartCount", 0),
            "lastState": known.get(one["name"], {}).get("lastState", {}),
            "state": {"running": {"startedAt": as_rfc3339(now)}},
        }
        for one in pod["spec"]["containers"]
    ]


def _end_state(exit_code: int, started: str | None, *, now: datetime) -> Object:
    state = {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "finishedAt": as_rfc3339(now),
    }
    if started:
        state["startedAt"] = started
    return {"terminated": state}


def write_ended(pod: Object, exit_code: int, *, now: datetime) -> None:
    """Write the status of a pod whose containers have ended for good, in place."""
    status = pod["status"]
    status["phase"] = "Succeeded" if exit_code == 0 else "Failed"
    reason = "PodCompleted" if exit_code == 0 else "PodFailed"
    for type_ in ("Ready", "ContainersReady"):
        put_condition(status, type_, "False", now=now, reason=reason)
    for one in status.get("containerStatuses") or ():
        started = (one["state"].get("running") or {}).get("startedAt")
        one |= {"ready": False, "started": False}
        one["state"] = _end_state(exit_code, started, now=now)


def write_restarting(pod: Object, exit_code: int, *, now: datetime) -> None:
    """Write the status of a pod whose container ended and is started again, in place."""
    status = pod["status"]
    for type_ in ("Ready", "ContainersReady"):
        put_condition(status, type_, "False", now=now, reason="ContainersNotReady")
    for one in status.get("containerStatuses") or ():
        started = (one["state"].get("running") or {}).get("startedAt")
        one |= {"ready": False, "started": False, "restartCount": one["restartCount"] + 1}
        one["lastState"] = _end_state(exit_code, started, now=now)
        one["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
