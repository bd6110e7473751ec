"""A Job's pods: how one is made, which index it carries, what a failure of it means."""

from dataclasses import dataclass
from typing import Any

from app.simulator.controllers.conditions import condition_is
from app.simulator.controllers.pods import annotation_of, is_terminating, phase_of
from app.simulator.identity import Identity
from app.simulator.store import clone

Object = dict[str, Any]

TRACKING_FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def replaces_only_failed(job: Object) -> bool:
    """Whether a replacement waits until the pod before it has a terminal phase."""
    return job["spec"].get("podReplacementPolicy") == "Failed"


def index_of(pod: Object) -> int | None:
    text = annotation_of(pod, INDEX)
    return int(text) if text is not None and text.isdigit() else None


def is_tracked(pod: Object) -> bool:
    return TRACKING_FINALIZER in (pod["metadata"].get("finalizers") or ())


def build_pod(job: Object, index: int | None, *, identity: Identity) -> Object:
    """The next pod of a Job, for an index where it is Indexed."""
    metadata, template = job["metadata"], clone(job["spec"]["template"])
    pod_meta = template.get("metadata") or {}
    labels = dict(pod_meta.get("labels") or {})
    annotations = dict(pod_meta.get("annotations") or {})
    spec = template["spec"]
    stem = metadata["name"]
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        stem = f"{stem}-{index}"
        spec.setdefault("hostname", stem)
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            container["env"] = [*(container.get("env") or ()), variable]
    attempt = identity.occurrence("job-pod", metadata["uid"], stem)
    return {
        "metadata": {
            "name": f"{stem}-{identity.suffix('job-pod', metadata['uid'], stem, attempt)}",
            "generateName": f"{stem}-",
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": annotations,
            "finalizers": [TRACKING_FINALIZER],
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec,
    }


def has_failed(job: Object, pod: Object) -> bool:
    """Whether the controller takes a pod for failed."""
    phase = phase_of(pod)
    if phase == "Failed":
        return True
    return not replaces_only_failed(job) and is_terminating(pod) and phase != "Succeeded"


@dataclass(frozen=True)
class Verdict:
    """What a failed pod means: does it count towards backoffLimit, does it fail the Job."""

    counts: bool
    fails_job: str | None = None  # the message


def judge_failure(job: Object, pod: Object) -> Verdict:
    """Apply the podFailurePolicy: the first rule that matches decides."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for at, rule in enumerate(rules):
        matched = _match_exit_codes(rule.get("onExitCodes"), pod)
        matched = matched or _match_conditions(rule.get("onPodConditions"), pod)
        if matched is None:
            continue
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if rule["action"] == "Ignore":
            return Verdict(counts=False)
        if rule["action"] == "FailJob":
            text = f"{matched} for pod {name} failed with FailJob rule at index {at}"
            return Verdict(counts=True, fails_job=text)
        return Verdict(counts=True)
    return Verdict(counts=True)


def _match_exit_codes(wanted: Object | None, pod: Object) -> str | None:
    if not wanted:
        return None
    values = wanted.get("values") or ()
    for one in pod.get("status", {}).get("containerStatuses") or ():
        ended = one.get("state", {}).get("terminated")
        if not ended or ended.get("exitCode", 0) == 0:
            continue
        if wanted.get("containerName") and wanted["containerName"] != one["name"]:
            continue
        if (ended["exitCode"] in values) == (wanted["operator"] == "In"):
            return f"Container {one['name']} exited with code {ended['exitCode']}"
    return None


def _match_conditions(wanted: list[Object] | None, pod: Object) -> str | None:
    for pattern in wanted or ():
        if condition_is(pod.get("status"), pattern["type"], pattern.get("status", "True")):
            return f"Pod condition {pattern['type']}"
    return None


def parse_indexes(text: str | None) -> set[int]:
    """status.completedIndexes: "1,3-5" is {1, 3, 4, 5}."""
    found: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first:
            found.update(range(int(first), int(last or first) + 1))
    return found


def write_indexes(indexes: set[int]) -> str:
    """The other way round."""
    parts: list[str] = []
    ordered = sorted(indexes)
    at = 0
    while at < len(ordered):
        end = at
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        first, last = ordered[at], ordered[end]
        if first == last:
            parts.append(str(first))
        else:
            parts.append(f"{first}{',' if last == first + 1 else '-'}{last}")
        at = end + 1
    return ",".join(parts)
