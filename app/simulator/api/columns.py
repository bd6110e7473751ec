"""What `kubectl get` shows of each kind: one entry a column."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.simulator.clock import parse_rfc3339
from app.simulator.controllers.conditions import condition_is, find_condition

Object = dict[str, Any]
Cell = Callable[[Object, datetime], Any]


@dataclass(frozen=True)
class Column:
    """`wide` columns show with -o wide only. `kind` is the cell's type: string or integer."""

    name: str
    cell: Cell
    wide: bool = False
    kind: str = "string"


def human_duration(seconds: float) -> str:
    """A duration as kubectl abbreviates it: two units at most, coarser as it grows."""
    if seconds < 0:
        return "0s"
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m" + (f"{whole % 60}s" if whole % 60 else "")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h" + (f"{minutes % 60}m" if minutes % 60 else "")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d" + (f"{hours % 24}h" if hours % 24 else "")
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y" + (f"{days % 365}d" if days % 365 and days < 2920 else "")


def _since(text: str | None, now: datetime) -> str:
    if not text:
        return "<unknown>"
    return human_duration((now - parse_rfc3339(text)).total_seconds())


def _name(obj: Object, _: datetime) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Object, now: datetime) -> str:
    return _since(obj["metadata"].get("creationTimestamp"), now)


def _at(*path: str, fallback: Any = "<none>") -> Cell:
    def read(obj: Object, _: datetime) -> Any:
        value: Any = obj
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        return fallback if value in (None, "") else value

    return read


def _containers(*path: str, field: str) -> Cell:
    def read(obj: Object, _: datetime) -> str:
        value: Any = obj
        for part in path:
            value = value.get(part) or {}
        return ",".join(one.get(field, "") for one in value.get("containers") or ())

    return read


def _selector(obj: Object, _: datetime) -> str:
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"


def pod_status(obj: Object) -> str:
    """The one word for a pod's state."""
    status = obj.get("status", {})
    shown = status.get("reason") or status.get("phase", "Unknown")
    for container in status.get("containerStatuses") or ():
        state = container.get("state", {})
        if waiting := state.get("waiting"):
            shown = waiting.get("reason") or shown
        elif ended := state.get("terminated"):
            shown = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    if obj["metadata"].get("deletionTimestamp") and status.get("phase") not in (
        "Succeeded",
        "Failed",
    ):
        return "Terminating"
    return str(shown)


def _pod_ready(obj: Object, _: datetime) -> str:
    statuses = obj.get("status", {}).get("containerStatuses") or ()
    ready = sum(1 for one in statuses if one.get("ready"))
    return f"{ready}/{len(obj['spec'].get('containers') or ())}"


def _restarts(obj: Object, _: datetime) -> str:
    statuses = obj.get("status", {}).get("containerStatuses") or ()
    return str(sum(one.get("restartCount", 0) for one in statuses))


def _node_status(obj: Object, _: datetime) -> str:
    ready = find_condition(obj.get("status"), "Ready")
    word = "Unknown" if ready is None else "Ready" if ready["status"] == "True" else "NotReady"
    return word + (",SchedulingDisabled" if obj["spec"].get("unschedulable") else "")


def _node_roles(obj: Object, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    roles = [key[len(prefix) :] for key in labels if key.startswith(prefix)]
    return ",".join(sorted(roles)) or "<none>"


def _address(type_: str) -> Cell:
    def read(obj: Object, _: datetime) -> str:
        for one in obj.get("status", {}).get("addresses") or ():
            if one["type"] == type_:
                return str(one["address"])
        return "<none>"

    return read


def _job_status(obj: Object, _: datetime) -> str:
    status = obj.get("status", {})
    for word in ("Complete", "Failed"):
        if condition_is(status, word):
            return word
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for condition, word in (("Suspended", "Suspended"), ("FailureTarget", "FailureTarget")):
        if condition_is(status, condition):
            return word
    return "Running"


def _job_completions(obj: Object, _: datetime) -> str:
    done = obj.get("status", {}).get("succeeded", 0)
    wanted = obj["spec"].get("completions")
    if wanted is not None:
        return f"{done}/{wanted}"
    parallel = obj["spec"].get("parallelism") or 0
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_duration(obj: Object, now: datetime) -> str:
    status = obj.get("status", {})
    if not status.get("startTime"):
        return ""
    end = parse_rfc3339(status["completionTime"]) if status.get("completionTime") else now
    return human_duration((end - parse_rfc3339(status["startTime"])).total_seconds())


def _replicas_ready(obj: Object, _: datetime) -> str:
    status = obj.get("status", {})
    return f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}"


def _event_object(obj: Object, _: datetime) -> str:
    about = obj["involvedObject"]
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(obj: Object, now: datetime) -> str:
    return _since(obj.get("lastTimestamp") or obj.get("eventTime"), now)


_WORKLOAD_END = (
    Column("Containers", _containers("spec", "template", "spec", field="name"), wide=True),
    Column("Images", _containers("spec", "template", "spec", field="image"), wide=True),
    Column("Selector", _selector, wide=True),
)
NAME, AGE = Column("Name", _name), Column("Age", _age)

COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "pods": (
        NAME,
        Column("Ready", _pod_ready),
        Column("Status", lambda obj, _: pod_status(obj)),
        Column("Restarts", _restarts),
        AGE,
        Column("IP", _at("status", "podIP"), wide=True),
        Column("Node", _at("spec", "nodeName"), wide=True),
        Column("Nominated Node", _at("status", "nominatedNodeName"), wide=True),
        Column("Readiness Gates", lambda *_: "<none>", wide=True),
    ),
    "nodes": (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _node_roles),
        AGE,
        Column("Version", _at("status", "nodeInfo", "kubeletVersion")),
        Column("Internal-IP", _address("InternalIP"), wide=True),
        Column("External-IP", _address("ExternalIP"), wide=True),
        Column("OS-Image", _at("status", "nodeInfo", "osImage"), wide=True),
        Column("Kernel-Version", _at("status", "nodeInfo", "kernelVersion"), wide=True),
        Column(
            "Container-Runtime", _at("status", "nodeInfo", "containerRuntimeVersion"), wide=True
        ),
    ),
    "jobs": (
        NAME,
        Column("Status", _job_status),
        Column("Completions", _job_completions),
        Column("Duration", _job_duration),
        AGE,
        *_WORKLOAD_END,
    ),
    "poddisruptionbudgets": (
        NAME,
        Column("Min Available", _at("spec", "minAvailable", fallback="N/A")),
        Column("Max Unavailable", _at("spec", "maxUnavailable", fallback="N/A")),
        Column(
            "Allowed Disruptions", _at("status", "disruptionsAllowed", fallback=0), kind="integer"
        ),
        AGE,
    ),
    "namespaces": (NAME, Column("Status", _at("status", "phase")), AGE),
    "serviceaccounts": (NAME, Column("Secrets", lambda *_: 0, kind="integer"), AGE),
    "leases": (NAME, Column("Holder", _at("spec", "holderIdentity")), AGE),
    "configmaps": (
        NAME,
        Column("Data", lambda obj, _: len(obj.get("data") or {}), kind="integer"),
        AGE,
    ),
    "services": (
        NAME,
        Column("Type", _at("spec", "type", fallback="ClusterIP")),
        Column("Cluster-IP", _at("spec", "clusterIP")),
        AGE,
    ),
    "daemonsets": (
        NAME,
        Column("Desired", _at("status", "desiredNumberScheduled", fallback=0), kind="integer"),
        Column("Current", _at("status", "currentNumberScheduled", fallback=0), kind="integer"),
        Column("Ready", _at("status", "numberReady", fallback=0), kind="integer"),
        Column("Up-to-date", _at("status", "updatedNumberScheduled", fallback=0), kind="integer"),
        Column("Available", _at("status", "numberAvailable", fallback=0), kind="integer"),
        AGE,
        *_WORKLOAD_END,
    ),
    "deployments": (
        NAME,
        Column("Ready", _replicas_ready),
        Column("Up-to-date", _at("status", "updatedReplicas", fallback=0), kind="integer"),
        Column("Available", _at("status", "availableReplicas", fallback=0), kind="integer"),
        AGE,
        *_WORKLOAD_END,
    ),
    "replicasets": (
        NAME,
        Column("Desired", _at("spec", "replicas", fallback=0), kind="integer"),
        Column("Current", _at("status", "replicas", fallback=0), kind="integer"),
        Column("Ready", _at("status", "readyReplicas", fallback=0), kind="integer"),
        AGE,
        *_WORKLOAD_END,
    ),
    "statefulsets": (NAME, Column("Ready", _replicas_ready), AGE, *_WORKLOAD_END[:2]),
    "events": (
        Column("Last Seen", _event_seen),
        Column("Type", _at("type")),
        Column("Reason", _at("reason")),
        Column("Object", _event_object),
        Column("Source", _at("source", "component", fallback=""), wide=True),
        Column("Message", _at("message", fallback="")),
        Column("Count", _at("count", fallback=1), wide=True, kind="integer"),
        Column("Name", _name, wide=True),
    ),
}


def columns_of(plural: str) -> tuple[Column, ...]:
    return COLUMNS.get(plural, (NAME, AGE))
