"""Narrow structs of what Pitwall reads from Kubernetes.

Only the fields that a decision needs are named; everything else (image lists, managed fields,
probes) is skipped by the decoder, which is what makes a listing of 5,000 nodes cheap.
Timestamps are aware datetimes, quantities stay text until `parse_quantity` reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

GPU_RESOURCE = "nvidia.com/gpu"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
JOB_COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"

# Suffixes of resource quantities: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_SUFFIXES: Mapping[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "P": Decimal(10**15),
    "E": Decimal(10**18),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}


class Narrow(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of all structs here: immutable, camelCase on the wire, without cycles (so no gc)."""


class OwnerReference(Narrow, frozen=True):
    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None

    @property
    def group(self) -> str:
        """API group of the owner, "" for the core group."""
        return self.api_version.rpartition("/")[0]


class ObjectMeta(Narrow, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    creation_timestamp: datetime | None = None
    generation: int = 0
    finalizers: tuple[str, ...] = ()


class Condition(Narrow, frozen=True):
    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    last_transition_time: datetime | None = None
    last_heartbeat_time: datetime | None = None


# --- Node -------------------------------------------------------------------------------------


class Taint(Narrow, frozen=True):
    key: str
    value: str = ""
    effect: str = ""
    time_added: datetime | None = None


class NodeSpec(Narrow, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    provider_id: str = msgspec.field(name="providerID", default="")


class NodeAddress(Narrow, frozen=True):
    type: str
    address: str


class NodeInfo(Narrow, frozen=True):
    boot_id: str = msgspec.field(name="bootID", default="")
    machine_id: str = msgspec.field(name="machineID", default="")
    system_uuid: str = msgspec.field(name="systemUUID", default="")
    kernel_version: str = ""
    os_image: str = ""
    container_runtime_version: str = ""
    kubelet_version: str = ""


class NodeStatus(Narrow, frozen=True):
    conditions: tuple[Condition, ...] = ()
    allocatable: dict[str, str | int] = {}
    capacity: dict[str, str | int] = {}
    addresses: tuple[NodeAddress, ...] = ()
    node_info: NodeInfo = NodeInfo()


class Node(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# --- Pod --------------------------------------------------------------------------------------


class Resources(Narrow, frozen=True):
    requests: dict[str, str | int] = {}
    limits: dict[str, str | int] = {}


class Container(Narrow, frozen=True):
    name: str = ""
    resources: Resources = Resources()
    restart_policy: str | None = None  # "Always" on an init container makes it a sidecar


class EmptyDir(Narrow, frozen=True):
    medium: str = ""  # "" is the node's disk, "Memory" is tmpfs (/dev/shm)


class HostPath(Narrow, frozen=True):
    path: str = ""


class ClaimVolume(Narrow, frozen=True):
    claim_name: str = ""


class Volume(Narrow, frozen=True):
    name: str = ""
    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    persistent_volume_claim: ClaimVolume | None = None


class Toleration(Narrow, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class PodSpec(Narrow, frozen=True):
    """A pod's spec; `affinity`, `resource_claims` and `topology_spread_constraints` are raw JSON."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] | None = None
    termination_grace_period_seconds: int | None = None
    priority: int | None = None
    priority_class_name: str = ""
    scheduler_name: str = "default-scheduler"
    restart_policy: str = "Always"
    service_account_name: str = ""
    resource_claims: tuple[Any, ...] = ()
    topology_spread_constraints: tuple[Any, ...] = ()
    scheduling_gates: tuple[Any, ...] = ()


class Terminated(Narrow, frozen=True):
    """How a container ended; `exit_code` 128 + n is by signal n."""

    exit_code: int = 0
    reason: str = ""
    finished_at: datetime | None = None


class RunState(Narrow, frozen=True):
    """Whether a container waits, runs or has ended; only the end is read."""

    terminated: Terminated | None = None


class ContainerState(Narrow, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: RunState = RunState()
    container_id: str = msgspec.field(name="containerID", default="")


class PodStatus(Narrow, frozen=True):
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    start_time: datetime | None = None
    container_statuses: tuple[ContainerState, ...] = ()
    pod_ip: str = msgspec.field(name="podIP", default="")


class Pod(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# --- Job --------------------------------------------------------------------------------------


class LabelRequirement(Narrow, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Narrow, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelRequirement, ...] = ()


class PodTemplate(Narrow, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec = PodSpec()


class JobSpec(Narrow, frozen=True):
    """A Job's spec; `pod_failure_policy` is raw JSON, read by k8s.workloads.job."""

    parallelism: int | None = None
    completions: int | None = None
    completion_mode: str = "NonIndexed"
    suspend: bool = False
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: dict[str, Any] | None = None
    pod_replacement_policy: str | None = None
    managed_by: str | None = None
    selector: LabelSelector | None = None
    template: PodTemplate = PodTemplate()


class JobStatus(Narrow, frozen=True):
    active: int = 0
    ready: int = 0
    terminating: int = 0
    failed: int = 0
    succeeded: int = 0
    completed_indexes: str = ""
    failed_indexes: str = ""
    conditions: tuple[Condition, ...] = ()
    start_time: datetime | None = None
    completion_time: datetime | None = None


class Job(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()


# --- PodDisruptionBudget ----------------------------------------------------------------------


class BudgetSpec(Narrow, frozen=True):
    selector: LabelSelector | None = None  # None selects no pod, an empty one all of them
    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    unhealthy_pod_eviction_policy: str | None = None  # None means IfHealthyBudget


class BudgetStatus(Narrow, frozen=True):
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    observed_generation: int = 0
    disrupted_pods: dict[str, datetime] = {}
    conditions: tuple[Condition, ...] = ()


class PodDisruptionBudget(Narrow, frozen=True):
    metadata: ObjectMeta
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()


# --- Reading them -----------------------------------------------------------------------------


def parse_quantity(text: str | int) -> Decimal:
    """A resource quantity ("8", "500m", "64Gi", "1e3") in base units.

    Raises ValueError naming the text when it is no quantity.
    """
    raw = str(text).strip()
    number = raw.rstrip("numkMGTPEi") if not raw[-1:].isdigit() else raw
    try:
        return Decimal(number) * _SUFFIXES[raw[len(number) :]]
    except (InvalidOperation, KeyError) as error:
        raise ValueError(f"{raw!r} is not a resource quantity") from error


def condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((entry for entry in conditions if entry.type == kind), None)


def controller_of(meta: ObjectMeta) -> OwnerReference | None:
    """The owner reference with controller=true; Kubernetes allows one at most."""
    return next((owner for owner in meta.owner_references if owner.controller), None)


def _container_gpus(container: Container) -> int:
    resources = container.resources
    # The API server copies limits into requests for extended resources; a template has not been there yet.
    amount = resources.requests.get(GPU_RESOURCE, resources.limits.get(GPU_RESOURCE, 0))
    return int(parse_quantity(amount)) if amount else 0


def gpus_of_spec(spec: PodSpec) -> int:
    """GPUs that the scheduler counts for a pod with this spec.

    Sum of the containers and sidecars, or the largest init container where that is more
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers).
    """
    sidecars, largest_init = 0, 0
    for container in spec.init_containers:
        gpus = _container_gpus(container)
        if container.restart_policy == "Always":
            sidecars += gpus
            largest_init = max(largest_init, sidecars)
        else:
            largest_init = max(largest_init, sidecars + gpus)
    return max(sum(map(_container_gpus, spec.containers)) + sidecars, largest_init)


def gpu_request(pod: Pod) -> int:
    """GPUs that the scheduler counts for this pod, whatever its phase."""
    return gpus_of_spec(pod.spec)


def gpus_allocatable(node: Node) -> int:
    """GPUs that the node offers to pods; 0 where the device plugin has not reported any."""
    return gpus_in(node.status.allocatable)


def gpus_in(amounts: Mapping[str, str | int]) -> int:
    """GPUs among these amounts of resources; 0 where they name none."""
    amount = amounts.get(GPU_RESOURCE, 0)
    return int(parse_quantity(amount)) if amount else 0


def is_ready(node: Node) -> bool:
    """True when the Ready condition is "True"; Unknown (no heartbeat) and absent are not ready."""
    return any(one.type == "Ready" and one.status == "True" for one in node.status.conditions)


def is_pod_ready(pod: Pod) -> bool:
    """True when the pod's Ready condition is "True"."""
    ready = condition(pod.status.conditions, "Ready")
    return ready is not None and ready.status == "True"


def is_terminal(pod: Pod) -> bool:
    """True when no container of the pod will run again: phase Succeeded or Failed."""
    return pod.status.phase in ("Succeeded", "Failed")


def is_terminating(meta: ObjectMeta) -> bool:
    """True once a deletion has been accepted, however long it takes."""
    return meta.deletion_timestamp is not None


def is_mirror(pod: Pod) -> bool:
    """True for the API's picture of a static pod; deleting it does nothing."""
    return MIRROR_ANNOTATION in pod.metadata.annotations
