"""The Job controller: Indexed and plain Jobs, suspension, back-off, failure policy, tracking.

After the behaviour of Kubernetes 1.36 in facts/drain-and-reschedule.md. Left out:
backoffLimitPerIndex and successPolicy.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.simulator.clock import Schedule, WorkQueue, as_rfc3339, parse_rfc3339
from app.simulator.controllers.conditions import condition_is, find_condition, put_condition
from app.simulator.controllers.events import EventRecorder
from app.simulator.controllers.job_pods import (
    TRACKING_FINALIZER,
    build_pod,
    has_failed,
    index_of,
    is_indexed,
    is_tracked,
    judge_failure,
    parse_indexes,
    replaces_only_failed,
    write_indexes,
)
from app.simulator.controllers.pods import (
    is_ready,
    is_terminal,
    is_terminating,
    phase_of,
)
from app.simulator.registry import DeleteOptions, Registry, controller_of, key_of
from app.simulator.store import Event, Key, Object, clone

COMPONENT = "job-controller"
MANAGED_BY = "kubernetes.io/job-controller"
# Upstream's DefaultJobPodFailureBackOff and MaxJobPodFailureBackOff.
FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 10.0, 600.0
# Pods made in one look, upstream's MaxPodCreateDeletePerSync.
PODS_AT_ONCE = 500
# Changes of pods are gathered for this long (upstream: 1 s), so that a gang's start is few writes.
POD_BATCH_SECONDS = 0.2


@dataclass
class _Backoff:
    """Failures since the last success, and when the last one was."""

    failures: int = 0
    last: datetime | None = None

    def ready_at(self) -> datetime | None:
        if not self.failures or self.last is None:
            return None
        delay = FIRST_BACKOFF_SECONDS * 2.0 ** min(self.failures - 1, 30)
        return self.last + timedelta(seconds=min(delay, LONGEST_BACKOFF_SECONDS))


class JobController:
    """Looks at one Job at a time and takes it a step towards its spec."""

    def __init__(self, registry: Registry, schedule: Schedule, recorder: EventRecorder) -> None:
        self._registry = registry
        self._recorder = recorder
        self._backoffs: dict[str, _Backoff] = {}
        self._queue = WorkQueue(schedule, self._look_at)
        registry.collection("jobs").listeners.append(self._on_job)
        registry.collection("pods").listeners.append(self._on_pod)

    def _on_job(self, event: Event) -> None:
        self._queue.add("/".join(event.record.key))
        if event.type == "DELETED":
            self._backoffs.pop(event.record.object["metadata"]["uid"], None)
            for pod in self._registry.owned("pods", event.record.object["metadata"]["uid"]):
                self._queue.add("/".join((*key_of(pod), "pod")))

    def _on_pod(self, event: Event) -> None:
        pod = event.record.object
        owner = controller_of(pod)
        if owner is not None and owner["kind"] == "Job":
            where = f"{event.record.key[0]}/{owner['name']}"
            self._queue.add(where, delay_seconds=POD_BATCH_SECONDS)
        if event.type != "DELETED" and is_tracked(pod) and self._job_of(pod) is None:
            self._queue.add("/".join((*event.record.key, "pod")))

    def _job_of(self, pod: Object) -> Object | None:
        owner = controller_of(pod)
        if owner is None or owner["kind"] != "Job":
            return None
        record = self._registry.get("jobs", (pod["metadata"]["namespace"], owner["name"]))
        if record is None or record.object["metadata"]["uid"] != owner["uid"]:
            return None
        return record.object

    def _look_at(self, text: str) -> None:
        parts = text.split("/")
        key: Key = (parts[0], parts[1])
        if len(parts) == 3:
            record = self._registry.get("pods", key)
            if record is not None and self._job_of(record.object) is None:
                self._untrack(key)
            return
        record = self._registry.get("jobs", key)
        if record is None:
            return
        job = record.object
        if job["spec"].get("managedBy", MANAGED_BY) != MANAGED_BY:
            return
        if is_finished(job):
            self._after_end(key, job)
        else:
            self._sync(key, job)

    def _after_end(self, key: Key, job: Object) -> None:
        for pod in self._registry.owned("pods", job["metadata"]["uid"]):
            if is_tracked(pod):
                self._untrack(key_of(pod))
        lifetime = job["spec"].get("ttlSecondsAfterFinished")
        if lifetime is None or job["metadata"].get("deletionTimestamp"):
            return
        ended = find_condition(job["status"], "Complete") or find_condition(job["status"], "Failed")
        assert ended is not None
        left = parse_rfc3339(ended["lastTransitionTime"]) + timedelta(seconds=lifetime)
        wait = (left - self._registry.clock.now()).total_seconds()
        if wait > 0:
            self._queue.add("/".join(key), delay_seconds=wait)
        else:
            self._registry.delete("jobs", key, DeleteOptions(propagation="Background"))

    def _untrack(self, key: Key) -> None:
        def change(pod: Object) -> None:
            kept = [one for one in pod["metadata"]["finalizers"] if one != TRACKING_FINALIZER]
            pod["metadata"]["finalizers"] = kept
            if not kept:
                del pod["metadata"]["finalizers"]

        record = self._registry.get("pods", key)
        if record is not None and is_tracked(record.object):
            self._registry.modify("pods", key, change)

    def _sync(self, key: Key, job: Object) -> None:
        now = self._registry.clock.now()
        status = clone(job.get("status") or {})
        uid = job["metadata"]["uid"]
        suspended = bool(job["spec"].get("suspend"))
        if not suspended and not status.get("startTime"):
            status["startTime"] = as_rfc3339(now)
        new_failures, counted = self._count_ended(job, status, now=now)
        if job["metadata"].get("deletionTimestamp"):
            self._write(key, job, status)
            self._untrack_all(counted)
            return
        pods = self._registry.owned("pods", uid)
        active = [one for one in pods if not is_terminal(one) and not is_terminating(one)]
        self._judge(key, job, status, active=active, new_failures=new_failures, now=now)
        ends = condition_is(status, "FailureTarget") or condition_is(status, "SuccessCriteriaMet")
        deleted: list[Object] = []
        created: list[Object] = []
        if ends:
            deleted = active
        elif suspended:
            deleted = active
            self._note_suspended(job, status, now=now)
        else:
            self._note_resumed(job, status, now=now)
            deleted, created = self._plan(key, job, status, pods=pods, active=active)
        self._write(key, job, status)
        self._untrack_all(counted)
        for pod in deleted:
            self._delete(job, pod, untrack=not ends)
        for pod in created:
            self._create(job, pod)
        self._finish(key)

    def _count_ended(
        self, job: Object, status: Object, *, now: datetime
    ) -> tuple[int, list[Object]]:
        """Count pods that ended since; returns how many failures count, and the pods counted."""
        uid = job["metadata"]["uid"]
        backoff = self._backoffs.setdefault(uid, _Backoff())
        completed = parse_indexes(status.get("completedIndexes"))
        failures, counted = 0, []
        for pod in self._registry.owned("pods", uid):
            if not is_tracked(pod):
                continue
            if phase_of(pod) == "Succeeded":
                counted.append(pod)
                backoff.failures = 0
                if not is_indexed(job):
                    status["succeeded"] = status.get("succeeded", 0) + 1
                elif (index := index_of(pod)) is not None:
                    completed.add(index)
            elif has_failed(job, pod):
                counted.append(pod)
                verdict = judge_failure(job, pod)
                if verdict.fails_job:
                    self._aim_at_failure(status, "PodFailurePolicy", verdict.fails_job, now=now)
                if verdict.counts:
                    failures += 1
                    backoff.failures += 1
                    backoff.last = now
                    status["failed"] = status.get("failed", 0) + 1
        if is_indexed(job) and completed:
            status["completedIndexes"] = write_indexes(completed)
            status["succeeded"] = len(completed)
        return failures, counted

    def _judge(
        self,
        key: Key,
        job: Object,
        status: Object,
        *,
        active: list[Object],
        new_failures: int,
        now: datetime,
    ) -> None:
        """Set FailureTarget or SuccessCriteriaMet when the Job is to end."""
        if condition_is(status, "FailureTarget") or condition_is(status, "SuccessCriteriaMet"):
            return
        spec = job["spec"]
        if new_failures and status.get("failed", 0) > spec["backoffLimit"]:
            text = "Job has reached the specified backoff limit"
            self._aim_at_failure(status, "BackoffLimitExceeded", text, now=now)
            return
        deadline = spec.get("activeDeadlineSeconds")
        if deadline is not None and status.get("startTime") and not spec.get("suspend"):
            left = deadline - (now - parse_rfc3339(status["startTime"])).total_seconds()
            if left <= 0:
                text = "Job was active longer than specified deadline"
                self._aim_at_failure(status, "DeadlineExceeded", text, now=now)
                return
            self._queue.add("/".join(key), delay_seconds=left)
        wanted = spec.get("completions")
        succeeded = status.get("succeeded", 0)
        if wanted is None:
            done = succeeded > 0 and not active
        else:
            done = succeeded >= wanted and not active
        if done:
            text = "Reached expected number of succeeded pods"
            put_condition(
                status,
                "SuccessCriteriaMet",
                "True",
                now=now,
                reason="CompletionsReached",
                message=text,
            )

    def _aim_at_failure(self, status: Object, reason: str, text: str, *, now: datetime) -> None:
        put_condition(status, "FailureTarget", "True", now=now, reason=reason, message=text)

    def _note_suspended(self, job: Object, status: Object, *, now: datetime) -> None:
        if condition_is(status, "Suspended"):
            return
        put_condition(
            status, "Suspended", "True", now=now, reason="JobSuspended", message="Job suspended"
        )
        status.pop("startTime", None)
        self._recorder.record(job, "Suspended", "Job suspended", component=COMPONENT)

    def _note_resumed(self, job: Object, status: Object, *, now: datetime) -> None:
        if not condition_is(status, "Suspended"):
            return
        put_condition(
            status, "Suspended", "False", now=now, reason="JobResumed", message="Job resumed"
        )
        status["startTime"] = as_rfc3339(now)
        self._recorder.record(job, "Resumed", "Job resumed", component=COMPONENT)

    def _plan(
        self,
        key: Key,
        job: Object,
        status: Object,
        *,
        pods: list[Object],
        active: list[Object],
    ) -> tuple[list[Object], list[Object]]:
        """Which pods to delete and which to create."""
        spec = job["spec"]
        wanted: int = spec["parallelism"]
        if spec.get("completions") is not None:
            wanted = min(wanted, spec["completions"] - status.get("succeeded", 0))
        elif status.get("succeeded", 0):
            wanted = len(active)  # a work queue whose first worker has finished gets no more
        if len(active) > wanted:
            order = sorted(active, key=lambda one: (is_ready(one), -(index_of(one) or 0)))
            return order[: len(active) - wanted], []
        blocking = active
        if replaces_only_failed(job):
            blocking = [one for one in pods if not is_terminal(one)]
        missing = min(wanted - len(blocking), PODS_AT_ONCE)
        if missing <= 0:
            return [], []
        ready_at = self._backoffs[job["metadata"]["uid"]].ready_at()
        wait = 0.0
        if ready_at is not None:
            wait = (ready_at - self._registry.clock.now()).total_seconds()
        if wait > 0:
            self._queue.add("/".join(key), delay_seconds=wait)
            return [], []
        indexes: list[int | None] = [None] * missing
        if is_indexed(job):
            taken = parse_indexes(status.get("completedIndexes"))
            taken |= {index for one in blocking if (index := index_of(one)) is not None}
            free = (one for one in range(spec["completions"]) if one not in taken)
            indexes = [index for index, _ in zip(free, range(missing), strict=False)]
        identity = self._registry.identity
        return [], [build_pod(job, index, identity=identity) for index in indexes]

    def _write(self, key: Key, job: Object, status: Object) -> None:
        """Store the status with the counts as they are now."""
        pods = self._registry.owned("pods", job["metadata"]["uid"])
        active = [one for one in pods if not is_terminal(one) and not is_terminating(one)]
        status["ready"] = sum(1 for one in active if is_ready(one))
        status["terminating"] = sum(
            1 for one in pods if is_terminating(one) and not is_terminal(one)
        )
        status.setdefault("uncountedTerminatedPods", {})
        status.pop("active", None)
        if active:
            status["active"] = len(active)
        self._registry.modify("jobs", key, lambda obj: obj.__setitem__("status", status))

    def _finish(self, key: Key) -> None:
        """Give a Job that is to end its last condition once no pod of it is left running."""
        record = self._registry.get("jobs", key)
        if record is None:
            return
        status, now = record.object["status"], self._registry.clock.now()
        target = find_condition(status, "FailureTarget")
        success = find_condition(status, "SuccessCriteriaMet")
        if (target or success) and not status.get("active") and not status.get("terminating"):
            final, cause = ("Failed", target) if target else ("Complete", success)
            assert cause is not None

            def end(job: Object) -> None:
                put_condition(
                    job["status"],
                    final,
                    "True",
                    now=now,
                    reason=cause["reason"],
                    message=cause["message"],
                )
                if final == "Complete":
                    job["status"]["completionTime"] = as_rfc3339(now)

            self._registry.modify("jobs", key, end)
            if final == "Complete":
                self._recorder.record(
                    record.object, "Completed", "Job completed", component=COMPONENT
                )
            else:
                self._recorder.record(
                    record.object,
                    cause["reason"],
                    cause["message"],
                    component=COMPONENT,
                    warning=True,
                )

    def _untrack_all(self, pods: list[Object]) -> None:
        for pod in pods:
            self._untrack(key_of(pod))

    def _delete(self, job: Object, pod: Object, *, untrack: bool) -> None:
        key = key_of(pod)
        if untrack:  # so that a suspended or superfluous pod is never counted as a failure
            self._untrack(key)
        if self._registry.get("pods", key) is None:
            return
        self._registry.delete("pods", key, DeleteOptions(uid=pod["metadata"]["uid"]))
        self._recorder.record(
            job, "SuccessfulDelete", f"Deleted pod: {key[1]}", component=COMPONENT
        )

    def _create(self, job: Object, pod: Object) -> None:
        record = self._registry.create("pods", pod)
        message = f"Created pod: {record.key[1]}"
        self._recorder.record(job, "SuccessfulCreate", message, component=COMPONENT)


def is_finished(job: Object) -> bool:
    status = job.get("status")
    return condition_is(status, "Complete") or condition_is(status, "Failed")
